import type { RetrievalDocument } from './search-data.ts'

/** Saturation of the count of a word, and weight of the length of a document: the usual values (Robertson and Zaragoza, 2009). */
const k1 = 1.2
const b = 0.75

/**
 * Cut off at the first that leaves three letters: enough to hold English words of one stem together. It is no part of
 * what is measured, so it stays as simple as the reference that the aims were set by.
 */
const suffixes = ['ies', 'ing', 'ed', 'es', 's', 'e']

/**
 * A ranking by words to hold the product's own against, which shares no line with it: Okapi BM25 (Robertson et al.,
 * 1994) with the idf of Lucene, log(1 + (N - n + 0.5) / (n + 0.5)), which is never negative. Each word of a query
 * counts once.
 * @returns ids, best first; equal scores by the order of the documents
 */
export function createBm25(
  documents: readonly RetrievalDocument[],
): (query: string, depth: number) => string[] {
  const postings = new Map<string, Map<number, number>>()
  const lengths = documents.map(({ text }, number) => {
    const stems = stemsOf(text)
    for (const stem of stems) {
      const counts = postings.get(stem) ?? new Map<number, number>()
      postings.set(stem, counts.set(number, (counts.get(number) ?? 0) + 1))
    }
    return stems.length
  })
  const meanLength = lengths.reduce((sum, length) => sum + length, 0) / lengths.length

  return (query, depth) => {
    const scores = new Map<number, number>()
    for (const stem of new Set(stemsOf(query))) {
      const counts = postings.get(stem) ?? new Map<number, number>()
      const idf = Math.log(1 + (documents.length - counts.size + 0.5) / (counts.size + 0.5))
      for (const [number, count] of counts) {
        const norm = k1 * (1 - b + (b * (lengths[number] ?? 0)) / meanLength)
        scores.set(number, (scores.get(number) ?? 0) + (idf * count * (k1 + 1)) / (count + norm))
      }
    }
    return [...scores]
      .sort(([a, scoreA], [b, scoreB]) => scoreB - scoreA || a - b)
      .slice(0, depth)
      .flatMap(([number]) => documents[number]?.id ?? [])
  }
}

function stemsOf(text: string): string[] {
  return (text.toLowerCase().match(/[\p{L}\p{M}\p{N}]+/gu) ?? []).map((word) => {
    const suffix = suffixes.find((own) => word.endsWith(own) && word.length - own.length >= 3)
    return suffix ? word.slice(0, -suffix.length) : word
  })
}
