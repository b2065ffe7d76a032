import type { ExtractionMessage } from '../extractor.ts'
import { readAddressee, readSentences, type Sentence } from './text.ts'

/*
 * Who answers whom, and what short replies mean: thanks, "that worked", agreement.
 */

/** A message with what it says and what it answers. */
export interface Turn {
  message: ExtractionMessage
  sentences: Sentence[]
  /** Place in its conversation, from 0. */
  place: number
  /** The turn that it answers: by the source's own word, by the author that it names, or the one before it by somebody else. */
  answers: Turn | null
  /** Whether the source or the text says so, and it is not only the turn before. */
  isDirect: boolean
  reply: Reply
}

export interface Reply {
  /** Says that a proposal was tried and works. */
  confirms: boolean
  /** Says thanks, or that it is understood. */
  thanks: boolean
  /** Says yes to what was proposed. */
  agrees: boolean
  /** Says that an earlier statement was wrong, and what is right. */
  corrects: boolean
}

/** The conversations of a batch, each in the order of time. */
export function readConversations(messages: readonly ExtractionMessage[]): Turn[][] {
  const conversations = new Map<string, ExtractionMessage[]>()
  for (const message of messages) {
    const known = conversations.get(message.conversationId)
    if (known) known.push(message)
    else conversations.set(message.conversationId, [message])
  }
  return [...conversations.values()].map(readTurns)
}

function readTurns(messages: readonly ExtractionMessage[]): Turn[] {
  const authors = new Map(messages.map(({ author }) => [author.toLowerCase(), author] as const))
  const isAuthor = (name: string) => authors.has(name.toLowerCase())
  const turns: Turn[] = []
  const byId = new Map<string, Turn>()
  const lastOf = new Map<string, Turn>()
  for (const message of messages) {
    const sentences = readSentences(message.content, isAuthor)
    const named = readAddressee(message.content, isAuthor)?.toLowerCase()
    const replied = message.replyToId === null ? undefined : byId.get(message.replyToId)
    const addressed =
      named === undefined || named === message.author.toLowerCase() ? undefined : lastOf.get(named)
    const direct = replied ?? addressed
    const turn: Turn = {
      message,
      sentences,
      place: turns.length,
      answers: direct ?? lastByOther(turns, message.author),
      isDirect: direct !== undefined,
      reply: readReply(sentences, message.content),
    }
    turns.push(turn)
    byId.set(message.id, turn)
    lastOf.set(message.author.toLowerCase(), turn)
  }
  return turns
}

function lastByOther(turns: readonly Turn[], author: string): Turn | null {
  return turns.findLast((turn) => turn.message.author !== author) ?? null
}

const works =
  /(?<![\p{L}])(?:that (?:was it|worked|works|fixed it|fixed that|did it|did the trick|helped|solved it)|(?:it|this) (?:worked|works(?: now| fine| great| perfectly)?|fixed it|helped|solved (?:it|my))|(?:its|it's) working|works (?:now|like a charm|perfectly|great)|working now|problem solved|fixed it|solved it|got it (?:working|to work)|помогло|заработало|вс[её] работает|теперь работает|работает)(?![\p{L}])/iu
const doesNotWork =
  /(?<![\p{L}])(?:not|n't|doesnt|didnt|isnt|never|if|hope|still|how|before|не|as expected\?|until|should)(?![\p{L}])/iu
const thanks =
  /(?<![\p{L}])(?:thanks|thank (?:you|u)|thx|thnx|tnx|ty|cheers|makes sense|got it|i see now|good to know|that explains|спасибо|благодарю|понял|поняла|ясно|спс)(?![\p{L}])/iu
const thanksInAdvance = /(?:in advance|any help|for (?:trying|any)|but|not sure|though|заранее)/iu
const agreement =
  /^(?:[\s👍🙏🎉,.!]*)(?:\+1|agreed|agree|strongly agree|yes please|(?:ok|okay|yes|yeah|right|sure),? (?:let's do (?:it|that|this)|do it|agreed)|let's (?:do|go with) (?:it|that|this)|sounds (?:good|great)|go for it|deal|haha agreed|согласен|согласна|за|договорились|давайте так)(?![\p{L}\p{N}])/iu
const correction =
  /(?<![\p{L}])(?:correction|i misread|i was wrong|my mistake,|scratch that|i stand corrected|i mixed up|ошибся|ошиблась|поправка)(?![\p{L}])/iu

/** Words. A reply that says more than that has something of its own to say. */
const maxThanksLength = 25

function readReply(sentences: readonly Sentence[], content: string): Reply {
  const head = content.slice(0, 300)
  const isShort = sentences.reduce((sum, { wordCount }) => sum + wordCount, 0) <= maxThanksLength
  const asks = sentences.some((sentence) => sentence.asks)
  const confirming = sentences.some(({ text, asks }) => !asks && works.test(text) && !doesNotWork.test(text))
  return {
    confirms: isShort && confirming,
    thanks: isShort && !asks && thanks.test(head) && !thanksInAdvance.test(head),
    agrees: isShort && agreement.test(head),
    corrects: correction.test(head),
  }
}
