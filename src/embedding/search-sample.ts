import type { Sql } from '../db/database.ts'
import type { EmbeddingSpace } from './space.ts'
import { vectorArrayBytes } from './vectors.ts'

/** Vectors of searches that are kept for a space: the newest. */
const maxKept = 200
/** Of those that come between two times that they are stored: a busy minute must not push out all others. */
const maxWaiting = 20

/** Where searches get the vectors of their queries, in pgvector's binary format; the same buffer is the same query. */
interface QueryVectorSource {
  get(query: string): Promise<Buffer | null>
}

/** Takes vectors of real searches, to measure recall with; they are stored when index care looks, never by a request. */
export interface SearchSample {
  /** The same vectors of queries, of which some are taken. */
  of<Source extends QueryVectorSource>(source: Source): Source
  /** Stores what was offered. @param vectorType see readVectorType */
  store(sql: Sql, space: Pick<EmbeddingSpace, 'id'>, vectorType: number): Promise<void>
}

export function createSearchSample(): SearchSample {
  const seen = new WeakSet<Buffer>()
  let waiting: Buffer[] = []
  function take(vector: Buffer): void {
    if (waiting.length >= maxWaiting || seen.has(vector)) return
    seen.add(vector)
    waiting.push(vector)
  }

  return {
    of: (source) => ({
      ...source,
      async get(query) {
        const vector = await source.get(query)
        if (vector) take(vector)
        return vector
      },
    }),
    async store(sql, space, vectorType) {
      if (waiting.length === 0) return
      const vectors = waiting
      waiting = []
      await insertSample(sql, space.id, vectors, vectorType)
      await clearOldSamples(sql, space.id)
    },
  }
}

async function insertSample(
  sql: Sql,
  spaceId: number,
  vectors: readonly Buffer[],
  vectorType: number,
): Promise<void> {
  await sql.query('insert into search_sample (space_id, vector) select $1, unnest($2::vector[])', [
    spaceId,
    vectorArrayBytes(vectors, vectorType),
  ])
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
