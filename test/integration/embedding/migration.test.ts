import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { providerEnv, startProviderApp, startTestApp, type TestApp } from '../../support/apps.ts'
import { createTestDatabase } from '../../support/databases.ts'
import { graphql } from '../../support/generated/index.ts'
import { globalId } from '../../support/ids.ts'
import { ingest, message } from '../../support/messages.ts'
import {
  activate,
  addEmbedder,
  readSpace,
  readSpaces,
  searchFor,
  startMigration,
  tryActivate,
  tryRetire,
  tryStart,
} from '../../support/migration.ts'
import { createGate, hashVector, ProviderServer } from '../../support/provider-server.ts'
import { eventually } from '../../support/server.ts'

const chats = Array.from({ length: 40 }, (_, index) => `text number ${index}`)

/** Whether the vectors of a space are dropped. */
const isDropped = async (app: TestApp, dimensions: number) => {
  const [space] = await app.sql<{ isDropped: boolean }>(
    `select dropped_at is not null and to_regclass('embedding_' || id) is null as "isDropped"
     from embedding_space where dimensions = $1`,
    [dimensions],
  )
  return space?.isDropped
}

test('everything moves to another model and back, and the space of before is retired', async () => {
  await using app = await startProviderApp()
  await using upstream = await ProviderServer.start({ dimensions: 96 })
  const { client } = app
  await ingest(client, chats)
  await client.waitUntilEmbedded()
  const [first] = await readSpaces(client)
  if (!first) throw new Error('there is no space')
  const providerId = await addEmbedder(client, upstream)

  const { space, jobId, kind } = await startMigration(client, { providerId, dimensions: 128 })
  expect(kind).toBe('MIGRATE_EMBEDDINGS')
  expect(space).toMatchObject({ state: 'BUILDING', model: 'embedder', dimensions: 128 })
  expect(space.provider.id).toBe(providerId)
  expect(await client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', total: 40, succeeded: 40 })
  expect(upstream.last?.body).toMatchObject({ dimensions: 128 })

  // Searches go on in the old space, and what is written is embedded in both.
  expect((await searchFor(client, 'text number 7')).space).toMatchObject({ id: first.id })
  await ingest(client, ['written meanwhile'])
  const both = () =>
    app.sql(
      `select space_id, status from embedding join message on message.id = owner_id where content = 'written meanwhile'`,
    )
  await eventually(both).toEqual([
    { space_id: 1, status: 'READY' },
    { space_id: 2, status: 'READY' },
  ])

  await activate(client, space.id)
  const asked = app.provider.requests
  const found = await searchFor(client, 'text number 7')
  expect(found.space).toMatchObject({ id: space.id, dimensions: 128 })
  expect(found.edges[0]).toMatchObject({ similarity: 1, node: { content: 'text number 7' } })
  expect(app.provider.requests).toBe(asked)
  expect(await readSpace(client, first.id)).toMatchObject({ state: 'BUILDING', isFilled: true })
  expect(await tryActivate(client, space.id)).toMatchObject({ code: 'CONFLICT' })
  expect(await tryRetire(client, space.id)).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('activate another space first'),
  })

  // The way back.
  await ingest(client, ['written afterwards'])
  await eventually(async () => (await readSpace(client, first.id)).coverage[0]).toMatchObject({
    total: 42,
    ready: 42,
  })
  expect(await tryActivate(client, first.id)).toMatchObject({ space: { id: first.id, state: 'ACTIVE' } })
  expect(await searchFor(client, 'written afterwards')).toMatchObject({
    space: { id: first.id },
    edges: [{ similarity: 1, node: { content: 'written afterwards' } }, {}, {}, {}, {}],
  })

  await activate(client, space.id)
  expect(await tryRetire(client, first.id)).toMatchObject({ space: { state: 'RETIRED' } })
  expect(await tryRetire(client, first.id)).toMatchObject({ code: 'CONFLICT' })
  expect(await tryActivate(client, first.id, true)).toMatchObject({ code: 'CONFLICT' })
  // An operation that began before searches changed over may take some seconds.
  await eventually(() => isDropped(app, 64)).toBe(true)
  const counts = 'select from embedding_count where space_id = 1'
  expect(await app.sql(counts)).toEqual([])
  await ingest(client, [message('written in the end')])
  await client.waitUntilEmbedded()
  expect((await searchFor(client, 'written in the end')).edges[0]).toMatchObject({ similarity: 1 })
}, 60_000)

