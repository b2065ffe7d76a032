import type { Sql } from '../db/database.ts'
import type { EmbeddingSpace, EntityKind } from '../embedding/spaces.ts'
import { InvalidInputError } from '../errors.ts'
import { noWords, parseQuery, type WordQuery } from '../words/query.ts'
import { decodeCursor, encodeCursor, searchFingerprint, shownKey } from './cursor.ts'
import { kindsUnderFilter, noFilter, type SearchFilter } from './filter.ts'
import { type KeywordCandidate, keywordStatement } from './keyword.ts'
import type { QueryVectors } from './query-vectors.ts'
import {
  addRelated,
  blend,
  blendDepth,
  type RankedHit,
  rankLeg,
  type SearchMode,
  sharesOf,
  similarityOf,
} from './rank.ts'
import { learners, type RelatedScore, relatedStatement } from './related.ts'
import {
  type Candidate,
  type FilteredCoverage,
  isRestricted,
  type Neighbour,
  neighboursStatement,
  readFilteredCoverage,
  type Statement,
  semanticStatement,
} from './statements.ts'

/** Pages end here: what is further down is no longer worth a reader's time, and costs more with each page. */
export const maxSearchDepth = 500
/** Rows of each kind and leg behind those that a hybrid search blends: pages may end so far down. */
const deepestLeg = maxSearchDepth + 1
/** So many of the best by words must be the best of all. */
const exactWords = 20
export const maxQueryLength = 10_000

export interface SearchParameters {
  query: string
  kinds: readonly EntityKind[]
  mode: SearchMode
  /** Least similarity, 0..1; a hit without a vector is dropped when it is set. */
  threshold: number | null
  filter: SearchFilter
  first: number
  after: string | null
}

export interface SearchHit {
  /** Held, not copied: copies of ten hits cost as much as a third of the execution of a search. */
  ranked: RankedHit
  /** Position in the whole list, from 1. */
  rank: number
  /** Grows with the rank: made where it is asked for. */
  cursor(): string
}

export interface SearchPage {
  hits: SearchHit[]
  hasNextPage: boolean
  kinds: EntityKind[]
  filter: SearchFilter
  /** What was looked for by words: read where it is asked for. */
  words(): WordQuery
}

export interface Search {
  /**
   * @throws InvalidInputError (query, cursor or depth)
   * @throws ProviderError if the query cannot be embedded
   */
  search(parameters: SearchParameters): Promise<SearchPage>
  /**
   * For each owner, at most `first` rows of a kind with at least the threshold's similarity, nearest first, without
   * itself.
   * @param of kind of the owners
   */
  neighbours(
    of: EntityKind,
    kind: EntityKind,
    ownerIds: readonly string[],
    first: number,
    threshold: number,
  ): Promise<Map<string, SearchPage>>
  coverage(kinds: readonly EntityKind[], filter: SearchFilter): Promise<FilteredCoverage>
  readonly space: EmbeddingSpace
}

