import type { Sql } from '../db/database.ts'
import { insertRecentQueries } from './search-queries.ts'
import { vectorArrayBytes } from './vectors.ts'

/** Vectors of searches that are kept for a space: the newest. */
const maxKept = 200
/** Of those that come between two times that they are stored: a busy minute must not push out all others. */
const maxWaiting = 20

/** Where searches get the vectors of their queries, in pgvector's binary format; the same buffer is the same query. */
interface QueryVectorSource {
  get(query: string): Promise<Buffer | null>
}

/**
 * Takes vectors of real searches, to measure recall with, and what was asked, to compare two models with; both are
 * stored when index care looks, never by a request.
 */
export interface SearchSample {
  /** The same vectors of queries, of which some are taken. @param space that they are of */
  of<Source extends QueryVectorSource>(source: Source, space: { id: number }): Source
  /** Stores what was offered. @param vectorType see readVectorType */
  store(sql: Sql, vectorType: number): Promise<void>
}

/** @param keepsQueries whether the words of searches are kept, too */
export function createSearchSample(keepsQueries: boolean): SearchSample {
  const seen = new WeakSet<Buffer>()
  let waiting: { spaceId: number; query: string; vector: Buffer }[] = []

  return {
    of: (source, { id: spaceId }) => ({
      ...source,
      async get(query) {
        const vector = await source.get(query)
        if (vector && waiting.length < maxWaiting && !seen.has(vector)) {
          seen.add(vector)
          waiting.push({ spaceId, query, vector })
        }
        return vector
      },
    }),
    async store(sql, vectorType) {
      if (waiting.length === 0) return
      const taken = waiting
      waiting = []
      for (const spaceId of new Set(taken.map((each) => each.spaceId))) {
        const vectors = taken.flatMap((each) => (each.spaceId === spaceId ? each.vector : []))
        await insertSample(sql, spaceId, vectors, vectorType)
        await clearOldSamples(sql, spaceId)
      }
      if (keepsQueries) await insertRecentQueries(sql, [...new Set(taken.map(({ query }) => query))])
    },
  }
}

async function insertSample(
  sql: Sql,
  spaceId: number,
  vectors: readonly Buffer[],
  vectorType: number,
): Promise<void> {
  // Nothing of a space that was retired meanwhile.
  await sql.query(
    `insert into search_sample (space_id, vector)
     select s.id, unnest($2::vector[]) from embedding_space s where s.id = $1 and s.state <> 'RETIRED'`,
    [spaceId, vectorArrayBytes(vectors, vectorType)],
  )
}

async function clearOldSamples(sql: Sql, spaceId: number): Promise<void> {
  await sql.query(
    `delete from search_sample where space_id = $1 and id <= (
       select id from search_sample where space_id = $1 order by id desc offset ${maxKept} limit 1)`,
    [spaceId],
  )
}

/** The newest vectors of searches, in pgvector's binary format. */
export async function readSearchSample(sql: Sql, spaceId: number, limit: number): Promise<Buffer[]> {
  const rows = await sql.query<{ vector: Buffer }>(
    'select vector_send(vector) as vector from search_sample where space_id = $1 order by id desc limit $2',
    [spaceId, limit],
  )
  return rows.map(({ vector }) => vector)
}
