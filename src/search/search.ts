import type { Sql } from '../db/database.ts'
import type { EmbeddingSpace, EntityKind } from '../embedding/spaces.ts'
import { InvalidInputError } from '../errors.ts'
import { noWords, parseQuery, type WordQuery } from '../words/query.ts'
import { decodeCursor, encodeCursor, searchFingerprint, shownKey } from './cursor.ts'
import { kindsUnderFilter, noFilter, type SearchFilter } from './filter.ts'
import { type KeywordCandidate, keywordStatement } from './keyword.ts'
import type { QueryVectors } from './query-vectors.ts'
import { type RankedHit, rankHits, type SearchMode, similarityOf } from './rank.ts'
import {
  type Candidate,
  type FilteredCoverage,
  type Neighbour,
  neighboursStatement,
  readFilteredCoverage,
  type Statement,
  semanticStatement,
} from './statements.ts'

/** Pages end here: what is further down is no longer worth a reader's time, and costs more with each page. */
export const maxSearchDepth = 500
/** Candidates of each leg that a hybrid search blends: the same on every page, because a score depends on all of them. */
const hybridDepth = maxSearchDepth + 1
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

export interface SearchHit extends RankedHit {
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
  /** What was looked for by words. */
  words: WordQuery
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

export function createSearch(sql: Sql, space: EmbeddingSpace, queryVectors: QueryVectors): Search {
  const run = <Row extends object>({ text, values, name }: Statement) => sql.query<Row>(text, values, name)

  async function search(parameters: SearchParameters): Promise<SearchPage> {
    const query = readQuery(parameters.query)
    const words = parseQuery(query)
    const kinds = kindsUnderFilter(parameters.kinds, parameters.filter)
    const { mode, threshold, filter, first } = parameters
    const fingerprint = searchFingerprint([query, mode, kinds, threshold, filter, space.id])
    const shown = parameters.after === null ? [] : decodeCursor(parameters.after, fingerprint)
    const depth = shown.length + first
    if (depth > maxSearchDepth) {
      throw new InvalidInputError(
        `This page would end at result ${depth}; a search shows ${maxSearchDepth} at the most. Narrow it by a filter or a better query.`,
        ['after'],
      )
    }
    const page = { kinds, filter, words }
    // Quotes and exclusions are said in words: a search by meaning reads the query as it stands.
    const meaning = mode === 'SEMANTIC' ? query.trim() : mode === 'HYBRID' ? words.meaning : ''
    if (kinds.length === 0) return { ...page, hits: [], hasNextPage: false }

    const vector = meaning === '' ? null : await queryVectors.get(meaning)
    const limit = mode === 'HYBRID' ? hybridDepth : depth + 1
    // A first page by meaning shows nearly all rows that it finds; a blend or a later page leaves most of them out.
    const withRows = mode === 'SEMANTIC' && shown.length === 0
    const conditions = mode === 'HYBRID' ? words : null
    const [semantic, keyword] = await Promise.all([
      vector === null
        ? []
        : run<Candidate>(
            semanticStatement(space, kinds, filter, vector, limit, { words: conditions, withRows }),
          ),
      mode === 'SEMANTIC'
        ? []
        : byWords(kinds, filter, words, vector, limit, mode === 'HYBRID' ? 50 : depth + 1),
    ])
    const known = new Set(shown)
    const rest = rankHits(semantic, keyword, mode).filter(
      (hit) =>
        !known.has(shownKey(hit.id)) &&
        (threshold === null ||
          mode === 'KEYWORD' ||
          (hit.similarity !== null && hit.similarity >= threshold)),
    )
    return { ...page, ...toPage(rest, first, shown, fingerprint) }
  }

  /** @param exact so many of the best must be the best of all */
  async function byWords(
    kinds: readonly EntityKind[],
    filter: SearchFilter,
    words: WordQuery,
    vector: Buffer | null,
    limit: number,
    exact: number,
  ): Promise<Candidate[]> {
    if (words.terms.length === 0) return []
    const ask = (reach: 'rare' | 'all') =>
      run<KeywordCandidate>(keywordStatement(space, kinds, filter, words, vector, limit, reach))
    const found = await ask('rare')
    const last = found[exact - 1]
    const unseen = found[0]?.unseen ?? 1
    if (unseen === 0 || (last && last.wordScore >= unseen)) return found
    return ask('all')
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
      const fingerprint = searchFingerprint([of, kind, ownerId, threshold, space.id])
      pages.set(ownerId, {
        kinds: [kind],
        filter: noFilter,
        words: noWords,
        ...toPage(rankHits(near, [], 'SEMANTIC'), first, [], fingerprint),
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
  fingerprint: string,
): Pick<SearchPage, 'hits' | 'hasNextPage'> {
  const hits = ranked.slice(0, first)
  const keys = [...shown, ...hits.map(({ id }) => shownKey(id))]
  return {
    hits: hits.map((hit, index) => {
      const rank = shown.length + index + 1
      return { ...hit, rank, cursor: () => encodeCursor(keys.slice(0, rank), fingerprint) }
    }),
    hasNextPage: ranked.length > first,
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
