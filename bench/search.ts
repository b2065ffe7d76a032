import type pg from 'pg'
import { v7 as uuidv7 } from 'uuid'
import { migrate } from '../src/db/migrate.ts'
import { type EmbeddingSpace, ensureActiveSpace, partitionName } from '../src/embedding/spaces.ts'
import { vectorBytes } from '../src/embedding/vectors.ts'
import { createLogger } from '../src/log.ts'
import { createEmbeddingProvider } from '../src/providers/create.ts'
import { noFilter } from '../src/search/filter.ts'
import { semanticStatement } from '../src/search/statements.ts'
import { countWords } from '../src/words/statistics.ts'
import { indexWords } from '../src/words/tokens.ts'
import {
  type BenchPostgres,
  connect,
  createDatabase,
  disconnected,
  forkTypeScript,
  keepDatabase,
  messageOf,
  openBenchDatabase,
  providerConfig,
  providerEnv,
  startProvider,
  startServer,
} from './environment.ts'
import { median, ms, percent, perSecond, type Report, type Row } from './report.ts'
import type { BareTask } from './search/bare-server.ts'
import type { Cell, CellFigures, Figures, SearchTask, SideName } from './search/client.ts'
import { otherVersion, requireOthers } from './search/others.ts'
import { createLangChainView, createPostgraphileFunction } from './search/peers.ts'
import type { PostgraphileTask } from './search/postgraphile-server.ts'
import { ZipfTexts } from './search/texts.ts'
import { binaryVectors, ClusteredVectors, dimensions } from './vectors.ts'

const queryCount = 100
const pageSize = 10
const connections = 16

interface Size {
  rows: number
  clusters: number
  /** Loaded once, and used again by later runs. */
  isKept?: boolean
}
const sizes: Size[] = [
  { rows: 10_000, clusters: 200 },
  { rows: 100_000, clusters: 1000 },
]
const largeOf = (rows: number): Size => ({ rows, clusters: Math.ceil(rows / 200), isKept: true })
/** To be raised when other rows are loaded: a database that was kept has the old ones. */
const keptVersion = 2

const filters: { name: string; channels: string[] | null }[] = [
  { name: 'none', channels: null },
  { name: '10 %', channels: ['#tenth'] },
  { name: '0.1 %', channels: ['#thousandth'] },
]

/** The channel of a message: of a thousand, one is in a channel that is filtered by, a hundred are in another. */
function channelOf(number: number): string {
  if (number % 1000 === 0) return '#thousandth'
  return number % 10 === 1 ? '#tenth' : `#room-${number % 8}`
}

const sideNames: Record<SideName, string> = {
  raw: 'raw pg',
  langchain: 'LangChain',
  bare: 'node:http + pg',
  postgraphile: 'PostGraphile',
  quarry: 'Quarry',
}
const modeNames = { SEMANTIC: 'meaning', KEYWORD: 'words', HYBRID: 'both' } as const

/** Everyone by meaning, then what only Quarry can, and last the request that asks for nothing. */
const cells: Cell[] = [
  ...filters.flatMap(({ channels }) =>
    (['raw', 'langchain', 'bare', 'postgraphile', 'quarry'] as const).map(
      (side): Cell => ({ side, mode: 'SEMANTIC', channels }),
    ),
  ),
  ...(['KEYWORD', 'HYBRID'] as const).flatMap((mode) =>
    filters.map(({ channels }): Cell => ({ side: 'quarry', mode, channels })),
  ),
  { side: 'quarry', mode: null, channels: null },
]

type Measured = CellFigures & Cell & { recall: number | null }

