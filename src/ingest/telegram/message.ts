import { Api, Context } from 'grammy'
import type { Chat, Message, Update, User, UserFromGetMe } from 'grammy/types'
import type { MessageDraft } from '../formats/format.ts'
import { isJsonObject } from '../formats/json-stream.ts'
import { contentOf } from './content.ts'

/** One version of a message, as an update brings it. */
export interface ChatMessage {
  chat: { id: number; type: Chat['type']; name: string }
  id: number
  /** When this version was written: of two versions the later one holds. */
  writtenAt: Date
  sentAt: Date
  author: string
  content: string
  /** The forum topic that it stands in. */
  topicId: number | null
  replyToId: number | null
}

/** How the messages of a chat are told apart in their source. */
export interface ChatPlace {
  channel: string
  /** What stands before the number of a message in its external id. */
  idPrefix: string
}

/**
 * grammY wants to know the bot that it works for, and would ask Telegram. Nothing here depends on that or calls
 * Telegram, so that no update waits for another server, and the service needs no token.
 */
export const botToken = '0:not-needed'
export const botInfo: UserFromGetMe = {
  id: 0,
  is_bot: true,
  first_name: 'Quarry',
  username: 'quarry',
  can_join_groups: true,
  can_read_all_group_messages: true,
  supports_inline_queries: false,
  can_connect_to_business: false,
  has_main_web_app: false,
  has_topics_enabled: false,
  allows_users_to_create_topics: false,
  can_manage_bots: false,
  supports_join_request_queries: false,
}
const api = new Api(botToken)

/** The updates that bring messages; a webhook should ask for these and no others (`allowed_updates`). */
export const messageUpdates = ['message', 'edited_message', 'channel_post', 'edited_channel_post'] as const

/**
 * The message that an update brings, new or edited.
 *
 * It agrees with an import of the same chat from Telegram Desktop: text, links, media, author, time, topic and reply are
 * told by the same rules. It cannot where an export knows less or other things:
 * - An export has the names of people as they are at its time, an update as they were when the message was written.
 * - An export keeps a link within other markup (a bold link) only by its words, and a link to a bare host without the
 *   slash that the Bot API adds to it.
 * - An export names no topic of a message that answers one in another topic, or one that the export does not have.
 * @returns null for what is no message, or has nothing to say: notices of the service, polls' votes, reactions
 * @throws TypeError, RangeError if it is not such an update as the Bot API describes
 */
export function readUpdate(update: Update): ChatMessage | null {
  const context = new Context(update, api, botInfo)
  if (!context.has([...messageUpdates])) return null
  const message: Message = context.msg
  // Number 0: seen by one person only, or held back by Telegram until it is sent under its own number.
  if (message.message_id === 0) return null
  if (!isJsonObject(message.chat)) throw new TypeError('chat is no object')
  const content = contentOf(message)
  if (content === null) return null
  return {
    chat: {
      id: wholeNumber(message.chat.id, 'chat.id'),
      type: message.chat.type,
      name: nameOf(message.chat) || `chat ${bareId(message.chat.id)}`,
    },
    id: wholeNumber(message.message_id, 'message_id'),
    writtenAt: moment(message.edit_date ?? message.date, 'edit_date'),
    sentAt: moment(message.date, 'date'),
    author: authorOf(message),
    content,
    topicId: message.is_topic_message ? (message.message_thread_id ?? null) : null,
    replyToId: replyOf(message),
  }
}

/**
 * How a chat that is new in its source is to be told apart there, as an import of it would do.
 *
 * Supergroups and channels number their messages for everyone: in the export of one chat a message is `17`, in that of a
 * whole account `4242:17`, because other chats have a 17 as well. Here it is the first, unless the second is called for.
 * Small groups and private chats are numbered for each member apart, so a bot's number never is that of an export and
 * must not be taken for it. After a small group has become a supergroup, its messages are numbered for everyone.
 * @param isQualified another chat of the source has this name already, or was imported from an account
 */
export function placeOf(chat: ChatMessage['chat'], isQualified: boolean): ChatPlace {
  const isShared = chat.type === 'supergroup' || chat.type === 'channel'
  const idPrefix = isShared ? (isQualified ? accountPrefix(chat.id) : '') : `bot:${chat.id}:`
  return { channel: chat.name, idPrefix }
}

/** What an import of an account puts before the number of a message. */
export const accountPrefix = (chatId: number) => `${bareId(chatId)}:`

/** The message as it is stored. */
export function draftOf(message: ChatMessage, { channel, idPrefix }: ChatPlace): MessageDraft {
  const qualified = (id: number | null) => (id === null ? null : `${idPrefix}${id}`)
  const { author, content, sentAt } = message
  return {
    externalId: `${idPrefix}${message.id}`,
    author,
    content,
    sentAt,
    channel,
    threadId: qualified(message.topicId),
    replyToExternalId: qualified(message.replyToId),
  }
}

/**
 * The id of a chat as an export has it. The Bot API tells kinds of chats apart by the sign and by adding 10^12 (see
 * "Bot API dialog IDs", core.telegram.org/api/bots/ids).
 */
function bareId(chatId: number): number {
  const shift = 1_000_000_000_000
  return chatId < -shift ? -chatId - shift : Math.abs(chatId)
}

/** Who speaks as a channel or as the group itself is that, as in an export; `from` is then a stand-in. */
function authorOf({ sender_chat: senderChat, from, chat }: Message): string {
  const sender = senderChat ?? from ?? chat
  return nameOf(sender) || `${senderChat ? 'channel' : 'user'}${bareId(sender.id)}`
}

function nameOf(named: Chat | User): string {
  if ('title' in named && named.title !== undefined) return named.title.trim() && named.title
  const names = [named.first_name, named.last_name]
  return names.filter((name) => name?.trim()).join(' ')
}

/** What stands in a topic "replies" to the notice that opened it: that is no message and no answer to one. */
function replyOf(message: Message): number | null {
  const { reply_to_message: target, external_reply: elsewhere, message_thread_id: topicId } = message
  if (target) {
    const isTopic = target.forum_topic_created || (message.is_topic_message && target.message_id === topicId)
    return isTopic ? null : target.message_id
  }
  // A message in another topic of the same chat. Elsewhere its number would name some other message here.
  return elsewhere?.chat?.id === message.chat.id ? (elsewhere.message_id ?? null) : null
}

function wholeNumber(value: number, name: string): number {
  if (!Number.isSafeInteger(value)) throw new TypeError(`${name} is no whole number`)
  return value
}

function moment(seconds: number, name: string): Date {
  const date = new Date(wholeNumber(seconds, name) * 1000)
  if (seconds < 0 || Number.isNaN(date.getTime())) throw new RangeError(`${name} is no moment`)
  return date
}
