import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import {
  byMarks,
  dataLines,
  ExtractDocument,
  KnowledgeDocument,
  openAiExtractor,
  readByMarks,
} from '../../support/extraction.ts'
import type { ExtractKnowledgeInput } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { missingId } from '../../support/ids.ts'
import { cancelJob } from '../../support/jobs.ts'
import { createTopic } from '../../support/knowledge.ts'
import { ingest } from '../../support/messages.ts'
import type { ProviderServerOptions } from '../../support/provider-server.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
const provider: ProviderServerOptions = { ...byMarks }

beforeAll(async () => {
  app = await startProviderApp(provider, { env: openAiExtractor })
})
afterAll(() => app[Symbol.asyncDispose]())
afterEach(async () => {
  Object.assign(provider, byMarks)
  delete provider.fault
  for (const table of ['message', 'atom', 'topic']) await app.sql(`delete from ${table}`)
})

async function start(input: ExtractKnowledgeInput): Promise<string> {
  const { extractKnowledge: answer } = await app.client.run(ExtractDocument, { input })
  if (answer?.__typename !== 'ExtractKnowledgePayload') throw new Error(answer?.message ?? 'no answer')
  return answer.job.id
}

const extract = async (input: ExtractKnowledgeInput) => app.client.waitForJob(await start(input))

/** Stores messages and extracts them. */
async function read(...texts: string[]) {
  const { messages } = await ingest(app.client, texts)
  const ids = messages.map(({ id }) => id)
  return { ids, job: await extract({ messageIds: ids }) }
}

const knowledge = () => app.client.run(KnowledgeDocument)

