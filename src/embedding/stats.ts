import type { Sql } from '../db/database.ts'
import type { EmbeddingSpace } from './spaces.ts'

/**
 * For how long the oldest owner that is owed an embedding has been there, in seconds; 0 if nothing is owed. Cheap,
 * because the index of what is owed is in the order of the ids, and an id (UUIDv7) begins with its time. For a text
 * that was changed, or is embedded anew, that is longer than it has been owed.
 */
export async function readOldestOwedSeconds(sql: Sql, spaceId: number): Promise<number> {
  const [row] = await sql.query<{ ownerId: string; now: Date }>(
    `select owner_id as "ownerId", clock_timestamp() as now from embedding
     where space_id = $1 and status in ('PENDING', 'STALE') order by owner_id limit 1`,
    [spaceId],
  )
  // Ids are made by the clocks of processes, which may be ahead of the database's.
  return row ? Math.max(0, (row.now.getTime() - timeOfId(row.ownerId)) / 1000) : 0
}

/** So much a text may need to get through the queue of an idle provider, in a slow moment. */
export const arrivingSeconds = 10
/** A clock that is further ahead is wrong, and `quarry doctor` says so. */
const clockSkewSeconds = 5

/**
 * How many owners are PENDING in a space because they came in the last `arrivingSeconds`: since the space is there, so
 * that it is not waited for in vain, and without a failure yet. None in a space that nobody fills. Cheap: a range at the
 * end of the index of what is owed.
 */
export async function countArriving(sql: Sql, spaceId: number): Promise<number> {
  const [row] = await sql.query<{ n: number }>(
    `with bounds as (
       select (lpad(to_hex((extract(epoch from since) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid as first,
         (lpad(to_hex((extract(epoch from until) * 1000)::bigint), 12, '0') || repeat('f', 20))::uuid as last
       from (
         select greatest(created_at, clock_timestamp() - make_interval(secs => $2)) as since,
           clock_timestamp() + make_interval(secs => $3) as until
         from embedding_space where id = $1 and is_filled) as range)
     select count(*)::float8 as n from embedding, bounds
     where space_id = $1 and status = 'PENDING' and attempts = 0 and owner_id between bounds.first and bounds.last`,
    [spaceId, arrivingSeconds, clockSkewSeconds],
  )
  return row?.n ?? 0
}

/** When a UUIDv7 was made: its first 48 bits are milliseconds since 1970 (RFC 9562, 5.7). */
export function timeOfId(id: string): number {
  return Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16)
}

/** The state of a space; null if there is none of that number. */
export async function readSpaceState(sql: Sql, spaceId: number): Promise<EmbeddingSpace['state'] | null> {
  const [row] = await sql.query<{ state: EmbeddingSpace['state'] }>(
    'select state from embedding_space where id = $1',
    [spaceId],
  )
  return row?.state ?? null
}
