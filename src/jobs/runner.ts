import { EventEmitter } from 'node:events'
import { run, type TaskList, type WorkerEvents, Logger as WorkerLogger } from 'graphile-worker'
import type { Database, Transaction } from '../db/database.ts'
import { errorMessage, QuarryError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { endJob, insertJob, type JobKind, type JobRow, postponeJob, startJob } from './records.ts'

export interface JobContext {
  job: JobRow
  log: Logger
  /** Aborted when this process stops: give the work back. */
  signal: AbortSignal
}

/**
 * Does the work of one job. May be called again for the same job after a crash or an error, and then goes on from what
 * the database says is done. Resolving with 'waiting' leaves the job running: rows that it asked for end it.
 * A QuarryError ends the job as FAILED; any other error is retried.
 */
export type JobHandler = (context: JobContext) => Promise<'done' | 'waiting'>

export interface JobRunner {
  /** Under which ids this process locks jobs in the queue. */
  workerIds: readonly string[]
  stop(): Promise<void>
}

const maxAttempts = 6
const parallelJobs = 4
/**
 * Embedded, a notification comes back on the connection that raised it and never on the queue's own, so there the
 * queue is asked; one query costs about a millisecond.
 */
const pollMs = { embedded: 200, postgres: 2_000 }

/** Makes a job and puts it into the queue, both in the transaction that needs it. Returns its id. */
export async function enqueueJob(
  transaction: Transaction,
  kind: JobKind,
  params: Record<string, unknown>,
): Promise<string> {
  const jobId = await insertJob(transaction, kind, params)
  await transaction.query('select graphile_worker.add_job($1, payload => $2::json, max_attempts => $3)', [
    kind,
    JSON.stringify({ jobId }),
    maxAttempts,
  ])
  return jobId
}

/** Runs queued jobs of the given kinds in this process until stopped. */
export async function startJobRunner(
  database: Database,
  handlers: Partial<Record<JobKind, JobHandler>>,
  log: Logger,
): Promise<JobRunner> {
  const stopping = new AbortController()
  const taskList: TaskList = {}
  for (const [kind, handler] of Object.entries(handlers)) {
    taskList[kind] = async (payload, helpers) => {
      const { jobId } = payload as { jobId: string }
      const isLastAttempt = helpers.job.attempts >= helpers.job.max_attempts
      await runJob(database, handler, {
        jobId,
        isLastAttempt,
        signal: stopping.signal,
        log: log.child({ jobId, kind }),
      })
    }
  }
  const workerIds: string[] = []
  const events: WorkerEvents = new EventEmitter()
  events.on('worker:create', ({ worker }) => workerIds.push(worker.workerId))
  const runner = await run({
    events,
    pgPool: database.pool,
    taskList,
    concurrency: parallelJobs,
    noHandleSignals: true,
    noPreparedStatements: database.engine === 'embedded',
    pollInterval: pollMs[database.engine],
    logger: new WorkerLogger(() => (level, message) => {
      if (level === 'error') log.error({ source: 'graphile-worker' }, message)
      else if (level === 'warning') log.warn({ source: 'graphile-worker' }, message)
      else log.debug({ source: 'graphile-worker' }, message)
    }),
  })
  return {
    workerIds,
    async stop() {
      stopping.abort(new Error('This process is stopping'))
      await runner.stop()
    },
  }
}

async function runJob(
  database: Database,
  handler: JobHandler,
  run: { jobId: string; isLastAttempt: boolean; signal: AbortSignal; log: Logger },
): Promise<void> {
  const { jobId, log, signal } = run
  const job = await database.transaction((transaction) => startJob(transaction, jobId))
  if (!job) return
  try {
    const outcome = await handler({ job, log, signal })
    if (outcome === 'done')
      await database.transaction((transaction) => endJob(transaction, jobId, 'SUCCEEDED', null))
  } catch (error) {
    const reason = errorMessage(error)
    if (error instanceof QuarryError || run.isLastAttempt) {
      log.error({ error: reason }, 'A job failed')
      await database.transaction((transaction) => endJob(transaction, jobId, 'FAILED', reason))
      return
    }
    log.warn({ err: error }, 'A job will be tried again')
    await database.transaction((transaction) => postponeJob(transaction, jobId, reason))
    throw error
  }
}
