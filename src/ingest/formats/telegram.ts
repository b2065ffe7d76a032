import { LRUCache } from 'lru-cache'
import { InvalidInputError } from '../../errors.ts'
import type { ChatFormat, ChatRecord } from './format.ts'
import {
  describeJson,
  formatPath,
  isJsonObject,
  type JsonObject,
  type JsonPath,
  jsonFile,
  jsonId,
  nonEmpty,
  outlineJson,
  readJson,
} from './json-stream.ts'
import { isoInstant } from './sent-at.ts'

/**
 * The JSON export of Telegram Desktop: one chat, or a whole account. In an account the ids of messages are numbered per
 * group, so the same number comes up in many of them: there the id of the chat stands before it (`4242:17`).
 */
export const telegram: ChatFormat = {
  name: 'TELEGRAM',
  expects:
    'result.json of Telegram Desktop (Export chat history or Export Telegram data, as JSON, not zipped)',
  detect(head) {
    const keys = head.isZip ? undefined : outlineJson(head.bytes)?.keys
    if (!keys) return false
    const oneChat =
      keys.get('messages') === 'array' && keys.has('type') && keys.has('id') && !keys.has('guild')
    // An account begins with personal data and contacts; its chats may come long after the head.
    const account = keys.get('chats') === 'object' || keys.get('left_chats') === 'object'
    return oneChat || account || (keys.has('about') && keys.get('personal_information') === 'object')
  },
  async sourceName(file) {
    for await (const piece of readJson(jsonFile(file), isWanted)) {
      if (piece.kind === 'array' || piece.path.length > 1) return null
      if (piece.path[0] === 'name' && typeof piece.value === 'string') return piece.value || null
    }
    return null
  },
  async *read(file) {
    let chat = new Chat(null)
    let found = false
    for await (const piece of readJson(jsonFile(file), isWanted)) {
      const { path } = piece
      const start = chatDepth(path)
      if (piece.kind === 'array') {
        found ||= formatPath(path) === 'messages' || (start === 3 && path[1] === 'list')
        continue
      }
      const place = start === 0 ? null : formatPath(path.slice(0, start))
      if (chat.place !== place) chat = new Chat(place)
      if (path[start] === 'messages') yield chat.toRecord(piece.value, formatPath(path))
      else chat.header[String(path[start])] = piece.value
    }
    if (!found) {
      throw new InvalidInputError(
        `${file.name}: no array "messages" or "chats.list" found; expected ${telegram.expects}`,
      )
    }
  },
}

/** How many steps of the path lead to the chat that it lies in: 0 in a one-chat file, 3 for `chats.list[7].name`. */
function chatDepth(path: JsonPath): number {
  return path[0] === 'chats' || path[0] === 'left_chats' ? 3 : 0
}

function isWanted(path: JsonPath): boolean {
  const start = chatDepth(path)
  if (start === 3 && path[1] !== 'list') return false
  const key = path[start]
  if (key === 'messages') return path.length === start + 2 && typeof path[start + 1] === 'number'
  return path.length === start + 1 && (key === 'name' || key === 'type' || key === 'id')
}

/** One chat while its messages go by. */
class Chat {
  readonly header: JsonObject = {}
  /** Where in an account the chat stands; null in the file of one chat. */
  readonly place: string | null
  readonly #topics = new Set<string>()
  /**
   * The topic of the newest messages in topics; bounded, so that a forum of any size takes the same memory, and made
   * with the first topic, because it takes its memory at once and an account has thousands of chats without topics.
   */
  #topicOf: LRUCache<string, string> | null = null

  constructor(place: string | null) {
    this.place = place
  }

  toRecord(raw: unknown, position: string): ChatRecord {
    const reject = (reason: string): ChatRecord => ({ kind: 'rejected', position, reason })
    if (!isJsonObject(raw)) return reject(`expected a message object, found ${describeJson(raw)}`)
    const id = jsonId(raw.id)
    if (raw.type === 'service' || raw.type === 'unsupported') {
      if (raw.action === 'topic_created' && id !== null) {
        this.#topics.add(id)
        this.#topicOf ??= new LRUCache({ max: 100_000 })
      }
      return { kind: 'left-out', position }
    }
    if (raw.type !== 'message') return reject(`expected the type "message", found ${describeJson(raw.type)}`)
    if (id === null) return reject(`expected an id, found ${describeJson(raw.id)}`)
    const sentAt = sentAtOf(raw)
    if (!sentAt) {
      return reject(
        `expected a moment in date_unixtime or date, found ${describeJson(raw.date_unixtime ?? raw.date)}`,
      )
    }
    const text = plainText(raw.text ?? '')
    if (text === null) return reject('expected in "text" a text, or a list of texts and objects with a text')
    const content = text === '' ? mediaText(raw) : text
    if (content === null) return reject('neither text nor a medium that is known')

    // A reply across chats names a message that is not in this one, even if the number exists here as well.
    const target =
      raw.reply_to_message_id === undefined || raw.reply_to_peer_id ? null : jsonId(raw.reply_to_message_id)
    const inTopicDirectly = target !== null && this.#topics.has(target)
    const topic = target === null ? undefined : inTopicDirectly ? target : this.#topicOf?.get(target)
    if (topic !== undefined) this.#topicOf?.set(id, topic)
    return {
      kind: 'message',
      position,
      message: {
        externalId: this.#qualified(id),
        author: authorOf(raw),
        content,
        sentAt,
        channel: this.#name(),
        threadId: topic === undefined ? null : this.#qualified(topic),
        // What stands in a topic "replies" to the notice that opened it: that is no message and no answer to one.
        replyToExternalId: target === null || inTopicDirectly ? null : this.#qualified(target),
      },
    }
  }