/** Search through the API, beside the same search by other means over the same rows. */
export async function benchSearch(
  postgres: BenchPostgres,
  options: { quick: boolean; large: boolean; rows: number },
): Promise<Report> {
  requireOthers()
  const measured: { size: Size; cells: Measured[] }[] = []
  for (const size of [
    ...(options.quick ? sizes.slice(0, 1) : sizes),
    ...(options.large ? [largeOf(options.rows)] : []),
  ]) {
    measured.push({ size, cells: await measure(postgres, size, options.quick) })
  }
  return {
    title: 'Search, over HTTP',
    rows: [
      ...measured.flatMap(({ size, cells }) => aims(`${size.rows.toLocaleString('en')} rows`, cells)),
      ...growth(measured),
    ],
    tables: measured.map(({ size, cells }) => ({
      title: `${size.rows.toLocaleString('en')} rows`,
      rows: [
        [
          'By',
          'Filter',
          'Who',
          'p50, 1',
          'p95, 1',
          'requests, 1',
          'p50, 16',
          'p95, 16',
          'requests, 16',
          'recall@10',
        ],
        ...cells.map(tableRow),
      ],
    })),
    notes: [
      `${queryCount} queries of 2 to 6 words, with vectors near clusters of the rows, none a copy of one; first ${pageSize}, each hit with similarity, id, content and author; query vectors cached. 1 and ${connections} connections.`,
      'Filters keep the messages of a channel: 10 % or 0.1 % of the rows, spread over all clusters. Texts have 6 to 36 words of a Zipf-like vocabulary, 30 % of them words of their cluster.',
      'raw pg: the very statement of the search, kept plan included, from the client process. node:http + pg: the same statement behind a server that only parses and writes JSON. PostGraphile: the same statement in a function. Each server is a process of its own with 10 connections to the database.',
      `LangChain: PGVectorStore.similaritySearch in the client process, over a view of the same rows and index with the columns that it expects; ${otherVersion('@langchain/community')}, ${otherVersion('postgraphile')}.`,
      'All take turns in rounds, there and back; figures are medians of the rounds, ratios and differences those of each round. Recall: against an exact scan under the same filter.',
      '`{ __typename }`: the same way through HTTP and GraphQL without a search.',
      'Client, servers and Postgres share the cores.',
    ],
  }
}

const over = (rounds: readonly Figures[], field: keyof Figures) => median(rounds.map((round) => round[field]))

/** The median over the rounds of what a comparison of two cells in one round gives. */
const compared = (
  one: readonly Figures[],
  other: readonly Figures[],
  compare: (a: Figures, b: Figures) => number,
): number =>
  median(
    one.flatMap((figures, round) => {
      const beside = other[round]
      return beside ? [compare(figures, beside)] : []
    }),
  )

function tableRow({ side, mode, channels, alone, loaded, recall }: Measured): string[] {
  return [
    mode === null ? '{ __typename }' : modeNames[mode],
    mode === null ? '' : (filters.find((filter) => filter.channels === channels)?.name ?? ''),
    sideNames[side],
    ms(over(alone, 'p50')),
    ms(over(alone, 'p95')),
    perSecond(over(alone, 'perSecond')),
    ms(over(loaded, 'p50')),
    ms(over(loaded, 'p95')),
    perSecond(over(loaded, 'perSecond')),
    recall === null ? '' : recall.toFixed(3),
  ]
}

/** What was promised, for one size. */
function aims(of: string, measured: readonly Measured[]): Row[] {
  const find = (side: SideName, mode: Cell['mode'], channels: string[] | null) => {
    const cell = measured.find(
      (cell) => cell.side === side && cell.mode === mode && cell.channels === channels,
    )
    if (!cell) throw new Error(`nothing was measured for ${side} ${mode}`)
    return cell
  }
  const rows = filters.flatMap(({ name, channels }): Row[] => {
    const quarry = find('quarry', 'SEMANTIC', channels)
    const [raw, bare, postgraphile] = (['raw', 'bare', 'postgraphile'] as const).map((side) =>
      find(side, 'SEMANTIC', channels),
    ) as [Measured, Measured, Measured]
    const above = compared(quarry.alone, raw.alone, (a, b) => a.p50 - b.p50)
    const ratio = (other: Measured) =>
      compared(quarry.loaded, other.loaded, (a, b) => a.perSecond / b.perSecond)
    const filter = name === 'none' ? of : `${of}, filter ${name}`
    return [
      {
        what: `meaning, p50, ${filter}`,
        figure: ms(over(quarry.alone, 'p50')),
        beside: `${ms(over(raw.alone, 'p50'))} raw pg`,
        ratio: `${above < 0 ? '' : '+'}${above.toFixed(2)} ms`,
        aim: '<= +0.5 ms',
        isMet: above <= 0.5,
      },
      {
        what: `meaning, requests, ${filter}`,
        figure: perSecond(over(quarry.loaded, 'perSecond')),
        beside: `${perSecond(over(postgraphile.loaded, 'perSecond'))} PostGraphile`,
        ratio: percent(ratio(postgraphile)),
        aim: '> 100 %',
        isMet: ratio(postgraphile) > 1,
      },
      {
        what: `meaning, requests, ${filter}`,
        figure: perSecond(over(quarry.loaded, 'perSecond')),
        beside: `${perSecond(over(bare.loaded, 'perSecond'))} node:http + pg`,
        ratio: percent(ratio(bare)),
        aim: '>= 60 %',
        isMet: ratio(bare) >= 0.6,
      },
      {
        what: `recall@${pageSize}, ${filter}`,
        figure: quarry.recall?.toFixed(3) ?? '',
        beside: 'exact scan',
        aim: '>= 0.97',
        isMet: (quarry.recall ?? 0) >= 0.97,
      },
    ]
  })
  const hybrid = filters.map(({ name, channels }): Row => {
    const p95 = over(find('quarry', 'HYBRID', channels).alone, 'p95')
    return {
      what: `both, p95, ${name === 'none' ? of : `${of}, filter ${name}`}`,
      figure: ms(p95),
      aim: '<= 25 ms',
      isMet: p95 <= 25,
    }
  })
  return [...rows, ...hybrid]
}

