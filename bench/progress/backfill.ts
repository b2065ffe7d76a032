import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { type EmbeddingSpace, partitionName } from '../../src/embedding/spaces.ts'
import { enqueueJob } from '../../src/jobs/queue.ts'
import { isEnded, type JobState } from '../../src/jobs/records.ts'
import { empty, insertMessages } from '../embedding.ts'
import {
  type BenchServer,
  connect,
  databaseId,
  openBenchDatabase,
  type QuarryProcess,
  startWorker,
  within,
} from '../environment.ts'

/** Starts a BACKFILL job through the API. Returns its global id. */
export async function startBackfill(server: BenchServer): Promise<string> {
  const { backfillEmbeddings } = await server.request<{ backfillEmbeddings: { job?: { id: string } } }>(
    'mutation { backfillEmbeddings(input: {}) { ... on BackfillEmbeddingsPayload { job { id } } } }',
  )
  const { job } = backfillEmbeddings
  if (!job) throw new Error('a backfill of everything was refused')
  return job.id
}

/**
 * Messages that are owed an embedding, and that no pipeline takes up before tomorrow (after so many attempts, a wait of
 * a day is believed): what becomes of them, and when, is the bench's to say. In the transaction that makes them, or they
 * might be taken up at once.
 */
export async function insertHeldMessages(
  client: pg.Client,
  space: EmbeddingSpace,
  first: number,
  count: number,
): Promise<string[]> {
  await client.query('begin')
  const ids = await insertMessages(client, first, count)
  await client.query(
    `update ${partitionName(space)} set next_attempt_at = now() + interval '1 day', attempts = 20 where owner_id = any ($1)`,
    [ids],
  )
  await client.query('commit')
  return ids
}

/** A job that waits for rows that nobody embeds: it runs until the bench ends them. Returns its global id. */
export async function startHeldBackfill(
  server: BenchServer,
  client: pg.Client,
  rows: number,
): Promise<string> {
  const id = await startBackfill(server)
  await waitForJob(client, databaseId(id), ({ state, total }) => state === 'RUNNING' && total === rows)
  return id
}

export interface JobNow {
  state: JobState
  total: number | null
  succeeded: number
  failed: number
  error: string | null
  lastSeq: number
}

/** A backfill that takes longer than this has come to a stop. */
const limitMs = 600_000
/** How often the database is asked; it bounds how exact a time is that is measured so. */
const pollMs = 20

/** The job as it is when it is as it should be. @throws Error if it ends otherwise */
export async function waitForJob(
  client: pg.Client,
  jobId: string,
  isReached: (job: JobNow) => boolean,
): Promise<JobNow> {
  for (;;) {
    const { rows } = await client.query<JobNow>(
      `select state, total, succeeded, failed, error, last_seq::int as "lastSeq" from job where id = $1`,
      [jobId],
    )
    const [job] = rows
    if (job && isReached(job)) return job
    if (!job || isEnded(job.state)) throw new Error(`the job went wrong: ${JSON.stringify(job ?? 'no job')}`)
    await delay(pollMs)
  }
}

/**
 * Milliseconds from the commit of messages and of the job that is to have them embedded until that job has ended, with all
 * of them embedded by so many workers. The index is empty at first.
 */
export async function timeBackfill(options: {
  databaseUrl: string
  space: EmbeddingSpace
  env: Record<string, string>
  count: number
  workers: number
}): Promise<number> {
  const { databaseUrl, space, count } = options
  const client = await connect(databaseUrl)
  const database = await openBenchDatabase(databaseUrl)
  const workers: QuarryProcess[] = []
  try {
    await empty(client, space)
    const env = { DATABASE_URL: databaseUrl, ...options.env }
    for (let n = 0; n < options.workers; n++) workers.push(await startWorker(env))
    const jobId = await database.transaction(async (transaction) => {
      await insertMessages(transaction, 0, count)
      await transaction.query('analyze message')
      await transaction.query(`analyze ${partitionName(space)}`)
      return enqueueJob(transaction, 'BACKFILL', { kinds: ['MESSAGE'], retryFailed: false })
    })
    const started = performance.now()
    const ended = waitForJob(client, jobId, ({ state }) => state === 'SUCCEEDED')
    await within(limitMs, `the backfill of ${count} rows`, ended)
    const ms = performance.now() - started
    await requireReady(client, count)
    return ms
  } finally {
    await Promise.all(workers.map((worker) => worker[Symbol.asyncDispose]()))
    await database.close()
    await client.end()
  }
}

async function requireReady(client: pg.Client, count: number): Promise<void> {
  const { rows } = await client.query<{ ready: number }>(
    `select coalesce(sum(n), 0)::int as ready from embedding_count where status = 'READY'`,
  )
  if (rows[0]?.ready !== count) throw new Error(`${rows[0]?.ready} of ${count} messages are READY`)
}
