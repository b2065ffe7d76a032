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
  objects,
  outlineJson,
  readJson,
} from './json-stream.ts'
import { isoInstant } from './sent-at.ts'

/**
 * What people write, by the exporter's names; it writes kinds that it has no name for as Discord's number: 20 and 23
 * are answers to commands. 21 and ThreadStarterMessage repeat the message that a thread grew from, with no words of
 * their own. Everything else (joins, pins, calls, renames) is a notice of the service.
 */
const messageTypes = new Set(['Default', 'Reply', '20', '23', 'ChatInputCommand', 'ContextMenuCommand'])

/** The JSON files of DiscordChatExporter: one channel or thread per file. */
export const discord: ChatFormat = {
  name: 'DISCORD',
  expects: 'a JSON file of DiscordChatExporter: an object with guild, channel and messages',
  detect(head) {
    const keys = head.isZip ? undefined : outlineJson(head.bytes)?.keys
    return keys?.get('guild') === 'object' && keys.get('channel') === 'object'
  },
  async sourceName(file) {
    let guild: unknown
    let channel: unknown
    for await (const piece of readJson(jsonFile(file), isWanted)) {
      if (piece.path[0] === 'messages') break
      if (piece.kind !== 'value') continue
      if (piece.path[0] === 'guild') guild = piece.value
      else channel = piece.value
    }
    // The exporter puts private conversations into a guild "Direct Messages" with the id 0: the people name those.
    const named = isJsonObject(guild) && guild.id !== '0' ? guild : channel
    return isJsonObject(named) ? (nonEmpty(named.name) ?? null) : null
  },
  async *read(file) {
    let channel: JsonObject = {}
    let found = false
    for await (const piece of readJson(jsonFile(file), isWanted)) {
      if (piece.kind === 'array') found ||= piece.path.length === 1 && piece.path[0] === 'messages'
      else if (piece.path[0] === 'messages') yield toRecord(piece.value, formatPath(piece.path), channel)
      else if (piece.path[0] === 'channel' && isJsonObject(piece.value)) channel = piece.value
    }
    if (!found)
      throw new InvalidInputError(`${file.name}: no array "messages" found; expected ${discord.expects}`)
  },
}

function isWanted(path: JsonPath): boolean {
  if (path[0] === 'messages') return path.length === 2 && typeof path[1] === 'number'
  return path.length === 1 && (path[0] === 'guild' || path[0] === 'channel')
}

function toRecord(raw: unknown, position: string, channel: JsonObject): ChatRecord {
  const reject = (reason: string): ChatRecord => ({ kind: 'rejected', position, reason })
  if (!isJsonObject(raw)) return reject(`expected a message object, found ${describeJson(raw)}`)
  if (typeof raw.type !== 'string')
    return reject(`expected a text in "type", found ${describeJson(raw.type)}`)
  if (!messageTypes.has(raw.type)) return { kind: 'left-out', position }
  const externalId = jsonId(raw.id)
  if (externalId === null) return reject(`expected an id, found ${describeJson(raw.id)}`)
  const sentAt = typeof raw.timestamp === 'string' ? isoInstant(raw.timestamp) : null
  if (!sentAt) return reject(`expected a moment in "timestamp", found ${describeJson(raw.timestamp)}`)
  const content = contentOf(raw)
  if (content === '') return reject('neither text nor attachment, sticker or embed with text')

  const author = isJsonObject(raw.author) ? raw.author : {}
  const channelId = jsonId(channel.id)
  const isThread = typeof channel.type === 'string' && channel.type.endsWith('Thread')
  return {
    kind: 'message',
    position,
    message: {
      externalId,
      author: nonEmpty(author.nickname) ?? nonEmpty(author.name) ?? jsonId(author.id) ?? 'Deleted User',
      content,
      sentAt,
      channel: nonEmpty(channel.name) ?? null,
      threadId: isThread ? channelId : null,
      replyToExternalId: replyTo(raw, channelId),
    },
  }
}

/** Forwards and cross-posts carry a reference too, but answer nothing; nor can a message of another channel be found. */
function replyTo(raw: JsonObject, channelId: string | null): string | null {
  if (raw.type !== 'Reply' || !isJsonObject(raw.reference)) return null
  const elsewhere = jsonId(raw.reference.channelId)
  return elsewhere === null || elsewhere === channelId ? jsonId(raw.reference.messageId) : null
}

/**
 * The text; without one, what a person sees instead: the forwarded message, the words of embeds (bots write in those),
 * `[file report.pdf]`, `[sticker Wave]`. The exporter has resolved mentions to names already.
 */
function contentOf(raw: JsonObject): string {
  if (nonEmpty(raw.content)) return String(raw.content)
  if (isJsonObject(raw.forwardedMessage)) return contentOf(raw.forwardedMessage)
  return [
    ...objects(raw.embeds).map(embedText),
    ...objects(raw.attachments).map((file) => `[file ${nonEmpty(file.fileName) ?? 'without a name'}]`),
    ...objects(raw.stickers).map((sticker) => `[sticker ${nonEmpty(sticker.name) ?? 'without a name'}]`),
  ]
    .filter((part) => part !== '')
    .join('\n')
}

function embedText(embed: JsonObject): string {
  const fields = objects(embed.fields).map((field) => `${field.name ?? ''}: ${field.value ?? ''}`)
  return [nonEmpty(embed.title), nonEmpty(embed.description), ...fields].filter(Boolean).join('\n')
}
