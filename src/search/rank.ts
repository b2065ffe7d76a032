import { rowFromJson, type SearchRow } from '../db/rows.ts'
import type { EntityKind } from '../embedding/spaces.ts'
import type { Candidate } from './statements.ts'

export const searchModes = ['HYBRID', 'SEMANTIC', 'KEYWORD'] as const
export type SearchMode = (typeof searchModes)[number]

export interface RankedHit {
  kind: EntityKind
  id: string
  /** What the order is by: similarity (SEMANTIC), fit of the words (KEYWORD) or their blend (HYBRID); 0..1. */
  score: number
  /** 0..1, see `similarityOf`; null where the row has no vector. */
  similarity: number | null
  semanticRank: number | null
  keywordRank: number | null
  keywordScore: number | null
  /** The row, where the search has read it already. */
  row: SearchRow | null
}

/** Share of meaning in a hybrid score; words have the rest. */
const semanticShare = 0.5

/** 1 - cosineDistance / 2: 1 is identical, 0.5 unrelated, 0 opposite. The scale of every threshold. */
export const similarityOf = (distance: number): number => 1 - distance / 2

/**
 * Blends the legs: every row that either leg found is scored by both, each leg's scores scaled to 0..1 over the rows
 * found (min-max). Ranks alone (reciprocal rank fusion) would let a weak leg drag a strong one down.
 */
export function rankHits(
  semantic: readonly Candidate[],
  keyword: readonly Candidate[],
  mode: SearchMode,
): RankedHit[] {
  const hits = new Map<string, RankedHit>()
  const hitOf = (candidate: Candidate): RankedHit => {
    const known = hits.get(candidate.id)
    if (known) return known
    const hit: RankedHit = {
      kind: candidate.kind,
      id: candidate.id,
      score: 0,
      similarity: candidate.distance === null ? null : similarityOf(candidate.distance),
      semanticRank: null,
      keywordRank: null,
      keywordScore: null,
      row: candidate.row ? rowFromJson(candidate.row) : null,
    }
    hits.set(candidate.id, hit)
    return hit
  }
  for (const [index, candidate] of semantic.entries()) hitOf(candidate).semanticRank = index + 1
  for (const [index, candidate] of keyword.entries()) {
    const hit = hitOf(candidate)
    hit.keywordRank = index + 1
    hit.keywordScore = candidate.wordScore
  }
  const all = [...hits.values()]
  const meaning = scale(all.map((hit) => hit.similarity))
  const words = scale(all.map((hit) => hit.keywordScore))
  for (const [index, hit] of all.entries()) {
    if (mode === 'SEMANTIC') hit.score = hit.similarity ?? 0
    else if (mode === 'KEYWORD') hit.score = hit.keywordScore ?? 0
    else hit.score = semanticShare * (meaning[index] ?? 0) + (1 - semanticShare) * (words[index] ?? 0)
  }
  return all.sort(byScore)
}

/** Best first; equal scores by id, so that the order is the same on every page. */
export function byScore(a: { score: number; id: string }, b: { score: number; id: string }): number {
  return b.score - a.score || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
}

function scale(scores: readonly (number | null)[]): number[] {
  const present = scores.filter((score) => score !== null)
  const least = Math.min(...present)
  const most = Math.max(...present)
  return scores.map((score) => {
    if (score === null) return 0
    return most > least ? (score - least) / (most - least) : 1
  })
}