export function createSearch(
  sql: Sql,
  space: EmbeddingSpace,
  queryVectors: Pick<QueryVectors, 'get'>,
): Search {
  const run = <Row extends object>({ text, values, name }: Statement) => sql.query<Row>(text, values, name)

  async function search(parameters: SearchParameters): Promise<SearchPage> {
    const query = readQuery(parameters.query)
    const words = once(() => parseQuery(query))
    const kinds = kindsUnderFilter(parameters.kinds, parameters.filter)
    const { mode, threshold, filter, first } = parameters
    const fingerprint = once(() => searchFingerprint([query, mode, kinds, threshold, filter, space.id]))
    const shown = parameters.after === null ? [] : decodeCursor(parameters.after, fingerprint())
    const depth = shown.length + first
    if (depth > maxSearchDepth) {
      throw new InvalidInputError(
        `This page would end at result ${depth}; a search shows ${maxSearchDepth} at the most. Narrow it by a filter or a better query.`,
        ['after'],
      )
    }
    const page = { kinds, filter, words }
    // Quotes and exclusions are said in words: a search by meaning reads the query as it stands.
    const meaning = mode === 'SEMANTIC' ? query.trim() : mode === 'HYBRID' ? words().meaning : ''
    if (kinds.length === 0) return { ...page, hits: [], hasNextPage: false }

    const vector = meaning === '' ? null : await queryVectors.get(meaning)
    const known = new Set(shown)
    const ranked =
      mode === 'SEMANTIC'
        ? await byMeaning(kinds, filter, vector, depth + 1, shown.length === 0)
        : mode === 'KEYWORD'
          ? rankLeg(await byWords(kinds, filter, words(), null, depth + 1, depth + 1, depth + 1), 'KEYWORD')
          : await byBoth(kinds, filter, words(), vector, depth + 1)
    const rest = ranked.filter(
      (hit) =>
        !known.has(shownKey(hit.id)) &&
        (threshold === null ||
          mode === 'KEYWORD' ||
          (hit.similarity !== null && hit.similarity >= threshold)),
    )
    return { ...page, ...toPage(rest, first, shown, fingerprint) }
  }

  /** @param withRows a first page shows nearly all rows that it finds; a later one leaves most of them out */
  async function byMeaning(
    kinds: readonly EntityKind[],
    filter: SearchFilter,
    vector: Buffer | null,
    limit: number,
    withRows: boolean,
  ): Promise<RankedHit[]> {
    if (vector === null) return []
    const found = await nearest(kinds, filter, noWords, vector, limit, { withRows })
    return rankLeg(found, 'SEMANTIC')
  }

  /**
   * The nearest rows of each kind. A scan of the index gives up after many rows that the filter leaves out; where one
   * brought up less than there may be, all rows that the filter leaves are gone through.
   */
  async function nearest(
    kinds: readonly EntityKind[],
    filter: SearchFilter,
    words: WordQuery,
    vector: Buffer,
    limit: number,
    options: { withRows?: boolean; total?: number },
  ): Promise<Candidate[]> {
    const ask = (of: readonly EntityKind[], scan: 'index' | 'exact') =>
      run<Candidate>(semanticStatement(space, of, filter, vector, limit, { ...options, words, scan }))
    const found = await ask(kinds, 'index')
    if (!isRestricted(filter, words) || found.length >= (options.total ?? limit)) return found
    const short = kinds.filter((kind) => {
      const ofKind = found.filter((row) => row.kind === kind)
      return ofKind.length < (ofKind[0]?.eligible ?? limit)
    })
    if (short.length === 0) return found
    const known = new Set(found.map(({ id }) => id))
    const missed = (await ask(short, 'exact')).filter(({ id }) => !known.has(id))
    if (missed.length === 0) return found
    return [...found, ...missed].sort(
      (a, b) => (a.distance ?? 2) - (b.distance ?? 2) || (a.id < b.id ? -1 : 1),
    )
  }

  async function byBoth(
    kinds: readonly EntityKind[],
    filter: SearchFilter,
    words: WordQuery,
    vector: Buffer | null,
    depth: number,
  ): Promise<RankedHit[]> {
    const limit = depth <= blendDepth ? blendDepth : deepestLeg
    const total = limit * kinds.length
    const [near, fit] = await Promise.all([
      vector === null ? [] : nearest(kinds, filter, words, vector, limit, { total }),
      byWords(kinds, filter, words, vector, limit, exactWords, total),
    ])
    const distance = near[0]?.distance ?? null
    const length = fit.reduce((sum, { averageLength }) => sum + averageLength, 0) / Math.max(fit.length, 1)
    const shares = sharesOf(space, distance === null ? null : similarityOf(distance), length)
    const hits = blend(near, fit, shares)
    if (shares.related === 0 || hits.length < 2) return hits
    const related = await run<RelatedScore>(relatedStatement(hits.slice(0, learners)))
    return addRelated(hits, new Map(related.map(({ id, score }) => [id, score])), shares)
  }

  /**
   * @param limit of each kind
   * @param exact so many of the best must be the best of all
   * @param total of all kinds
   */
  async function byWords(
    kinds: readonly EntityKind[],
    filter: SearchFilter,
    words: WordQuery,
    vector: Buffer | null,
    limit: number,
    exact: number,
    total: number,
  ): Promise<KeywordCandidate[]> {
    if (words.terms.length === 0) return []
    const ask = (floor: number | null) =>
      run<KeywordCandidate>(keywordStatement(space, kinds, filter, words, vector, limit, floor, total))
    const found = await ask(null)
    const floor = found[exact - 1]?.wordScore ?? 0
    return found[0] && floor >= found[0].unseen ? found : ask(floor)
  }

  async function neighbours(
    of: EntityKind,
    kind: EntityKind,
    ownerIds: readonly string[],
    first: number,
    threshold: number,
  ) {
    const rows = await run<Neighbour>(neighboursStatement(space, of, kind, noFilter, ownerIds, first + 1))
    const pages = new Map<string, SearchPage>()
    for (const ownerId of ownerIds) {
      const near = rows.filter(
        (row) => row.ownerId === ownerId && row.distance !== null && similarityOf(row.distance) >= threshold,
      )
      const fingerprint = once(() => searchFingerprint([of, kind, ownerId, threshold, space.id]))
      pages.set(ownerId, {
        kinds: [kind],
        filter: noFilter,
        words: () => noWords,
        ...toPage(rankLeg(near, 'SEMANTIC'), first, [], fingerprint),
      })
    }
    return pages
  }

  return {
    search,
    neighbours,
    coverage: (kinds, filter) => readFilteredCoverage(sql, space, kinds, filter),
    space,
  }
}

function toPage(
  ranked: readonly RankedHit[],
  first: number,
  shown: readonly string[],
  fingerprint: () => string,
): Pick<SearchPage, 'hits' | 'hasNextPage'> {
  const onPage = ranked.slice(0, first)
  const keys = once(() => [...shown, ...onPage.map(({ id }) => shownKey(id))])
  return {
    hits: onPage.map((hit, index) => {
      const rank = shown.length + index + 1
      return { ranked: hit, rank, cursor: () => encodeCursor(keys().slice(0, rank), fingerprint()) }
    }),
    hasNextPage: ranked.length > first,
  }
}

/** Computed at the first call: most pages are shown without what only some fields need. */
function once<Value>(compute: () => Value): () => Value {
  let known: { value: Value } | null = null
  return () => {
    known ??= { value: compute() }
    return known.value
  }
}

/** Any text is a query; only what Postgres cannot take (NUL, halves of characters) becomes a space. */
function readQuery(query: string): string {
  if (query.length > maxQueryLength) {
    throw new InvalidInputError(
      `The query has ${query.length} characters; at most ${maxQueryLength} are allowed`,
      ['query'],
    )
  }
  return query.toWellFormed().replaceAll('\0', ' ')
}