/** How the cost of a search grows with the rows: the same figure of each size, one after another. */
function growth(measured: readonly { size: Size; cells: readonly Measured[] }[]): Row[] {
  const [least] = measured
  if (!least || measured.length < 2) return []
  return (['SEMANTIC', 'KEYWORD', 'HYBRID'] as const).map((mode): Row => {
    const p50s = measured.map(({ cells }) => {
      const cell = cells.find(
        (cell) => cell.side === 'quarry' && cell.mode === mode && cell.channels === null,
      )
      return cell ? over(cell.alone, 'p50') : Number.NaN
    })
    const logs = measured.map(({ size }) => Math.log(size.rows) / Math.log(least.size.rows))
    return {
      what: `${modeNames[mode]}, p50 at ${measured.map(({ size }) => size.rows.toLocaleString('en')).join(', ')} rows`,
      figure: p50s.map(ms).join(', '),
      beside: `${logs.map((log) => ms(log * (p50s[0] ?? Number.NaN))).join(', ')} as log n`,
    }
  })
}

async function measure(postgres: BenchPostgres, size: Size, quick: boolean): Promise<Measured[]> {
  const seed = size.rows
  const vectors = new ClusteredVectors({ clusters: size.clusters, seed })
  const texts = new ZipfTexts(vectors, seed)
  // Numbers behind those of the rows: vectors of the same clusters that no row has.
  const queries = Array.from({ length: queryCount }, (_, index) => {
    const number = size.rows + index
    return { number, text: texts.query(number), vector: vectorBytes(vectors.at(number)) }
  })
  const kept = size.isKept
    ? await keepDatabase(
        postgres,
        `quarry_bench_search_${size.rows}_${size.clusters}_${dimensions}_${keptVersion}`,
      )
    : null
  await using database = kept ?? (await createDatabase(postgres))
  await using provider = await startProvider({
    clusters: size.clusters,
    seed,
    named: Object.fromEntries(queries.map(({ text, number }) => [text, number])),
  })
  const isLoaded = kept?.isComplete ?? false
  const started = performance.now()
  const space = await prepare(
    database.url,
    providerConfig(provider.url),
    isLoaded ? null : { count: size.rows, vectors, texts },
  )
  await kept?.complete()
  const seconds = Math.round((performance.now() - started) / 1000)
  console.error(
    `search, ${size.rows.toLocaleString('en')} rows: ${isLoaded ? 'kept from an earlier run' : `loaded and indexed in ${seconds} s`}`,
  )
  const { statement, filtered } = await preparePeers(database.url, space, queries)

  await using quarry = await startServer({ DATABASE_URL: database.url, ...providerEnv(provider.url) })
  await using bare = await startPeer<BareTask>('search/bare-server.ts', {
    databaseUrl: database.url,
    vectors: Object.fromEntries(queries.map(({ text, vector }) => [text, vector])),
    statement,
    filtered,
    pageSize,
  })
  await using postgraphile = await startPeer<PostgraphileTask>('search/postgraphile-server.ts', {
    databaseUrl: database.url,
  })
  const task: SearchTask = {
    urls: {
      quarry: `${new URL(quarry.url).origin}/graphql`,
      bare: bare.url,
      postgraphile: `${postgraphile.url}/graphql`,
    },
    databaseUrl: database.url,
    queries: queries.map(({ text, vector }) => ({ text, vector })),
    statement,
    filtered,
    cells,
    pageSize,
    rounds: quick ? 3 : 7,
    measureMs: quick ? 200 : 1000,
    connections,
  }
  const client = forkTypeScript('search/client.ts')
  client.send(task)
  const figures = await messageOf<CellFigures[]>(client)
  const exact = new Map<string[] | null, Set<string>[]>()
  for (const { channels } of filters) {
    exact.set(
      channels,
      await exactAnswers(
        database.url,
        space,
        queries.map(({ vector }) => vector),
        channels,
      ),
    )
  }
  return cells.map((cell, index) => {
    const result = figures[index]
    if (!result) throw new Error(`nothing was measured for ${cell.side}`)
    const recall = cell.mode === 'SEMANTIC' ? recallOf(result.found, exact.get(cell.channels) ?? []) : null
    return { ...cell, ...result, recall }
  })
}