const DeleteDocument = graphql(`
  mutation DeleteEmbedder($input: DeleteProviderInput!) {
    deleteProvider(input: $input) {
      __typename
      ... on UserError { code message }
    }
  }
`)

const UpdateDocument = graphql(`
  mutation UpdateEmbedder($input: UpdateProviderInput!) {
    updateProvider(input: $input) {
      __typename
      ... on UpdateProviderPayload { provider { state isActive } }
      ... on UserError { code message }
    }
  }
`)

const CancelDocument = graphql(`
  mutation CancelMigration($input: CancelJobInput!) { cancelJob(input: $input) { __typename } }
`)

const RetryDocument = graphql(`
  mutation RetryMigration($input: RetryJobInput!) { retryJob(input: $input) { __typename } }
`)

const ProgressDocument = graphql(`
  subscription SpaceProgress($spaceId: ID) {
    embeddingProgress(kinds: [MESSAGE], spaceId: $spaceId) { lastError waitingUntil coverage { ready pending } }
  }
`)

async function progressOf(app: TestApp, spaceId: string | null) {
  for await (const { embeddingProgress } of app.client.subscribe(ProgressDocument, { spaceId }))
    return embeddingProgress
  throw new Error('no progress was told')
}

/** An app with some embedded messages, and another provider to move to. */
async function startFilled(options: Parameters<typeof ProviderServer.start>[0] = {}, env = {}) {
  const app = await startProviderApp({}, { env })
  const upstream = await ProviderServer.start({ dimensions: 96, ...options })
  await ingest(app.client, chats)
  await app.client.waitUntilEmbedded()
  const [first] = await readSpaces(app.client)
  if (!first) throw new Error('there is no space')
  return {
    ...app,
    upstream,
    firstId: first.id,
    async [Symbol.asyncDispose]() {
      await app[Symbol.asyncDispose]()
      await upstream.close()
    },
  }
}

test('a provider that a space is embedded by is neither deleted nor switched off', async () => {
  await using own = await startFilled()
  const { client } = own
  const providerId = await addEmbedder(client, own.upstream)
  const { space, jobId } = await startMigration(client, { providerId })
  expect(space.dimensions).toBe(96)
  await client.waitForJob(jobId)
  const name = '"openai/embedder with 96 dimensions"'
  const refused = { code: 'CONFLICT', message: expect.stringContaining(name) }
  expect((await client.run(DeleteDocument, { input: { id: providerId } })).deleteProvider).toMatchObject(
    refused,
  )
  const off = { input: { id: providerId, isActive: false } }
  expect((await client.run(UpdateDocument, off)).updateProvider).toMatchObject(refused)

  await tryRetire(client, space.id)
  await eventually(() => isDropped(own, 96)).toBe(true)
  expect((await client.run(UpdateDocument, off)).updateProvider).toMatchObject({
    provider: { isActive: false },
  })
  expect(await tryStart(client, { providerId })).toMatchObject({
    message: expect.stringContaining('not active'),
  })
  expect((await client.run(DeleteDocument, { input: { id: providerId } })).deleteProvider).toMatchObject({
    __typename: 'DeleteProviderPayload',
  })
  expect(await readSpaces(client)).toHaveLength(1)
})

test('a migration that is cancelled asks for nothing more, goes on when it is taken up, and can be given up', async () => {
  const gate = createGate()
  await using own = await startFilled()
  const { client, upstream } = own
  const providerId = await addEmbedder(client, upstream)
  upstream.options.fault = async ({ texts }) => {
    if (texts.length > 1) await gate.opened
    return null
  }
  const { space, jobId } = await startMigration(client, { providerId, dimensions: 32 })
  await eventually(() => upstream.underWay).toBe(1)
  await client.run(CancelDocument, { input: { jobId } })
  await eventually(() => upstream.underWay).toBe(0)
  expect(await readSpace(client, space.id)).toMatchObject({ state: 'BUILDING', isFilled: false })
  await ingest(client, ['while it is cancelled'])
  await client.waitUntilEmbedded()
  gate.open()
  expect((await progressOf(own, space.id)).coverage).toEqual([{ ready: 0, pending: 41 }])
  expect(await tryStart(client, { providerId, dimensions: 48 })).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringMatching(/with 32 dimensions is being built already: activate it, take up its job/),
  })
  // Below the gate, with each reason; forced it would be possible.
  expect(await tryActivate(client, space.id)).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringMatching(
      /READY: 0 % of what can be embedded is READY; at least 99.9 % is expected/,
    ),
  })

  await client.run(RetryDocument, { input: { jobId } })
  expect(await client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', succeeded: 41 })
  expect(await readSpace(client, space.id)).toMatchObject({ isFilled: true })
  expect(await tryRetire(client, space.id)).toMatchObject({ space: { state: 'RETIRED' } })
  await eventually(() => isDropped(own, 32)).toBe(true)
})

