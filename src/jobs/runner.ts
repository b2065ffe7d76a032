import { EventEmitter } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { type Runner, run, type TaskList, type WorkerEvents, Logger as WorkerLogger } from 'graphile-worker'
import type { Database, Transaction } from '../db/database.ts'
import { errorMessage, QuarryError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { maxRetries, retryDelayMs } from './backoff.ts'
import { cancelledChannel } from './control.ts'
import { putInQueue } from './queue.ts'
import {
  endJob,
  findJob,
  type JobKind,
  JobLostError,
  type JobRow,
  requeueJob,
  setJobWaiting,
  startJob,
} from './records.ts'

export interface JobContext {
  job: JobRow
  log: Logger
  /** Aborted when the job is cancelled or this process stops: break off. */
  signal: AbortSignal
}

/** The last writes of a job, in the transaction that ends it. */
export type FinishJob = (transaction: Transaction) => Promise<void>

/**
 * Does the work of one job. May be called again for the same job after a crash or an error, and then goes on from what
 * the database says is done. Resolving with 'waiting' leaves the job running: rows that it asked for end it.
 * A QuarryError ends the job as FAILED, a PostponeError puts it off, any other error is retried.
 */
export type JobHandler = (context: JobContext) => Promise<'done' | 'waiting' | FinishJob>

/** Something that cannot be done now, through no fault of the job: it is taken up again later, and nothing is counted. */
export class PostponeError extends Error {
  override readonly name = 'PostponeError'
  readonly waitMs: number
  constructor(message: string, waitMs: number) {
    super(message)
    this.waitMs = waitMs
  }
}

/** Work of the queue that is no job: small, safe to repeat, seen by nobody. What it throws is retried by the queue. */
export type Task = (payload: unknown) => Promise<void>

export interface JobRunner {
  /** Under which ids this process locks jobs in the queue: it makes new ones when it connects again. */
  poolIds: readonly string[]
  /** Why it does not work any more, null if it does. */
  problem(): string | null
  /** Hands back what is in hand, so that another process, or the next start, goes on with it at once. */
  stop(): Promise<void>
}

export interface JobRunnerOptions {
  database: Database
  handlers: Partial<Record<JobKind, JobHandler>>
  tasks: Readonly<Record<string, Task>>
  /** Lines of crontab(5), UTC, with names of tasks: run once each time, by whichever process is first. */
  schedule: string
  metrics: Metrics
  log: Logger
}

const parallelJobs = 4
/** A job whose process died so often while it was at it, without progress between, is taken for the cause. */
const maxDeaths = 25
/**
 * Embedded, a notification comes back on the connection that raised it and never on the queue's own, so there the
 * queue is asked; one query costs about a millisecond.
 */
const pollMs = { embedded: 100, postgres: 2_000 }
const databaseRetryMs = 500
const restartMs = 1_000
/** A process that stops must not wait for long for a database that does not answer; the others will notice. */
const stopPatienceMs = 3_000

class StoppingError extends Error {}
class CancelledError extends Error {}

/** Runs queued jobs of the given kinds, and tasks, in this process until stopped. */
export async function startJobRunner(options: JobRunnerOptions): Promise<JobRunner> {
  const { database, handlers, tasks, log } = options
  const stopping = new AbortController()
  const underWay = new Map<string, AbortController>()
  const taskList: TaskList = {}
  for (const [name, task] of Object.entries(tasks)) taskList[name] = (payload) => task(payload)
  for (const [kind, handler] of Object.entries(handlers)) {
    taskList[kind] = async (payload) => {
      const { jobId } = payload as { jobId: string }
      const controller = new AbortController()
      const onStop = () => controller.abort(new StoppingError('This process is stopping'))
      stopping.signal.addEventListener('abort', onStop)
      if (stopping.signal.aborted) onStop()
      underWay.set(jobId, controller)
      try {
        await runJob(options, handler, {
          jobId,
          kind: kind as JobKind,
          signal: controller.signal,
          log: log.child({ jobId, kind }),
        })
      } finally {
        stopping.signal.removeEventListener('abort', onStop)
        if (underWay.get(jobId) === controller) underWay.delete(jobId)
      }
    }
  }

  const breakOff = (jobId: string) => underWay.get(jobId)?.abort(new CancelledError('The job was cancelled'))
  const unlisten = await database.listen(cancelledChannel, (jobId) => {
    if (jobId !== null) return breakOff(jobId)
    // The connection was lost for a while, and with it perhaps a word about one of these.
    for (const id of underWay.keys()) {
      findJob(database, id).then(
        (job) => job?.state === 'CANCELLED' && breakOff(id),
        (error) => log.warn({ error: errorMessage(error) }, 'Could not see whether a job was cancelled'),
      )
    }
  })

  const poolIds: string[] = []
  let problem: string | null = null

  async function begin(): Promise<Runner> {
    // What an earlier one has locked is nobody's from here on, and is unlocked with the heartbeat.
    poolIds.splice(0)
    const events: WorkerEvents = new EventEmitter()
    events.on('pool:create', ({ workerPool }) => poolIds.push(workerPool.id))
    return run({
      events,
      pgPool: database.pool,
      taskList,
      crontab: options.schedule,
      // What tells the queue that a job is done is retried when the connection is lost only if it is batched; else it
      // would end the process.
      preset: { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
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
  }

  /** The queue gives up when its connection is lost at a bad moment: then it is begun anew. */
  async function keepRunning(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await runner.promise
        problem = 'The job queue ended'
      } catch (error) {
        problem = `The job queue broke off: ${errorMessage(error)}`
      }
      while (problem !== null && !stopping.signal.aborted) {
        log.warn({ error: problem }, 'The job queue is begun anew')
        await delay(restartMs, undefined, { signal: stopping.signal }).catch(() => {})
        if (stopping.signal.aborted) return
        try {
          runner = await begin()
          problem = null
          if (stopping.signal.aborted) await runner.stop()
        } catch (error) {
          problem = `The job queue cannot be begun: ${errorMessage(error)}`
        }
      }
    }
  }

  let runner = await begin()
  const running = keepRunning()
  return {
    poolIds,
    problem: () => problem,
    async stop() {
      stopping.abort()
      await unlisten()
      // One that has ended by itself cannot be stopped.
      await runner.stop().catch(() => {})
      await running
    },
  }
}

type Outcome = 'done' | 'waiting' | 'failed' | 'retried' | 'postponed' | 'handed_back' | 'lost'

async function runJob(
  { database, metrics }: JobRunnerOptions,
  handler: JobHandler,
  run: { jobId: string; kind: JobKind; signal: AbortSignal; log: Logger },
): Promise<void> {
  const { jobId, kind, log, signal } = run
  const job = await database.transaction((transaction) => startJob(transaction, jobId))
  if (!job) return
  const endTimer = metrics.jobRuns.startTimer({ kind })
  let outcome: Outcome
  try {
    if (job.deaths > maxDeaths) {
      throw new QuarryError(
        `The process that worked on this job died ${job.deaths} times in a row without getting any further: see the logs for why, then retry it`,
      )
    }
    const result = await handler({ job, log, signal })
    if (result !== 'waiting') {
      await database.transaction(async (transaction) => {
        if (result !== 'done') await result(transaction)
        await endJob(transaction, job, 'SUCCEEDED', null)
      })
    }
    outcome = result === 'waiting' ? 'waiting' : 'done'
  } catch (error) {
    outcome = await settleError(database, job, error, signal, log)
  }
  endTimer({ outcome })
}

/** Brings a job whose run broke off to where it belongs, also when the database is away just now. */
async function settleError(
  database: Database,
  job: JobRow,
  error: unknown,
  signal: AbortSignal,
  log: Logger,
): Promise<Outcome> {
  const settle = (write: (transaction: Transaction) => Promise<void>) =>
    untilItAnswers(database, signal, log, write)
  try {
    if (error instanceof JobLostError || signal.reason instanceof CancelledError) {
      log.info({}, 'A job was broken off: it was cancelled, or begun anew elsewhere')
      return 'lost'
    }
    if (signal.reason instanceof StoppingError) {
      await settle(async (transaction) => {
        const message = 'Handed back by a process that stops'
        await requeueJob(transaction, job, { error: null, message, isFailure: false })
        await putInQueue(transaction, job.kind, job.id)
      })
      return 'handed_back'
    }
    const reason = errorMessage(error)
    if (error instanceof PostponeError) {
      const { waitMs } = error
      log.warn({ error: reason, waitMs }, 'A job waits')
      await settle(async (transaction) => {
        await setJobWaiting(transaction, job, 'QUEUED', waitMs, reason)
        await putInQueue(transaction, job.kind, job.id, waitMs)
      })
      return 'postponed'
    }
    // What it did before it broke off has set the number of failures back.
    const failures = (await untilFound(database, signal, log, job.id))?.failures ?? 0
    if (error instanceof QuarryError || failures >= maxRetries) {
      log.error({ error: reason }, 'A job failed')
      const given = failures >= maxRetries ? `${reason} (after ${failures + 1} attempts)` : reason
      await settle((transaction) => endJob(transaction, job, 'FAILED', given))
      return 'failed'
    }
    const delayMs = retryDelayMs(failures)
    log.warn({ err: error, delayMs }, 'A job will be tried again')
    await settle(async (transaction) => {
      const message = `Tried again in ${Math.round(delayMs / 1000)} s: ${reason}`
      await requeueJob(transaction, job, { error: reason, message, isFailure: true })
      await putInQueue(transaction, job.kind, job.id, delayMs)
    })
    return 'retried'
  } catch (lost) {
    if (lost instanceof JobLostError) return 'lost'
    throw lost
  }
}

function untilFound(
  database: Database,
  signal: AbortSignal,
  log: Logger,
  id: string,
): Promise<JobRow | null> {
  return untilItAnswers(database, signal, log, (transaction) => findJob(transaction, id))
}

/**
 * Does a transaction, again and again while the database is away: the job would otherwise stay locked by a process that
 * lives and does nothing for it. Ends soon when the process stops: others then notice that it is gone.
 */
async function untilItAnswers<Result>(
  database: Database,
  signal: AbortSignal,
  log: Logger,
  work: (transaction: Transaction) => Promise<Result>,
): Promise<Result> {
  for (let patienceMs = stopPatienceMs; ; ) {
    try {
      return await database.transaction(work)
    } catch (error) {
      if (error instanceof JobLostError || patienceMs <= 0) throw error
      log.warn({ error: errorMessage(error) }, 'The end of a run could not be written yet')
      await delay(databaseRetryMs)
      if (signal.reason instanceof StoppingError) patienceMs -= databaseRetryMs
    }
  }
}