/** The share (0..1) of the true nearest rows that was found. */
function recallOf(found: readonly string[][], exact: readonly Set<string>[]): number {
  const wanted = exact.reduce((sum, ids) => sum + ids.size, 0)
  const hits = found.flatMap((ids, query) => ids.filter((id) => exact[query]?.has(id)))
  return hits.length / wanted
}

/** What the others need beside the rows, and the statements that are sent by hand. */
async function preparePeers(
  url: string,
  space: EmbeddingSpace,
  queries: readonly { text: string; vector: Buffer }[],
): Promise<Pick<SearchTask, 'statement' | 'filtered'>> {
  const [query] = queries
  if (!query) throw new Error('no queries')
  // Of any channel: only the text counts.
  const onChannel = { ...noFilter, channels: [''] }
  const statementOf = (filter: typeof noFilter, withRows: boolean) =>
    semanticStatement(space, ['MESSAGE'], filter, query.vector, pageSize + 1, { withRows })
  const client = await connect(url)
  try {
    await createLangChainView(client, space)
    await createPostgraphileFunction(
      client,
      queries,
      statementOf(noFilter, false),
      statementOf(onChannel, false),
      pageSize,
    )
  } finally {
    await client.end()
  }
  const { text, name } = statementOf(noFilter, true)
  const filtered = statementOf(onChannel, true)
  return {
    statement: { text, ...(name === undefined ? {} : { name }) },
    filtered: { text: filtered.text, ...(filtered.name === undefined ? {} : { name: filtered.name }) },
  }
}

async function startPeer<Task extends object>(
  file: string,
  task: Task,
): Promise<AsyncDisposable & { url: string }> {
  const child = forkTypeScript(file, [], { NODE_ENV: 'production' })
  child.send(task)
  const { url } = await messageOf<{ url: string }>(child)
  return { url, [Symbol.asyncDispose]: () => disconnected(child) }
}

interface Rows {
  count: number
  vectors: ClusteredVectors
  texts: ZipfTexts
}

/**
 * For the build of an index: pgvector needs the whole graph in memory, or the build takes many times as long, and a
 * parallel build takes all of it at once, in shared memory. An element of 512 numbers has 2 KiB, and at m 48, the most
 * that is built with, 2 m links of 16 bytes (HnswCandidate of pgvector 0.8) on its lowest layer.
 */
const buildMemory = (rows: number) => `${64 + Math.ceil((rows * 4) / 1024)}MB`

/**
 * A migrated database with messages and their vectors; the index built over them as at a start of Quarry.
 * @param rows null where they are there already
 */
