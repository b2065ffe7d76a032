import { insertMessages, prepare } from '../embedding.ts'
import {
  type BenchPostgres,
  connect,
  createDatabase,
  databaseId,
  disconnected,
  forkTypeScript,
  messageOf,
  providerConfig,
  providerEnv,
  startProvider,
  startServer,
  within,
} from '../environment.ts'
import type { Row } from '../report.ts'
import { startBackfill, waitForJob } from './backfill.ts'
import type { ReconnectFigures, ReconnectTask } from './reconnect-process.ts'

const clusters = 200
const latencyMs = 50
const limitMs = 300_000

/** Clients that come and go while a backfill runs: what each of them has seen in the end. */
export async function measureReconnects(
  postgres: BenchPostgres,
  options: { quick: boolean },
): Promise<Row[]> {
  const count = options.quick ? 5_000 : 20_000
  const plan = options.quick
    ? { clients: 20, reconnects: 100, meanMs: 150 }
    : { clients: 100, reconnects: 1_000, meanMs: 500 }
  const { reconnects, fruitful, events, lost, doubled, clients } = await measure(postgres, count, plan)
  const of = `${reconnects.toLocaleString('en')} reconnects during a backfill`
  return [
    {
      what: `events lost, ${of}`,
      figure: String(lost),
      beside: `${events.toLocaleString('en')} seen by ${clients} clients`,
      aim: `0 of ${plan.reconnects.toLocaleString('en')}`,
      isMet: lost === 0 && reconnects >= plan.reconnects,
    },
    {
      what: `events doubled, ${of}`,
      figure: String(doubled),
      beside: `${fruitful.toLocaleString('en')} reconnects brought events`,
      aim: `0 of ${plan.reconnects.toLocaleString('en')}`,
      isMet: doubled === 0 && reconnects >= plan.reconnects,
    },
  ]
}

async function measure(
  postgres: BenchPostgres,
  count: number,
  plan: Pick<ReconnectTask, 'clients' | 'reconnects' | 'meanMs'>,
): Promise<ReconnectFigures & { clients: number }> {
  await using database = await createDatabase(postgres)
  await using provider = await startProvider({ clusters, latencyMs, prepared: count })
  await prepare(database.url, providerConfig(provider.url))
  await using server = await startServer({ DATABASE_URL: database.url, ...providerEnv(provider.url) })
  const client = await connect(database.url)
  let child: ReturnType<typeof forkTypeScript> | null = null
  try {
    await insertMessages(client, 0, count)
    const jobId = await startBackfill(server)
    const task: ReconnectTask = { graphqlUrl: server.url, jobId, ...plan }
    child = forkTypeScript('progress/reconnect-process.ts', [JSON.stringify(task)])
    const figures = await within(limitMs, 'following the backfill', messageOf<ReconnectFigures>(child))
    const { lastSeq } = await waitForJob(client, databaseId(jobId), ({ state }) => state === 'SUCCEEDED')
    const unseen = figures.last.reduce((sum, last) => sum + lastSeq - last, 0)
    return { ...figures, lost: figures.lost + unseen, clients: plan.clients }
  } finally {
    if (child) await disconnected(child)
    await client.end()
  }
}

export const reconnectNotes = [
  'Reconnects: graphql-ws clients that follow the job of a running backfill, lose their connection at random (half of them without a goodbye) and go on with `afterSeq`; each counts the numbers that it misses or sees again, and at the end what it has not seen of the events in the database. The server also does the work.',
]
