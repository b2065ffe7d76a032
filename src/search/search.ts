import type { Sql } from '../db/database.ts'
import type { EmbeddingSpace, EntityKind } from '../embedding/spaces.ts'
import { InvalidInputError } from '../errors.ts'
import { decodeCursor, encodeCursor, searchFingerprint } from './cursor.ts'
import { kindsUnderFilter, noFilter, type SearchFilter } from './filter.ts'
import type { QueryVectors } from './query-vectors.ts'
import { byScore, type RankedHit, rankHits, type SearchMode, similarityOf } from './rank.ts'
import {
  type Candidate,
  type FilteredCoverage,
  keywordStatement,
  type Neighbour,
  neighboursStatement,
  readFilteredCoverage,
  type Statement,
  semanticStatement,
} from './statements.ts'

/** Pages end here: what is further down is no longer worth a reader's time, and costs more with each page. */
export const maxSearchDepth = 500
/**
 * Candidates of each leg that a hybrid search blends: the same on every page, because a score depends on all of them,
 * and with more candidates rows would move to pages that have been read.
 */
const hybridDepth = maxSearchDepth
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
  cursor: string
}

export interface SearchPage {
  hits: SearchHit[]
  hasNextPage: boolean
  kinds: EntityKind[]
  filter: SearchFilter
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
    const kinds = kindsUnderFilter(parameters.kinds, parameters.filter)
    const { mode, threshold, filter, first } = parameters
    const fingerprint = searchFingerprint([query, mode, kinds, threshold, filter, space.id])
    const after = parameters.after === null ? null : decodeCursor(parameters.after, fingerprint)
    const depth = (after?.rank ?? 0) + first
    if (depth > maxSearchDepth) {
      throw new InvalidInputError(
        `This page would end at result ${depth}; a search shows ${maxSearchDepth} at the most. Narrow it by a filter or a better query.`,
        ['after'],
      )
    }
    if (kinds.length === 0 || query === '') return { hits: [], hasNextPage: false, kinds, filter }

    const vector = mode === 'KEYWORD' ? null : await queryVectors.get(query)
    const limit = mode === 'HYBRID' ? hybridDepth + 1 : depth + 1
    // A first page by meaning shows nearly all rows that it finds; a blend or a later page leaves most of them out.
    const withRows = mode === 'SEMANTIC' && after === null
    const [semantic, keyword] = await Promise.all([
      vector === null ? [] : run<Candidate>(semanticStatement(space, kinds, filter, vector, limit, withRows)),
      mode === 'SEMANTIC' ? [] : run<Candidate>(keywordStatement(space, kinds, filter, query, vector, limit)),
    ])
    const ranked = rankHits(semantic, keyword, mode).filter(
      (hit) =>
        threshold === null || mode === 'KEYWORD' || (hit.similarity !== null && hit.similarity >= threshold),
    )
    const rest = after ? ranked.filter((hit) => byScore(after, hit) < 0) : ranked
    const page = toPage(rest, first, after?.rank ?? 0, fingerprint, kinds, filter)
    // By the number of all hits, too: a scan with another limit may find a row above the cursor that it missed before,
    // and then there is one less below.
    return { ...page, hasNextPage: page.hasNextPage || (page.hits.length > 0 && ranked.length > depth) }
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
      pages.set(ownerId, toPage(rankHits(near, [], 'SEMANTIC'), first, 0, fingerprint, [kind], noFilter))
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
  ranked: RankedHit[],
  first: number,
  rankBefore: number,
  fingerprint: string,
  kinds: EntityKind[],
  filter: SearchFilter,
): SearchPage {
  return {
    hits: ranked.slice(0, first).map((hit, index) => {
      const rank = rankBefore + index + 1
      return { ...hit, rank, cursor: encodeCursor({ score: hit.score, id: hit.id, rank }, fingerprint) }
    }),
    hasNextPage: ranked.length > first,
    kinds,
    filter,
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
  return query.toWellFormed().replaceAll('\0', ' ').trim()
}
