import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { startTestApp, type TestApp } from '../support/apps.ts'
import { byMarks, ExtractDocument, openAiExtractor } from '../support/extraction.ts'
import { graphql } from '../support/generated/index.ts'
import { databaseId } from '../support/ids.ts'
import { ingest } from '../support/messages.ts'
import { createGate, type Fault, ProviderServer } from '../support/provider-server.ts'
import { expectTruth } from '../support/truth.ts'

type Protocol = 'openai' | 'ollama'
// What comes over the wire is the same on every database: on Postgres some of it is enough.
const isEmbedded = inject('template').engine === 'embedded'
const protocols: Protocol[] = isEmbedded ? ['openai', 'ollama'] : ['openai']
const dimensions = 64

const BackfillDocument = graphql(`
  mutation FaultsBackfill($input: BackfillEmbeddingsInput!) {
    backfillEmbeddings(input: $input) { __typename ... on BackfillEmbeddingsPayload { job { id } } }
  }
`)

const EditDocument = graphql(`
  mutation FaultsEdit($input: UpdateMessageInput!) {
    updateMessage(input: $input) { ... on UpdateMessagePayload { message { id } } }
  }
`)

const DeleteDocument = graphql(`
  mutation FaultsDelete($ids: [ID!]!) {
    deleteMessages(input: { ids: $ids }) { ... on DeleteMessagesPayload { deletedMessageIds } }
  }
`)

const EmbedDocument = graphql(`
  mutation FaultsEmbed($ids: [ID!]!) {
    embed(input: { ids: $ids }) { __typename ... on EmbedPayload { job { id } } }
  }
`)

async function startApp(protocol: Protocol): Promise<TestApp & { provider: ProviderServer }> {
  const provider = await ProviderServer.start({ ...byMarks, dimensions })
  const app = await startTestApp({
    env: {
      QUARRY_EMBEDDING_PROVIDER: protocol,
      OPENAI_BASE_URL: `${provider.url}/v1`,
      OPENAI_API_KEY: 'x',
      OPENAI_EMBEDDING_DIMENSIONS: String(dimensions),
      OLLAMA_BASE_URL: provider.url,
      ...openAiExtractor,
    },
  })
  return {
    ...app,
    provider,
    async [Symbol.asyncDispose]() {
      await app[Symbol.asyncDispose]()
      await provider.close()
    },
  }
}

/** What was to be tried later is tried now: the waits are 10 s and more, and that they are kept is tested elsewhere. */
async function retryNow(app: TestApp): Promise<void> {
  await app.sql('update embedding set next_attempt_at = null')
  // The pipeline does not hear of a statement that comes from behind its back, but of news.
  await ingest(app.client, ['news'])
}

const manyTexts = (count: number, what: string) =>
  Array.from({ length: count }, (_, n) => `${what}, text ${n}`)

const base64 = (vector: readonly number[]) => Buffer.from(Float32Array.from(vector).buffer).toString('base64')

/** The right answer with each vector exchanged for this. */
const vectors =
  (values: readonly number[] | string) =>
  (protocol: Protocol): Fault => ({
    edit: (all) =>
      all.map((entry) => (protocol === 'openai' ? { ...(entry as object), embedding: values } : values)),
  })
const always = (fault: Fault) => () => fault
const flat = Array<number>(dimensions - 1).fill(0.1)

const wrongAnswers: [string, (protocol: Protocol) => Fault, RegExp][] = [
  ['vectors of another dimension', vectors(Array(32).fill(0.1)), /has 32 dimensions, expected 64/],
  ['a vector with a number that is none', vectors([Number.NaN, ...flat]), /null at position 1/],
  ['too few vectors', always({ edit: (all) => all.slice(1) }), /\d+ vectors for \d+ texts/],
  ['JSON that is cut off', always({ body: '{"data":[{"index":0,"embedding":[0.1,' }), /JSON/],
  [
    'a page of HTML',
    always({ headers: { 'content-type': 'text/html' }, body: '<html><body>Please log in</body></html>' }),
    /found .*<html>|no JSON/,
  ],
  ['half an answer, and then no connection', always({ end: 'reset' }), /cannot be reached|terminated|closed/],
]
const moreWrongAnswers: typeof wrongAnswers = [
  ['vectors of zeros', vectors(Array(dimensions).fill(0)), /is zero/],
  ['NaN in base64', vectors(base64([Number.NaN, ...flat])), /NaN at position 1/],
  ['too many vectors', always({ edit: (all) => [...all, ...all.slice(0, 1)] }), /\d+ vectors for \d+ texts/],
  [
    'the same index for all',
    always({ edit: (all) => all.map((entry) => ({ ...(entry as object), index: 1 })) }),
    /two vectors have the index 1|has the index 1, expected 0 to 0/,
  ],
  ['an error of its own (503)', always({ status: 503, body: 'no server' }), /answered 503/],
]

