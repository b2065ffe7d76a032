import { setTimeout as delay } from 'node:timers/promises'
import {
  type BenchPostgres,
  type BenchServer,
  connect,
  createDatabase,
  monotonicMs,
  providerEnv,
  startProvider,
  startServer,
  within,
} from './environment.ts'
import { ms, percentile, type Report, type Row, seconds } from './report.ts'
import { dimensions } from './vectors.ts'

const latencyMs = 50
const perSecond = 20
/** 512 three times. */
const repeats = 3
const queryCount = 50
/** Odd, so that the new space is used in the end. */
const switches = 7
/** What validations embed; the provider knows vectors of numbers only. */
const sampleText = 'The meeting is on Tuesday.'
const limitMs = 20 * 60_000

interface Answer {
  /** When it was asked. */
  at: number
  ms: number
  /** Null: it failed, or was empty. */
  dimensions: number | null
  problem: string | null
}

/** Everything moves to another model while people search and write. */
export async function benchMigration(postgres: BenchPostgres, options: { quick: boolean }): Promise<Report> {
  const rows = options.quick ? 2_000 : 20_000
  const quietMs = options.quick ? 5_000 : 30_000
  const queries = Array.from({ length: queryCount }, (_, index) => `how is thing ${word(index)} done`)
  const named = {
    ...Object.fromEntries(queries.map((query, index) => [query, 10_000_000 + index])),
    [sampleText]: 20_000_000,
  }
  await using database = await createDatabase(postgres)
  await using before = await startProvider({ named, prepared: rows })
  await using after = await startProvider({ named, prepared: rows, repeats, latencyMs })
  await using server = await startServer({ DATABASE_URL: database.url, ...providerEnv(before.url) })
  await fill(server, rows)
  console.error(`migration: ${rows.toLocaleString('en')} rows are embedded`)
  await within(limitMs, 'what follows the embedding', untilSettled(server, database.url))
  const first = (await read(server)).find(({ state }) => state === 'ACTIVE')
  if (!first) throw new Error('there is no active space')

  const use = startUse(server, queries, rows)
  await delay(quietMs)
  const quietGap = await longestGap(server, queries, () => delay(1000))
  const startedAt = monotonicMs()
  const { spaceId, jobId } = await startMoving(server, after.url)
  const job = await within(limitMs, 'the job', ended(server, jobId))
  const filledMs = monotonicMs() - startedAt
  const gap = await within(limitMs, 'the activation', changeOver(server, queries, spaceId))
  const movedMs = monotonicMs() - startedAt
  await delay(3000)
  const steadyUntil = monotonicMs()
  const steadyGap = await longestGap(server, queries, () => delay(1000))
  // One switch is one sample of a tail: there and back a few times says how it is.
  const gaps = [gap]
  for (let count = 1; count < switches; count++) {
    gaps.push(await within(limitMs, 'a switch', switchTo(server, queries, count % 2 ? first.id : spaceId)))
  }
  const answers = await use.end()
  await within(limitMs, 'the last writes', untilNothingIsOwed(server))
  const without = await withoutVector(database.url)
  const counts = await after.counts()

  const calm = answers.filter(({ at }) => at < startedAt)
  const moving = answers.filter(({ at }) => at >= startedAt && at < startedAt + movedMs)
  const later = answers.filter(({ at }) => at >= startedAt + movedMs && at < steadyUntil)
  const wrong = answers.filter(({ problem }) => problem !== null)
  for (const { problem } of wrong.slice(0, 5)) console.error(`migration: ${problem}`)
  const stale = later.filter((answer) => answer.dimensions === dimensions).length
  const p95 = (of: readonly Answer[]) =>
    percentile(
      of.map((answer) => answer.ms),
      0.95,
    )
  const result: Row[] = [
    {
      what: 'failed or empty searches',
      figure: String(wrong.length),
      beside: `${answers.length} searches`,
      aim: '0',
      isMet: wrong.length === 0,
    },
    {
      what: 'failed writes',
      figure: String(use.failedWrites()),
      beside: `${use.writes()} writes`,
      aim: '0',
      isMet: use.failedWrites() === 0,
    },
    {
      what: 'rows without a vector in the active space after the switch',
      figure: String(without),
      aim: '0',
      isMet: without === 0,
    },
    {
      what: 'searches answered by the space of before after the switch',
      figure: String(stale),
      aim: '0',
      isMet: stale === 0,
    },
    {
      what: 'p95 of search during the move',
      figure: ms(p95(moving)),
      beside: `${ms(p95(calm))} before`,
      ratio: `${(p95(moving) / p95(calm)).toFixed(2)}x`,
    },
    { what: 'p95 of search afterwards', figure: ms(p95(later)), beside: `${ms(p95(calm))} before` },
    {
      what: `longest gap between two answers, at the switch: median of ${switches}`,
      figure: ms(percentile(gaps, 0.5)),
      beside: `${ms(Math.max(...gaps))} at worst; ${ms(quietGap)} before and ${ms(steadyGap)} after, without a switch`,
      aim: '<= 50 ms',
      isMet: percentile(gaps, 0.5) <= 50,
    },
    {
      what: 'until every row had its vector',
      figure: seconds(filledMs),
      beside: `${counts.texts.toLocaleString('en')} texts in ${counts.requests} requests`,
    },
    {
      what: 'until searches had changed over',
      figure: seconds(movedMs),
      beside: 'indexes and comparison included',
    },
  ]
  return {
    title: `Moving to another embedding model: ${rows.toLocaleString('en')} rows, ${dimensions} to ${dimensions * repeats} dimensions`,
    rows: result,
    notes: [
      `${perSecond} searches and ${perSecond} writes a second all the time, each begun on time whatever the others do; HYBRID, ${queryCount} queries. The new provider takes ${latencyMs} ms for a request, the old one none. Job: ${job}.`,
      'During the move: from startEmbeddingMigration until activateEmbeddingSpace was answered, a second more. The vectors of one are those of the other three times in a row, so both models find the same.',
      'Gap: one more client searches without a pause, by meaning, from activateEmbeddingSpace until a second after; the longest time between two of its answers. After the first switch, back to the space of before and forth again. Before and after: the same for a second without a switch.',
      `One server, which does all the work; provider, server, clients and Postgres share the cores.`,
    ],
  }
}

