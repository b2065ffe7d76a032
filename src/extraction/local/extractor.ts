import { setImmediate } from 'node:timers/promises'
import type { Extraction, ExtractionBatch, Extractor } from '../extractor.ts'
import { readConversations } from './dialogue.ts'
import { proposeAtoms } from './propose.ts'
import { proposeTopics } from './topics.ts'

/**
 * The extractor that needs no language model: rules over sentences, parts of speech and the structure of a dialogue. It
 * reads English, some Russian, and of other languages their structure only. It would rather miss something than propose
 * what is not there.
 */
export function createLocalExtractor(): Extractor {
  return {
    type: 'local',
    model: 'rules',
    extract,
    close: async () => {},
  }
}

async function extract(batch: ExtractionBatch, signal: AbortSignal): Promise<Extraction> {
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