describe.each(protocols)('a provider (%s)', (protocol) => {
  let app: Awaited<ReturnType<typeof startApp>>
  beforeAll(async () => {
    app = await startApp(protocol)
  })
  afterAll(() => app[Symbol.asyncDispose]())
  beforeEach(() => {
    app.provider.options.fault = () => null
  })

  test.each(isEmbedded && protocol === 'openai' ? [...wrongAnswers, ...moreWrongAnswers] : wrongAnswers)(
    'that answers with %s for a while spoils nothing, and all is embedded after it',
    async (name, fault, reason) => {
      const texts = manyTexts(8, `${protocol}: ${name}`)
      app.provider.options.fault = () => fault(protocol)
      await ingest(app.client, texts)
      const rows = () =>
        app.sql<{ status: string; isLeased: boolean; error: string | null }>(
          `select status, leased_by is not null as "isLeased", last_error as error
           from embedding join message on message.id = owner_id where content = any ($1)`,
          [texts],
        )
      const wrong = { status: 'PENDING', isLeased: false, error: expect.stringMatching(reason) }
      await expect.poll(rows, { timeout: 10_000 }).toEqual(texts.map(() => wrong))
      app.provider.options.fault = () => null
      await retryNow(app)
      await app.client.waitUntilEmbedded()
      expect((await rows()).map(({ status }) => status)).toEqual(texts.map(() => 'READY'))
      await expectTruth(app.sql)
    },
  )

  test('that asks to wait (429) is waited for, and nothing is counted as a failure', async () => {
    let refusals = 3
    app.provider.options.fault = () =>
      refusals-- > 0 ? { status: 429, headers: { 'retry-after': '1' }, body: '{}' } : null
    await ingest(app.client, manyTexts(300, `${protocol}: patience`))
    await app.client.waitUntilEmbedded()
    expect(refusals).toBeLessThan(0)
    await expectTruth(app.sql)
  })

  test('that refuses one text among 500 gets all others embedded, at once', async () => {
    const poison = `${protocol}: poison`
    const before = app.provider.requests
    app.provider.options.fault = ({ texts }) =>
      texts.includes(poison) ? { status: 400, body: '{"error":{"message":"I will not read this"}}' } : null
    const good = manyTexts(499, `${protocol}: beside poison`)
    await ingest(app.client, [...good.slice(0, 321), poison, ...good.slice(321)])
    const { backfillEmbeddings } = await app.client.run(BackfillDocument, { input: { kinds: ['MESSAGE'] } })
    await app.client.waitUntilEmbedded()
    const counts = await app.sql(
      `select status, count(*)::int as n, max(last_error) as error from embedding
       join message on message.id = owner_id where content = $1 or content = any ($2) group by 1 order by 1`,
      [poison, good],
    )
    expect(counts).toEqual([
      { status: 'READY', n: 499, error: null },
      { status: 'FAILED', n: 1, error: expect.stringContaining('I will not read this') },
    ])
    // 500 texts in requests of 64 to 256, and the one with the poison halved until it stands alone.
    const whole = protocol === 'openai' ? 2 : 8
    const halvings = 2 * Math.ceil(Math.log2(protocol === 'openai' ? 256 : 64))
    expect(app.provider.requests - before).toBeLessThanOrEqual(whole + halvings + 4)
    if (backfillEmbeddings?.__typename !== 'BackfillEmbeddingsPayload') throw new Error('no job')
    const job = await app.client.waitForJob(backfillEmbeddings.job.id)
    expect(job.state).toBe('SUCCEEDED')
    expect(job.succeeded + job.failed).toBe(job.total)
    await expectTruth(app.sql)
    await app.sql(`delete from message where content = $1`, [poison])
  })
})

