import { type Entry, openPromise, type ZipFile } from 'yauzl'
import { errorMessage, InvalidInputError } from '../../errors.ts'
import type { ChatFile, ChatFormat, ChatRecord } from './format.ts'
import {
  describeJson,
  formatPath,
  isJsonObject,
  type JsonObject,
  type JsonPath,
  jsonId,
  nonEmpty,
  objects,
  readJson,
} from './json-stream.ts'

/** What people and bots write; every other subtype (joins, topics, tombstones) is a notice of the service. */
const messageSubtypes = new Set([
  'bot_message',
  'me_message',
  'thread_broadcast',
  'reply_broadcast',
  'file_share',
  'file_comment',
  'file_mention',
])

/** The lists that tell a Slack export from any other zip; `users.json` alone could be anything. */
const channelLists = /^((?:[^/]+\/)?)(channels|groups|dms|mpims)\.json$/

/**
 * The zip that a Slack workspace exports: a folder per channel, a file per day. Slack's `ts` is unique within a channel
 * only, so ids carry the id of the channel before it (`C024BE91L:1714550000.000200`); so do threads and replies.
 */
export const slack: ChatFormat = {
  name: 'SLACK',
  expects:
    'the zip that Slack exports: channels.json, users.json and a folder of <date>.json files per channel',
  detect: (head) => head.isZip && exportFolder(head.entries) !== null,
  /** Slack writes the workspace nowhere but into the name of the zip or of the folder in it. */
  async sourceName(file) {
    const folder = exportFolder(await zipEntryNames(file))
    for (const name of [folder ?? '', file.name]) {
      const workspace = /^(.+?) Slack export\b/i.exec(name)?.[1]
      if (workspace) return workspace
    }
    return null
  },
  async *read(file) {
    const { zip, entries } = await openZip(file)
    try {
      yield* readExport(file, zip, entries)
    } finally {
      zip.close()
    }
  },
}

/** The names in a zip archive. Throws InvalidInputError if the archive is damaged. */
export async function zipEntryNames(file: ChatFile): Promise<string[]> {
  const { zip, entries } = await openZip(file)
  zip.close()
  return [...entries.keys()]
}

async function openZip(file: ChatFile): Promise<{ zip: ZipFile; entries: Map<string, Entry> }> {
  const entries = new Map<string, Entry>()
  let zip: ZipFile | undefined
  try {
    zip = await openPromise(file.path, { autoClose: false })
    for await (const entry of zip.eachEntry()) entries.set(entry.fileName, entry)
    return { zip, entries }
  } catch (error) {
    zip?.close()
    // What the system says about the file itself (missing, not readable) is no fault of its content.
    if (error instanceof Error && 'code' in error) throw error
    throw damagedZip(file.name, error)
  }
}

function damagedZip(name: string, error: unknown): InvalidInputError {
  return new InvalidInputError(
    `${name}: not a sound zip archive (${errorMessage(error)}); please upload or export it again`,
  )
}

/** The folder in the zip that holds the export: '' for the top, `Acme export/` if it was zipped with its folder. */
function exportFolder(names: Iterable<string>): string | null {
  for (const name of names) {
    const folder = channelLists.exec(name)?.[1]
    if (folder !== undefined && folder !== '__MACOSX/') return folder
  }
  return null
}

