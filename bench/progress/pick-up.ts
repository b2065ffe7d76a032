import { setTimeout as delay } from 'node:timers/promises'
import {
  type BenchPostgres,
  type BenchServer,
  createDatabase,
  createFolder,
  providerEnv,
  startProvider,
  startServer,
} from '../environment.ts'
import { percentile, type Row } from '../report.ts'
import { randomNumbers } from '../vectors.ts'
import { startBackfill } from './backfill.ts'

const warmUps = 3
const aims = { postgres: 20, embedded: 150 }
/** Between a job's start and the next job, even odds in between: so no interval of the queue keeps in step with it. */
const pauseMs = { least: 200, most: 500 }

/** From the order of a job to its start. */
export async function measurePickUp(postgres: BenchPostgres, options: { quick: boolean }): Promise<Row[]> {
  const jobs = options.quick ? 8 : 60
  await using provider = await startProvider({ refuses: true })
  await using database = await createDatabase(postgres)
  await using folder = await createFolder()
  const places: { name: string; env: Record<string, string>; aim: number }[] = [
    { name: 'Postgres', env: { DATABASE_URL: database.url }, aim: aims.postgres },
    { name: 'embedded', env: { QUARRY_DATA_DIR: folder.path }, aim: aims.embedded },
  ]
  const rows: Row[] = []
  for (const { name, env, aim } of places) {
    await using server = await startServer({ ...env, ...providerEnv(provider.url) })
    const waits = await pickUps(server, jobs)
    const p50 = percentile(waits, 0.5)
    rows.push({
      what: `job pick-up p50, ${name}`,
      figure: `${Math.round(p50)} ms`,
      beside: `p95 ${Math.round(percentile(waits, 0.95))} ms`,
      aim: `<= ${aim} ms`,
      isMet: p50 <= aim,
    })
  }
  return rows
}

async function pickUps(server: BenchServer, jobs: number): Promise<number[]> {
  const random = randomNumbers(3)
  const waits: number[] = []
  for (let job = 0; job < warmUps + jobs; job++) {
    await delay(pauseMs.least + random() * (pauseMs.most - pauseMs.least))
    const id = await startBackfill(server)
    waits.push(await waitOf(server, id))
  }
  return waits.slice(warmUps)
}

async function waitOf(server: BenchServer, id: string): Promise<number> {
  for (const deadline = performance.now() + 30_000; performance.now() < deadline; ) {
    // Asked late: on the embedded engine a question would come in between.
    await delay(250)
    const { node } = await server.request<{ node: { createdAt: string; startedAt: string | null } }>(
      'query ($id: ID!) { node(id: $id) { ... on Job { createdAt startedAt } } }',
      { id },
    )
    if (node.startedAt) return Date.parse(node.startedAt) - Date.parse(node.createdAt)
  }
  throw new Error('a job was not started within 30 s')
}

export const pickUpNotes = [
  'Job pick-up: `startedAt - createdAt` of BACKFILL jobs on an empty database, one after another, ordered through the API of `quarry serve`; by the clock of the database, from the begin of the transaction that orders the job to the begin of the one that starts it, in whole milliseconds.',
]