/** A word for a number, so that no query is a prefix of another. */
const word = (index: number) =>
  `${String.fromCharCode(97 + (index % 26))}${String.fromCharCode(97 + Math.floor(index / 26))}x`

const text = (number: number) =>
  `message about thing ${word(number % 500)} and what was decided there #${number}`

async function ingest(server: BenchServer, from: number, count: number): Promise<void> {
  const messages = Array.from({ length: count }, (_, index) => ({
    externalId: String(from + index),
    author: 'bench',
    content: text(from + index),
    sentAt: new Date(Date.UTC(2026, 0, 1) + (from + index) * 1000).toISOString(),
  }))
  const { ingestMessages } = await server.request<{
    ingestMessages: { __typename: string; created?: number }
  }>(
    `mutation ($input: IngestMessagesInput!) {
      ingestMessages(input: $input) { __typename ... on IngestMessagesPayload { created } }
    }`,
    { input: { source: { name: 'bench', type: 'api' }, messages } },
  )
  if (ingestMessages.created !== count) throw new Error(`${ingestMessages.created} of ${count} were created`)
}

async function fill(server: BenchServer, rows: number): Promise<void> {
  for (let from = 0; from < rows; from += 1000) await ingest(server, from, Math.min(1000, rows - from))
  await within(limitMs, 'embedding the rows', untilNothingIsOwed(server))
}

interface Space {
  id: string
  state: string
  coverage: { pending: number; stale: number }[]
  gate: { name: string; isMet: boolean }[]
}

