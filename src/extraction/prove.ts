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
  /** The same, one by one, with the reason. */
  rejections: Rejection[]
}

/** A part of an answer that is not saved. */
export interface Rejection {
  kind: 'TOPIC' | 'ATOM' | 'CITATION' | 'LINK'
  /** The topic's name, the atom's title, the quote, the titles of both ends. */
  text: string
  /** A sentence. */
  reason: string
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

  const rejections: Rejection[] = []
  const isSure = (kind: 'TOPIC' | 'ATOM', text: string, confidence: number) => {
    if (confidence >= minConfidence) return true
    rejections.push({ kind, text, reason: `Its confidence is ${confidence}, below ${minConfidence}.` })
    return false
  }

  const topics = extraction.topics
    .filter(({ key, name, confidence }) => known.has(key) || isSure('TOPIC', name, confidence))
    .map((topic) => ({ ...topic, messageIds: topic.messageIds.filter((id) => contents.has(id)) }))
  dropped.unsureTopics = extraction.topics.length - topics.length

  const sure = extraction.atoms.filter(({ title, confidence }) => isSure('ATOM', title, confidence))
  dropped.unsureAtoms = extraction.atoms.length - sure.length
  const atoms = sure
    .map(({ citations, ...atom }): ProvenAtom => {
      const quotes = new Map<string, Quote>()
      for (const { messageId, quote } of citations) {
        const found = findQuote(contents.get(messageId), quote)
        if (found) quotes.set(`${messageId} ${found.start}`, { messageId, ...found })
        else {
          dropped.inventedQuotes++
          const reason = 'It does not stand in the message that it is said to be from, word for word.'
          rejections.push({ kind: 'CITATION', text: quote, reason })
        }
      }
      return { ...atom, quotes: [...quotes.values()] }
    })
    .filter(({ title, quotes }) => {
      if (quotes.length > 0) return true
      rejections.push({
        kind: 'ATOM',
        text: title,
        reason: 'No message proves it: none of its quotes is real.',
      })
      return false
    })
  dropped.unprovenAtoms = sure.length - atoms.length

  const ends = new Set([...atoms.map(({ key }) => key), ...batch.atoms.map(({ id }) => id)])
  const titles = new Map([
    ...extraction.atoms.map(({ key, title }) => [key, title] as const),
    ...batch.atoms.map(({ id, title }) => [id, title] as const),
  ])
  const links = extraction.links.filter(({ from, to, type }) => {
    if (from !== to && ends.has(from) && ends.has(to)) return true
    const text = `${titles.get(from) ?? from} ${type} ${titles.get(to) ?? to}`
    const reason = from === to ? 'It leads to itself.' : 'One of its atoms is not there, or is not kept.'
    rejections.push({ kind: 'LINK', text, reason })
    return false
  })
  dropped.brokenLinks = extraction.links.length - links.length
  return { topics, atoms, links, dropped, rejections }
}

function findQuote(content: string | undefined, quote: string): { quote: string; start: number } | null {
  const text = quote.trim()
  const start = text === '' ? -1 : (content?.indexOf(text) ?? -1)
  return start < 0 ? null : { quote: text, start }
}
