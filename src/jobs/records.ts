import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'

export type JobKind = 'IMPORT' | 'EMBED' | 'BACKFILL' | 'EXTRACT' | 'MIGRATE_EMBEDDINGS'
export type JobState = 'QUEUED' | 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'CANCELLED'

export interface JobRow {
  id: string
  kind: JobKind
  state: JobState
  total: number | null
  succeeded: number
  failed: number
  skipped: number
  attempts: number
  error: string | null
  params: Record<string, unknown>
  result: Record<string, unknown> | null
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
}

export interface JobEventRow {
  jobId: string
  /** Numbered from 1 within the job, without gaps. A bigint, as text. */
  seq: string
  at: Date
  message: string | null
  data: Record<string, unknown> | null
}

const jobColumns = `id, kind, state, total, succeeded, failed, skipped, attempts, error, params, result,
  created_at as "createdAt", started_at as "startedAt", finished_at as "finishedAt"`

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
    `update job set state = 'RUNNING', attempts = attempts + 1, error = null, started_at = coalesce(started_at, now())
     where id = $1 and state in ('QUEUED', 'RUNNING') returning ${jobColumns}`,
    [id],
  )
  if (row) await appendJobEvent(transaction, id, row.attempts > 1 ? `Attempt ${row.attempts}` : 'Started')
  return row ?? null
}

/** Ends a running job; one that was ended by someone else in the meantime stays as it is. */
export async function endJob(
  transaction: Transaction,
  id: string,
  state: 'SUCCEEDED' | 'FAILED',
  error: string | null,
): Promise<void> {
  const ended = await transaction.query(
    `update job set state = $2, error = $3, finished_at = now(),
       total = case when kind = 'IMPORT' then succeeded + failed + skipped else total end
     where id = $1 and state in ('QUEUED', 'RUNNING') returning id`,
    [id, state, error],
  )
  if (ended.length > 0) await appendJobEvent(transaction, id, error)
}

/** Says how much there is to do, once that is known. */
export async function setJobTotal(transaction: Transaction, id: string, total: number): Promise<void> {
  await transaction.query('update job set total = $2 where id = $1', [id, total])
  await appendJobEvent(transaction, id, null)
}

/** The job waits for another attempt. */
export async function postponeJob(transaction: Transaction, id: string, error: string): Promise<void> {
  const postponed = await transaction.query(
    `update job set state = 'QUEUED', error = $2 where id = $1 and state = 'RUNNING' returning id`,
    [id, error],
  )
  if (postponed.length > 0) await appendJobEvent(transaction, id, error)
}

/**
 * Adds to the counts and merges `result`, in the transaction that makes them true.
 * @param details what the event says besides the counts, such as how far a file has been read
 */
export async function addJobProgress(
  transaction: Transaction,
  id: string,
  counts: { succeeded: number; failed: number; skipped: number },
  result: Record<string, unknown>,
  details: Record<string, unknown>,
): Promise<void> {
  await transaction.query(
    `update job set succeeded = succeeded + $2, failed = failed + $3, skipped = skipped + $4,
       result = coalesce(result, '{}') || $5
     where id = $1`,
    [id, counts.succeeded, counts.failed, counts.skipped, result],
  )
  await appendJobEvent(transaction, id, null, details)
}

export async function appendJobEvent(
  transaction: Transaction,
  id: string,
  message: string | null,
  details: Record<string, unknown> = {},
): Promise<void> {
  await transaction.query('select append_job_event($1, $2, $3)', [id, message, details])
}

/** At most `limit` events with a number above `afterSeq`, in order. */
export async function jobEventsAfter(
  sql: Sql,
  jobId: string,
  afterSeq: string,
  limit: number,
): Promise<JobEventRow[]> {
  return sql.query<JobEventRow>(
    `select job_id as "jobId", seq::text as seq, at, message, data from job_event
     where job_id = $1 and seq > $2 order by job_event.seq limit $3`,
    [jobId, afterSeq, limit],
  )
}
