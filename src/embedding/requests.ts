import type { Sql, Transaction } from '../db/database.ts'
import { appendJobEvent, insertJob, type JobRow } from '../jobs/records.ts'
import { type EntityKind, oweMissingRows } from './spaces.ts'

export interface OwnerRef {
  kind: EntityKind
  id: string
}

/*
 * A request is made while its embedding row is locked: a row that ends at the same moment would otherwise not see the
 * request, and the job would wait for ever.
 */

/**
 * Makes an EMBED job over the given owners. Rows that are READY (unless `force`) or have nothing to embed count as
 * skipped at once; the others are queued, and the job ends with the last of them. FAILED rows are taken up again.
 * @param owners must exist
 */
export async function requestEmbeddings(
  transaction: Transaction,
  spaceId: number,
  owners: readonly OwnerRef[],
  force: boolean,
): Promise<string> {
  const jobId = await insertJob(transaction, 'EMBED', { force, owners })
  await requestOwners(transaction, spaceId, jobId, owners, force ? 'ALL' : 'NONE')
  return jobId
}

/** Takes up an EMBED job again: what it has embedded since it was made stays, the rest is requested anew. */
export async function retryEmbeddings(transaction: Transaction, spaceId: number, job: JobRow): Promise<void> {
  const { owners, force } = job.params as unknown as { owners: OwnerRef[]; force: boolean }
  await requestOwners(transaction, spaceId, job.id, owners, force ? 'OLD' : 'NONE')
}

/** @param anew which READY rows are embedded anew: those of before the job, for OLD */
async function requestOwners(
  transaction: Transaction,
  spaceId: number,
  jobId: string,
  owners: readonly OwnerRef[],
  anew: 'ALL' | 'OLD' | 'NONE',
): Promise<void> {
  const kinds = owners.map((owner) => owner.kind)
  const ids = owners.map((owner) => owner.id)
  const isOld = `e.embedded_at < (select created_at from job where id = $1)`
  const isWanted = { ALL: 'true', OLD: isOld, NONE: 'false' }[anew]
  await request(
    transaction,
    jobId,
    `select e.* from embedding e join unnest($3::entity_kind[], $4::uuid[]) as o(kind, id) on e.kind = o.kind and e.owner_id = o.id
     where e.space_id = $2 and (e.status in ('PENDING', 'STALE', 'FAILED') or (e.status = 'READY' and ${isWanted}))`,
    [spaceId, kinds, ids],
  )
  await openRequests(transaction, jobId, owners.length)
}

/**
 * The work of a BACKFILL job: makes the rows that are missing, takes up the FAILED ones if asked to, and waits for
 * everything that is owed of these kinds. Safe to repeat.
 */
export async function requestBackfill(
  transaction: Transaction,
  jobId: string,
  spaceId: number,
  kinds: readonly EntityKind[],
  retryFailed: boolean,
): Promise<void> {
  await oweMissingRows(transaction, spaceId)
  await request(
    transaction,
    jobId,
    `select e.* from embedding e where e.space_id = $2 and e.kind = any ($3::entity_kind[])
       and (e.status in ('PENDING', 'STALE') ${retryFailed ? "or e.status = 'FAILED'" : ''})`,
    [spaceId, kinds],
  )
  await openRequests(transaction, jobId, 0)
}

/**
 * Enters what a job waits for, with what each row was before if this makes it owed, and makes it owed.
 * @param rows SQL: the embedding rows, e
 */
async function request(
  transaction: Transaction,
  jobId: string,
  rows: string,
  values: readonly unknown[],
): Promise<void> {
  await transaction.query(
    `insert into embedding_request (job_id, space_id, kind, owner_id, previous_status, previous_error, content_hash)
     select $1, e.space_id, e.kind, e.owner_id,
       case when e.status in ('READY', 'FAILED') then e.status end,
       case when e.status = 'FAILED' then e.last_error end, e.content_hash
     from (${rows} order by e.kind, e.owner_id for update of e) as e
     on conflict do nothing`,
    [jobId, ...values],
  )
  await transaction.query(
    `update embedding e set status = (case when e.status = 'READY' then 'STALE' else 'PENDING' end)::embedding_status,
       attempts = 0, next_attempt_at = null
     from embedding_request r
     where r.job_id = $1 and r.previous_status is not null and e.status = r.previous_status
       and e.space_id = r.space_id and e.kind = r.kind and e.owner_id = r.owner_id`,
    [jobId],
  )
}

/** From here on the job's end follows from its rows (trigger embedding_changed). */
async function openRequests(transaction: Transaction, jobId: string, total: number): Promise<void> {
  await transaction.query(
    `update job set total = whole.total, started_at = coalesce(started_at, now()),
       skipped = whole.total - job.succeeded - waiting.n, failed = 0,
       state = (case when waiting.n = 0 then 'SUCCEEDED' else 'RUNNING' end)::job_state,
       finished_at = case when waiting.n = 0 then now() end
     from (select count(*)::int as n from embedding_request where job_id = $1) as waiting,
       lateral (select greatest($2, job.total, job.succeeded + waiting.n) as total from job where id = $1) as whole
     where id = $1`,
    [jobId, total],
  )
  await appendJobEvent(transaction, jobId, null)
  await transaction.query(`select pg_notify('quarry_embedding_owed', '')`)
}

/** From here on a wait is told whatever was told a moment ago: nothing would say it later. Milliseconds. */
const longWaitMs = 60_000

/**
 * Tells the jobs that wait for these rows that they wait for the provider now.
 * @param reason what the provider said
 */
export async function tellWaitingJobs(
  sql: Sql,
  spaceId: number,
  rows: readonly { kind: EntityKind; ownerId: string }[],
  waitMs: number,
  reason: string,
): Promise<void> {
  await sql.query(
    `with waiting as (
       select distinct r.job_id from embedding_request r
       join unnest($2::entity_kind[], $3::uuid[]) as o(kind, id) on r.kind = o.kind and r.owner_id = o.id
       where r.space_id = $1
     ), free as materialized (
       select id from job where id in (select job_id from waiting) and state = 'RUNNING'
         and (waiting_until is null or waiting_until <= now()
           or ($6 and waiting_until <= now() + make_interval(secs => $4::float8 / 2000)))
       order by id for update
     ), told as (
       update job j set waiting_until = now() + make_interval(secs => $4::float8 / 1000)
       from free where j.id = free.id
       returning j.id, j.waiting_until, j.last_event_at
     )
     select append_job_event(id,
       case when $6 or last_event_at < clock_timestamp() - interval '1 second' then waiting_message(waiting_until, $5) end)
     from told order by id`,
    [
      spaceId,
      rows.map((row) => row.kind),
      rows.map((row) => row.ownerId),
      waitMs,
      reason,
      waitMs >= longWaitMs,
    ],
  )
}

/** Which of these owners exist. */
export async function existingOwners(sql: Sql, owners: readonly OwnerRef[]): Promise<OwnerRef[]> {
  return sql.query<OwnerRef>(
    `select o.kind, o.id from unnest($1::entity_kind[], $2::uuid[]) as o(kind, id)
     join embeddable e on e.kind = o.kind and e.owner_id = o.id`,
    [owners.map((owner) => owner.kind), owners.map((owner) => owner.id)],
  )
}
