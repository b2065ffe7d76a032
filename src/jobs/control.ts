import type { Transaction } from '../db/database.ts'
import { ConflictError, NotFoundError } from '../errors.ts'
import { putInQueue, takeFromQueue } from './queue.ts'
import { appendJobEvent, findJob, type JobRow } from './records.ts'

/** Channel that carries the id of each job that is cancelled. */
export const cancelledChannel = 'quarry_job_cancelled'

/**
 * Ends a job where it is. What it has done stays; what it has in hand is broken off within moments. Embeddings that it
 * alone has asked for are taken back, what is owed anyway is still embedded. A cancelled job stays as it is.
 * @throws NotFoundError, ConflictError (it has ended)
 */
export async function cancelJob(transaction: Transaction, id: string): Promise<void> {
  const job = await requireJob(transaction, id)
  if (job.state === 'CANCELLED') return
  // The embeddings before the job, as whoever stores vectors does, or the two would wait for each other for ever.
  await transaction.query('select withdraw_embedding_requests($1)', [id])
  const cancelled = await transaction.query(
    `update job set state = 'CANCELLED', error = null, waiting_until = null, finished_at = now()
     where id = $1 and state in ('QUEUED', 'RUNNING') returning id`,
    [id],
  )
  if (cancelled.length === 0) {
    const { state } = await requireJob(transaction, id)
    if (state === 'CANCELLED') return
    throw new ConflictError(`The job has ended as ${state}: there is nothing left to cancel`)
  }
  await takeFromQueue(transaction, id)
  await appendJobEvent(transaction, id, 'Cancelled')
  await transaction.query('select pg_notify($1, $2)', [cancelledChannel, id])
}

/**
 * Takes up a job that has ended: what it did stays, what it could not do or had left is tried again.
 * @throws NotFoundError, ConflictError (it is under way, or nothing of it is left to do)
 */
export async function retryJob(transaction: Transaction, id: string): Promise<void> {
  const job = await requireJob(transaction, id)
  if (job.state === 'QUEUED' || job.state === 'RUNNING')
    throw new ConflictError(`The job is ${job.state}: wait for its end, or cancel it first`)
  const isLeft = job.state !== 'SUCCEEDED' || (job.failed > 0 && job.kind !== 'IMPORT')
  if (!isLeft) {
    throw new ConflictError(
      job.failed > 0
        ? 'The records that this import could not use would be refused again: correct the file and import it anew'
        : 'The job has done all that it was to do: there is nothing left to retry',
    )
  }
  if (job.kind === 'IMPORT' && !(await hasFile(transaction, id)))
    throw new ConflictError('The file of this import is no longer kept: import it anew')
  const taken = await transaction.query(
    `update job set state = 'QUEUED', error = null, finished_at = null, failures = 0, deaths = 0,
       failed = case when kind = 'IMPORT' then failed else 0 end, params = params || '{"isRetry": true}'
     where id = $1 and state in ('FAILED', 'CANCELLED', 'SUCCEEDED') returning id`,
    [id],
  )
  if (taken.length === 0) throw new ConflictError('The job was taken up by somebody else at this moment')
  await appendJobEvent(transaction, id, 'Queued again')
  await putInQueue(transaction, job.kind, id)
}

/**
 * Lets whatever waits for a provider look again now: what it waited for may have been put right. What still has to wait
 * says so again.
 */
export async function wakeWaitingJobs(transaction: Transaction): Promise<void> {
  const jobs = await transaction.query<Pick<JobRow, 'id' | 'kind' | 'state'>>(
    `with waiting as materialized (
       select id from job where state in ('QUEUED', 'RUNNING') and waiting_until > now() order by id for update
     )
     update job j set waiting_until = null from waiting where j.id = waiting.id
     returning j.id, j.kind, j.state`,
  )
  for (const { id, kind, state } of jobs) if (state === 'QUEUED') await putInQueue(transaction, kind, id)
  await transaction.query(`select pg_notify('quarry_embedding_owed', '')`)
}

async function requireJob(transaction: Transaction, id: string): Promise<JobRow> {
  const job = await findJob(transaction, id)
  if (!job) throw new NotFoundError('There is no such job; ended ones are cleared after some time')
  return job
}

async function hasFile(transaction: Transaction, id: string): Promise<boolean> {
  const chunks = await transaction.query('select from import_chunk where job_id = $1 limit 1', [id])
  return chunks.length > 0
}
