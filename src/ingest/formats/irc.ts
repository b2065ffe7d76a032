import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { InvalidInputError } from '../../errors.ts'
import type { ChatFile, ChatFormat, ChatRecord, FileHead } from './format.ts'
import { isoInstant, utcInstant } from './sent-at.ts'
import { readLines } from './text-lines.ts'

/**
 * Plain logs of irssi, WeeChat, HexChat, ZNC, energymech, mIRC and the like. Times without a zone are UTC. Notices,
 * joins, parts, modes and topics are left out. An action stays as it was shown: `* anna waves`.
 */
export const irc: ChatFormat = {
  name: 'IRC',
  expects:
    'an IRC log as text, with lines such as "[12:34] <anna> hello" or "2024-05-01 12:34:56<tab>anna<tab>hello"; ' +
    'if its lines have no date, one in the file name (#garden.2024-05-01.log)',
  detect,
  sourceName: async (file) => channelInName(file.name),
  async *read(file) {
    const log = new Log(file)
    if (!log.hasDay && !(await statesAnyDate(file))) {
      throw new InvalidInputError(
        `${file.name}: the lines have times but no date is stated anywhere; please put the date of the first line into ` +
          'the file name, e.g. #garden.2024-05-01.log',
      )
    }
    for await (const { number, text } of readLines(file)) {
      const position = `line ${number}`
      if (text === null) {
        yield { kind: 'rejected', position, reason: 'not valid UTF-8; please convert the log to UTF-8' }
      } else if (text.trim() !== '') yield log.toRecord(text, position)
    }
  },
}

type Line =
  /** A line that tells the day, e.g. `--- Day changed Thu May 02 2024`; null if its date is not readable. */
  | { kind: 'day'; day: Date | null }
  | { kind: 'service'; stamp: Stamp | null; text: string }
  | { kind: 'message'; stamp: Stamp; author: string; content: string }

type Stamp =
  | { kind: 'moment'; at: Date }
  | { kind: 'day and time'; month: number; day: number; clock: number[] }
  | { kind: 'time'; clock: number[] }

/** Half of the lines must be those of a log: a text with one time in it is none. */
function detect(head: FileHead): boolean {
  if (head.isZip) return false
  const lines = head.bytes
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .split(/\r?\n/)
  const sample = lines.filter((line) => line.trim() !== '').slice(0, 100)
  const known = sample.map(readLine).filter((line) => line !== null)
  const sure = known.some((line) => line.kind !== 'service' || line.stamp !== null)
  return sure && known.length * 2 >= sample.length
}

async function statesAnyDate(file: ChatFile): Promise<boolean> {
  for await (const { text } of readLines(file)) {
    const line = text === null ? null : readLine(text)
    if (line?.kind === 'day' ? line.day : line?.stamp?.kind === 'moment') return true
  }
  return false
}

/** The state that a log builds up line by line: the day, the channel, and the ids given. */
class Log {
  #day: Date | null
  #channel: string | null
  #lastSecond: number | null = null
  /** How often an id was given lately; bounded, since equal ids share their second and lie close together. */
  readonly #given = new LRUCache<string, number>({ max: 10_000 })

  constructor(file: ChatFile) {
    this.#day = dayInName(file.name)
    this.#channel = channelInName(file.name)
  }

  get hasDay(): boolean {
    return this.#day !== null
  }