describe('in one app', () => {
  let app: Awaited<ReturnType<typeof startApp>>
  beforeAll(async () => {
    app = await startApp('openai')
  })
  afterAll(() => app[Symbol.asyncDispose]())
  beforeEach(() => {
    app.provider.options.fault = () => null
  })

  const edit = (id: string, content: string) => app.client.run(EditDocument, { input: { id, content } })

  test('a provider that answers out of order, with indexes, is understood', async () => {
    const sent: string[] = []
    app.provider.options.fault = ({ texts }) => {
      sent.push(...texts)
      return { edit: (all) => all.toReversed() }
    }
    const texts = manyTexts(300, 'out of order')
    await ingest(app.client, texts)
    await app.client.waitUntilEmbedded()
    // Each once: no answer was refused.
    expect(sent.toSorted()).toEqual(texts.toSorted())
    await expectTruth(app.sql)
  })

  test('while one request was asked to wait (429), others embed its texts, too', async () => {
    let asked = 0
    app.provider.options.fault = () =>
      asked++ === 0 ? { status: 429, headers: { 'retry-after': '30' }, body: '{}' } : null
    await ingest(app.client, manyTexts(300, 'beside a wait'))
    await app.client.waitUntilEmbedded()
    const waiting = 'select from provider_status where waiting_until > now()'
    expect(await app.sql(waiting)).toHaveLength(1)
    await expectTruth(app.sql)
  })

  test('a provider that breaks (500) over one text among 20 gets all others embedded', async () => {
    const poison = 'breaks it'
    app.provider.options.fault = ({ texts }) =>
      texts.includes(poison) ? { status: 500, body: '{"error":{"message":"out of memory"}}' } : null
    const good = manyTexts(19, 'beside what breaks it')
    await ingest(app.client, [...good.slice(0, 7), poison, ...good.slice(7)])
    const statuses = () =>
      app.sql<{ status: string; n: number }>(
        `select status, count(*)::int as n from embedding join message on message.id = owner_id
         where content = $1 or content = any ($2) group by 1 order by 1`,
        [poison, good],
      )
    // Seven attempts are all that a text has; an hour in which each is due at once.
    await expect
      .poll(
        async () => {
          await retryNow(app)
          return statuses()
        },
        { timeout: 60_000, interval: 300 },
      )
      .toEqual([
        { status: 'READY', n: 19 },
        { status: 'FAILED', n: 1 },
      ])
    await app.client.waitUntilEmbedded()
    await expectTruth(app.sql)
    await app.sql(`delete from message where content = $1`, [poison])
  }, 90_000)

  test('texts that are edited, edited and edited back, or deleted while they are embedded: each vector is that of the last text', async () => {
    using gate = createGate()
    app.provider.options.fault = ({ texts }) =>
      texts.some((text) => text.startsWith('under way')) ? gate.opened : null
    const arrived = app.provider.arrival()
    const { messages } = await ingest(app.client, manyTexts(40, 'under way'))
    const ids = messages.map(({ id }) => id)
    const { embed } = await app.client.run(EmbedDocument, { ids })
    await arrived
    for (const [n, id] of ids.slice(0, 10).entries()) await edit(id, `edited under way ${n}`)
    for (const [n, id] of ids.slice(10, 20).entries()) {
      await edit(id, `edited and back ${n}`)
      await edit(id, messages[10 + n]?.content ?? '')
    }
    const gone = ids.slice(20, 30)
    await app.client.run(DeleteDocument, { ids: gone })
    // A text that another row has, whose embedding is under way as well.
    for (const id of ids.slice(30, 35)) await edit(id, messages[39]?.content ?? '')
    gate.open()
    await app.client.waitUntilEmbedded()
    if (embed?.__typename !== 'EmbedPayload') throw new Error('no job')
    const job = await app.client.waitForJob(embed.job.id)
    expect(job).toMatchObject({ state: 'SUCCEEDED', total: 40, succeeded: 30, failed: 0, skipped: 10 })
    const [left] = await app.sql(
      `select count(*)::int as rows, count(*) filter (where status = 'READY')::int as ready from embedding
       where owner_id = any ($1::uuid[])`,
      [ids.map(databaseId)],
    )
    expect(left).toEqual({ rows: 30, ready: 30 })
    await expectTruth(app.sql)
  })

  test('texts that are edited again and again: no vector of an older text is ever READY', async () => {
    app.provider.options.latencyMs = 20
    const { messages } = await ingest(app.client, manyTexts(10, 'restless'))
    for (let version = 1; version <= 15; version++) {
      await Promise.all(messages.map(({ id }, n) => edit(id, `restless ${n}, version ${version}`)))
      const wrong = await app.sql(
        `select owner_id from embedding join message on message.id = owner_id
         where status = 'READY' and content_hash <> text_hash(content)`,
      )
      expect(wrong).toEqual([])
    }
    await app.client.waitUntilEmbedded()
    app.provider.options.latencyMs = 0
    await expectTruth(app.sql)
  })

  test('messages that are edited or deleted while they are read for knowledge: nothing is kept that they do not say', async () => {
    using gate = createGate()
    const { messages } = await ingest(app.client, [
      'IDEA: Stays as it is #under-way',
      'IDEA: Is deleted meanwhile #under-way',
      'IDEA: Says something else meanwhile #under-way',
    ])
    await app.client.waitUntilEmbedded()
    app.provider.options.fault = (request) => (request.messages.length > 0 ? gate.opened : null)
    const { extractKnowledge } = await app.client.run(ExtractDocument, {
      input: { messageIds: messages.map(({ id }) => id) },
    })
    if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
      throw new Error('the extraction was refused')
    await app.provider.arrival()
    await app.client.run(DeleteDocument, { ids: [messages[1]?.id ?? ''] })
    await edit(messages[2]?.id ?? '', 'IDEA: This is what it says now #under-way')
    gate.open()
    const job = await app.client.waitForJob(extractKnowledge.job.id)
    expect(job).toMatchObject({ state: 'SUCCEEDED' })
    await app.client.waitUntilEmbedded()
    const atoms = await app.sql<{ content: string }>('select content from atom order by id')
    expect(atoms.map(({ content }) => content)).toEqual(['Stays as it is'])
    const quotes = await app.sql(
      `select quote from citation join message on message.id = message_id where position(quote in content) = 0`,
    )
    expect(quotes).toEqual([])
    await expectTruth(app.sql)
  })
})
