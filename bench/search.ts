import type pg from 'pg'
import { v7 as uuidv7 } from 'uuid'
import { migrate } from '../src/db/migrate.ts'
import { type EmbeddingSpace, ensureActiveSpace, partitionName } from '../src/embedding/spaces.ts'
import { vectorBytes } from '../src/embedding/vectors.ts'
import { createLogger } from '../src/log.ts'
import { createEmbeddingProvider } from '../src/providers/create.ts'
import { noFilter } from '../src/search/filter.ts'
import { semanticStatement } from '../src/search/statements.ts'
import {
  type BenchPostgres,
  connect,
  createDatabase,
  forkTypeScript,
  messageOf,
  openBenchDatabase,
  providerConfig,
  providerEnv,
  startProvider,
  startServer,
} from './environment.ts'
import { ms, perSecond, type Report, type Row, times } from './report.ts'
import type { SearchFigures, SearchTask } from './search-client.ts'
import { binaryVectors, ClusteredVectors } from './vectors.ts'

const queryCount = 100
const pageSize = 10
const sizes = [
  { rows: 10_000, clusters: 200, aim: 2 },
  { rows: 100_000, clusters: 1000, aim: 1.5 },
]

/** Search through the API beside the same statement sent by hand. */
export async function benchSearch(postgres: BenchPostgres, options: { quick: boolean }): Promise<Report> {
  const rows: Row[] = []
  for (const size of options.quick ? sizes.slice(0, 1) : sizes) {
    const { quarry, raw, empty, ratio, recall, buildMs } = await measure(postgres, size, options.quick)
    const of = `${size.rows.toLocaleString('en')} rows`
    rows.push(
      {
        what: `p50, 1 connection, ${of}`,
        figure: ms(quarry.p50),
        beside: `${ms(raw.p50)} raw pg`,
        ratio: times(ratio.p50),
        aim: `<= ${size.aim}x`,
        isMet: ratio.p50 <= size.aim,
      },
      {
        what: `p95, 1 connection, ${of}`,
        figure: ms(quarry.p95),
        beside: `${ms(raw.p95)} raw pg`,
        ratio: times(ratio.p95),
      },
      {
        what: `requests at 16 connections, ${of}`,
        figure: perSecond(quarry.perSecond),
        beside: `${perSecond(raw.perSecond)} raw pg`,
        ratio: times(ratio.perSecond),
      },
      {
        what: `recall@${pageSize}, ${of}`,
        figure: recall.toFixed(3),
        beside: 'exact scan',
        aim: '>= 0.95',
        isMet: recall >= 0.95,
      },
      {
        what: `{ __typename }, ${of}`,
        figure: `${ms(empty.p50)}, ${perSecond(empty.perSecond)}`,
      },
    )
    console.error(`search, ${of}: loaded and indexed in ${Math.round(buildMs / 1000)} s`)
  }
  return {
    title: 'Search by meaning, over HTTP',
    rows,
    notes: [
      `${queryCount} queries near clusters of the rows, none a copy of one; SEMANTIC, first ${pageSize}, each hit with similarity, id, content and author; query vectors cached.`,
      'Raw pg: the very statement of the search, from the same client process. The two take turns; figures are medians of the rounds, ratios those of each round.',
      '`{ __typename }`: the same way through HTTP and GraphQL without a search.',
      'Client, server and Postgres share the cores.',
    ],
  }
}

async function measure(
  postgres: BenchPostgres,
  size: (typeof sizes)[number],
  quick: boolean,
): Promise<SearchFigures & { recall: number; buildMs: number }> {
  const seed = size.rows
  const vectors = new ClusteredVectors({ clusters: size.clusters, seed })
  await using database = await createDatabase(postgres)
  await using provider = await startProvider({ clusters: size.clusters, seed })
  const started = performance.now()
  const space = await prepare(database.url, providerConfig(provider.url), size.rows, vectors)
  const buildMs = performance.now() - started

  await using server = await startServer({ DATABASE_URL: database.url, ...providerEnv(provider.url) })
  // Numbers behind those of the rows: vectors of the same clusters that no row has.
  const queries = Array.from({ length: queryCount }, (_, index) => {
    const vector = vectors.at(size.rows + index)
    const literal = `[${vector.join(',')}]`
    const statement = semanticStatement(space, ['MESSAGE'], noFilter, vectorBytes(vector), pageSize + 1, {
      withRows: true,
    })
    return { text: `what is close to #${size.rows + index}`, literal, statement }
  })
  const task: SearchTask = {
    graphqlUrl: `${new URL(server.url).origin}/graphql`,
    databaseUrl: database.url,
    queries: queries.map(({ text, statement }) => ({ text, values: statement.values })),
    statement: queries[0]?.statement.text ?? '',
    rounds: quick ? 3 : 9,
    loadMs: quick ? 1000 : 2000,
    connections: 16,
  }
  const client = forkTypeScript('search-client.ts')
  client.send(task)
  const figures = await messageOf<SearchFigures>(client)
  const exact = await exactAnswers(
    database.url,
    space,
    queries.map(({ literal }) => literal),
  )
  const hits = figures.found.flatMap((found, index) => found.filter((id) => exact[index]?.has(id)))
  return { ...figures, recall: hits.length / (queryCount * pageSize), buildMs }
}