async function prepare(
  url: string,
  config: Parameters<typeof createEmbeddingProvider>[0],
  rows: Rows | null,
): Promise<EmbeddingSpace> {
  const client = await connect(url)
  // Before the connections that build: a setting of a database holds from the next connection on.
  if (rows) {
    const name = new URL(url).pathname.slice(1)
    await client.query(`alter database ${name} set maintenance_work_mem = '${buildMemory(rows.count)}'`)
  }
  const database = await openBenchDatabase(url)
  const provider = createEmbeddingProvider(config)
  const log = createLogger('warn')
  try {
    await migrate(database)
    const space = await ensureActiveSpace(database, provider, log)
    if (rows === null) return space
    const indexes = await dropIndexes(client, ['message', partitionName(space)])
    await load(client, space, rows)
    console.error(`search, ${rows.count.toLocaleString('en')} rows: loaded, the indexes are built`)
    // Those of vectors are made by the start of Quarry, the others here as they were.
    for (const { definition, isVector } of indexes) if (!isVector) await client.query(definition)
    await ensureActiveSpace(database, provider, log)
    // Else the server would count words while it is measured.
    await database.transaction(countWords)
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

/**
 * Drops what can be built after the rows in a fraction of the time: indexes that no other one depends on, and that refuse
 * no row.
 */
async function dropIndexes(
  client: pg.Client,
  tables: readonly string[],
): Promise<{ definition: string; isVector: boolean }[]> {
  const { rows } = await client.query<{ name: string; definition: string; isVector: boolean }>(
    `select c.relname as name, pg_get_indexdef(c.oid) as definition, a.amname = 'hnsw' as "isVector"
     from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
     where i.indrelid = any ($1::regclass[]) and not i.indisunique
       and not exists (select from pg_inherits h where h.inhrelid = c.oid)`,
    [tables],
  )
  for (const { name } of rows) await client.query(`drop index ${name}`)
  return rows
}

/** Without the triggers, which are measured elsewhere: rows, words, vectors and counts as the pipeline leaves them. */
async function load(
  client: pg.Client,
  space: EmbeddingSpace,
  { count, vectors, texts }: Rows,
): Promise<void> {
  const sourceId = uuidv7()
  const elementType = await vectorType(client)
  await client.query(`set session_replication_role = replica`)
  await client.query(`insert into source (id, name, type) values ($1, 'bench', 'bench')`, [sourceId])
  const batch = 1000
  for (let first = 0; first < count; first += batch) {
    const numbers = Array.from({ length: Math.min(batch, count - first) }, (_, index) => first + index)
    const ids = numbers.map(() => uuidv7())
    const contents = numbers.map((number) => texts.message(number))
    const words = contents.map(indexWords)
    await client.query(
      // Grouped already: the server would spend the time of the measurement on it.
      `insert into message (id, source_id, channel, external_id, author, content, sent_at, conversation_id, words, word_count)
       select m.id, $1, m.channel, m.number::text, 'person-' || m.number % 50, m.content,
         timestamptz '2026-01-01' + m.number * interval '30 seconds', m.id, m.words::tsvector, m.count
       from unnest($2::uuid[], $3::int[], $4::text[], $5::text[], $6::text[], $7::int[])
         as m(id, number, channel, content, words, count)`,
      [
        sourceId,
        ids,
        numbers,
        numbers.map(channelOf),
        contents,
        words.map(({ vector }) => vector),
        words.map(({ count }) => count),
      ],
    )
    await client.query(
      `insert into ${partitionName(space)} (space_id, kind, owner_id, status, content_hash, embedded_at, vector)
       select $1, 'MESSAGE', m.id, 'READY', text_hash(m.content), now(), m.vector
       from unnest($2::uuid[], $3::text[], $4::vector[]) as m(id, content, vector)`,
      [
        space.id,
        ids,
        contents,
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
async function exactAnswers(
  url: string,
  space: EmbeddingSpace,
  vectors: readonly Buffer[],
  channels: string[] | null,
): Promise<Set<string>[]> {
  const client = await connect(url)
  try {
    await client.query('set enable_indexscan = off')
    const answers: Set<string>[] = []
    for (const vector of vectors) {
      const { rows } = await client.query<{ id: string }>(
        `select m.id from ${partitionName(space)} e join message m on m.id = e.owner_id
         where e.kind = 'MESSAGE' and ($3::text[] is null or m.channel = any ($3))
         order by e.vector <=> $1::vector limit $2`,
        [vector, pageSize, channels],
      )
      answers.push(new Set(rows.map(({ id }) => id)))
    }
    return answers
  } finally {
    await client.end()
  }
}
