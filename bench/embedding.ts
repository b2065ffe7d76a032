import { v7 as uuidv7 } from 'uuid'
import { migrate } from '../src/db/migrate.ts'
import { type EmbeddingSpace, ensureActiveSpace, partitionName } from '../src/embedding/spaces.ts'
import { createLogger } from '../src/log.ts'
import { createEmbeddingProvider } from '../src/providers/create.ts'
import {
  type BenchPostgres,
  connect,
  createDatabase,
  openBenchDatabase,
  providerConfig,
  providerEnv,
  startProvider,
  startServer,
} from './environment.ts'
import { median, percent, perSecond, type Report } from './report.ts'
import { messageText, vectorType } from './search.ts'
import { binaryVectors, ClusteredVectors } from './vectors.ts'

const latencyMs = 50
const clusters = 200
const seed = 7

/** From a committed import to the last vector, beside what the provider and the database would do at the best. */
export async function benchEmbedding(postgres: BenchPostgres, options: { quick: boolean }): Promise<Report> {
  const count = options.quick ? 2_000 : 10_000
  await using others = await createDatabase(postgres)
  await using provider = await startProvider({ clusters, seed, latencyMs, prepared: count })
  const config = providerConfig(provider.url)
  const { limits } = createEmbeddingProvider(config)
  const providerLimit = (1000 * limits.maxParallelRequests * limits.maxTextsPerRequest) / latencyMs
  const space = await prepare(others.url, config)
  const vectors = new ClusteredVectors({ clusters, seed })
  const all = Array.from({ length: count }, (_, number) => vectors.at(number))

  const quarry: number[] = []
  const raw: number[] = []
  const ratios: number[] = []
  // By turns, each into an empty index: the graph that a write goes into decides what the write costs.
  for (let round = 0; round < (options.quick ? 1 : 3); round++) {
    const pipeline = await embedAll(postgres, config, provider.url, count)
    const writes = await writeAll(
      others.url,
      space,
      all,
      limits.maxParallelRequests,
      limits.maxTextsPerRequest,
    )
    quarry.push(pipeline)
    raw.push(writes)
    ratios.push(pipeline / Math.min(writes, providerLimit))
  }
  const ratio = median(ratios)
  return {
    title: `Embedding of ${count.toLocaleString('en')} messages`,
    rows: [
      {
        what: 'messages embedded and findable',
        figure: perSecond(median(quarry)),
        beside: `${perSecond(Math.min(median(raw), providerLimit))} ideal`,
        ratio: percent(ratio),
        aim: '>= 80 %',
        isMet: ratio >= 0.8,
      },
      {
        what: 'limit: raw writes into the same indexed table',
        figure: '',
        beside: `${perSecond(median(raw))} raw pg`,
      },
      {
        what: `limit: provider, ${limits.maxParallelRequests} requests of ${limits.maxTextsPerRequest} texts in ${latencyMs} ms`,
        figure: '',
        beside: perSecond(providerLimit),
      },
    ],
    notes: [
      'From the commit of the messages to the last READY, in an index that is empty at first; the provider is a process of its own with answers made beforehand.',
      `Raw writes: the same vectors in binary, inserted as whole rows without triggers on ${limits.maxParallelRequests} connections, ${limits.maxTextsPerRequest} a statement. Updating rows that are there already is not faster.`,
      'Pipeline and raw writes take turns; figures are medians of the rounds. Server, provider and Postgres share the cores.',
    ],
  }
}

/** A migrated database with its space. */
export async function prepare(url: string, config: Parameters<typeof createEmbeddingProvider>[0]) {
  const database = await openBenchDatabase(url)
  try {
    await migrate(database)
    return await ensureActiveSpace(database, createEmbeddingProvider(config), createLogger('warn'))
  } finally {
    await database.close()
  }
}

