import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'

export type JobKind = 'IMPORT' | 'EMBED' | 'BACKFILL' | 'EXTRACT' | 'MIGRATE_EMBEDDINGS'
export type JobState = 'QUEUED' | 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'CANCELLED'

/**
 * One run of a job. Each gets a number of its own, so that a run that others took for dead, or that was cancelled and
 * begun anew, cannot write any more.
 */
export interface JobRun {
  id: string
  /** How often the job was begun, this time included. */
  attempts: number
}

export interface JobRow extends JobRun {
  kind: JobKind
  state: JobState
  total: number | null
  succeeded: number
  failed: number
  skipped: number
  /** Errors in a row without progress between them. */
  failures: number
  /** Runs in a row whose process died, without progress between them. */
  deaths: number
  error: string | null
  params: Record<string, unknown>
  result: Record<string, unknown> | null
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
  waitingUntil: Date | null
}

export interface JobCounts {
  succeeded: number
  failed: number
  skipped: number
}

/** The job has ended, or another run of it has begun: nothing that this run does counts any more. */
export class JobLostError extends Error {
  override readonly name = 'JobLostError'
}

const jobColumns = `id, kind, state, total, succeeded, failed, skipped, attempts, failures, deaths, error, params, result,
  created_at as "createdAt", started_at as "startedAt", finished_at as "finishedAt", waiting_until as "waitingUntil"`

/** Channel that carries `<job id> <event number>` for each event. */
export const jobChannel = 'quarry_job'

export const isEnded = (state: JobState): boolean =>
  state === 'SUCCEEDED' || state === 'FAILED' || state === 'CANCELLED'

export async function insertJob(
  transaction: Transaction,
  kind: JobKind,
  params: Record<string, unknown>,
): Promise<string> {
  const id = uuidv7()
  await transaction.query('insert into job (id, kind, params) values ($1, $2, $3)', [id, kind, params])
  await appendJobEvent(transaction, id, 'Queued')
  return id
}

export async function findJob(sql: Sql, id: string): Promise<JobRow | null> {
  const [row] = await sql.query<JobRow>(`select ${jobColumns} from job where id = $1`, [id])
  return row ?? null
}

/** Marks the job as running and counts the attempt. Null if it has ended or is gone. */
export async function startJob(transaction: Transaction, id: string): Promise<JobRow | null> {
  const [row] = await transaction.query<JobRow>(
    `update job set state = 'RUNNING', attempts = attempts + 1, error = null, waiting_until = null,
       deaths = deaths + (state = 'RUNNING')::int, started_at = coalesce(started_at, now())
     where id = $1 and state in ('QUEUED', 'RUNNING') returning ${jobColumns}`,
    [id],
  )
  if (row) await appendJobEvent(transaction, id, row.attempts > 1 ? `Attempt ${row.attempts}` : 'Started')
  return row ?? null
}

/** SQL: the job, as long as this run ($1, $2) has it. */
const ofThisRun = `id = $1 and attempts = $2 and state = 'RUNNING'`

/** @throws JobLostError unless the run still has its job: rolls back whatever else the transaction did for it */
async function change(
  transaction: Transaction,
  run: JobRun,
  set: string,
  values: readonly unknown[],
): Promise<void> {
  const changed = await transaction.query(`update job set ${set} where ${ofThisRun} returning id`, [
    run.id,
    run.attempts,
    ...values,
  ])
  if (changed.length === 0)
    throw new JobLostError(`Run ${run.attempts} of job ${run.id} has no longer a part in it`)
}

/** Ends a job. */
export async function endJob(
  transaction: Transaction,
  run: JobRun,
  state: 'SUCCEEDED' | 'FAILED',
  error: string | null,
): Promise<void> {
  await change(
    transaction,
    run,
    `state = $3, error = $4, finished_at = now(), waiting_until = null,
     total = case when kind = 'IMPORT' then succeeded + failed + skipped else total end`,
    [state, error],
  )
  await appendJobEvent(transaction, run.id, error)
}

/** Says how much there is to do, once that is known. */
export async function setJobTotal(transaction: Transaction, run: JobRun, total: number): Promise<void> {
  await change(transaction, run, 'total = $3', [total])
  await appendJobEvent(transaction, run.id, null)
}

/** Writes down what the job has decided as it began, so that each later run of it goes by the same. */
export async function addJobParams(
  transaction: Transaction,
  run: JobRun,
  params: Record<string, unknown>,
): Promise<void> {
  await change(transaction, run, 'params = params || $3', [params])
}

/** The job gives its place back and is to be run again: it failed, or the process that had it stops. */
export async function requeueJob(
  transaction: Transaction,
  run: JobRun,
  reason: { error: string | null; message: string; isFailure: boolean },
): Promise<void> {
  await change(transaction, run, `state = 'QUEUED', error = $3, failures = failures + $4::int`, [
    reason.error,
    reason.isFailure ? 1 : 0,
  ])
  await appendJobEvent(transaction, run.id, reason.message)
}

/**
 * The job waits for a provider.
 * @param state QUEUED if it gives its place back meanwhile
 * @param reason what the provider said
 */
export async function setJobWaiting(
  transaction: Transaction,
  run: JobRun,
  state: 'RUNNING' | 'QUEUED',
  waitMs: number,
  reason: string,
): Promise<void> {
  await change(
    transaction,
    run,
    'state = $3::job_state, waiting_until = now() + make_interval(secs => $4::float8 / 1000)',
    [state, waitMs],
  )
  await transaction.query(
    'select append_job_event(id, waiting_message(waiting_until, $2)) from job where id = $1',
    [run.id, reason],
  )
}

/**
 * Adds to the counts and merges `result`, in the transaction that makes them true.
 * @param details what the event says besides the counts, such as how far a file has been read
 */
export async function addJobProgress(
  transaction: Transaction,
  run: JobRun,
  counts: JobCounts,
  result: Record<string, unknown>,
  details: Record<string, unknown>,
): Promise<void> {
  await change(
    transaction,
    run,
    `succeeded = succeeded + $3, failed = failed + $4, skipped = skipped + $5,
     result = coalesce(result, '{}') || $6, failures = 0, deaths = 0, waiting_until = null`,
    [counts.succeeded, counts.failed, counts.skipped, result],
  )
  await appendJobEvent(transaction, run.id, null, details)
}

/** One without a message only tells counts, and may be held back for a moment; see report_held_jobs(). */
export async function appendJobEvent(
  transaction: Transaction,
  id: string,
  message: string | null,
  details: Record<string, unknown> = {},
): Promise<void> {
  await transaction.query('select append_job_event($1, $2, $3)', [id, message, details])
}
