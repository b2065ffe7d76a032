import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { startProviderApp, type TestApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
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
  expect(space).toMatchObject({ state: 'BUILDING', model: 'embedder', dimensions: 128, isFilled: true })
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
  await expect.poll(both).toEqual([
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
  await expect
    .poll(async () => (await readSpace(client, first.id)).coverage[0])
    .toMatchObject({ total: 42, ready: 42 })
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
  await expect.poll(() => isDropped(app, 64), { timeout: 25_000 }).toBe(true)
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
  await expect.poll(() => isDropped(own, 96), { timeout: 20_000 }).toBe(true)
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
  await expect.poll(() => upstream.underWay).toBe(1)
  await client.run(CancelDocument, { input: { jobId } })
  await expect.poll(() => upstream.underWay).toBe(0)
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
  await expect.poll(() => isDropped(own, 32), { timeout: 20_000 }).toBe(true)
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
  await expect
    .poll(() => progressOf(own, space.id))
    .toMatchObject({ lastError: expect.stringContaining('expired'), waitingUntil: expect.any(String) })
  expect(await progressOf(own, null)).toMatchObject({ lastError: null, waitingUntil: null })
  await expect
    .poll(async () => (await readSpace(client, space.id)).job)
    .toMatchObject({ state: 'RUNNING', waitingUntil: expect.any(String) })
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
  await expect
    .poll(async () => (await readSpace(client, space.id)).gate.find(({ name }) => name === 'INDEXED')?.isMet)
    .toBe(true)
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
  // The new model sees the same in every text.
  const blind = (text: string, dimensions: number) =>
    hashVector(text.startsWith('decoy') ? 'near' : text.length % 2 ? 'far' : 'near', dimensions)
  await using own = await startFilled({ vector: blind })
  const { client } = own
  const long = (name: string) =>
    `${name}: how the deployment of the ledger service is rolled back after a failed migration`
  const { messages } = await ingest(client, [
    long('answer'),
    ...Array.from({ length: 12 }, (_, n) => long(`decoy ${n}`)),
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
        queries: [{ query: long('answer'), judgements: [{ answerId: messages[0]?.id ?? '', grade: 3 }] }],
      },
    },
  )
  expect(saved.saveSearchQueries).toMatchObject({ saved: 1 })
  const providerId = await addEmbedder(client, own.upstream)
  const { space, jobId } = await startMigration(client, { providerId })
  await client.waitForJob(jobId)
  await expect
    .poll(() => tryActivate(client, space.id), { timeout: 20_000 })
    .toMatchObject({
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
