import type { Sql, Transaction } from '../db/database.ts'
import { appendJobEvent, insertJob } from '../jobs/records.ts'
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
  const jobId = await insertJob(transaction, 'EMBED', { force })
  const kinds = owners.map((owner) => owner.kind)
  const ids = owners.map((owner) => owner.id)
  if (force) {
    await transaction.query(
      `update embedding e set status = 'STALE', attempts = 0, next_attempt_at = null
       from unnest($2::entity_kind[], $3::uuid[]) as o(kind, id)
       where e.space_id = $1 and e.kind = o.kind and e.owner_id = o.id and e.status = 'READY'`,
      [spaceId, kinds, ids],
    )
  }
  await transaction.query(
    `update embedding e set status = 'PENDING', attempts = 0, next_attempt_at = null
     from unnest($2::entity_kind[], $3::uuid[]) as o(kind, id)
     where e.space_id = $1 and e.kind = o.kind and e.owner_id = o.id and e.status = 'FAILED'`,
    [spaceId, kinds, ids],
  )
  await transaction.query(
    `insert into embedding_request (job_id, space_id, kind, owner_id)
     select $1, e.space_id, e.kind, e.owner_id from embedding e
     join unnest($3::entity_kind[], $4::uuid[]) as o(kind, id) on e.kind = o.kind and e.owner_id = o.id
     where e.space_id = $2 and e.status in ('PENDING', 'STALE') for update of e`,
    [jobId, spaceId, kinds, ids],
  )
  await openRequests(transaction, jobId, owners.length)
  return jobId
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
  if (retryFailed) {
    await transaction.query(
      `update embedding set status = 'PENDING', attempts = 0, next_attempt_at = null
       where space_id = $1 and kind = any ($2::entity_kind[]) and status = 'FAILED'`,
      [spaceId, kinds],
    )
  }
  const requested = await transaction.query<{ n: number }>(
    `with requested as (
       insert into embedding_request (job_id, space_id, kind, owner_id)
       select $1, space_id, kind, owner_id from embedding
       where space_id = $2 and kind = any ($3::entity_kind[]) and status in ('PENDING', 'STALE') for update
       on conflict do nothing returning 1)
     select count(*)::int as n from requested`,
    [jobId, spaceId, kinds],
  )
  await openRequests(transaction, jobId, requested[0]?.n ?? 0)
}

/** From here on the job's end follows from its rows (trigger embedding_changed). */
async function openRequests(transaction: Transaction, jobId: string, total: number): Promise<void> {
  await transaction.query(
    `update job set total = $2, started_at = coalesce(started_at, now()),
       skipped = $2 - waiting.n,
       state = (case when waiting.n = 0 then 'SUCCEEDED' else 'RUNNING' end)::job_state,
       finished_at = case when waiting.n = 0 then now() end
     from (select count(*)::int as n from embedding_request where job_id = $1) as waiting
     where id = $1`,
    [jobId, total],
  )
  await appendJobEvent(transaction, jobId, null)
  await transaction.query(`select pg_notify('quarry_embedding_owed', '')`)
}

/** Which of these owners exist. */
export async function existingOwners(sql: Sql, owners: readonly OwnerRef[]): Promise<OwnerRef[]> {
  return sql.query<OwnerRef>(
    `select o.kind, o.id from unnest($1::entity_kind[], $2::uuid[]) as o(kind, id)
     join embeddable e on e.kind = o.kind and e.owner_id = o.id`,
    [owners.map((owner) => owner.kind), owners.map((owner) => owner.id)],
  )
}