test('a provider that fails half-way holds up its own space only, is seen there, and goes on with another key', async () => {
  await using own = await startFilled({}, { QUARRY_ENCRYPTION_KEY: randomBytes(32).toString('base64') })
  const { client, upstream } = own
  const providerId = await addEmbedder(client, upstream)
  await client.run(UpdateDocument, { input: { id: providerId, apiKey: 'first-key' } })
  upstream.options.fault = ({ headers }) =>
    headers.authorization === 'Bearer other-key'
      ? null
      : { status: 401, body: '{"error":{"message":"expired"}}' }
  const refused = await tryStart(client, { providerId })
  expect(refused).toMatchObject({ code: 'PROVIDER_FAILED', message: expect.stringContaining('expired') })
  expect(await readSpaces(client)).toHaveLength(1)

  upstream.options.fault = ({ headers, texts }) =>
    headers.authorization === 'Bearer other-key' || texts.length === 1
      ? null
      : { status: 401, body: '{"error":{"message":"expired"}}' }
  const { space, jobId } = await startMigration(client, { providerId })
  await eventually(() => progressOf(own, space.id)).toMatchObject({
    lastError: expect.stringContaining('expired'),
    waitingUntil: expect.any(String),
  })
  expect(await progressOf(own, null)).toMatchObject({ lastError: null, waitingUntil: null })
  await eventually(async () => (await readSpace(client, space.id)).job).toMatchObject({
    state: 'RUNNING',
    waitingUntil: expect.any(String),
  })
  await ingest(client, ['goes on in the active space'])
  await client.waitUntilEmbedded()
  expect((await searchFor(client, 'goes on in the active space')).edges[0]).toMatchObject({ similarity: 1 })

  const changed = await client.run(UpdateDocument, { input: { id: providerId, apiKey: 'other-key' } })
  expect(changed.updateProvider).toMatchObject({ provider: { state: 'CONNECTED' } })
  expect(await client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED' })
  expect(await progressOf(own, space.id)).toMatchObject({ lastError: null, waitingUntil: null })
})

test('of two administrators at once one starts, and one activates', async () => {
  await using own = await startFilled()
  const { client } = own
  const providerId = await addEmbedder(client, own.upstream)
  const started = await Promise.all(
    [1, 2, 3].map((n) => tryStart(client, { providerId, dimensions: 16 * n })),
  )
  expect(started.map(({ __typename }) => __typename).sort()).toEqual([
    'ConflictError',
    'ConflictError',
    'StartEmbeddingMigrationPayload',
  ])
  const winner = started.find((answer) => answer.__typename === 'StartEmbeddingMigrationPayload')
  if (!winner?.job) throw new Error('nobody started')
  await client.waitForJob(winner.job.id)
  const { space } = winner
  await eventually(
    async () => (await readSpace(client, space.id)).gate.find(({ name }) => name === 'INDEXED')?.isMet,
  ).toBe(true)
  const activated = await Promise.all([1, 2, 3].map(() => tryActivate(client, space.id)))
  expect(activated.map(({ __typename }) => __typename).sort()).toEqual([
    'ActivateEmbeddingSpacePayload',
    'ConflictError',
    'ConflictError',
  ])
  expect(await own.sql('select from pg_inherits where inhparent = $1::regclass', ['embedding'])).toHaveLength(
    2,
  )
})

test('a model that answers judged queries worse is refused, with the figures, unless forced', async () => {
  // The new model sees the same in every text: of equals the oldest are the first.
  const blind = (_text: string, dimensions: number) => hashVector('the same', dimensions)
  await using own = await startFilled({ vector: blind })
  const { client } = own
  const long = (name: string) =>
    `${name}: how the deployment of the ledger service is rolled back after a failed migration`
  const { messages } = await ingest(client, [
    ...Array.from({ length: 12 }, (_, n) => long(`decoy ${n}`)),
    long('answer'),
  ])
  await client.waitUntilEmbedded()
  const saved = await client.run(
    graphql(`
      mutation SaveQueries($input: SaveSearchQueriesInput!) {
        saveSearchQueries(input: $input) {
          __typename
          ... on SaveSearchQueriesPayload { saved }
          ... on UserError { message }
        }
      }
    `),
    {
      input: {
        queries: [{ query: long('answer'), judgements: [{ answerId: messages[12]?.id ?? '', grade: 3 }] }],
      },
    },
  )
  expect(saved.saveSearchQueries).toMatchObject({ saved: 1 })
  const providerId = await addEmbedder(client, own.upstream)
  const { space, jobId } = await startMigration(client, { providerId })
  await client.waitForJob(jobId)
  await eventually(() => tryActivate(client, space.id)).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringMatching(
      /NDCG: nDCG@10 of 1 judged queries is 0\.\d+; at least 0\.980 is expected/,
    ),
  })
  expect(await readSpace(client, space.id)).toMatchObject({
    comparison: { queries: 1, judgedQueries: 1, ndcgActive: 1, emptyActive: 0, emptyCompared: 0 },
  })
  expect(await tryActivate(client, space.id, true)).toMatchObject({ space: { state: 'ACTIVE' } })
})