describe('messages that are extracted', () => {
  test('become topics, atoms with the words that prove them, and links, all embedded at once', async () => {
    const { job, ids } = await read(
      'PROBLEM: The cache is full #red-builds',
      'hm, again #red-builds',
      'SOLUTION: Clear it every night #red-builds >SOLVES The cache',
    )
    expect(job).toMatchObject({
      state: 'SUCCEEDED',
      total: 3,
      succeeded: 3,
      failed: 0,
      attempts: 1,
      error: null,
    })
    expect(job.result).toMatchObject({
      extractor: 'openai/marks',
      topicsCreated: 1,
      topicsMatched: 0,
      atomsCreated: 2,
      revisionsProposed: 0,
      linksCreated: 1,
      messagesAssigned: 3,
      tokensIn: 100,
      tokensOut: 10,
    })
    const { atoms, topics } = await knowledge()
    expect(topics.nodes).toMatchObject([
      { name: 'red builds', embeddingStatus: 'READY', color: expect.stringMatching(/^#[0-9a-f]{6}$/) },
    ])
    expect(topics.nodes[0]?.messages.nodes).toHaveLength(3)
    const quote = 'SOLUTION: Clear it every night #red-builds >SOLVES The cache'
    expect(atoms.nodes).toMatchObject([
      { type: 'PROBLEM', content: 'The cache is full', reviewState: 'PENDING', extractedBy: 'OPENAI' },
      {
        type: 'SOLUTION',
        title: 'Clear it every night',
        confidence: expect.closeTo(0.9),
        extractionModel: 'marks',
        embeddingStatus: 'READY',
        topics: { nodes: [{ name: 'red builds' }] },
        citations: [{ quote, start: 0, end: quote.length, message: { id: ids[2], content: quote } }],
        links: { nodes: [{ type: 'SOLVES', to: { title: 'The cache is full' } }] },
      },
    ])
    // The vectors came with the rows: nothing was owed, and the pipeline had nothing to ask for.
    expect(await app.sql(`select from embedding where kind <> 'MESSAGE' and attempts > 0`)).toEqual([])
  })

  test('again bring nothing new', async () => {
    const { ids } = await read('DECISION: We deploy on Tuesdays #deploys', 'RISK: The key expires #deploys')
    const before = await knowledge()
    const again = await extract({ messageIds: ids })
    expect(again.result).toMatchObject({
      topicsCreated: 0,
      topicsMatched: 1,
      atomsCreated: 0,
      atomsMatched: 2,
      revisionsProposed: 0,
      linksCreated: 0,
      messagesAssigned: 0,
    })
    expect(await knowledge()).toEqual(before)
  })

  test('below 0.7 confidence, or without a quote that was written, bring nothing, and the job says so', async () => {
    const { job } = await read(
      'IDEA: Paint it blue ?0.69',
      'IDEA: Paint it red !quote',
      'IDEA: Paint it green ?0.7',
    )
    const { atoms } = await knowledge()
    expect(atoms.nodes.map(({ content }) => content)).toEqual(['Paint it green'])
    expect(job.result).toMatchObject({
      atomsCreated: 1,
      dropped: { unsureAtoms: 1, inventedQuotes: 1, unprovenAtoms: 1 },
    })
  })

  test('are marked as read, and a period reads only what was not', async () => {
    const { messages } = await ingest(app.client, ['IDEA: Read me once', 'nothing in here at all'])
    const from = new Date(0).toISOString()
    const first = await extract({ period: { from } })
    expect(first).toMatchObject({ total: 2, succeeded: 2 })
    expect(await extract({ period: { from } })).toMatchObject({ state: 'SUCCEEDED', total: 0, succeeded: 0 })
    await app.client.run(
      graphql(`mutation EditToRead($id: ID!) {
        updateMessage(input: { id: $id, content: "IDEA: Read me again" }) { __typename }
      }`),
      { id: messages[1]?.id ?? '' },
    )
    expect(await extract({ period: { from } })).toMatchObject({ total: 1, succeeded: 1 })
    expect((await knowledge()).atoms.nodes.map(({ content }) => content)).toEqual([
      'Read me once',
      'Read me again',
    ])
  })

  test('that are noise are read only if somebody asks for them', async () => {
    const { messages } = await ingest(app.client, ['ok', 'IDEA: This one is worth it'])
    expect(await extract({ period: { from: new Date(0).toISOString() } })).toMatchObject({ total: 1 })
    expect(await extract({ messageIds: [messages[0]?.id ?? ''] })).toMatchObject({ total: 1, succeeded: 1 })
  })

  test('go to the topic that is asked for, and to no other', async () => {
    const { ids } = await read('IDEA: First #chosen')
    const [topic] = (await knowledge()).topics.nodes
    const { messages } = await ingest(app.client, ['IDEA: Second #other', 'plain words of no theme'])
    await extract({ messageIds: messages.map(({ id }) => id), topicId: topic?.id ?? null })
    const { topics, atoms } = await knowledge()
    expect(topics.nodes.map(({ name }) => name)).toEqual(['chosen'])
    expect(topics.nodes[0]?.messages.nodes).toHaveLength(ids.length + 2)
    expect(atoms.nodes.every((atom) => atom.topics.nodes.length === 1)).toBe(true)
  })
})

describe('what is there already', () => {
  test('is found by the name of a topic: case, accents and plural do not count', async () => {
    await read('IDEA: One #Nightly-Builds')
    const { job } = await read('IDEA: Two #nightly-build')
    expect(job.result).toMatchObject({ topicsCreated: 0, topicsMatched: 1 })
    expect((await knowledge()).topics.nodes.map(({ name }) => name)).toEqual(['Nightly Builds'])
  })

  test('above 0.95 is revised, with the new words that prove it', async () => {
    await read('PROBLEM: The queue is stuck {queue}')
    const { job } = await read('PROBLEM: The queue hangs again {queue@0.97}')
    expect(job.result).toMatchObject({ atomsCreated: 0, revisionsProposed: 1 })
    const { atoms } = await knowledge()
    expect(atoms.nodes).toHaveLength(1)
    expect(atoms.nodes[0]?.revisions.nodes).toMatchObject([
      {
        number: 1,
        state: 'PENDING',
        changes: {
          content: { from: 'The queue is stuck {queue}', to: 'The queue hangs again {queue@0.97}' },
          citations: [{ quote: 'PROBLEM: The queue hangs again {queue@0.97}', start: 0 }],
        },
      },
    ])
    expect(atoms.nodes[0]?.content).toBe('The queue is stuck {queue}')
  })

  test('from 0.85 to 0.95 is a relative', async () => {
    await read('PROBLEM: The queue is stuck {queue}')
    const { job } = await read('RISK: The queue may get stuck {queue@0.9}', 'IDEA: Far away {queue@0.8}')
    expect(job.result).toMatchObject({ atomsCreated: 2, revisionsProposed: 0, linksCreated: 1 })
    const { atoms } = await knowledge()
    expect(atoms.nodes.map(({ links }) => links.nodes)).toEqual([
      [],
      [{ type: 'RELATES_TO', strength: expect.closeTo(0.9), to: { title: 'The queue is stuck {queue}' } }],
      [],
    ])
  })

  test('from 0.80 is a further topic of a new atom, up to five of them', async () => {
    for (const near of [0.99, 0.9, 0.86, 0.84, 0.82, 0.81, 0.7])
      await createTopic(app.client, { name: `Theme {theme@${near}}` })
    await app.client.waitUntilEmbedded()
    await read('IDEA: Of many themes {theme} #its-own')
    const names = (await knowledge()).atoms.nodes[0]?.topics.nodes.map(({ name }) => name)
    expect(names?.sort()).toEqual(
      ['its own', ...[0.82, 0.84, 0.86, 0.9, 0.99].map((near) => `Theme {theme@${near}}`)].sort(),
    )
  })

  test('is not a twin of what the same answer links it to', async () => {
    const { job } = await read('PROBLEM: Login fails {l}', 'SOLUTION: Log in twice {l@0.99} >SOLVES Login')
    expect(job.result).toMatchObject({ atomsCreated: 2, linksCreated: 1, revisionsProposed: 0 })
  })

  test('that was rejected stays rejected', async () => {
    await read('IDEA: Rewrite it {rewrite}')
    const [atom] = (await knowledge()).atoms.nodes
    await app.client.run(
      graphql(`mutation Reject($id: ID!) {
        rejectAtom(input: { id: $id, reason: "not again" }) {
          ... on RejectAtomPayload { atom { reviewState reviewNote } }
        }
      }`),
      { id: atom?.id ?? '' },
    )
    const { job } = await read('IDEA: Rewrite it all {rewrite@0.98}')
    expect(job.result).toMatchObject({ atomsCreated: 0, atomsMatched: 1, revisionsProposed: 0 })
  })

  test('is told to the model: near topics, and near atoms that are approved', async () => {
    await read('DECISION: Use Postgres {db} #databases', 'IDEA: Use none {db@0.9} #databases')
    await app.sql(`update atom set review_state = 'APPROVED' where type = 'DECISION'`)
    let told: Record<string, string>[] = []
    provider.chat = (request) => {
      told = dataLines(request)
      return readByMarks(request)
    }
    await read('what about the database {db@0.95}')
    expect(told.flatMap(({ topic }) => topic ?? [])).toHaveLength(1)
    expect(told.filter(({ atom }) => atom)).toMatchObject([{ atom: 'a1', content: 'Use Postgres {db}' }])
  })

  test('is not made twice by two runs at once', async () => {
    const texts = Array.from(
      { length: 6 },
      (_, index) => `INSIGHT: The same fact {fact@0.9${index + 6}} #facts`,
    )
    const { messages } = await ingest(app.client, texts)
    const jobs = await Promise.all(messages.map(({ id }) => start({ messageIds: [id] })))
    for (const id of jobs) expect(await app.client.waitForJob(id)).toMatchObject({ state: 'SUCCEEDED' })
    const { topics } = await knowledge()
    expect(topics.nodes).toHaveLength(1)
  })
})

describe('a provider that fails', () => {
  test('in one batch (no valid answer, also not the second time) fails that batch, and the others go on', async () => {
    provider.chat = (request) =>
      JSON.stringify(request.messages).includes('poison')
        ? { text: 'no JSON' }
        : (byMarks.chat?.(request) ?? { text: '' })
    const texts = Array.from({ length: 60 }, (_, index) => `IDEA: Thought of number ${index}`)
    texts[3] = 'IDEA: Put some poison into the well'
    const { messages } = await ingest(app.client, texts)
    const first = await extract({ messageIds: messages.slice(0, 30).map(({ id }) => id) })
    expect(first).toMatchObject({ state: 'FAILED', succeeded: 0, failed: 30 })
    expect(first.error).toMatch(/JSON/)
    const rest = await extract({ period: { from: new Date(0).toISOString() } })
    expect(rest).toMatchObject({ state: 'SUCCEEDED', total: 60, succeeded: 10, failed: 50 })
    expect(rest.result.failures).toMatchObject([{ messages: 50, reason: expect.stringMatching(/JSON/) }])
    expect((await knowledge()).atoms.nodes).toHaveLength(10)
    // What failed is not lost: it is read as soon as it can be.
    provider.chat = byMarks.chat
    expect(await extract({ period: { from: new Date(0).toISOString() } })).toMatchObject({
      total: 50,
      succeeded: 50,
    })
  })

  test('with 429 is waited for, and no attempt is used up', async () => {
    let asked = 0
    provider.fault = ({ messages }) =>
      messages.length > 0 && asked++ === 0 ? { status: 429, headers: { 'retry-after': '1' } } : null
    const { job } = await read('IDEA: Wait for me')
    expect(job).toMatchObject({ state: 'SUCCEEDED', attempts: 1, succeeded: 1 })
    const events = await app.sql<{ message: string }>(
      'select message from job_event where message is not null',
    )
    expect(events.map(({ message }) => message)).toContainEqual(
      expect.stringMatching(/^Waiting for the provider until 20/),
    )
  })

  test('with 401 makes the job wait, counts nothing, and says so; cancelled, it gives its messages back', async () => {
    provider.fault = ({ messages }) => (messages.length > 0 ? { status: 401 } : null)
    const { messages } = await ingest(app.client, ['IDEA: Not with this key'])
    const ids = messages.map(({ id }) => id)
    const jobId = await start({ messageIds: ids })
    const row = () =>
      app.sql(
        `select state, failures, waiting_until > now() as waits from job where kind = 'EXTRACT' order by id desc limit 1`,
      )
    await expect.poll(row, { timeout: 10_000 }).toEqual([{ state: 'QUEUED', failures: 0, waits: true }])
    const status = () => app.sql(`select state, error from provider_status where purpose = 'EXTRACTION'`)
    expect(await status()).toEqual([{ state: 'ERROR', error: expect.stringMatching(/401/) }])
    await cancelJob(app.client, jobId)
    delete provider.fault
    expect(await extract({ messageIds: ids })).toMatchObject({ state: 'SUCCEEDED', succeeded: 1 })
    expect(await status()).toEqual([{ state: 'CONNECTED', error: null }])
  })
})

test('a job that is cancelled breaks off its request, keeps what it has saved, and gives the rest back', async () => {
  const texts = Array.from({ length: 120 }, (_, index) => `IDEA: Thought of number ${index}`)
  await ingest(app.client, texts)
  let asked = 0
  let tell: () => void = () => {}
  const second = new Promise<void>((resolve) => {
    tell = resolve
  })
  provider.fault = ({ messages }) => {
    if (messages.length === 0 || ++asked < 2) return null
    tell()
    return { end: 'hang' }
  }
  const id = await start({ period: { from: new Date(0).toISOString() } })
  await second
  await cancelJob(app.client, id)
  await expect.poll(() => app.provider.underWay, { timeout: 2_000 }).toBe(0)
  expect(await app.client.waitForJob(id)).toMatchObject({ state: 'CANCELLED', succeeded: 50 })
  delete provider.fault
  expect(await extract({ period: { from: new Date(0).toISOString() } })).toMatchObject({
    total: 70,
    succeeded: 70,
  })
})

describe('what cannot be extracted is refused by name', () => {
  const from = '2026-01-01T00:00:00Z'
  test.each<[string, ExtractKnowledgeInput, string, RegExp]>([
    ['nothing', {}, 'INVALID_INPUT', /Neither of messageIds and period/],
    ['both', { messageIds: [missingId('Message')], period: { from } }, 'INVALID_INPUT', /Both of/],
    ['no messages', { messageIds: [] }, 'INVALID_INPUT', /has 0 entries; it must have 1\.\.100/],
    ['a message that is not there', { messageIds: [missingId('Message')] }, 'NOT_FOUND', /1 of the messages/],
    ['a topic that is not there', { period: { from }, topicId: missingId('Topic') }, 'NOT_FOUND', /topic/],
    ['an agent that is not there', { period: { from }, agentId: missingId('Agent') }, 'NOT_FOUND', /agent/],
    ['an empty period', { period: {} }, 'INVALID_INPUT', /either last, or from/],
    ['two periods', { period: { last: 'LAST_7D', from } }, 'INVALID_INPUT', /either last, or from/],
    ['a period backwards', { period: { from, to: '2025-01-01T00:00:00Z' } }, 'INVALID_INPUT', /begins at/],
  ])('%s', async (_name, input, code, message) => {
    const { extractKnowledge } = await app.client.run(ExtractDocument, { input })
    expect(extractKnowledge).toMatchObject({ code, message: expect.stringMatching(message) })
  })
})