async function* readExport(
  file: ChatFile,
  zip: ZipFile,
  entries: ReadonlyMap<string, Entry>,
): AsyncGenerator<ChatRecord, void> {
  const folder = exportFolder(entries.keys())
  if (folder === null) {
    throw new InvalidInputError(
      `${file.name}: none of channels.json, groups.json, dms.json, mpims.json in it; expected ${slack.expects}`,
    )
  }
  async function* elements(name: string): AsyncGenerator<{ path: JsonPath; value: unknown }, void> {
    const entry = entries.get(folder + name)
    if (!entry) return
    const source = { name: `${file.name}: ${name}`, open: () => openEntry(zip, entry, file.name) }
    file.onRead?.(entry.compressedSize)
    let isArray = false
    for await (const piece of readJson(source, (path) => path.length === 1 && typeof path[0] === 'number')) {
      isArray = true
      if (piece.kind === 'value') yield piece
    }
    if (!isArray) throw new InvalidInputError(`${source.name}: expected an array, found a JSON object`)
  }

  const people = new Map<string, string>()
  for await (const { value } of elements('users.json')) {
    const id = isJsonObject(value) ? jsonId(value.id) : null
    if (isJsonObject(value) && id !== null) people.set(id, personName(value) ?? id)
  }
  const names: Names = { people, channels: new Map() }
  const channels = new Map<string, Channel>()
  for (const list of ['channels.json', 'groups.json', 'mpims.json', 'dms.json']) {
    for await (const { value } of elements(list)) {
      const id = isJsonObject(value) ? jsonId(value.id) : null
      if (!isJsonObject(value) || id === null) continue
      const name = nonEmpty(value.name)
      if (name !== undefined) names.channels.set(id, name)
      const members = Array.isArray(value.members) ? value.members.map(String) : []
      const isPrivateTalk = list === 'dms.json' || list === 'mpims.json'
      const together = isPrivateTalk ? members.map((member) => people.get(member) ?? member).join(', ') : ''
      // Talks between people have no name (dms) or one made by the machine (mpims): people know them by who is in.
      channels.set(name ?? id, { id, name: together || name || id })
    }
  }

  for (const [folderName, days] of dayFiles(entries.keys(), folder)) {
    const channel = channels.get(folderName) ?? { id: folderName, name: folderName }
    for (const day of days) {
      for await (const { path, value } of elements(day)) {
        yield toRecord(value, `${day}${formatPath(path)}`, channel, names)
      }
    }
  }
}

async function openEntry(zip: ZipFile, entry: Entry, fileName: string): Promise<AsyncIterable<Buffer>> {
  try {
    return entryBytes(await zip.openReadStreamPromise(entry), fileName)
  } catch (error) {
    throw damagedZip(fileName, error)
  }
}

async function* entryBytes(stream: AsyncIterable<Buffer>, fileName: string): AsyncGenerator<Buffer, void> {
  const chunks = stream[Symbol.asyncIterator]()
  try {
    for (;;) {
      let next: IteratorResult<Buffer>
      try {
        next = await chunks.next()
      } catch (error) {
        // zlib and checksum errors mean a damaged archive; they must not pass for a failure of this service.
        throw damagedZip(fileName, error)
      }
      if (next.done) return
      yield next.value
    }
  } finally {
    await chunks.return?.()
  }
}

/** The day files per channel, both in order; whatever else lies in the zip (uploads, canvases, logs) is not chat. */
function dayFiles(names: Iterable<string>, folder: string): [string, string[]][] {
  const byChannel = new Map<string, string[]>()
  for (const name of names) {
    if (!name.startsWith(folder)) continue
    const day = name.slice(folder.length)
    const channel = /^([^/]+)\/\d{4}-\d\d-\d\d\.json$/.exec(day)?.[1]
    if (channel === undefined) continue
    const days = byChannel.get(channel)
    if (days) days.push(day)
    else byChannel.set(channel, [day])
  }
  for (const days of byChannel.values()) days.sort()
  return [...byChannel].sort(([a], [b]) => (a < b ? -1 : 1))
}

interface Channel {
  id: string
  name: string
}

interface Names {
  people: ReadonlyMap<string, string>
  channels: Map<string, string>
}

function toRecord(raw: unknown, position: string, channel: Channel, names: Names): ChatRecord {
  const reject = (reason: string): ChatRecord => ({ kind: 'rejected', position, reason })
  if (!isJsonObject(raw)) return reject(`expected a message object, found ${describeJson(raw)}`)
  if (typeof raw.type !== 'string')
    return reject(`expected a text in "type", found ${describeJson(raw.type)}`)
  if (raw.type !== 'message') return { kind: 'left-out', position }
  const subtype = nonEmpty(raw.subtype)
  if (subtype !== undefined && !messageSubtypes.has(subtype)) return { kind: 'left-out', position }
  if (typeof raw.ts !== 'string' || !/^\d{1,12}(\.\d+)?$/.test(raw.ts)) {
    return reject(`expected a "ts" such as "1714550000.000200", found ${describeJson(raw.ts)}`)
  }
  const content = contentOf(raw, names)
  if (content === '') return reject('neither text nor file, attachment or block with text')

  const thread = nonEmpty(raw.thread_ts)
  const qualified = (ts: string) => `${channel.id}:${ts}`
  return {
    kind: 'message',
    position,
    message: {
      externalId: qualified(raw.ts),
      author: authorOf(raw, names),
      content,
      sentAt: new Date(Math.round(Number(raw.ts) * 1000)),
      channel: channel.name,
      threadId: thread === undefined ? null : qualified(thread),
      replyToExternalId: thread === undefined || thread === raw.ts ? null : qualified(thread),
    },
  }
}

