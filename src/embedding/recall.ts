import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Database, Sql, Transaction } from '../db/database.ts'
import { recallOf } from './index-plan.ts'
import { readSearchSample } from './search-sample.ts'
import { type EmbeddingSpace, type EntityKind, indexedVector, partitionName } from './space.ts'
import type { RecallSource } from './vector-index.ts'

/** Recall of the first ten: what people look at. */
const depth = 10
/** The deviation of the mean of so many is below 0.02 where recall is about 0.95 and hits are independent. */
const maxQueries = 50
/** Fewer searches than this say less than as many stored vectors. */
const leastSearches = 10
/** Exact scans take long on many rows: as many queries as fit into this. */
const limitMs = 20_000

export interface RecallMeasurement {
  /** Share of the nearest ten rows that the index finds, 0..1, on average. */
  recall: number
  queries: number
  source: RecallSource
}

/**
 * Compares the index of a kind with exact scans, with vectors of real searches, or of rows where there are too few of
 * them. Each query is a transaction of its own, so that others get their turn.
 * @returns null where there is nothing to measure with
 */
export async function measureRecall(
  database: Database,
  space: EmbeddingSpace,
  kind: EntityKind,
  rows: number,
  signal: AbortSignal,
): Promise<RecallMeasurement | null> {
  const searches = await readSearchSample(database, space.id, maxQueries)
  const source = searches.length >= leastSearches ? 'SEARCHES' : 'STORED'
  const vectors =
    source === 'SEARCHES' ? searches : await readStoredVectors(database, space, kind, rows, maxQueries)
  const until = performance.now() + limitMs
  let sum = 0
  let queries = 0
  for (const vector of vectors) {
    if (signal.aborted || (queries > 0 && performance.now() > until)) break
    sum += await database.transaction((transaction) => recallOfQuery(transaction, space, kind, vector))
    queries++
    await nextTurn()
  }
  return queries > 0 ? { recall: sum / queries, queries, source } : null
}

async function recallOfQuery(
  transaction: Transaction,
  space: EmbeddingSpace,
  kind: EntityKind,
  vector: Buffer,
): Promise<number> {
  await transaction.query('set local enable_indexscan = off')
  const exact = await readNearestExact(transaction, space, kind, vector)
  await transaction.query('set local enable_indexscan = on')
  // Of few rows the planner would rather read all, and the index would not be measured.
  await transaction.query('set local enable_seqscan = off')
  await transaction.query('set local enable_sort = off')
  return recallOf(exact, await readNearestByIndex(transaction, space, kind, vector))
}

/** Distances of the nearest rows by the vectors as they are stored. */
async function readNearestExact(
  sql: Sql,
  space: EmbeddingSpace,
  kind: EntityKind,
  vector: Buffer,
): Promise<number[]> {
  const rows = await sql.query<{ distance: number }>(
    `select (vector::vector(${space.dimensions}) <=> $1::vector)::float8 as distance from ${partitionName(space)}
     where kind = '${kind}' and vector is not null order by 1 limit ${depth}`,
    [vector],
  )
  return rows.map(({ distance }) => distance)
}

/** Distances of the rows that a search finds, by the vectors as they are stored: what half precision loses counts. */
async function readNearestByIndex(
  sql: Sql,
  space: EmbeddingSpace,
  kind: EntityKind,
  vector: Buffer,
): Promise<number[]> {
  const rows = await sql.query<{ distance: number }>(
    `select (vector::vector(${space.dimensions}) <=> $1::vector)::float8 as distance
     from (${nearest(space, kind)}) as found order by 1`,
    [vector],
  )
  return rows.map(({ distance }) => distance)
}

/** SQL: what a search by meaning without a filter asks of one kind. */
function nearest(space: EmbeddingSpace, kind: EntityKind): string {
  const { expression, type } = indexedVector(space, 'vector')
  return `select vector from ${partitionName(space)} where kind = '${kind}' and vector is not null
    order by ${expression} <=> $1::vector::${type} limit ${depth}`
}

/** Whether the planner takes the index for a search, by its name. */
export async function isIndexPlanned(
  sql: Sql,
  space: EmbeddingSpace,
  kind: EntityKind,
  name: string,
): Promise<boolean> {
  const zeros = `[${new Array(space.dimensions).fill(0).join(',')}]`
  const rows = await sql.query<{ 'QUERY PLAN': unknown }>(`explain (format json) ${nearest(space, kind)}`, [
    zeros,
  ])
  return JSON.stringify(rows).includes(`"${name}"`)
}

/** Vectors of rows from all over the partition, in pgvector's binary format. */
async function readStoredVectors(
  sql: Sql,
  space: EmbeddingSpace,
  kind: EntityKind,
  rows: number,
  limit: number,
): Promise<Buffer[]> {
  // By page, so that a large table is not read whole; ten times as many as needed, because pages hold several kinds.
  const percent = Math.min(100, (100 * 10 * limit) / Math.max(1, rows))
  const found = await sql.query<{ vector: Buffer }>(
    `select vector_send(vector) as vector from ${partitionName(space)} tablesample system (${percent})
     where kind = '${kind}' and vector is not null order by owner_id::text desc limit $1`,
    [limit],
  )
  return found.map(({ vector }) => vector)
}
