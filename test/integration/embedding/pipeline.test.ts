import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../../src/config.ts'
import { poolVectors, splitText } from '../../../src/embedding/parts.ts'
import { ensureActiveSpace } from '../../../src/embedding/spaces.ts'
import { createLogger } from '../../../src/log.ts'
import { createEmbeddingProvider } from '../../../src/providers/create.ts'
import { providerEnv, startProviderApp, startTestApp } from '../../support/apps.ts'
import { createTestDatabase, openTestDatabase, reopen } from '../../support/databases.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId } from '../../support/ids.ts'
import { ingest, message } from '../../support/messages.ts'
import { createGate, type Fault, hashVector, ProviderServer } from '../../support/provider-server.ts'

type ProviderApp = Awaited<ReturnType<typeof startProviderApp>>
const dimensions = 64
let app: ProviderApp

beforeAll(async () => {
  app = await startProviderApp()
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(() => {
  app.provider.options.fault = () => null
})

const ChangeDocument = graphql(`
  mutation ChangeUnderWay($input: UpdateMessageInput!) {
    updateMessage(input: $input) { ... on UpdateMessagePayload { changed: message { embeddingStatus } } }
  }
`)

const DropDocument = graphql(`
  mutation DropUnderWay($ids: [ID!]!) {
    deleteMessages(input: { ids: $ids }) { ... on DeleteMessagesPayload { deletedMessageIds } }
  }
`)

interface Row {
  status: string
  attempts: number
  error: string | null
  /** Seconds until the next attempt; null where it is due. */
  wait: number | null
  isLeased: boolean
  vector: number[] | null
}

async function rowOf(id: string, from: Pick<ProviderApp, 'sql'> = app): Promise<Row | undefined> {
  const [row] = await from.sql<Omit<Row, 'vector'> & { vector: string | null }>(
    `select status, attempts, last_error as error, leased_by is not null as "isLeased", vector::text as vector,
       extract(epoch from next_attempt_at - now())::float8 as wait
     from embedding where owner_id = $1`,
    [databaseId(id)],
  )
  return row && { ...row, vector: row.vector && JSON.parse(row.vector) }
}

async function ingestOne(text: string, into: Pick<ProviderApp, 'client'> = app): Promise<string> {
  const { messages } = await ingest(into.client, [text])
  return messages[0]?.id ?? ''
}

function expectVector(actual: number[] | null | undefined, expected: ArrayLike<number>): void {
  expect(actual).toHaveLength(expected.length)
  for (const [index, value] of (actual ?? []).entries()) expect(value).toBeCloseTo(expected[index] ?? 0, 5)
}

/** What was to be tried later is tried now: news in the queue wakes the pipeline. */
async function retryNow(id: string): Promise<void> {
  await app.sql('update embedding set next_attempt_at = null where owner_id = $1', [databaseId(id)])
  await ingest(app.client, ['news'])
  await app.client.waitUntilEmbedded()
}

test('every text gets its own vector', async () => {
  const texts = Array.from({ length: 300 }, (_, index) => `a text of its own, number ${index}`)
  const { messages } = await ingest(app.client, texts)
  await app.client.waitUntilEmbedded()
  for (const index of [0, 150, 299]) {
    const row = await rowOf(messages[index]?.id ?? '')
    expect(row).toMatchObject({ status: 'READY', attempts: 0, error: null, isLeased: false })
    expectVector(row?.vector, hashVector(texts[index] ?? '', dimensions))
  }
})

test('equal texts are sent once, also across batches and calls', async () => {
  const before = app.provider.texts
  const texts = Array.from({ length: 1000 }, (_, index) => `one of five: ${index % 5}`)
  await ingest(app.client, texts)
  await ingest(app.client, texts)
  await app.client.waitUntilEmbedded()
  expect(app.provider.texts - before).toBe(5)
  expect(
    await app.sql(
      `select count(distinct vector::text)::int as vectors, count(*)::int as rows from embedding
       join message on message.id = owner_id where content like 'one of five%' and status = 'READY'`,
    ),
  ).toEqual([{ vectors: 5, rows: 2000 }])
})

test('a blank text is skipped, and nobody is asked', async () => {
  const before = app.provider.requests
  const id = await ingestOne(' \n\u200b\ufeff\u3000')
  expect(await rowOf(id)).toMatchObject({ status: 'SKIPPED', vector: null })
  await app.client.waitUntilEmbedded()
  expect(app.provider.requests).toBe(before)
})

describe('a text whose embedding is under way', () => {
  test('and that changes gets the vector of its new text, and never the old one', async () => {
    using gate = createGate()
    app.provider.options.fault = ({ texts }) => (texts.includes('old text') ? gate.opened : null)
    const arrived = app.provider.arrival()
    const id = await ingestOne('old text')
    const { left } = await arrived
    await app.client.run(ChangeDocument, { input: { id, content: 'new text' } })
    gate.open()
    await left
    await app.client.waitUntilEmbedded()
    const row = await rowOf(id)
    expect(row).toMatchObject({ status: 'READY', isLeased: false })
    expectVector(row?.vector, hashVector('new text', dimensions))
  })

  test('and that is deleted leaves nothing behind, and the rest of its batch is stored', async () => {
    using gate = createGate()
    app.provider.options.fault = () => gate.opened
    const arrived = app.provider.arrival()
    const { messages } = await ingest(app.client, ['deleted meanwhile', 'its batch-mate'])
    const [gone, mate] = messages.map(({ id }) => id)
    await arrived
    await app.client.run(DropDocument, { ids: [gone ?? ''] })
    gate.open()
    await app.client.waitUntilEmbedded()
    expect(await rowOf(gone ?? '')).toBeUndefined()
    expect(await rowOf(mate ?? '')).toMatchObject({ status: 'READY' })
  })
})

describe('an answer that is not what was asked for', () => {
  const withVectors = (vector: unknown): Fault => ({
    edit: (data) => data.map((entry) => ({ ...(entry as object), embedding: vector })),
  })

  test.each<[string, Fault, RegExp]>([
    ['of another dimension', withVectors(Array(32).fill(0.1)), /has 32 dimensions, expected 64/],
    ['with fewer vectors', { edit: (data) => data.slice(1) }, /0 vectors for 1 texts/],
    ['with a number that is none', withVectors([Number.NaN, ...Array(63).fill(0.1)]), /null at position 1/],
    ['of zeros', withVectors(Array(64).fill(0)), /is zero/],
    ['that is no JSON', { body: '<html>' }, /no JSON|Unexpected token/i],
  ])('%s is never stored, and asked for again later', async (name, fault, reason) => {
    app.provider.options.fault = () => fault
    const id = await ingestOne(`answered wrongly: ${name}`)
    await expect.poll(() => rowOf(id)).toMatchObject({ status: 'PENDING', attempts: 1, isLeased: false })
    const row = await rowOf(id)
    expect(row).toMatchObject({ vector: null, error: expect.stringMatching(reason) })
    expect(row?.wait).toBeGreaterThan(5)
    app.provider.options.fault = () => null
    await retryNow(id)
    expect(await rowOf(id)).toMatchObject({ status: 'READY', attempts: 0, error: null })
  })
})

test('a text that the provider refuses is FAILED with the reason, and its batch-mates are READY', async () => {
  app.provider.options.fault = ({ texts }) =>
    texts.includes('poison') ? { status: 400, body: '{"error":{"message":"I will not read this"}}' } : null
  const mates = Array.from({ length: 20 }, (_, index) => `beside poison ${index}`)
  const { messages } = await ingest(app.client, [...mates.slice(0, 7), 'poison', ...mates.slice(7)])
  await app.client.waitUntilEmbedded()
  const rows = await Promise.all(messages.map(({ id }) => rowOf(id)))
  expect(rows.map((row) => row?.status)).toEqual(
    messages.map(({ content }) => (content === 'poison' ? 'FAILED' : 'READY')),
  )
  expect(rows[7]).toMatchObject({ vector: null, error: expect.stringContaining('I will not read this') })
})

test('a long text is embedded in parts, and its vector is their mean', async () => {
  const text = Array.from({ length: 12_000 }, (_, index) => `word${index}`).join(' ')
  const id = await ingestOne(text)
  await app.client.waitUntilEmbedded()
  const provider = createEmbeddingProvider(parseConfig(providerEnv(app.provider)).embedding)
  const parts = splitText(text, provider.limits.maxTokensPerText, (part) => provider.countTokens(part))
  await provider.close()
  expect(parts.length).toBeGreaterThan(1)
  const vectors = parts.map((part) => Float32Array.from(hashVector(part.text, dimensions)))
  expectVector((await rowOf(id))?.vector, poolVectors(parts, vectors) ?? [])
})

describe('a provider in trouble', () => {
  test('that asks to wait (429) is asked again, and no attempt is counted', async () => {
    using gate = createGate()
    let refused = 0
    app.provider.options.fault = () =>
      refused++ === 0 ? { status: 429, headers: { 'retry-after-ms': '1' }, body: '{}' } : gate.opened
    const arrived = app.provider.arrival()
    const id = await ingestOne('rate limited')
    await arrived
    // Listened for before the answer is out: it may come a millisecond after that.
    await app.provider.arrival()
    const waiting = { status: 'PENDING', attempts: 0, wait: null, error: expect.stringContaining('429') }
    expect(await rowOf(id)).toMatchObject(waiting)
    gate.open()
    await app.client.waitUntilEmbedded()
    expect(await rowOf(id)).toMatchObject({ status: 'READY', attempts: 0, error: null })
  })

  test('that fails (500) is asked again later, and the attempt is counted', async () => {
    app.provider.options.fault = () => ({ status: 500, body: '{"error":{"message":"on fire"}}' })
    const id = await ingestOne('failed once')
    await expect.poll(() => rowOf(id)).toMatchObject({ status: 'PENDING', attempts: 1, isLeased: false })
    const row = await rowOf(id)
    expect(row).toMatchObject({ vector: null, error: expect.stringContaining('on fire') })
    expect(row?.wait).toBeGreaterThan(5)
    expect(row?.wait).toBeLessThan(13)
    app.provider.options.fault = () => null
    await retryNow(id)
    expect(await rowOf(id)).toMatchObject({ status: 'READY', attempts: 0, error: null })
  })

  test('that fails again and again is given up with the reason', async () => {
    const id = await ingestOneThatFails()
    await app.sql('update embedding set attempts = 6 where owner_id = $1', [databaseId(id)])
    await retryNow(id)
    expect(await rowOf(id)).toMatchObject({
      status: 'FAILED',
      attempts: 7,
      error: expect.stringMatching(/after 7 attempts/),
    })

    async function ingestOneThatFails(): Promise<string> {
      app.provider.options.fault = ({ texts }) =>
        texts.includes('hopeless') ? { body: '{"data":[]}' } : null
      const failing = await ingestOne('hopeless')
      await expect.poll(() => rowOf(failing)).toMatchObject({ attempts: 1, isLeased: false })
      return failing
    }
  })

  test('that refuses the key (401) is left alone: nothing is burnt, and the app ends at once', async () => {
    await using unauthorised = await startProviderApp({
      fault: () => ({ status: 401, body: '{"error":{"message":"wrong key"}}' }),
    })
    const id = await ingestOne('no key for this', unauthorised)
    await expect.poll(() => unauthorised.provider.requests).toBeGreaterThan(0)
    await expect.poll(() => rowOf(id, unauthorised)).toMatchObject({ isLeased: false })
    const { requests } = unauthorised.provider
    await ingest(unauthorised.client, ['nor for this'])
    expect(await rowOf(id, unauthorised)).toMatchObject({
      status: 'PENDING',
      attempts: 0,
      wait: null,
      vector: null,
    })
    expect(unauthorised.provider.requests).toBe(requests)
    // Whoever looks sees why nothing happens: at the row, and in the progress.
    const { node } = await unauthorised.client.run(
      graphql(
        `query WhyPending($id: ID!) { node(id: $id) { ... on Message { embeddingStatus embeddingError } } }`,
      ),
      { id },
    )
    expect(node).toMatchObject({
      embeddingStatus: 'PENDING',
      embeddingError: expect.stringContaining('wrong key'),
    })
    for await (const { embeddingProgress } of unauthorised.client.subscribe(
      graphql(`subscription WhyNothingHappens { embeddingProgress { lastError } }`),
    )) {
      expect(embeddingProgress.lastError).toContain('wrong key')
      break
    }
  })
})

test('what a dead process had leased is taken up, and what a living one has is left to it', async () => {
  await using provider = await ProviderServer.start()
  await using own = await createTestDatabase()
  const database = await reopen(own.config)
  const embedder = createEmbeddingProvider(parseConfig(providerEnv(provider)).embedding)
  await ensureActiveSpace(database, embedder, createLogger('silent'))
  await embedder.close()
  await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
  for (const [name, age] of [
    ['dead', 3600],
    // Ahead of its time: it must not die of age while this test waits.
    ['living', own.config.kind === 'embedded' ? 0 : -3600],
  ] as const) {
    await database.query(
      `insert into message (id, source_id, external_id, author, content, sent_at)
       select gen_random_uuid(), id, $1, 'ann', $1, now() from source`,
      [name],
    )
    await database.query(
      `with entered as (
         insert into process (role, host, pid, heartbeat_at) values ('server', 'elsewhere', 1, now() - make_interval(secs => $2))
         returning id
       )
       update embedding set leased_by = (select id from entered)
       where owner_id = (select id from message where content = $1)`,
      [name, age],
    )
  }
  await database.close()

  await using taker = await startTestApp({ database: own.config, env: providerEnv(provider) })
  const statusOf = async (content: string) =>
    (
      await taker.sql<{ status: string }>(
        'select status from embedding join message on message.id = owner_id where content = $1',
        [content],
      )
    )[0]?.status
  // A Postgres that was started this moment gives everyone half a minute before it judges.
  await expect.poll(() => statusOf('dead'), { timeout: 50_000 }).toBe('READY')
  // An embedded database has one process at a time: whoever else is entered is dead.
  await expect.poll(() => statusOf('living')).toBe(own.config.kind === 'embedded' ? 'READY' : 'PENDING')
}, 70_000)

test('several processes on one database share the work, and no text is sent twice', async ({ skip }) => {
  await using provider = await ProviderServer.start({ latencyMs: 20 })
  await using own = await openTestDatabase()
  if (own.config.kind === 'embedded') skip('embedded: one process at a time')
  const sent: string[] = []
  provider.options.fault = ({ texts }) => {
    sent.push(...texts)
    return null
  }
  const options = { database: own.config, env: providerEnv(provider) }
  await using first = await startTestApp(options)
  await using second = await startTestApp(options)
  const texts = Array.from({ length: 4000 }, (_, index) => message(`shared work ${index}`))
  for (const [index, client] of [first.client, second.client, first.client, second.client].entries()) {
    await ingest(client, texts.slice(index * 1000, (index + 1) * 1000))
  }
  await first.client.waitUntilEmbedded()
  await second.client.waitUntilEmbedded()
  expect(sent).toHaveLength(4000)
  expect(new Set(sent).size).toBe(4000)
})