function authorOf(raw: JsonObject, names: Names): string {
  const comment = isJsonObject(raw.comment) ? raw.comment : {}
  const user = nonEmpty(raw.user) ?? nonEmpty(comment.user)
  const bot = isJsonObject(raw.bot_profile) ? nonEmpty(raw.bot_profile.name) : undefined
  const known = user === undefined ? undefined : (names.people.get(user) ?? profileName(raw.user_profile))
  if (raw.subtype === 'bot_message' || user === undefined) {
    return nonEmpty(raw.username) ?? bot ?? known ?? nonEmpty(raw.bot_id) ?? user ?? 'Unknown user'
  }
  return known ?? (user === 'USLACKBOT' ? 'Slackbot' : user)
}

/** display_name, else real_name, else name: as Slack itself shows people. */
function personName(user: JsonObject): string | undefined {
  return profileName(user.profile) ?? nonEmpty(user.real_name) ?? nonEmpty(user.name)
}

function profileName(profile: unknown): string | undefined {
  if (!isJsonObject(profile)) return undefined
  return nonEmpty(profile.display_name) ?? nonEmpty(profile.real_name) ?? nonEmpty(profile.name)
}

/** The text; without one what a person sees instead: the words of attachments or blocks, then `[file plan.pdf]`. */
function contentOf(raw: JsonObject, names: Names): string {
  const text = nonEmpty(raw.text)
  if (text !== undefined) return resolveMarkup(text, names)
  const attached = objects(raw.attachments).map((attachment) => {
    const words = [attachment.pretext, attachment.title, attachment.text].map(nonEmpty).filter(Boolean)
    return words.length > 0 ? words.join('\n') : (nonEmpty(attachment.fallback) ?? '')
  })
  const words = attached.some(Boolean) ? attached : blockTexts(raw.blocks)
  const files = objects(raw.files).map(
    (file) => `[file ${nonEmpty(file.name) ?? nonEmpty(file.title) ?? 'deleted'}]`,
  )
  return [...words.map((part) => resolveMarkup(part, names)), ...files].filter(Boolean).join('\n')
}

/** Bots may write in blocks alone; their words stand in "text" at some depth. */
function blockTexts(node: unknown): string[] {
  if (Array.isArray(node)) return node.flatMap(blockTexts)
  if (!isJsonObject(node)) return []
  if (typeof node.text === 'string') return [node.text]
  return [node.text, node.fields, node.elements].flatMap(blockTexts)
}

/**
 * Slack's markup as people read it: `<@U1>` becomes `@anna`, `<#C1|general>` `#general`, `<https://x|label>`
 * `label (https://x)`. One pass over the raw text, because a `<` that somebody typed is `&lt;` there: decoding first
 * would make a mention of it, and decoding twice would turn `&amp;lt;` into `<`.
 */
function resolveMarkup(text: string, names: Names): string {
  return text.replace(/<([^<>]+)>|&(?:amp|lt|gt);/g, (whole, control: string | undefined) =>
    control === undefined ? decode(whole) : resolveControl(control, names),
  )
}

function resolveControl(control: string, names: Names): string {
  const bar = control.indexOf('|')
  const target = bar === -1 ? control : control.slice(0, bar)
  const text = bar === -1 ? '' : decode(control.slice(bar + 1))
  const id = target.slice(1)
  switch (target[0]) {
    case '@':
      return `@${names.people.get(id) ?? (text || id)}`
    case '#':
      return `#${text || names.channels.get(id) || id}`
    case '!':
      // <!here>, <!subteam^S1|@ops>, <!date^1714550000^{date}|May 1>: the label is what people see.
      return text && !/^(here|channel|everyone)$/.test(text) ? text : `@${id.replace(/^subteam\^/, '')}`
  }
  const link = decode(target)
  const address = link.replace(/^(mailto|tel):/, '')
  return text === '' || text === link || text === address ? address : `${text} (${address})`
}

function decode(text: string): string {
  return text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')
}