  toRecord(text: string, position: string): ChatRecord {
    const reject = (reason: string): ChatRecord => ({ kind: 'rejected', position, reason })
    const line = readLine(text)
    if (line === null) {
      return reject(
        `no line of an IRC log; expected a time, then <nick> and text, found ${JSON.stringify(text.slice(0, 60))}`,
      )
    }
    if (line.kind === 'day') {
      if (!line.day) return reject('expected a date such as "Thu May 02 2024" at the end of the line')
      this.#day = line.day
      this.#lastSecond = null
      return { kind: 'left-out', position }
    }
    const sentAt = line.stamp && this.#moment(line.stamp)
    if (line.kind === 'service') {
      this.#channel ??=
        /(?:Now talking (?:on|in)|Session Ident:|has joined) (#\S+)/.exec(line.text)?.[1] ?? null
      return { kind: 'left-out', position }
    }
    if (!sentAt)
      return reject('the time has no date: the line stands before the first date of the log, or is no time')
    const { author, content } = line
    const message = {
      author,
      content,
      sentAt,
      channel: this.#channel,
      threadId: null,
      replyToExternalId: null,
    }
    return {
      kind: 'message',
      position,
      message: { externalId: this.#id(sentAt, author, content), ...message },
    }
  }

  /**
   * IRC has no ids: this one is made of what the line says, so that a log imported again, or grown at its end, gives
   * the same. Equal lines within one second are counted; the channel is part of it, because a bot may say the same in
   * two channels at once.
   */
  #id(sentAt: Date, author: string, content: string): string {
    const told = JSON.stringify([this.#channel, author, content])
    const id = `${sentAt.toISOString()}-${createHash('sha256').update(told).digest('hex').slice(0, 16)}`
    const before = this.#given.get(id) ?? 0
    this.#given.set(id, before + 1)
    return before === 0 ? id : `${id}-${before + 1}`
  }

  #moment(stamp: Stamp): Date | null {
    if (stamp.kind === 'moment') {
      this.#day = utcDay(stamp.at)
      return stamp.at
    }
    if (!this.#day) return null
    if (stamp.kind === 'day and time') {
      const day = nearestYear(this.#day, stamp.month, stamp.day)
      if (!day) return null
      this.#day = day
    } else {
      const [hour = 0, minute = 0, second = 0] = stamp.clock
      const seconds = hour * 3600 + minute * 60 + second
      // Up to an hour back is a clock put right or the end of summer time; more is the next day.
      if (this.#lastSecond !== null && seconds < this.#lastSecond - 3600) {
        this.#day = new Date(this.#day.getTime() + 86_400_000)
      }
      this.#lastSecond = seconds
    }
    const day = this.#day
    return utcInstant(day.getUTCFullYear(), day.getUTCMonth() + 1, day.getUTCDate(), stamp.clock)
  }
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const fullStamp =
  /^\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|[+-]\d\d:?\d\d))?)\]?(?:\t| +|$)/
const monthStamp = /^([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\t| |$)/
const timeStamp = /^[[(]?(\d{1,2}):(\d\d)(?::(\d\d))?[\])]?(?:\t| |$)/

const statedDay =
  /^(?:(?:---|===|\*{2,4}) *)?(?:Log (?:opened|closed|started|ended)|Day changed(?: to)?|Date changed(?: to)?|(?:BEGIN|ENDING) LOGGING AT|Session (?:Start|Close|Time):?)\s+(.+)$/i
const bareDay = /^(?:---|===|\*{3,4}) *([\w ,-]+?) *(?:---|===|\*{3,4})?$/

const spoken = /^<([^<>]{1,200})>(?:[ \t](.*))?$/s
/** The sign before a nick is its rank in the channel, not part of the name. */
const rank = /^[~&@%+! ]+/
const action = /^ *\* ?[\t ]([^\s*]+)(?: (.*))?$/s
const notice = /^-[^\s-]\S*-(?:\s|$)/
const serviceMark = /^(?:-!-|\*{3,4}|===|---|-->|<--|--|->|<-|=!=|Session Ident:)(?:\s|$)/
/** HexChat and mIRC mark events with the star of an action: they are told apart by their wording. */
const event =
  /^ *\* ?[\t ](?:(?:Now talking (?:on|in) |Topic for |You are now known as |You have joined |Disconnected|Connected|Connecting to |Looking up )|\S+ (?:\([^)]*\) has (?:joined|left)|(?:has )?(?:joined|left) #|has quit(?: [([]|$)|has kicked |has been kicked |has changed the topic |changes topic |is now known as \S+$|sets (?:mode|ban|channel)|(?:gives|removes) (?:channel|voice|ban|half)))/

/** What a line says; null if it is none of a log. */
function readLine(line: string): Line | null {
  // Lines about days are short; a message of a megabyte must not be tried against patterns that backtrack.
  const short = line.slice(0, 200)
  const date = statedDay.exec(short)?.[1]
  if (date !== undefined) return { kind: 'day', day: readDay(date.trimEnd()) }
  const bare = bareDay.exec(short)?.[1]
  const bareDate = bare === undefined ? null : readDay(bare)
  if (bareDate) return { kind: 'day', day: bareDate }
  if (serviceMark.test(line)) return { kind: 'service', stamp: null, text: line }

  const found = readStamp(line)
  if (!found) return null
  const { stamp, rest } = found
  const said = spoken.exec(rest)
  const speaker = said?.[1]?.replace(rank, '').trimEnd()
  if (speaker) return { kind: 'message', stamp, author: speaker, content: said?.[2] ?? '' }
  if (serviceMark.test(rest) || notice.test(rest) || event.test(rest))
    return { kind: 'service', stamp, text: rest }
  const done = action.exec(rest)
  if (done?.[1] !== undefined) {
    const deed = done[2] === undefined ? '' : ` ${done[2]}`
    return { kind: 'message', stamp, author: done[1], content: `* ${done[1]}${deed}` }
  }
  // WeeChat: the nick, a tab, the text; lines of the program itself have an empty nick.
  const tab = rest.indexOf('\t')
  if (tab === -1 || stamp.kind !== 'moment') return null
  const nick = rest.slice(0, tab).replace(rank, '').trimEnd()
  if (nick === '') return { kind: 'service', stamp, text: rest }
  return { kind: 'message', stamp, author: nick, content: rest.slice(tab + 1) }
}

function readStamp(line: string): { stamp: Stamp; rest: string } | null {
  const full = fullStamp.exec(line)
  if (full?.[1] !== undefined) {
    const at = isoInstant(full[1])
    return at && { stamp: { kind: 'moment', at }, rest: line.slice(full[0].length) }
  }
  const inYear = monthStamp.exec(line)
  if (inYear?.[1] !== undefined && months.includes(inYear[1])) {
    const clock = inYear.slice(3, 6).map(Number)
    const stamp: Stamp = {
      kind: 'day and time',
      month: months.indexOf(inYear[1]) + 1,
      day: Number(inYear[2]),
      clock,
    }
    return { stamp, rest: line.slice(inYear[0].length) }
  }
  const time = timeStamp.exec(line)
  if (!time) return null
  const clock = time.slice(1, 4).map((part) => Number(part ?? 0))
  return utcInstant(2000, 1, 1, clock) && { stamp: { kind: 'time', clock }, rest: line.slice(time[0].length) }
}

/** `Thu May 02 2024`, `Thu May  2 12:34:56 2024`, `2 May 2024`, `2024-05-02`, with or without a time. */
function readDay(text: string): Date | null {
  const iso = /^\d{4}-\d\d-\d\d/.exec(text)
  if (iso) return isoInstant(iso[0])
  const parts =
    /^(?:[A-Z][a-z]+,? +)?(?<month>[A-Z][a-z]{2}) +(?<day>\d{1,2}),?(?: \d\d:\d\d(?::\d\d)?)? (?<year>\d{4})$/.exec(
      text,
    ) ??
    /^(?:[A-Z][a-z]+,? +)?(?<day>\d{1,2}) (?<month>[A-Z][a-z]{2}) (?<year>\d{4})(?: \d\d:\d\d(?::\d\d)?)?$/.exec(
      text,
    )
  const { year, month, day } = parts?.groups ?? {}
  return month ? utcInstant(Number(year), months.indexOf(month) + 1, Number(day), []) : null
}

function utcDay(moment: Date): Date {
  return new Date(Date.UTC(moment.getUTCFullYear(), moment.getUTCMonth(), moment.getUTCDate()))
}

/** HexChat writes no years: the day of that name nearest to the last known day, so that January follows December. */
function nearestYear(known: Date, month: number, day: number): Date | null {
  const year = known.getUTCFullYear()
  const days = [year - 1, year, year + 1]
    .map((candidate) => utcInstant(candidate, month, day, []))
    .filter((candidate) => candidate !== null)
  const distance = (candidate: Date) => Math.abs(candidate.getTime() - known.getTime())
  return days.sort((a, b) => distance(a) - distance(b))[0] ?? null
}

const dateInName = /(?<!\d)(\d{4})([-._]?)(\d\d)\2(\d\d)(?!\d)/

function dayInName(name: string): Date | null {
  const [, year, , month, day] = dateInName.exec(name) ?? []
  return year === undefined ? null : utcInstant(Number(year), Number(month), Number(day), [])
}

/** `#node.js` out of `libera_#node.js.2024-05-01.log`; a name without # may be a network or a person as well: null. */
function channelInName(name: string): string | null {
  const bare = name.replace(/\.(?:log|txt|irclog|weechatlog)$/i, '').replace(dateInName, '')
  return /#[^\s,/\\]*[^\s,/\\._-]/.exec(bare)?.[0] ?? null
}