async function read(server: BenchServer): Promise<Space[]> {
  const { embeddingSpaces } = await server.request<{ embeddingSpaces: Space[] }>(
    '{ embeddingSpaces { id state coverage { pending stale } gate { name isMet } } }',
  )
  return embeddingSpaces
}

/** Until nothing is left to be done of what was filled in: what is measured first is quiet. */
async function untilSettled(server: BenchServer, databaseUrl: string): Promise<void> {
  const client = await connect(databaseUrl)
  try {
    for (;;) {
      const { rows: undone } = await client.query(
        'select from message where conversation_id is null or words is null limit 1',
      )
      const { vectorIndexes } = await server.request<{ vectorIndexes: { state: string }[] }>(
        '{ vectorIndexes { state } }',
      )
      if (undone.length === 0 && vectorIndexes.every(({ state }) => state === 'READY')) return
      await delay(250)
    }
  } finally {
    await client.end()
  }
}

async function untilNothingIsOwed(server: BenchServer): Promise<void> {
  for (;;) {
    const active = (await read(server)).find(({ state }) => state === 'ACTIVE')
    if (active?.coverage.every(({ pending, stale }) => pending + stale === 0)) return
    await delay(250)
  }
}

const searchQuery = `query ($query: String!, $mode: SearchMode!) {
  search(query: $query, mode: $mode, first: 10, filter: { includeNoise: true }) {
    space { dimensions } nodes { __typename }
  }
}`

async function search(server: BenchServer, query: string, mode: 'HYBRID' | 'SEMANTIC'): Promise<Answer> {
  const at = monotonicMs()
  try {
    const { search } = await server.request<{
      search: { space: { dimensions: number } | null; nodes: unknown[] }
    }>(searchQuery, { query, mode })
    const isEmpty = search.nodes.length === 0
    return {
      at,
      ms: monotonicMs() - at,
      dimensions: search.space?.dimensions ?? null,
      problem: isEmpty ? `nothing was found for ${query}` : null,
    }
  } catch (error) {
    return { at, ms: monotonicMs() - at, dimensions: null, problem: String(error) }
  }
}

/** Searches and writes at their pace until ended; one that is late does not hold up the next. */
function startUse(server: BenchServer, queries: readonly string[], firstNumber: number) {
  const answers: Promise<Answer>[] = []
  const writes: Promise<boolean>[] = []
  let failed = 0
  let count = 0
  const timer = setInterval(() => {
    answers.push(search(server, queries[count % queries.length] ?? '', 'HYBRID'))
    writes.push(
      ingest(server, firstNumber + count, 1).then(
        () => true,
        (error) => {
          failed++
          console.error(`migration: ${error}`)
          return false
        },
      ),
    )
    count++
  }, 1000 / perSecond)
  return {
    writes: () => writes.length,
    failedWrites: () => failed,
    async end(): Promise<Answer[]> {
      clearInterval(timer)
      await Promise.all(writes)
      return Promise.all(answers)
    },
  }
}

/** The longest time between two answers, one search after the other, while something is done. */
async function longestGap(
  server: BenchServer,
  queries: readonly string[],
  work: () => Promise<void>,
): Promise<number> {
  let isOver = false
  const working = work().finally(() => {
    isOver = true
  })
  let longest = 0
  let last = monotonicMs()
  for (let count = 0; !isOver; count++) {
    const { problem } = await search(server, queries[count % queries.length] ?? '', 'SEMANTIC')
    if (problem !== null) throw new Error(problem)
    const now = monotonicMs()
    longest = Math.max(longest, now - last)
    last = now
  }
  await working
  return longest
}

