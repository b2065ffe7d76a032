import type { Quote } from '../knowledge/citations.ts'
import type { Extraction, ExtractionBatch, ProposedAtom, ProposedLink, ProposedTopic } from './extractor.ts'

export interface ProvenAtom extends Omit<ProposedAtom, 'citations'> {
  quotes: Quote[]
}

/** What is left of an answer once everything is gone that is unsure or that nothing proves. */
export interface ProvenExtraction {
  topics: ProposedTopic[]
  atoms: ProvenAtom[]
  links: ProposedLink[]
  dropped: {
    unsureTopics: number
    unsureAtoms: number
    inventedQuotes: number
    unprovenAtoms: number
    brokenLinks: number
  }
}

/**
 * Keeps of an answer what is sure enough and proven by the messages that were given: a quote must stand in its message
 * word for word, an atom needs one, a link both its ends.
 * @param minConfidence 0..1; what is below is dropped
 */
export function proveExtraction(
  extraction: Extraction,
  batch: ExtractionBatch,
  minConfidence: number,
): ProvenExtraction {
  const contents = new Map(batch.messages.map(({ id, content }) => [id, content]))
  const known = new Set(batch.topics.map(({ id }) => id))
  const dropped = { unsureTopics: 0, unsureAtoms: 0, inventedQuotes: 0, unprovenAtoms: 0, brokenLinks: 0 }

  const topics = extraction.topics
    .filter(({ key, confidence }) => known.has(key) || confidence >= minConfidence)
    .map((topic) => ({ ...topic, messageIds: topic.messageIds.filter((id) => contents.has(id)) }))
  dropped.unsureTopics = extraction.topics.length - topics.length

  const sure = extraction.atoms.filter(({ confidence }) => confidence >= minConfidence)
  dropped.unsureAtoms = extraction.atoms.length - sure.length
  const atoms = sure
    .map(({ citations, ...atom }): ProvenAtom => {
      const quotes = new Map<string, Quote>()
      for (const { messageId, quote } of citations) {
        const found = findQuote(contents.get(messageId), quote)
        if (found) quotes.set(`${messageId} ${found.start}`, { messageId, ...found })
        else dropped.inventedQuotes++
      }
      return { ...atom, quotes: [...quotes.values()] }
    })
    .filter(({ quotes }) => quotes.length > 0)
  dropped.unprovenAtoms = sure.length - atoms.length

  const ends = new Set([...atoms.map(({ key }) => key), ...batch.atoms.map(({ id }) => id)])
  const links = extraction.links.filter(({ from, to }) => from !== to && ends.has(from) && ends.has(to))
  dropped.brokenLinks = extraction.links.length - links.length
  return { topics, atoms, links, dropped }
}

function findQuote(content: string | undefined, quote: string): { quote: string; start: number } | null {
  const text = quote.trim()
  const start = text === '' ? -1 : (content?.indexOf(text) ?? -1)
  return start < 0 ? null : { quote: text, start }
}
