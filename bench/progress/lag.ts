import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import type { EmbeddingSpace } from '../../src/embedding/spaces.ts'
import { jobChannel } from '../../src/jobs/records.ts'
import { prepare } from '../embedding.ts'
import {
  type BenchPostgres,
  type BenchServer,
  connect,
  createDatabase,
  databaseId,
  monotonicMs,
  providerConfig,
  providerEnv,
  startProvider,
  startServer,
} from '../environment.ts'
import { ms, percentile, type Row } from '../report.ts'
import { vectorType } from '../search.ts'
import { binaryVectors, ClusteredVectors, randomNumbers } from '../vectors.ts'
import { insertHeldMessages, startHeldBackfill } from './backfill.ts'
import type { Commit, SubscriberTask } from './subscriber-process.ts'
import { startSubscribers } from './subscribers.ts'

/** Rows of a commit. */
const batchSize = 16
/** Commits before those that count: code is compiled, plans are made. */
const warmUps = 5

/** Milliseconds between two commits, even odds in between. */
const paces = {
  /** Above the 150 ms within which counts of one job are told as one, and above the 250 ms of the coverage. */
  apart: { least: 300, most: 500, words: '' },
  /** As a backfill on this machine commits: five to six times a second. Still nothing is held back. */
  dense: { least: 160, most: 200, words: ', 5 commits a second' },
}

interface Phase {
  field: SubscriberTask['field']
  subscribers: number
  pace: keyof typeof paces
  commits: number
  /** For the p95, milliseconds. */
  aim: number | null
}

/** From a commit to the moment in which those who watch know of it. */
export async function measureLag(postgres: BenchPostgres, options: { quick: boolean }): Promise<Row[]> {
  const many = options.quick ? 200 : 1_000
  const commits = options.quick ? 15 : 100
  const aimOf = (subscribers: number) => (subscribers === 1 ? 100 : 250)
  const phases: Phase[] = (['jobEvents', 'embeddingProgress'] as const).flatMap((field) =>
    [1, many].map((subscribers) => ({
      field,
      subscribers,
      pace: 'apart' as const,
      commits,
      aim: aimOf(subscribers),
    })),
  )
  phases.push({ field: 'jobEvents', subscribers: many, pace: 'dense', commits, aim: null })

  await using database = await createDatabase(postgres)
  await using provider = await startProvider({ refuses: true })
  const space = await prepare(database.url, providerConfig(provider.url))
  await using server = await startServer({ DATABASE_URL: database.url, ...providerEnv(provider.url) })
  const client = await connect(database.url)
  try {
    const rows: Row[] = []
    for (const [index, phase] of phases.entries()) {
      const { lags, raw } = await measurePhase(
        { server, client, space, databaseUrl: database.url },
        phase,
        index,
      )
      rows.push(...rowsOf(phase, lags, raw))
    }
    return rows
  } finally {
    await client.end()
  }
}

function rowsOf(phase: Phase, lags: Float64Array, raw: readonly number[]): Row[] {
  const of = `${phase.field}, ${subscribersOf(phase.subscribers)}${paces[phase.pace].words}`
  const [p50, p95] = [0.5, 0.95].map((share) => percentile([...lags], share)) as [number, number]
  return [
    { what: `event lag p50, ${of}`, figure: ms(p50), beside: `${ms(percentile(raw, 0.5))} raw LISTEN` },
    {
      what: `event lag p95, ${of}`,
      figure: ms(p95),
      beside: `${ms(percentile(raw, 0.95))} raw LISTEN`,
      ...(phase.aim === null ? {} : { aim: `<= ${phase.aim} ms`, isMet: p95 <= phase.aim }),
    },
  ]
}

const subscribersOf = (count: number) =>
  count === 1 ? '1 subscriber' : `${count.toLocaleString('en')} subscribers`

interface Setup {
  server: BenchServer
  client: pg.Client
  space: EmbeddingSpace
  databaseUrl: string
}

/** A commit as the bench made it: the keys that its news have in the subscriptions, and when it was sent. */
interface SentCommit {
  seq: number
  ready: number
  sentAt: number
}