/** Leaves no message, and no debt of what was done so far to what is measured next. */
export async function empty(
  client: Awaited<ReturnType<typeof connect>>,
  space: EmbeddingSpace,
): Promise<void> {
  await client.query(`truncate message, source, ${partitionName(space)}, embedding_count cascade`)
  // What one round has left to do must not fall on the next.
  await client.query('checkpoint')
}

/**
 * Messages a second from the commit that makes them owed until none is. On a server and a database of its own: one that
 * was emptied would still be building the index of what it held.
 */
async function embedAll(
  postgres: BenchPostgres,
  config: Parameters<typeof createEmbeddingProvider>[0],
  providerUrl: string,
  count: number,
): Promise<number> {
  await using ours = await createDatabase(postgres)
  const space = await prepare(ours.url, config)
  await using _server = await startServer({ DATABASE_URL: ours.url, ...providerEnv(providerUrl) })
  const client = await connect(ours.url)
  try {
    await client.query('begin')
    await insertMessages(client, 0, count)
    await client.query('analyze message')
    await client.query(`analyze ${partitionName(space)}`)
    await client.query('commit')
    const started = performance.now()
    for (;;) {
      const { rows } = await client.query<{ ready: number }>(
        `select coalesce(sum(n), 0)::int as ready from embedding_count where status = 'READY'`,
      )
      if (rows[0]?.ready === count) return (1000 * count) / (performance.now() - started)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  } finally {
    await client.end()
  }
}

/**
 * Messages of the numbers from `first` on, in one statement.
 * @returns their ids
 */
export async function insertMessages(
  sql: { query(text: string, values: unknown[]): Promise<unknown> },
  first: number,
  count: number,
): Promise<string[]> {
  const [sourceId, name] = [uuidv7(), `bench ${first}`]
  await sql.query(`insert into source (id, name, type) values ($1, $2, 'bench')`, [sourceId, name])
  const numbers = Array.from({ length: count }, (_, index) => first + index)
  const ids = numbers.map(() => uuidv7())
  await sql.query(
    // Grouped already: what follows on embedding has a benchmark of its own.
    `insert into message (id, source_id, external_id, author, content, sent_at, conversation_id)
     select m.id, $1, m.number::text, 'bench', m.content, timestamptz '2026-01-01' + m.number * interval '30 seconds', m.id
     from unnest($2::uuid[], $3::int[], $4::text[]) as m(id, number, content)`,
    [sourceId, ids, numbers, numbers.map(messageText)],
  )
  return ids
}

/** Vectors a second that the database takes into its index when nothing else is done. */
export async function writeAll(
  url: string,
  space: EmbeddingSpace,
  vectors: readonly Float32Array[],
  connections: number,
  batch: number,
): Promise<number> {
  const clients = await Promise.all(Array.from({ length: connections }, () => connect(url)))
  try {
    const [first] = clients
    if (!first) throw new Error('no connection')
    await empty(first, space)
    const elementType = await vectorType(first)
    // Encoded before the clock starts: the floor is what the server needs.
    const batches: { ids: string[]; bytes: Buffer }[] = []
    for (let at = 0; at < vectors.length; at += batch) {
      const part = vectors.slice(at, at + batch)
      batches.push({ ids: part.map(() => uuidv7()), bytes: binaryVectors(part, elementType) })
    }
    const started = performance.now()
    await Promise.all(
      clients.map(async (client) => {
        await client.query('set session_replication_role = replica')
        for (let next = batches.pop(); next; next = batches.pop()) {
          await client.query(
            `insert into ${partitionName(space)} (space_id, kind, owner_id, status, content_hash, embedded_at, vector)
             select $1, 'MESSAGE', r.id, 'READY', md5(r.id::text)::uuid, clock_timestamp(), r.vector
             from unnest($2::uuid[], $3::vector[]) as r(id, vector)`,
            [space.id, next.ids, next.bytes],
          )
        }
      }),
    )
    return (1000 * vectors.length) / (performance.now() - started)
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
}