/** A migrated database with messages and their vectors; the index built over them as at a start of Quarry. */
async function prepare(
  url: string,
  config: Parameters<typeof createEmbeddingProvider>[0],
  rows: number,
  vectors: ClusteredVectors,
): Promise<EmbeddingSpace> {
  const database = await openBenchDatabase(url)
  const provider = createEmbeddingProvider(config)
  const log = createLogger('warn')
  const client = await connect(url)
  try {
    await migrate(database)
    const space = await ensureActiveSpace(database, provider, log)
    const { rows: indexes } = await client.query<{ name: string }>(
      `select c.relname as name from pg_index i join pg_class c on c.oid = i.indexrelid
         join pg_am a on a.oid = c.relam
       where i.indrelid = $1::regclass and a.amname = 'hnsw'`,
      [partitionName(space)],
    )
    for (const { name } of indexes) await client.query(`drop index ${name}`)
    await load(client, space, rows, vectors)
    await ensureActiveSpace(database, provider, log)
    await client.query('vacuum analyze message')
    await client.query(`vacuum analyze ${partitionName(space)}`)
    await client.query('checkpoint')
    return space
  } finally {
    await client.end()
    await provider.close()
    await database.close()
  }
}

const topics = [
  'backup',
  'invoice',
  'login',
  'search',
  'release',
  'latency',
  'mobile app',
  'database',
  'cache',
]
const verbs = [
  'fails',
  'is slow',
  'was moved',
  'needs a review',
  'works again',
  'loses rows',
  'blocks the release',
]

export const messageText = (number: number) =>
  `The ${topics[number % topics.length]} ${verbs[number % verbs.length]} since this morning; the third report ` +
  `in ${number % 11} days, and nobody has looked into it yet #${number}`

/** Without the triggers, which are measured elsewhere: rows, vectors and counts as the pipeline leaves them. */
async function load(
  client: pg.Client,
  space: EmbeddingSpace,
  count: number,
  vectors: ClusteredVectors,
): Promise<void> {
  const sourceId = uuidv7()
  const elementType = await vectorType(client)
  await client.query(`set session_replication_role = replica`)
  await client.query(`insert into source (id, name, type) values ($1, 'bench', 'bench')`, [sourceId])
  const batch = 1000
  for (let first = 0; first < count; first += batch) {
    const numbers = Array.from({ length: Math.min(batch, count - first) }, (_, index) => first + index)
    const ids = numbers.map(() => uuidv7())
    await client.query(
      // Grouped already: the server would spend the time of the measurement on it.
      `insert into message (id, source_id, channel, external_id, author, content, sent_at, conversation_id)
       select m.id, $1, '#room-' || m.number % 10, m.number::text, 'person-' || m.number % 50, m.content,
         timestamptz '2026-01-01' + m.number * interval '30 seconds', m.id
       from unnest($2::uuid[], $3::int[], $4::text[]) as m(id, number, content)`,
      [sourceId, ids, numbers, numbers.map(messageText)],
    )
    await client.query(
      `insert into ${partitionName(space)} (space_id, kind, owner_id, status, content_hash, embedded_at, vector)
       select $1, 'MESSAGE', m.id, 'READY', text_hash(m.content), now(), m.vector
       from unnest($2::uuid[], $3::text[], $4::vector[]) as m(id, content, vector)`,
      [
        space.id,
        ids,
        numbers.map(messageText),
        binaryVectors(
          numbers.map((number) => vectors.at(number)),
          elementType,
        ),
      ],
    )
  }
  await client.query(
    `insert into embedding_count (space_id, kind, status, n) values ($1, 'MESSAGE', 'READY', $2)`,
    [space.id, count],
  )
}

export async function vectorType(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ oid: number }>(`select 'vector'::regtype::oid::int as oid`)
  const [row] = rows
  if (!row) throw new Error('the database has no type vector')
  return row.oid
}

/** The true nearest rows, found without the index. */
async function exactAnswers(url: string, space: EmbeddingSpace, literals: string[]): Promise<Set<string>[]> {
  const client = await connect(url)
  try {
    await client.query('set enable_indexscan = off')
    const answers: Set<string>[] = []
    for (const literal of literals) {
      const { rows } = await client.query<{ id: string }>(
        `select owner_id as id from ${partitionName(space)} where kind = 'MESSAGE'
         order by vector <=> $1::vector limit $2`,
        [literal, pageSize],
      )
      answers.push(new Set(rows.map(({ id }) => id)))
    }
    return answers
  } finally {
    await client.end()
  }
}
