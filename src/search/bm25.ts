import type { EntityKind } from '../embedding/spaces.ts'

/*
 * Of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009): how soon a word that
 * is said again says nothing more, and how much of a text's length counts.
 */
export const k1 = 1.2
const b = 0.75

/**
 * SQL: what is added to the occurrences of a word below the line, by the length of the text. A word counts
 * `occurrences / (occurrences + damping)`, times k1 + 1.
 */
export const dampingOf = (kind: EntityKind, wordCount: string): string =>
  `${k1 * (1 - b)} + (select ${k1 * b} / average_length from word_statistics where kind = '${kind}') * ${wordCount}`
