import { rowFromJson, type SearchRow } from '../db/rows.ts'
import type { EntityKind } from '../embedding/spaces.ts'
import type { Calibration } from '../providers/provider.ts'
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
  /** How well it fits the words of the best hits, 0..1; null where that was not asked. */
  relatedScore: number | null
  /** The row, where the search has read it already. */
  row: SearchRow | null
}

/** What each part of a hybrid score counts; the three together count 1. */
export interface Shares {
  meaning: number
  words: number
  /** Words of the best hits. */
  related: number
}

/** 1 - cosineDistance / 2: 1 is identical, 0.5 unrelated, 0 opposite. The scale of every threshold. */
export const similarityOf = (distance: number): number => 1 - distance / 2

/**
 * Candidates of each leg and kind that a blend scores together. Scores are scaled over them, so that it must be the same
 * on every page.
 */
export const blendDepth = 100

/** So much more counts meaning where a text says the same as the query than where none is near. */
const meaningGain = 0.4
/** Words of the best hits, as a share of what the words of the query count. */
const relatedWorth = 0.45
/** Around the similarity from which on two texts say the same: below and above it is clear whether they do. */
const sameMargin = 0.03

/** Words of a text, on average, up to which texts are short and from which on they are long. */
const shortText = 20
const longText = 50

/**
 * What counts how much for a query. The nearer in meaning its nearest text is, the better the model has understood it:
 * then meaning counts more, and the words of further hits, which cannot be as near, less.
 * @param nearest similarity of the nearest row; null if none was found
 * @param length words of a text, on average over the texts that were found
 */
export function sharesOf(
  { meaningShare, meaningShareLong, duplicate }: Calibration,
  nearest: number | null,
  length: number,
): Shares {
  const sure = nearest === null ? 0 : (nearest - duplicate + sameMargin) / (2 * sameMargin)
  const saysTheSame = within01(sure)
  const isLong = within01((length - shortText) / (longText - shortText))
  const usual = meaningShare + (meaningShareLong - meaningShare) * isLong
  const meaning = Math.min(1, usual + meaningGain * saysTheSame)
  const related = (1 - meaning) * relatedWorth * (1 - saysTheSame)
  const all = 1 + related
  return { meaning: meaning / all, words: (1 - meaning) / all, related: related / all }
}

const within01 = (value: number) => Math.min(1, Math.max(0, value))

/** The rows of one leg, as it ordered them. */
export function rankLeg(found: readonly Candidate[], mode: 'SEMANTIC' | 'KEYWORD'): RankedHit[] {
  const hits = found.map(unranked)
  for (const [index, hit] of hits.entries()) {
    if (mode === 'SEMANTIC') {
      hit.semanticRank = index + 1
      hit.score = hit.similarity ?? 0
    } else {
      hit.keywordRank = index + 1
      hit.keywordScore = found[index]?.wordScore ?? null
      hit.score = hit.keywordScore ?? 0
    }
  }
  return hits.sort(byScore)
}

/**
 * Blends the legs: every row that either leg found is scored by both, each leg's scores scaled over the rows found, of
 * meaning from the least to the most, of words from none. Ranks alone (reciprocal rank fusion) would let a weak leg drag
 * a strong one down. The best `blendDepth` of each kind and leg come first; what only a deeper look found comes behind.
 */
export function blend(
  semantic: readonly Candidate[],
  keyword: readonly Candidate[],
  shares: Shares,
): RankedHit[] {
  const hits = new Map<string, RankedHit>()
  const add = (
    legs: [Candidate[], Candidate[]],
    ranks: [number, number],
    isKept: (hit: RankedHit) => boolean,
  ) => {
    for (const [leg, candidates] of legs.entries()) {
      for (const [index, candidate] of candidates.entries()) {
        const hit = hits.get(candidate.id) ?? unranked(candidate)
        if (isKept(hit)) continue
        hits.set(candidate.id, hit)
        if (leg === 0) hit.semanticRank = ranks[0] + index + 1
        else {
          hit.keywordRank = ranks[1] + index + 1
          hit.keywordScore = candidate.wordScore
        }
      }
    }
  }
  const [nearest, near] = split(semantic)
  const [fittest, fit] = split(keyword)
  add([nearest, fittest], [0, 0], () => false)
  // A deeper look must not change what stands on the pages before.
  const first = new Set(hits.values())
  add([near, fit], [nearest.length, fittest.length], (hit) => first.has(hit))

  const meanings = [...first].flatMap(({ similarity }) => similarity ?? [])
  const [least, most] = [Math.min(...meanings), Math.max(...meanings)]
  const mostWords = Math.max(...[...first].map(({ keywordScore }) => keywordScore ?? 0))
  for (const hit of hits.values()) {
    const { similarity, keywordScore } = hit
    const meaning = similarity === null ? 0 : most > least ? (similarity - least) / (most - least) : 1
    const words = keywordScore !== null && mostWords > 0 ? keywordScore / mostWords : 0
    hit.score = shares.meaning * Math.max(0, meaning) + shares.words * words
  }
  const ranked = [...first].sort(byScore)
  const last = ranked.at(-1)?.score ?? 1
  const rest = [...hits.values()].filter((hit) => !first.has(hit))
  for (const hit of rest) hit.score = Math.min(hit.score, last)
  return [...ranked, ...rest.sort(byScore)]
}

/**
 * Adds what the words of the best hits say of each, scaled from the least to the most.
 * @param related of the first of `hits`: those without one gain nothing
 */
export function addRelated(
  hits: readonly RankedHit[],
  related: ReadonlyMap<string, number>,
  shares: Shares,
): RankedHit[] {
  const [least, most] = [Math.min(...related.values()), Math.max(...related.values())]
  if (!(most > least)) return [...hits]
  const scored = hits.map((hit) => {
    const own = related.get(hit.id)
    if (own === undefined) return hit
    const relatedScore = (own - least) / (most - least)
    return { ...hit, relatedScore, score: hit.score + shares.related * relatedScore }
  })
  const rescored = scored.filter(({ relatedScore }) => relatedScore !== null)
  const rest = scored.filter(({ relatedScore }) => relatedScore === null)
  return [...rescored.sort(byScore), ...rest]
}

/** Best first; equal scores by id, so that the order is the same on every page. */
export function byScore(a: { score: number; id: string }, b: { score: number; id: string }): number {
  return b.score - a.score || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
}

/** The first rows of each kind, and those behind them, in their order. */
function split(found: readonly Candidate[]): [Candidate[], Candidate[]] {
  const counts = new Map<EntityKind, number>()
  const isFirst = found.map(({ kind }) => {
    const count = (counts.get(kind) ?? 0) + 1
    counts.set(kind, count)
    return count <= blendDepth
  })
  return [found.filter((_, index) => isFirst[index]), found.filter((_, index) => !isFirst[index])]
}

function unranked(candidate: Candidate): RankedHit {
  return {
    kind: candidate.kind,
    id: candidate.id,
    score: 0,
    similarity: candidate.distance === null ? null : similarityOf(candidate.distance),
    semanticRank: null,
    keywordRank: null,
    keywordScore: null,
    relatedScore: null,
    row: candidate.row ? rowFromJson(candidate.row) : null,
  }
}
