import type { Sql, Transaction } from '../db/database.ts'
import { longestRetryDelay } from '../jobs/backoff.ts'
import type { EntityKind } from './spaces.ts'
import { vectorArrayBytes, vectorBytes } from './vectors.ts'

/** A row that this process has leased and is to embed. */
export interface OwedRow {
  kind: EntityKind
  ownerId: string
  /** Hash of `text`; the result is stored only if the row still has it. */
  hash: string
  text: string
  attempts: number
  /** The job that it is embedded for; null: it is owed anyway. Of several, one. */
  jobId: string | null
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

/** SQL: the requests of jobs for a row of the space ($1). */
const requestsOf = (row: string, columns = '') =>
  `select ${columns} from embedding_request r
   where r.space_id = $1 and r.kind = ${row}.kind and r.owner_id = ${row}.owner_id`

/**
 * Leases rows that are owed and due, newest first, so that live messages do not wait behind a long backfill; none in a
 * space that is not filled any more, also before this process has heard of that.
 * @param maxRows at most so many
 * @param maxBytes of text in all; a single longer text is still returned, alone
 * @param heldJobs what only these wait for is left
 */
export async function claimOwed(
  sql: Sql,
  spaceId: number,
  processId: string,
  maxRows: number,
  maxBytes: number,
  heldJobs: readonly string[],
): Promise<OwedRow[]> {
  return sql.query<OwedRow>(
    `with due as materialized (
       select e.kind, e.owner_id, e.content_hash, e.attempts from embedding e
       where e.space_id = $1 and e.status in ('PENDING', 'STALE')
         and (select is_filled from embedding_space where id = $1)
         and (e.next_attempt_at is null or e.next_attempt_at <= now()
           or e.next_attempt_at > now() + ${longestRetryDelay('e.attempts - 1')})
         and (e.leased_by is null or e.leased_by not in (select id from process))
         ${heldJobs.length === 0 ? '' : `and (not exists (${requestsOf('e')}) or exists (${requestsOf('e')} and r.job_id <> all ($5::uuid[])))`}
       order by e.owner_id desc limit $3 for update of e skip locked
     ), sized as (
       select due.*, o.text,
         sum(octet_length(o.text)) over (order by due.owner_id desc rows unbounded preceding) as bytes,
         row_number() over (order by due.owner_id desc) as position
       from due join embeddable o on o.kind = due.kind and o.owner_id = due.owner_id
     ), leased as (
       update embedding e set leased_by = $2 from sized s
       where e.space_id = $1 and e.kind = s.kind and e.owner_id = s.owner_id and (s.bytes <= $4 or s.position = 1)
       returning e.kind, e.owner_id
     )
     select sized.kind, sized.owner_id as "ownerId", sized.content_hash as hash, sized.text, sized.attempts,
       exists (select from embedding t
         where t.space_id = $1 and t.status = 'READY' and t.content_hash = sized.content_hash) as "hasTwin",
       (${requestsOf('sized', 'r.job_id')} order by r.job_id = any ($5::uuid[]), r.job_id limit 1) as "jobId"
     from leased join sized using (kind, owner_id)`,
    [spaceId, processId, maxRows, maxBytes, heldJobs],
  )
}

/** SQL: locks the rows of a space ($1) with these kinds ($3) and owners ($4), in the order of lock_embeddings(). */
const lockRows = `
  select from embedding e join unnest($3::entity_kind[], $4::uuid[]) as o(kind, owner_id) using (kind, owner_id)
  where e.space_id = $1 order by e.kind, e.owner_id for update of e`

/**
 * Stores results and ends their leases, in one statement. A row whose text has changed since it was claimed, or whose
 * lease is no longer this process's, is left as it is: it is still owed.
 * @param vectorType see readVectorType
 * @returns how many rows were stored
 */
export async function storeResults(
  sql: Sql,
  spaceId: number,
  processId: string,
  results: readonly EmbeddingResult[],
  vectorType: number,
): Promise<number> {
  const stored = await sql.query(
    `with locked as materialized (${lockRows}), result as (
       select * from unnest($3::entity_kind[], $4::uuid[], $5::uuid[], $6::embedding_status[], $7::vector[], $8::text[])
         as r(kind, owner_id, hash, status, vector, error)
     )
     update embedding e set
       leased_by = null, status = r.status, vector = r.vector, last_error = r.error, next_attempt_at = null,
       attempts = case when r.status = 'FAILED' then e.attempts + 1 else 0 end,
       embedded_at = case when r.status = 'READY' then clock_timestamp() end
     from result r, (select count(*) from locked) as locked
     where e.space_id = $1 and e.kind = r.kind and e.owner_id = r.owner_id and e.leased_by = $2
       and e.content_hash = r.hash and e.status in ('PENDING', 'STALE')
     returning 1`,
    [
      spaceId,
      processId,
      results.map(({ row }) => row.kind),
      results.map(({ row }) => row.ownerId),
      results.map(({ row }) => row.hash),
      results.map(({ status }) => status),
      vectorArrayBytes(
        results.map(({ vector }) => vector),
        vectorType,
      ),
      results.map(({ error }) => error),
    ],
  )
  return stored.length
}

/** Gives rows the vector of a row with the same text, and ends their leases; a row whose twin has gone keeps its lease. */
export async function copyTwins(
  sql: Sql,
  spaceId: number,
  processId: string,
  rows: readonly OwedRow[],
): Promise<void> {
  await sql.query(
    `with locked as materialized (${lockRows}), claimed as (
       select * from unnest($3::entity_kind[], $4::uuid[], $5::uuid[]) as r(kind, owner_id, hash)
     ), twin as (
       select distinct on (content_hash) content_hash, vector from embedding
       where space_id = $1 and status = 'READY' and content_hash = any ($5::uuid[])
     )
     update embedding e set
       leased_by = null, status = 'READY', vector = t.vector, last_error = null, next_attempt_at = null, attempts = 0,
       embedded_at = clock_timestamp()
     from claimed r join twin t on t.content_hash = r.hash, (select count(*) from locked) as locked
     where e.space_id = $1 and e.kind = r.kind and e.owner_id = r.owner_id and e.leased_by = $2
       and e.content_hash = r.hash and e.status in ('PENDING', 'STALE')`,
    [
      spaceId,
      processId,
      rows.map((row) => row.kind),
      rows.map((row) => row.ownerId),
      rows.map((row) => row.hash),
    ],
  )
}

/**
 * Ends leases without a result. `because` is kept with the rows, so that whoever looks at them sees why they wait; with
 * delays the attempt counts, and sets when the next one is due.
 */
export async function releaseRows(
  sql: Sql,
  spaceId: number,
  processId: string,
  rows: readonly OwedRow[],
  because: { error: string; delaysMs: readonly number[] | null } | null,
): Promise<void> {
  await sql.query(
    `with locked as materialized (${lockRows})
     update embedding e set leased_by = null,
       attempts = case when r.delay_ms is null then e.attempts else e.attempts + 1 end,
       last_error = coalesce($7, e.last_error),
       next_attempt_at = case when r.delay_ms is not null then now() + make_interval(secs => r.delay_ms / 1000) end
     from unnest($3::entity_kind[], $4::uuid[], $5::uuid[], $6::float8[]) as r(kind, owner_id, hash, delay_ms),
       (select count(*) from locked) as locked
     where e.space_id = $1 and e.kind = r.kind and e.owner_id = r.owner_id and e.leased_by = $2
       and e.content_hash = r.hash`,
    [
      spaceId,
      processId,
      rows.map((row) => row.kind),
      rows.map((row) => row.ownerId),
      rows.map((row) => row.hash),
      rows.map((_, index) => because?.delaysMs?.[index] ?? null),
      because?.error ?? null,
    ],
  )
}

/** How many of these rows this process still has in hand. */
export async function countLeased(
  sql: Sql,
  spaceId: number,
  processId: string,
  rows: readonly OwedRow[],
): Promise<number> {
  const [leased] = await sql.query<{ n: number }>(
    `select count(*)::int as n from embedding e
     join unnest($3::entity_kind[], $4::uuid[]) as r(kind, owner_id) using (kind, owner_id)
     where e.space_id = $1 and e.leased_by = $2`,
    [spaceId, processId, rows.map((row) => row.kind), rows.map((row) => row.ownerId)],
  )
  return leased?.n ?? 0
}

/** Ends the leases of this process that no batch of it works on: left behind by a batch that broke off. */
export async function releaseLost(
  sql: Sql,
  spaceId: number,
  processId: string,
  inHand: readonly string[],
): Promise<void> {
  await sql.query(
    `update embedding set leased_by = null
     where space_id = $1 and status in ('PENDING', 'STALE') and leased_by = $2 and owner_id <> all ($3::uuid[])`,
    [spaceId, processId, inHand],
  )
}

/**
 * Stores vectors of texts that were just written, in the transaction that wrote them: they are READY as they appear. A
 * row whose text is another one than the vector was made of stays owed.
 */
export async function storeVectors(
  transaction: Transaction,
  spaceId: number,
  vectors: readonly { kind: EntityKind; ownerId: string; text: string; vector: Float32Array }[],
): Promise<void> {
  for (const { kind, ownerId, text, vector } of vectors) {
    await transaction.query(
      `update embedding set status = 'READY', vector = $5::vector, embedded_at = clock_timestamp(), leased_by = null,
         attempts = 0, next_attempt_at = null, last_error = null
       where space_id = $1 and kind = $2 and owner_id = $3 and content_hash = text_hash($4)`,
      [spaceId, kind, ownerId, text, vectorBytes(vector)],
    )
  }
}
