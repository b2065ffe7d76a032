import { weights as shippedWeights, type WeightTable } from './weights.ts'
import { createWindow, featureCount, featureNames, type WindowMessage } from './window.ts'

export { maxAgeMs, windowSize } from './window.ts'

export interface LinkMessage extends WindowMessage {
  /** The thread that it belongs to, as the source names it. */
  threadId: string | null
  /** Id of the message that it answers, where the source says so. */
  replyToId: string | null
  /** In the active embedding space; null while there is none. */
  vector: Float32Array | null
}

export interface Link {
  /** The conversation that it joins; null: it starts a new one. */
  conversationId: string | null
  /** The earlier message of that conversation that it most probably answers, if that is still in the window. */
  parentId: string | null
}

export interface Linker {
  /** Says where a message belongs, and keeps nothing of it. Messages come in the order of time. */
  link(message: LinkMessage): Link
  /** Appends a message with the conversation that it was given: later ones may answer it. */
  remember(message: LinkMessage & { conversationId: string }): void
}

/**
 * What starting anew is given beyond its probability, in a busy channel: a wrong join draws the answers to it after it
 * and ends up with two conversations in one, while a wrong start costs no more than itself. Logarithm of odds, from
 * cross-validation (npm run eval): 0 to 1 differ little, 1.5 splits too much.
 */
const caution = 0.6

/**
 * Tells the conversations of one channel apart, message by message (disentanglement). A reply whose target it knows, or
 * another message of the same thread, decides. Otherwise each earlier message of the window, and a new conversation,
 * gets the probability that it is what the message answers, by a log-linear model over pairs of messages, as in Elsner
 * and Charniak ("You Talking to Me?", ACL 2008; "Disentangling Chat", Computational Linguistics 2010) and the linear
 * model of Kummerfeld et al. ("A Large-Scale Corpus for Conversation Disentanglement", ACL 2019). The conversation with
 * the highest sum wins: the several messages that speak for it are not alternatives to each other.
 *
 * Takes memory for the ids of all that it has seen: make a new one for each batch of messages.
 * @param recent the channel's messages before the first new one, in the order of time: the last `windowSize` that are no
 *   older than `maxAgeMs`. More may be given, so that replies to them are known.
 */
export function createLinker(
  recent: readonly (LinkMessage & { conversationId: string })[],
  weights: WeightTable = shippedWeights,
): Linker {
  const window = createWindow()
  const values = Float64Array.from(featureNames, (name) => weights[name] + (name === 'busyNew' ? caution : 0))
  const conversationOf = new Map<string, string>()
  const conversationOfThread = new Map<string, string>()
  /** Inside a thread, behind its first message: what is said outside of it does not answer them. */
  const threaded = new Set<string>()
  const scores: number[] = []

  function link(message: LinkMessage): Link {
    const replied = message.replyToId === null ? undefined : conversationOf.get(message.replyToId)
    if (replied !== undefined) return { conversationId: replied, parentId: message.replyToId }
    const thread = message.threadId === null ? undefined : conversationOfThread.get(message.threadId)
    const { count, rows, idOf, conversationOf: candidateOf } = window.candidatesOf(message)
    let highest = Number.NEGATIVE_INFINITY
    for (let index = 0; index <= count; index++) {
      let score = 0
      const row = index * featureCount
      for (let column = 0; column < featureCount; column++)
        score += (rows[row + column] as number) * (values[column] as number)
      scores[index] = score
      if (score > highest) highest = score
    }
    const scoreOf = (index: number) => scores[index] ?? Number.NEGATIVE_INFINITY
    const sums = new Map<string, number>()
    const parents = new Map<string, number>()
    for (let index = 0; index < count; index++) {
      if (thread === undefined && threaded.has(idOf(index))) continue
      const conversation = candidateOf(index)
      sums.set(conversation, (sums.get(conversation) ?? 0) + Math.exp(scoreOf(index) - highest))
      const parent = parents.get(conversation)
      if (parent === undefined || scoreOf(index) >= scoreOf(parent)) parents.set(conversation, index)
    }
    let best: string | null = thread ?? null
    if (best === null) {
      let most = Math.exp(scoreOf(count) - highest)
      for (const [conversation, sum] of sums) {
        if (sum > most) {
          best = conversation
          most = sum
        }
      }
    }
    const parent = best === null ? undefined : parents.get(best)
    return { conversationId: best, parentId: parent === undefined ? null : idOf(parent) }
  }

  function remember(message: LinkMessage & { conversationId: string }): void {
    window.push(message, message.conversationId)
    conversationOf.set(message.id, message.conversationId)
    if (message.threadId === null) return
    if (conversationOfThread.has(message.threadId)) threaded.add(message.id)
    else conversationOfThread.set(message.threadId, message.conversationId)
  }

  for (const message of recent) remember(message)
  return { link, remember }
}
