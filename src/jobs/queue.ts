import type { Sql, Transaction } from '../db/database.ts'
import { insertJob, type JobKind } from './records.ts'

/**
 * Never reached: whether a job is given up is decided by its own row, which counts errors and deaths apart and forgets
 * them when there is progress.
 */
const maxQueueAttempts = 10_000

/** Makes a job and puts it into the queue, both in the transaction that needs it. Returns its id. */
export async function enqueueJob(
  transaction: Transaction,
  kind: JobKind,
  params: Record<string, unknown>,
): Promise<string> {
  const jobId = await insertJob(transaction, kind, params)
  await putInQueue(transaction, kind, jobId)
  return jobId
}

/** Puts a job into the queue, in place of its earlier entry if there is one. */
export async function putInQueue(
  transaction: Transaction,
  kind: JobKind,
  jobId: string,
  delayMs = 0,
): Promise<void> {
  await transaction.query(
    `select graphile_worker.add_job($1, payload => $2::json, job_key => $3, max_attempts => ${maxQueueAttempts},
       run_at => now() + make_interval(secs => $4::float8 / 1000))`,
    [kind, JSON.stringify({ jobId }), jobId, delayMs],
  )
}

/** Takes a job out of the queue; one that is being run stays, but is not run again. */
export async function takeFromQueue(transaction: Transaction, jobId: string): Promise<void> {
  await transaction.query('select graphile_worker.remove_job($1)', [jobId])
}

/**
 * Puts back jobs that are under way and that nobody will end: in no queue, and waiting for no row. None should ever be;
 * but a process that was suspended and comes back ends a queue entry that others have taken over.
 * @returns their ids
 */
export async function requeueForgotten(sql: Sql): Promise<string[]> {
  const rows = await sql.query<{ id: string }>(
    `with forgotten as materialized (
       select j.id, j.kind from job j
       where j.state in ('QUEUED', 'RUNNING') and j.created_at < now() - interval '30 seconds'
         and not exists (select from graphile_worker.jobs q where q.key = j.id::text)
         and not exists (select from embedding_request r where r.job_id = j.id)
     )
     select f.id from forgotten f, lateral graphile_worker.add_job(f.kind::text,
       payload => json_build_object('jobId', f.id), job_key => f.id::text, max_attempts => ${maxQueueAttempts})`,
  )
  return rows.map(({ id }) => id)
}

/**
 * Clears what was taken out of the queue (or replaced in it) while it was run, and whose process was killed or lost the
 * database before it could end it: it is never run again, and would stay for ever. Being taken out has cost it its key;
 * nothing is put into the queue without one.
 */
export async function clearTakenOut(sql: Sql): Promise<void> {
  await sql.query(
    `select graphile_worker.complete_jobs(array_agg(id)) from graphile_worker.jobs
     where key is null and attempts >= max_attempts and locked_at is null`,
  )
}

/** What was put into the queue in the future was put there by a clock that has since been set back: it waits from now on. */
export async function bringForward(sql: Sql): Promise<void> {
  await sql.query(
    `select graphile_worker.reschedule_jobs(array[id], run_at => now() + greatest(run_at - updated_at, interval '0'))
     from graphile_worker.jobs where updated_at > now() and run_at > now() and locked_at is null`,
  )
}