async function startMoving(
  server: BenchServer,
  providerUrl: string,
): Promise<{ spaceId: string; jobId: string }> {
  const { createProvider } = await server.request<{
    createProvider: { provider?: { id: string; error: string | null } }
  }>(
    `mutation ($input: CreateProviderInput!) {
      createProvider(input: $input) { ... on CreateProviderPayload { provider { id error } } }
    }`,
    { input: { name: 'bench', type: 'OPENAI', baseUrl: `${providerUrl}/v1`, embeddingModel: 'bench' } },
  )
  const { provider } = createProvider
  if (!provider || provider.error) throw new Error(`the provider does not work: ${provider?.error}`)
  const { startEmbeddingMigration } = await server.request<{
    startEmbeddingMigration: { space?: { id: string }; job?: { id: string }; message?: string }
  }>(
    `mutation ($input: StartEmbeddingMigrationInput!) {
      startEmbeddingMigration(input: $input) {
        ... on StartEmbeddingMigrationPayload { space { id } job { id } }
        ... on UserError { message }
      }
    }`,
    { input: { providerId: provider.id } },
  )
  const { space, job, message } = startEmbeddingMigration
  if (!space || !job) throw new Error(`the migration was not started: ${message}`)
  return { spaceId: space.id, jobId: job.id }
}

/** @returns how it ended, for the report */
async function ended(server: BenchServer, id: string): Promise<string> {
  for (;;) {
    const { node } = await server.request<{ node: { state: string; total: number; failed: number } }>(
      'query ($id: ID!) { node(id: $id) { ... on Job { state total failed } } }',
      { id },
    )
    if (node.state === 'SUCCEEDED') return `${node.total} rows, ${node.failed} failed`
    if (node.state === 'FAILED' || node.state === 'CANCELLED') throw new Error(`the job is ${node.state}`)
    await delay(100)
  }
}

/** @returns why it is refused; null if it is done */
async function activate(server: BenchServer, spaceId: string): Promise<string | null> {
  const { activateEmbeddingSpace } = await server.request<{ activateEmbeddingSpace: { message?: string } }>(
    `mutation ($input: ActivateEmbeddingSpaceInput!) {
      activateEmbeddingSpace(input: $input) { ... on UserError { message } }
    }`,
    { input: { spaceId } },
  )
  return activateEmbeddingSpace.message ?? null
}

/** As people do who watch the gate: compares and activates when the vectors and their indexes are there. @returns the longest gap at the switch itself */
async function changeOver(server: BenchServer, queries: readonly string[], spaceId: string): Promise<number> {
  for (;;) {
    const space = (await read(server)).find(({ id }) => id === spaceId)
    const missing = space?.gate.filter(({ name, isMet }) => ['READY', 'INDEXED'].includes(name) && !isMet)
    if (missing?.length === 0) {
      await compare(server, spaceId)
      return switchTo(server, queries, spaceId)
    }
    await delay(250)
  }
}

/** Asked again where what was written last is not embedded yet. @returns the longest gap at the switch itself */
async function switchTo(server: BenchServer, queries: readonly string[], spaceId: string): Promise<number> {
  for (;;) {
    let refused: string | null = null
    const gap = await longestGap(server, queries, async () => {
      refused = await activate(server, spaceId)
      if (refused === null) await delay(1000)
    })
    if (refused === null) return gap
    console.error(`migration: ${refused}`)
    await delay(250)
  }
}

async function compare(server: BenchServer, spaceId: string): Promise<void> {
  const { compareEmbeddingSpaces } = await server.request<{ compareEmbeddingSpaces: { message?: string } }>(
    `mutation ($input: CompareEmbeddingSpacesInput!) {
      compareEmbeddingSpaces(input: $input) { ... on UserError { message } }
    }`,
    { input: { spaceId } },
  )
  if (compareEmbeddingSpaces.message) throw new Error(compareEmbeddingSpaces.message)
}

async function withoutVector(databaseUrl: string): Promise<number> {
  const client = await connect(databaseUrl)
  try {
    const { rows } = await client.query<{ n: number }>(
      `select count(*)::int as n from message m where not exists (
         select from embedding e join embedding_space s on s.id = e.space_id and s.state = 'ACTIVE'
         where e.kind = 'MESSAGE' and e.owner_id = m.id and e.vector is not null)`,
    )
    return rows[0]?.n ?? Number.NaN
  } finally {
    await client.end()
  }
}