async function measurePhase(
  setup: Setup,
  phase: Phase,
  index: number,
): Promise<{ lags: Float64Array; raw: number[] }> {
  const { server, client, space } = setup
  const count = (warmUps + phase.commits) * batchSize
  const ids = await insertHeldMessages(client, space, index * 100_000, count)
  const id = await startHeldBackfill(server, client, count)
  await using heard = await hearRaw(setup.databaseUrl, databaseId(id))
  await using subscribers = await startSubscribers(server.url, { ...phase, perSocket: 1, jobId: id })
  const sent = (await commitAll(setup, phase, databaseId(id), ids)).slice(warmUps)
  const commits = sent.map(({ seq, ready, sentAt }): Commit => {
    return { key: phase.field === 'jobEvents' ? seq : ready, sentAt }
  })
  if (commits.length === 0) throw new Error('no commit was told of')
  const lags = await subscribers.lags(commits)
  const lost = lags.filter((lag) => lag === Number.POSITIVE_INFINITY).length
  if (lost > 0) throw new Error(`${lost} of ${lags.length} ${phase.field} did not arrive`)
  return { lags, raw: sent.map(({ seq, sentAt }) => (heard.at(seq) ?? Number.NaN) - sentAt) }
}

/** Ends the rows of a job batch by batch, as the pipeline does, and notes when each commit is sent. */
async function commitAll(
  { client, space }: Setup,
  phase: Phase,
  jobId: string,
  ids: readonly string[],
): Promise<SentCommit[]> {
  const random = randomNumbers(phase.subscribers)
  const { least, most } = paces[phase.pace]
  const vectors = new ClusteredVectors({ clusters: 20, seed: 1 })
  const elementType = await vectorType(client)
  const { rows } = await client.query<{ ready: number; seq: number }>(
    `select (select coalesce(sum(n), 0)::int from embedding_count where status = 'READY') as ready,
       (select last_seq::int from job where id = $1) as seq`,
    [jobId],
  )
  let { ready = 0, seq = 0 } = rows[0] ?? {}
  const sent: SentCommit[] = []
  for (let first = 0; first < ids.length; first += batchSize) {
    await delay(least + random() * (most - least))
    const batch = ids.slice(first, first + batchSize)
    await client.query('begin')
    await client.query(
      `update embedding e set status = 'READY', vector = r.vector, embedded_at = clock_timestamp()
       from unnest($2::uuid[], $3::vector[]) as r(id, vector)
       where e.space_id = $1 and e.kind = 'MESSAGE' and e.owner_id = r.id`,
      [
        space.id,
        batch,
        binaryVectors(
          batch.map((_, number) => vectors.at(ready + number)),
          elementType,
        ),
      ],
    )
    const after = await client.query<{ seq: number }>('select last_seq::int as seq from job where id = $1', [
      jobId,
    ])
    const sentAt = monotonicMs()
    await client.query('commit')
    ready += batch.length
    const isTold = (after.rows[0]?.seq ?? 0) > seq
    seq = after.rows[0]?.seq ?? seq
    // Held back, because the event before was too fresh: when it is told says nothing of how fast telling is.
    if (isTold) sent.push({ seq, ready, sentAt })
  }
  return sent
}

/** A connection that does nothing but LISTEN: nobody can know of a commit sooner. */
async function hearRaw(
  url: string,
  jobId: string,
): Promise<AsyncDisposable & { at(seq: number): number | undefined }> {
  const client = await connect(url)
  const heard = new Map<string, number>()
  client.on('notification', ({ payload }) => heard.set(payload ?? '', monotonicMs()))
  await client.query(`listen ${jobChannel}`)
  return {
    at: (seq) => heard.get(`${jobId} ${seq}`),
    [Symbol.asyncDispose]: () => client.end(),
  }
}

export const lagNotes = [
  `Event lag: from the sending of the commit (of ${batchSize} rows that became READY, so the flush to disk is in it) until a graphql-ws client has the event in its hands; each subscriber has a socket of its own, all are one process. Commits come ${paces.apart.least} to ${paces.apart.most} ms apart, so none is held back: counts of one job that change within 150 ms, and coverage within 250 ms, are told as one by design.`,
  'Raw LISTEN: the same commits, until a connection that does nothing else has the notification.',
]