  #qualified(id: string): string {
    return this.place === null ? id : `${jsonId(this.header.id) ?? this.header.name ?? this.place}:${id}`
  }

  #name(): string | null {
    const { name, type, id } = this.header
    if (typeof name === 'string' && name !== '') return name
    if (type === 'saved_messages') return 'Saved Messages'
    if (type === 'replies') return 'Replies'
    return jsonId(id) === null ? null : `chat ${id}`
  }
}

/** The sender; `from` is null where the account is deleted. A forward stays with whoever forwarded it. */
function authorOf(raw: JsonObject): string {
  const names = [raw.from, raw.forwarded_from, raw.actor, raw.from_id]
  return names.map(nonEmpty).find((name) => name !== undefined) ?? 'Deleted account'
}

/** `date` is the local time of the exporting computer, without a zone: the last resort, taken as UTC. */
function sentAtOf({ date_unixtime: seconds, date }: JsonObject): Date | null {
  if (seconds === undefined || seconds === null || seconds === '') {
    return typeof date === 'string' ? isoInstant(date) : null
  }
  const isNumeric =
    typeof seconds === 'number' || (typeof seconds === 'string' && /^-?\d{1,12}$/.test(seconds))
  return isNumeric ? new Date(Number(seconds) * 1000) : null
}

/** The words of a text and its entities; a link behind words is written after them. Null if it is no such text. */
export function plainText(text: unknown): string | null {
  if (typeof text === 'string') return text
  if (!Array.isArray(text)) return null
  let plain = ''
  for (const part of text) {
    if (typeof part === 'string') plain += part
    else if (isJsonObject(part) && typeof part.text === 'string') {
      const href = part.type === 'text_link' ? nonEmpty(part.href) : undefined
      plain += href === undefined || href === part.text ? part.text : `${part.text} (${href})`
    } else return null
  }
  return plain
}

/** What a person sees of a message without words, e.g. `[photo]`; null if there is nothing known to see. */
export function mediaText(raw: JsonObject): string | null {
  const poll = isJsonObject(raw.poll) ? raw.poll : null
  if (poll) return listText('poll', poll.question, poll.answers)
  const todo = isJsonObject(raw.todo_list) ? raw.todo_list : null
  if (todo) return listText('to-do list', todo.title, todo.answers)
  if (nonEmpty(raw.place_name)) return label('place', joined([raw.place_name, raw.address], ', '))
  if (isJsonObject(raw.location_information)) {
    const { latitude, longitude } = raw.location_information
    return label('location', `${latitude}, ${longitude}`)
  }
  if (isJsonObject(raw.contact_information)) {
    const { first_name, last_name, phone_number } = raw.contact_information
    return label('contact', joined([joined([first_name, last_name], ' '), phone_number], ', '))
  }
  if (nonEmpty(raw.game_title)) return label('game', raw.game_title)
  if (isJsonObject(raw.invoice_information)) return label('invoice', raw.invoice_information.title)
  if (raw.giveaway_information !== undefined || raw.giveaway_results !== undefined) return '[giveaway]'
  if (raw.paid_stars_amount !== undefined) return '[paid media]'

  switch (raw.media_type) {
    case 'sticker':
      return label('sticker', raw.sticker_emoji)
    case 'voice_message':
      return '[voice message]'
    case 'video_message':
      return '[video message]'
    case 'video_file':
      return label('video', fileName(raw))
    case 'animation':
      return '[GIF]'
    case 'audio_file':
      return label('audio', joined([raw.performer, raw.title], ' – ') || fileName(raw))
  }
  if (raw.photo !== undefined) return '[photo]'
  return raw.file === undefined && raw.file_name === undefined ? null : label('file', fileName(raw))
}

function label(kind: string, detail: unknown): string {
  const text = nonEmpty(detail)
  return text === undefined ? `[${kind}]` : `[${kind} ${text}]`
}

/** `[poll] Lunch at noon? — yes, no`: the words of a poll are knowledge like those of a message. */
function listText(kind: string, title: unknown, items: unknown): string {
  const texts = Array.isArray(items)
    ? items.map((item) => plainText(isJsonObject(item) ? item.text : item) ?? '')
    : []
  return joined([`[${kind}] ${plainText(title) ?? ''}`.trimEnd(), joined(texts, ', ')], ' — ')
}

/** `file` holds a path or, where the file was not exported, a sentence in brackets about why. */
function fileName(raw: JsonObject): string | undefined {
  const path = nonEmpty(raw.file)
  return nonEmpty(raw.file_name) ?? (path?.startsWith('(') ? undefined : path?.split('/').at(-1))
}

function joined(parts: readonly unknown[], separator: string): string {
  return parts.filter((part) => nonEmpty(part) !== undefined).join(separator)
}
