import type { Sql } from '../db/database.ts'
import type { EntityKind } from './spaces.ts'

/** A row that this process has leased and is to embed. */
export interface OwedRow {
  kind: EntityKind
  ownerId: string
  /** Hash of `text`; the result is stored only if the row still has it. */
  hash: string
  text: string
  attempts: number
  /** Another row of the space has this very text and its vector: no need to ask the provider. */
  hasTwin: boolean
}

export interface EmbeddingResult {
  row: OwedRow
  status: 'READY' | 'FAILED' | 'SKIPPED'
  /** Of the space's dimensions; null unless READY. */
  vector: Float32Array | null
  /** Why, unless READY. */
  error: string | null
}

/** Channel on which the triggers say that there is something to embed. */
export const owedChannel = 'quarry_embedding_owed'

/**
 * Leases rows that are owed and due, newest first, so that live messages do not wait behind a long backfill.
 * @param maxRows at most so many
 * @param maxBytes of text in all; a single longer text is still returned, alone
 */
export async function claimOwed(
  sql: Sql,
  spaceId: number,
  processId: string,
  maxRows: number,
  maxBytes: number,
): Promise<OwedRow[]> {
  return sql.query<OwedRow>(
    `with due as materialized (
       select e.kind, e.owner_id, e.content_hash, e.attempts from embedding e
       where e.space_id = $1 and e.status in ('PENDING', 'STALE')
         and (e.next_attempt_at is null or e.next_attempt_at <= now())
         and not exists (select from embedding_lease l
           where l.space_id = $1 and l.kind = e.kind and l.owner_id = e.owner_id)
       order by e.owner_id desc limit $3 for update of e skip locked
     ), sized as (
       select due.*, o.text,
         sum(octet_length(o.text)) over (order by due.owner_id desc rows unbounded preceding) as bytes,
         row_number() over (order by due.owner_id desc) as position
       from due join embeddable o on o.kind = due.kind and o.owner_id = due.owner_id
     ), leased as (
       insert into embedding_lease (space_id, kind, owner_id, process_id)
       select $1, kind, owner_id, $2 from sized where bytes <= $4 or position = 1
       on conflict do nothing returning kind, owner_id
     )
     select sized.kind, sized.owner_id as "ownerId", sized.content_hash as hash, sized.text, sized.attempts,
       exists (select from embedding t
         where t.space_id = $1 and t.status = 'READY' and t.content_hash = sized.content_hash) as "hasTwin"
     from leased join sized using (kind, owner_id)`,
    [spaceId, processId, maxRows, maxBytes],
  )
}

/**
 * Stores results and ends their leases, in one statement. A row whose text has changed since it was claimed, or whose
 * lease is no longer this process's, is left as it is: it is still owed.
 * @returns how many rows were stored
 */
export async function storeResults(
  sql: Sql,
  spaceId: number,
  processId: string,
  results: readonly EmbeddingResult[],
): Promise<number> {
  const stored = await sql.query(
    `with result as (
       select * from unnest($3::entity_kind[], $4::uuid[], $5::uuid[], $6::embedding_status[], $7::text[], $8::text[])
         as r(kind, owner_id, hash, status, vector, error)
     ), released as (
       delete from embedding_lease l using result r
       where l.space_id = $1 and l.kind = r.kind and l.owner_id = r.owner_id and l.process_id = $2
       returning l.kind, l.owner_id
     )
     update embedding e set
       status = r.status, vector = r.vector::vector, last_error = r.error, next_attempt_at = null,
       attempts = case when r.status = 'FAILED' then e.attempts + 1 else 0 end,
       embedded_at = case when r.status = 'READY' then clock_timestamp() end
     from result r join released using (kind, owner_id)
     where e.space_id = $1 and e.kind = r.kind and e.owner_id = r.owner_id and e.content_hash = r.hash
       and e.status in ('PENDING', 'STALE')
     returning 1`,
    [
      spaceId,
      processId,
      results.map(({ row }) => row.kind),
      results.map(({ row }) => row.ownerId),
      results.map(({ row }) => row.hash),
      results.map(({ status }) => status),
      results.map(({ vector }) => vector && vectorLiteral(vector)),
      results.map(({ error }) => error),
    ],
  )
  return stored.length
}

/** Gives rows the vector of a row with the same text, and ends their leases. Rows whose twin has gone stay owed. */
export async function copyTwins(
  sql: Sql,
  spaceId: number,
  processId: string,
  rows: readonly OwedRow[],
): Promise<void> {
  await sql.query(
    `with claimed as (
       select * from unnest($3::entity_kind[], $4::uuid[], $5::uuid[]) as r(kind, owner_id, hash)
     ), released as (
       delete from embedding_lease l using claimed r
       where l.space_id = $1 and l.kind = r.kind and l.owner_id = r.owner_id and l.process_id = $2
       returning l.kind, l.owner_id
     ), twin as (
       select distinct on (content_hash) content_hash, vector from embedding
       where space_id = $1 and status = 'READY' and content_hash = any ($5::uuid[])
     )
     update embedding e set
       status = 'READY', vector = t.vector, last_error = null, next_attempt_at = null, attempts = 0,
       embedded_at = clock_timestamp()
     from claimed r join released using (kind, owner_id) join twin t on t.content_hash = r.hash
     where e.space_id = $1 and e.kind = r.kind and e.owner_id = r.owner_id and e.content_hash = r.hash
       and e.status in ('PENDING', 'STALE')`,
    [
      spaceId,
      processId,
      rows.map((row) => row.kind),
      rows.map((row) => row.ownerId),
      rows.map((row) => row.hash),
    ],
  )
}

/** Ends leases without a result. With `retry`, counts the attempt and sets when the next one is due. */
export async function releaseRows(
  sql: Sql,
  spaceId: number,
  processId: string,
  rows: readonly OwedRow[],
  retry: { error: string; delaysMs: readonly number[] } | null,
): Promise<void> {
  await sql.query(
    `with claimed as (
       select * from unnest($3::entity_kind[], $4::uuid[], $5::uuid[], $6::float8[]) as r(kind, owner_id, hash, delay_ms)
     ), released as (
       delete from embedding_lease l using claimed r
       where l.space_id = $1 and l.kind = r.kind and l.owner_id = r.owner_id and l.process_id = $2
       returning l.kind, l.owner_id
     )
     update embedding e set attempts = e.attempts + 1, last_error = $7::text,
       next_attempt_at = now() + make_interval(secs => r.delay_ms / 1000)
     from claimed r join released using (kind, owner_id)
     where $7::text is not null and e.space_id = $1 and e.kind = r.kind and e.owner_id = r.owner_id
       and e.content_hash = r.hash`,
    [
      spaceId,
      processId,
      rows.map((row) => row.kind),
      rows.map((row) => row.ownerId),
      rows.map((row) => row.hash),
      rows.map((_, index) => retry?.delaysMs[index] ?? 0),
      retry?.error ?? null,
    ],
  )
}

/** Ends the leases of this process that no batch of it works on: left behind by a batch that broke off. */
export async function releaseLost(
  sql: Sql,
  spaceId: number,
  processId: string,
  inHand: readonly string[],
): Promise<void> {
  await sql.query(
    'delete from embedding_lease where space_id = $1 and process_id = $2 and owner_id <> all ($3::uuid[])',
    [spaceId, processId, inHand],
  )
}

/** How pgvector reads a vector. The embedded engine cannot bind arrays of vectors, so they travel as text. */
export function vectorLiteral(vector: Float32Array): string {
  return `[${vector.join(',')}]`
}
