import type { EmbeddingCoverage } from './coverage.ts'
import type { EntityKind } from './space.ts'

/** How the answers of a space compare with those of the space that was active at the time. */
export interface SpaceComparison {
  /** RFC 3339. */
  comparedAt: string
  /** The active space of that time. */
  activeSpaceId: number
  /** Share of what can be embedded that was READY in the compared space, 0..1, apart from what was just arriving. */
  ready: number
  /** Queries that were asked in both, saved ones first. */
  queries: number
  /** Of these, such with judgements. */
  judgedQueries: number
  /** Share of the first ten that both have, 0..1, on average; null if no query had an answer in both. */
  overlap: number | null
  /** Spearman's coefficient of the order of what both have, -1..1, on average; null where nothing can be ordered. */
  rankCorrelation: number | null
  /** Share of the queries with no answer at all, 0..1: in the active space and in the compared one. */
  emptyActive: number
  emptyCompared: number
  /** nDCG of the first ten, 0..1, on average; null without judged queries. */
  ndcgActive: number | null
  ndcgCompared: number | null
}

export const gateConditions = ['READY', 'INDEXED', 'COMPARED', 'EMPTY_ANSWERS', 'NDCG'] as const

/** One of what must be true before searches change over to a space. */
export interface GateCondition {
  name: (typeof gateConditions)[number]
  isMet: boolean
  /** What was found and what is expected, for people. */
  text: string
}

/** What is known of a space. */
export interface GateFacts {
  coverage: readonly Pick<EmbeddingCoverage, 'total' | 'skipped' | 'ready'>[]
  /**
   * PENDING since a moment ago. Not counted: where people write all the time, some are at every moment, and in a small
   * database they are more than 1 in 1,000. After ten seconds they do count (see countArriving).
   */
  arriving: number
  indexes: readonly { kind: EntityKind; isUsable: boolean }[]
  /** Null: not compared with the space that is active now. */
  comparison: SpaceComparison | null
  /** Searches have used it before: its answers are known, and the way back must be short. */
  wasActive: boolean
}

/** 1 in 1,000 may have failed: more would be missed, and for less nobody should have to force it. */
export const leastReady = 0.999
/**
 * By how much nDCG@10 may lie below that of the active space. The mean over 50 judged queries, which is many for a
 * team, wanders by about as much from one set of queries to the next (Buckley and Voorhees, 2000).
 */
export const mostNdcgLoss = 0.02

/** Share of what can be embedded that is READY, 0..1, apart from what is arriving; 1 when there is nothing to embed. */
export function readyShare({ coverage, arriving }: Pick<GateFacts, 'coverage' | 'arriving'>): number {
  const embeddable = coverage.reduce((sum, { total, skipped }) => sum + total - skipped, 0)
  const ready = coverage.reduce((sum, kind) => sum + kind.ready, 0)
  // Counted a moment later than the rest: some may have become READY, or have come, in between.
  const expected = Math.max(ready, embeddable - arriving)
  return expected === 0 ? 1 : ready / expected
}

/**
 * What must be true before searches change over to a space. How much the first ten have in common is no condition: of two
 * good models each finds what the other does not.
 */
export function judgeGate({
  coverage,
  arriving,
  indexes,
  comparison,
  wasActive,
}: GateFacts): GateCondition[] {
  const ready = readyShare({ coverage, arriving })
  const apart = arriving > 0 ? `, apart from ${arriving} of the last seconds,` : ''
  const missing = indexes.filter(({ isUsable }) => !isUsable).map(({ kind }) => kind)
  const conditions: GateCondition[] = [
    {
      name: 'READY',
      isMet: ready >= leastReady,
      text: `${percent(ready)} of what can be embedded${apart} is READY; at least ${percent(leastReady)} is expected`,
    },
    {
      name: 'INDEXED',
      isMet: missing.length === 0,
      text:
        missing.length === 0
          ? 'Every kind has a vector index that can be used'
          : `The vector index of ${missing.join(' and of ')} is not there yet: it is built as soon as most vectors are`,
    },
  ]
  return wasActive ? conditions : [...conditions, ...judgeComparison(comparison)]
}

function judgeComparison(comparison: SpaceComparison | null): GateCondition[] {
  if (comparison === null) {
    const text =
      'It is not compared with the active space, or was when less was READY: call compareEmbeddingSpaces'
    return [{ name: 'COMPARED', isMet: false, text }]
  }
  const { queries, judgedQueries, emptyActive, emptyCompared, ndcgActive, ndcgCompared } = comparison
  const conditions: GateCondition[] = [
    {
      name: 'COMPARED',
      isMet: true,
      text:
        queries === 0
          ? 'There was no query to compare with: nobody has searched yet, and none is saved'
          : `Compared by ${queries} queries`,
    },
    {
      name: 'EMPTY_ANSWERS',
      isMet: emptyCompared <= emptyActive,
      text: `${percent(emptyCompared)} of the answers are empty; at most the ${percent(emptyActive)} of the active space are expected`,
    },
  ]
  if (ndcgActive === null || ndcgCompared === null) return conditions
  return [
    ...conditions,
    {
      name: 'NDCG',
      isMet: ndcgCompared >= ndcgActive - mostNdcgLoss,
      text: `nDCG@10 of ${judgedQueries} judged queries is ${ndcgCompared.toFixed(3)}; at least ${(ndcgActive - mostNdcgLoss).toFixed(3)} is expected (${ndcgActive.toFixed(3)} in the active space)`,
    },
  ]
}

/** Rounded down: 99.899 % must not read as 99.9 %. */
const percent = (share: number) => `${(Math.floor(share * 100_000) / 1000).toString()} %`