/** Searches and writes, one after the other, until it is ended: all that went wrong, and the spaces that answered. */
function useAllTheTime(client: TestApp['client']) {
  const wrong: string[] = []
  const spaces = new Set<number>()
  let isOver = false
  async function search(): Promise<void> {
    for (let n = 0; !isOver; n++) {
      const query = chats[n % chats.length] ?? ''
      const found = await searchFor(client, query, n % 2 ? 'HYBRID' : 'SEMANTIC')
      const [best] = found.edges
      if (found.space) spaces.add(found.space.dimensions)
      // The same text has the similarity 1, in one space only: a vector of another model would have any other.
      const content = best?.node.__typename === 'Message' ? best.node.content : null
      if (content !== query || Math.abs((best?.similarity ?? 0) - 1) > 1e-3)
        wrong.push(`${found.space?.dimensions}: ${query} found ${content} at ${best?.similarity}`)
    }
  }
  async function write(): Promise<void> {
    for (let n = 0; !isOver; n++) await ingest(client, [`written all the time ${n}`])
  }
  const working = Promise.all([search(), write()])
  return {
    wrong,
    spaces,
    async end() {
      isOver = true
      await working
    },
  }
}

test('the local model, OpenAI and Ollama one after the other, 512, 1536 and 768 dimensions, while searches and writes go on', async () => {
  await using app = await startTestApp()
  await using upstream = await ProviderServer.start({ dimensions: 768 })
  const { client } = app
  await ingest(client, chats)
  await client.waitUntilEmbedded()
  const use = useAllTheTime(client)
  const openAi = await addEmbedder(client, upstream, 'OPENAI')
  const ollama = await addEmbedder(client, upstream, 'OLLAMA')
  for (const target of [{ providerId: openAi, dimensions: 1536 }, { providerId: ollama }]) {
    const { space, jobId } = await startMigration(client, target)
    expect(await client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', failed: 0 })
    await activate(client, space.id)
  }
  await eventually(() => [...use.spaces]).toEqual([512, 1536, 768])
  const spaces = await readSpaces(client)
  expect(spaces.map(({ dimensions, state }) => [dimensions, state])).toEqual([
    [768, 'ACTIVE'],
    [1536, 'BUILDING'],
    [512, 'BUILDING'],
  ])
  await use.end()
  expect(use.wrong).toEqual([])
  for (const { id } of spaces) {
    await eventually(() => progressOf(app, id)).toMatchObject({ coverage: [{ pending: 0 }] })
  }
  expect(
    await app.sql(
      `select e.owner_id from embedding e join embedding_space s on s.id = e.space_id
       where e.status <> 'READY' or vector_dims(e.vector) <> s.dimensions`,
    ),
  ).toEqual([])
}, 120_000)

test('a start that names another model is not refused where a provider of the API embeds', async () => {
  await using own = await createTestDatabase()
  await using upstream = await ProviderServer.start({ dimensions: 96 })
  await using before = await ProviderServer.start()
  const env = providerEnv(before)
  {
    await using app = await startTestApp({ database: own.config, env })
    await ingest(app.client, chats)
    await app.client.waitUntilEmbedded()
    const providerId = await addEmbedder(app.client, upstream)
    const { space, jobId } = await startMigration(app.client, { providerId })
    await app.client.waitForJob(jobId)
    await activate(app.client, space.id)
  }
  await using app = await startTestApp({
    database: own.config,
    env: { ...env, OPENAI_EMBEDDING_DIMENSIONS: '32' },
  })
  const found = await searchFor(app.client, 'text number 3')
  expect(found).toMatchObject({ space: { dimensions: 96 }, edges: [{ similarity: 1 }, {}, {}, {}, {}] })
  // The space of before is not embedded by what the environment names now.
  await ingest(app.client, ['only in the active one'])
  await app.client.waitUntilEmbedded()
  expect(await app.sql(`select space_id, status from embedding where status = 'PENDING'`)).toEqual([
    { space_id: 1, status: 'PENDING' },
  ])
})

test('every process changes over within a second', async ({ skip }) => {
  await using own = await createTestDatabase()
  if (own.config.kind === 'embedded') skip('embedded: one process at a time')
  await using before = await ProviderServer.start()
  await using upstream = await ProviderServer.start({ dimensions: 96 })
  const options = { database: own.config, env: providerEnv(before) }
  await using first = await startTestApp(options)
  await using second = await startTestApp(options)
  await ingest(first.client, chats)
  await first.client.waitUntilEmbedded()
  const { space, jobId } = await startMigration(first.client, {
    providerId: await addEmbedder(first.client, upstream),
  })
  await first.client.waitForJob(jobId)
  await activate(first.client, space.id)
  const spaceOf = async (app: TestApp) => (await searchFor(app.client, 'text number 3')).space?.id
  expect(await spaceOf(first)).toBe(space.id)
  await expect.poll(() => spaceOf(second), { timeout: 1000, interval: 20 }).toBe(space.id)

  // Whoever still uses the space of before keeps its vectors.
  const [old] = (await readSpaces(first.client)).filter(({ id }) => id !== space.id)
  await tryRetire(first.client, old?.id ?? '')
  await eventually(() => isDropped(first, 64)).toBe(true)
  expect(await spaceOf(second)).toBe(space.id)
}, 60_000)

test('a plan says what it would take, and changes nothing', async () => {
  await using own = await startFilled()
  const { client, upstream } = own
  const providerId = await addEmbedder(client, upstream)
  await client.run(UpdateDocument, { input: { id: providerId, pricePerMillionTokensIn: 0.02 } })
  await ingest(client, [message('text number 1')])
  const planned = async (input: { providerId: string; model?: string; dimensions?: number }) =>
    (
      await client.run(
        graphql(`
          mutation PlanMigration($input: PlanEmbeddingMigrationInput!) {
            planEmbeddingMigration(input: $input) {
              __typename
              ... on PlanEmbeddingMigrationPayload { model dimensions rows tokens requests cost seconds assumptions }
              ... on UserError { code message }
              ... on InputError { path }
            }
          }
        `),
        { input },
      )
    ).planEmbeddingMigration
  const plan = await planned({ providerId, dimensions: 128 })
  // 41 messages, of which two have the same text.
  expect(plan).toMatchObject({ model: 'embedder', dimensions: 128, rows: 41, requests: 1 })
  if (plan?.__typename !== 'PlanEmbeddingMigrationPayload') throw new Error('no plan')
  expect(plan.tokens).toBeGreaterThan(40)
  expect(plan.cost).toBeCloseTo((plan.tokens * 0.02) / 1e6, 12)
  expect(plan.seconds).toBeGreaterThan(0)
  expect(plan.assumptions.join(' ')).toContain('41 rows have 40 different texts')
  expect(await readSpaces(client)).toHaveLength(1)

  for (const dimensions of [0, 4001])
    expect(await planned({ providerId, dimensions })).toMatchObject({ path: ['dimensions'] })
  const environment = globalId('Provider', 'environment')
  expect(await planned({ providerId: environment, model: 'another' })).toMatchObject({ path: ['model'] })
  expect(await planned({ providerId: environment })).toMatchObject({ dimensions: 64, cost: null })
  expect(await tryStart(client, { providerId: environment })).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('there is nothing to move'),
  })
})
