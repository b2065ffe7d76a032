import { setImmediate } from 'node:timers/promises'
import type { Extraction, ExtractionBatch } from '../extractor.ts'
import { readConversations } from './dialogue.ts'
import { proposeAtoms } from './propose.ts'
import { proposeTopics } from './topics.ts'

/** What the rules propose. @throws the signal's reason, between two conversations */
export async function extract(batch: ExtractionBatch, signal: AbortSignal): Promise<Extraction> {
  signal.throwIfAborted()
  const conversations = readConversations(batch.messages)
  const { atoms, links } = await proposeAtoms(conversations, async () => {
    // The rules run in the server's own thread: requests get their turn between two conversations.
    await setImmediate()
    signal.throwIfAborted()
  })
  const topics = proposeTopics(conversations, batch.topics, atoms)
  return {
    topics,
    atoms: atoms.map(({ rule: _, conversationId: __, ...atom }) => atom),
    links,
    usage: { tokensIn: 0, tokensOut: 0 },
  }
}
