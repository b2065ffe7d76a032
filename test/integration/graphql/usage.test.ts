import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startProviderApp, startTestApp } from '../../support/apps.ts'
import { createTestDatabase } from '../../support/databases.ts'
import { byMarks, readByMarks } from '../../support/extraction.ts'
import type {
  ExtractKnowledgeInput,
  ProviderUsageFilter,
  UsageDimension,
} from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { missingId } from '../../support/ids.ts'
import { cancelJob } from '../../support/jobs.ts'
import { ingest } from '../../support/messages.ts'
import { ProviderServer, type ProviderServerOptions } from '../../support/provider-server.ts'
import { addAgent, addProvider, changeProvider } from '../../support/providers.ts'
import { eventually } from '../../support/server.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
const served: ProviderServerOptions = {}
let providerId: string
let agentId: string

/** A chat of the test's server is 100 tokens in and 10 out: with these, 0.001 USD. */
const prices = { pricePerMillionTokensIn: 5, pricePerMillionTokensOut: 50 }

beforeAll(async () => {
  app = await startProviderApp(served, { env: { QUARRY_EXTRACTION_BATCH: '5' } })
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(async () => {
  Object.assign(served, byMarks)
  providerId = await addProvider(app.client, {
    name: 'Here',
    type: 'OPENAI',
    baseUrl: `${app.provider.url}/v1`,
    extractionModel: 'marks',
    ...prices,
  })
  agentId = await addAgent(app.client, { name: 'Reader', providerId })
})
afterEach(async () => {
  delete served.fault
  for (const table of ['message', 'atom', 'topic', 'agent', 'provider', 'job', 'provider_usage'])
    await app.sql(`delete from ${table}`)
})

const UsageDocument = graphql(`
  query Usage($filter: ProviderUsageFilter, $groupBy: [UsageDimension!], $first: Int, $after: String) {
    providerUsage(filter: $filter, groupBy: $groupBy, first: $first, after: $after) {
      nodes {
        day provider { id name } providerName kind job { id kind } requests failedRequests tokensIn tokensOut
        durationSeconds cost unpricedRequests
      }
      pageInfo { hasNextPage endCursor }
    }
  }
`)

const JobUsageDocument = graphql(`
  query JobUsage($id: ID!) {
    node(id: $id) {
      ... on Job {
        state waitingUntil budget error
        usage { requests failedRequests tokensIn tokensOut cost unpricedRequests }
      }
    }
  }
`)

const ProviderSpentDocument = graphql(`
  query SpentByProvider($id: ID!) {
    node(id: $id) { ... on Provider { state monthlyBudget spentThisMonth waitingUntil } }
  }
`)

const ExtractDocument = graphql(`
  mutation ExtractWithBudget($input: ExtractKnowledgeInput!) {
    extractKnowledge(input: $input) {
      __typename
      ... on ExtractKnowledgePayload { job { id } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const SetBudgetDocument = graphql(`
  mutation SetBudget($jobId: ID!, $budget: Float) {
    setJobBudget(input: { jobId: $jobId, budget: $budget }) {
      __typename
      ... on SetJobBudgetPayload { job { id budget } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const TryDocument = graphql(`
  mutation TryForUsage($input: TryAgentInput!) {
    tryAgent(input: $input) { __typename ... on UserError { message } }
  }
`)

const EmbedDocument = graphql(`
  mutation EmbedForUsage($ids: [ID!]!) {
    embed(input: { ids: $ids, force: true }) {
      __typename
      ... on EmbedPayload { job { id } }
    }
  }
`)

const SearchDocument = graphql(`
  query SearchForUsage($query: String!) { search(query: $query, mode: SEMANTIC) { nodes { __typename } } }
`)

const CreateProviderDocument = graphql(`
  mutation CreateWithBudget($input: CreateProviderInput!) {
    createProvider(input: $input) { __typename ... on InputError { path message } }
  }
`)

const EventsDocument = graphql(`
  subscription EventsOfWaitingJob($jobId: ID!) { jobEvents(jobId: $jobId) { message } }
`)

async function usage(filter?: ProviderUsageFilter, ...groupBy: UsageDimension[]) {
  return (await app.client.run(UsageDocument, { filter, groupBy, first: 100 })).providerUsage.nodes
}

async function jobUsage(id: string) {
  const { node } = await app.client.run(JobUsageDocument, { id })
  if (!node || !('usage' in node)) throw new Error('no job')
  return node
}

async function begin(input: ExtractKnowledgeInput) {
  const { extractKnowledge } = await app.client.run(ExtractDocument, { input })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error(extractKnowledge?.message ?? 'no answer')
  return extractKnowledge.job.id
}

/** Messages that are read in as many batches. */
async function batches(count: number) {
  const texts = Array.from({ length: count * 5 }, (_, index) => `PROBLEM: Number ${index} is broken`)
  const { messages } = await ingest(app.client, texts)
  return messages.map(({ id }) => id)
}

async function untilWaiting(jobId: string): Promise<string> {
  for await (const { jobEvents } of app.client.subscribe(EventsDocument, { jobId })) {
    if (jobEvents.message?.startsWith('Waiting for the provider')) return jobEvents.message
  }
  throw new Error('the job ended without waiting')
}

describe('requests are accounted', () => {
  test('of an extraction to its job and provider, by the prices of the moment', async () => {
    const jobId = await begin({ messageIds: await batches(2), agentId })
    await app.client.waitForJob(jobId)
    await eventually(async () => (await jobUsage(jobId)).usage.cost).toBeCloseTo(0.002, 9)
    const filter = { providerIds: [providerId], kinds: ['EXTRACTION' as const] }
    const [sum] = await usage(filter, 'DAY', 'PROVIDER', 'KIND', 'JOB')
    expect(sum).toMatchObject({
      day: new Date().toISOString().slice(0, 10),
      provider: { id: providerId, name: 'Here' },
      providerName: 'Here',
      kind: 'EXTRACTION',
      job: { id: jobId, kind: 'EXTRACT' },
      requests: 2,
      failedRequests: 0,
      tokensIn: 200,
      tokensOut: 20,
      cost: 0.002,
      unpricedRequests: 0,
    })
    expect(sum?.durationSeconds).toBeGreaterThan(0)
    // What it embedded is the environment's, which has no price.
    expect((await jobUsage(jobId)).usage).toMatchObject({ unpricedRequests: expect.any(Number) })
    expect((await app.client.run(ProviderSpentDocument, { id: providerId })).node).toMatchObject({
      spentThisMonth: expect.closeTo(0.002 + 0.001, 9),
    })
  })

  test('of each kind, also such as fail', async () => {
    const ids = await batches(1)
    await app.client.waitUntilEmbedded()
    await app.client.run(SearchDocument, { query: 'what is broken' })
    await app.client.run(TryDocument, { input: { agentId, messageIds: ids } })
    served.fault = ({ messages }) => (messages.length > 0 ? { status: 500, body: 'down' } : null)
    await app.client.run(TryDocument, { input: { agentId, messageIds: ids } })
    await eventually(async () => (await usage({}, 'PROVIDER', 'KIND')).length).toBe(4)
    await eventually(() => usage({}, 'PROVIDER', 'KIND')).toMatchObject([
      {
        providerName: 'Here',
        kind: 'EXTRACTION',
        requests: 2,
        failedRequests: 1,
        tokensIn: 100,
        cost: 0.001,
      },
      { providerName: 'Here', kind: 'VALIDATION', requests: 1, failedRequests: 0, cost: 0.001 },
      { providerName: 'environment', kind: 'EMBEDDING', failedRequests: 0, cost: 0 },
      { providerName: 'environment', kind: 'QUERY', requests: 1, tokensIn: 1, unpricedRequests: 1 },
    ])
    const [whole] = await usage()
    expect(whole).toMatchObject({ day: null, provider: null, kind: null, job: null })
    const parts = await usage({}, 'KIND')
    expect(whole?.requests).toBe(parts.reduce((sum, { requests }) => sum + requests, 0))
    expect(await usage({ kinds: ['QUERY'] }, 'KIND')).toHaveLength(1)
    expect(await usage({ to: new Date(Date.now() - 86_400_000).toISOString() }, 'KIND')).toEqual([])
  })

  test('of embeddings to the job that asked for them', async () => {
    const ids = await batches(1)
    await app.client.waitUntilEmbedded()
    const { embed } = await app.client.run(EmbedDocument, { ids })
    if (embed?.__typename !== 'EmbedPayload') throw new Error('refused')
    await app.client.waitForJob(embed.job.id)
    await eventually(async () => (await jobUsage(embed.job.id)).usage.requests).toBeGreaterThan(0)
    // This server says one token for each request.
    const { usage: own } = await jobUsage(embed.job.id)
    expect(own).toMatchObject({ tokensIn: own.requests, unpricedRequests: own.requests, cost: 0 })
    const byJob = await usage({ kinds: ['EMBEDDING'] }, 'JOB')
    expect(byJob).toMatchObject([{ job: { id: embed.job.id, kind: 'EMBED' } }, { job: null }])
  })

  test('in pages, and remain when the provider and the job are gone', async () => {
    const jobId = await begin({ messageIds: await batches(1), agentId })
    await app.client.waitForJob(jobId)
    await eventually(async () => (await jobUsage(jobId)).usage.cost).toBeCloseTo(0.001, 9)
    for (const table of ['agent', 'provider', 'job']) await app.sql(`delete from ${table}`)
    const filter = { kinds: ['EXTRACTION' as const, 'VALIDATION' as const] }
    const first = await app.client.run(UsageDocument, {
      filter,
      groupBy: ['KIND', 'PROVIDER', 'JOB'],
      first: 1,
    })
    expect(first.providerUsage).toMatchObject({
      nodes: [{ kind: 'EXTRACTION', providerName: 'Here', provider: null, job: null, cost: 0.001 }],
      pageInfo: { hasNextPage: true },
    })
    const after = first.providerUsage.pageInfo.endCursor
    const next = await app.client.run(UsageDocument, {
      filter,
      groupBy: ['KIND', 'PROVIDER', 'JOB'],
      first: 1,
      after,
    })
    expect(next.providerUsage).toMatchObject({
      nodes: [{ kind: 'VALIDATION' }],
      pageInfo: { hasNextPage: false },
    })
  })

  test('with their jobs and providers in one statement each, however many there are', async () => {
    await app.sql(
      `with made as (insert into job (id, kind, state) select gen_random_uuid(), 'EXTRACT', 'SUCCEEDED' from generate_series(1, 5)
         returning id)
       insert into provider_usage
       select current_date, p.id::text, p.name, 'EXTRACTION', made.id, 1, 0, 1, 0, 1, 5, 0 from made, provider p`,
    )
    app.statements.splice(0)
    const sums = await usage({ kinds: ['EXTRACTION'] }, 'PROVIDER', 'JOB')
    expect(sums.map(({ job, provider }) => [job?.kind, provider?.name])).toEqual(
      Array.from({ length: 5 }, () => ['EXTRACT', 'Here']),
    )
    expect(
      app.statements.filter((text) => /from .*(job|provider)\b/is.test(text)).length,
    ).toBeLessThanOrEqual(3)
  })

  test('and written by a process that stops at once', async () => {
    await using upstream = await ProviderServer.start(byMarks)
    await using database = await createTestDatabase()
    const env = { QUARRY_EMBEDDING_PROVIDER: 'ollama', OLLAMA_BASE_URL: upstream.url }
    {
      await using first = await startTestApp({ database: database.config, env })
      await first.client.run(SearchDocument, { query: 'anything' })
    }
    await using second = await startTestApp({ database: database.config, env })
    const { providerUsage } = await second.client.run(UsageDocument, {
      filter: { kinds: ['QUERY'] },
      groupBy: ['KIND'],
    })
    expect(providerUsage.nodes).toMatchObject([{ requests: 1, tokensIn: 1 }])
  })
})

const EstimateDocument = graphql(`
  query Estimate($input: ExtractKnowledgeInput!) {
    estimateExtraction(input: $input) { agent { id } messages requests tokensIn tokensOut cost seconds }
  }
`)

describe('an estimate of an extraction', () => {
  const estimate = async (input: ExtractKnowledgeInput) =>
    (await app.client.run(EstimateDocument, { input })).estimateExtraction

  test('knows its size and what is sent before anything was, then answers and time as well', async () => {
    const ids = await batches(3)
    const before = await estimate({ messageIds: ids, agentId })
    expect(before).toMatchObject({ agent: { id: agentId }, messages: 15, requests: 3, tokensOut: null })
    expect(before.cost).toBeCloseTo((before.tokensIn * 5) / 1_000_000, 9)
    const jobId = await begin({ messageIds: ids, agentId })
    await app.client.waitForJob(jobId)
    await eventually(async () => (await jobUsage(jobId)).usage.cost).toBeCloseTo(0.003, 9)
    const after = await estimate({ messageIds: ids, agentId })
    // This server answers a tenth of what it says it was sent.
    expect(after.tokensOut).toBe(Math.ceil(after.tokensIn / 10))
    expect(after.cost).toBeCloseTo((after.tokensIn * 5 + (after.tokensOut ?? 0) * 50) / 1_000_000, 9)
    expect(after.seconds).toBeGreaterThan(0)
  })

  test('is not below what is sent', async () => {
    const ids = await batches(2)
    let sent = 0
    served.chat = ({ messages }) => {
      // English has four to five characters a token: a fifth of them is a floor for any tokenizer.
      sent += messages.reduce((sum, { content }) => sum + content.length / 5, 0)
      return { text: '{"topics":[],"atoms":[],"links":[]}' }
    }
    const { tokensIn } = await estimate({ messageIds: ids, agentId })
    await app.client.waitForJob(await begin({ messageIds: ids, agentId }))
    expect(tokensIn).toBeGreaterThan(sent)
    expect(tokensIn).toBeLessThan(sent * 5)
  })

  test('keeps to the limits of the provider, and is for whoever would read', async () => {
    const ids = await batches(3)
    await app.sql('update provider set requests_per_minute = 1, price_per_million_tokens_in = null')
    expect(await estimate({ messageIds: ids, agentId })).toMatchObject({ seconds: 120, cost: null })
    // Nobody is named and none is the default: rules read, which ask nobody.
    expect(await estimate({ messageIds: ids })).toEqual({
      agent: null,
      messages: 15,
      requests: 0,
      tokensIn: 0,
      tokensOut: 0,
      cost: 0,
      seconds: null,
    })
    await app.sql('update agent set is_default = true')
    expect(await estimate({ messageIds: ids })).toMatchObject({ agent: { id: agentId }, requests: 3 })
    const from = new Date(Date.now() - 1000).toISOString()
    expect(await estimate({ period: { from } })).toMatchObject({ messages: 0, requests: 0, tokensIn: 0 })
    const wrong = await app.client.send(EstimateDocument.toString(), { input: {} })
    expect(wrong.errors?.[0]).toMatchObject({ extensions: { code: 'INVALID_INPUT' } })
  })
})

describe('a budget of a provider', () => {
  test('lets work wait with the reason, not fail, and go on when it is raised', async () => {
    // The validation has cost 0.001.
    await changeProvider(app.client, { id: providerId, monthlyBudget: 0.0025 })
    const jobId = await begin({ messageIds: await batches(4), agentId })
    const month = new Date().toISOString().slice(0, 7)
    expect(await untilWaiting(jobId)).toContain(
      `Provider Here has used up its budget of 0.0025 USD for ${month} (spent: 0.003 USD). Raise its monthlyBudget, or wait for the next month.`,
    )
    const waiting = await jobUsage(jobId)
    expect(waiting).toMatchObject({ state: 'QUEUED', error: null })
    expect(Date.parse(waiting.waitingUntil ?? '')).toBeGreaterThan(Date.now() + 3_000_000)
    expect((await app.client.run(ProviderSpentDocument, { id: providerId })).node).toMatchObject({
      state: 'CONNECTED',
      monthlyBudget: 0.0025,
      waitingUntil: null,
    })
    await changeProvider(app.client, { id: providerId, monthlyBudget: 1 })
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', succeeded: 20, failed: 0 })
    await eventually(async () => (await jobUsage(jobId)).usage.cost).toBeCloseTo(0.004, 9)
  })

  test('does not hold up a trial of the provider itself, but one of an agent', async () => {
    await changeProvider(app.client, { id: providerId, monthlyBudget: 0 })
    const { tryAgent } = await app.client.run(TryDocument, {
      input: { agentId, messageIds: await batches(1) },
    })
    expect(tryAgent).toMatchObject({
      __typename: 'ProviderError',
      message: expect.stringContaining('has used up its budget of 0 USD'),
    })
  })

  test.each([
    ['without prices', { type: 'OPENAI' as const, embeddingModel: 'e' }],
    ['with one price', { type: 'OPENAI' as const, embeddingModel: 'e', pricePerMillionTokensIn: 1 }],
    ['of the model inside', { type: 'LOCAL' as const }],
    ['below 0', { type: 'OPENAI' as const, embeddingModel: 'e', ...prices, monthlyBudget: -1 }],
  ])('%s is refused', async (_what, input) => {
    const baseUrl = input.type === 'LOCAL' ? null : `${app.provider.url}/v1`
    const { createProvider } = await app.client.run(CreateProviderDocument, {
      input: { name: 'New', baseUrl, monthlyBudget: 1, ...input },
    })
    expect(createProvider).toMatchObject({ path: ['monthlyBudget'] })
  })
})

const postgres = process.env.QUARRY_TEST_DATABASE_URL
test.skipIf(!postgres)(
  'no request waits for its account, and what could not be written yet is written later (needs QUARRY_TEST_DATABASE_URL)',
  async () => {
    const session = await app.session()
    try {
      await session.query('begin')
      await session.query('lock table provider_usage in access exclusive mode')
      // Each of its own, or it would be answered from memory.
      for (const query of ['one', 'two', 'three']) await app.client.run(SearchDocument, { query })
    } finally {
      await session.query('rollback')
      await session.end()
    }
    await eventually(() => usage({ kinds: ['QUERY'] })).toMatchObject([{ requests: 3 }])
    const rename = await app.session()
    try {
      await rename.query('alter table provider_usage rename to away')
      await app.client.run(SearchDocument, { query: 'four' })
      await eventually(
        () => app.statements.filter((text) => text.startsWith('insert into provider_usage')).length,
      ).toBeGreaterThan(1)
    } finally {
      await rename.query('alter table away rename to provider_usage')
      await rename.end()
    }
    await eventually(() => usage({ kinds: ['QUERY'] })).toMatchObject([{ requests: 4 }])
  },
)

describe('a budget of a job', () => {
  test('lets it wait with the reason, and go on when it is raised', async () => {
    const jobId = await begin({ messageIds: await batches(3), agentId, budget: 0.0005 })
    expect(await untilWaiting(jobId)).toContain(
      'The job has used up its budget of 0.0005 USD (spent: 0.001 USD). Raise it by setJobBudget, or cancel the job.',
    )
    expect(await jobUsage(jobId)).toMatchObject({ state: 'QUEUED', budget: 0.0005 })
    // Others by the same provider are not held up.
    await app.client.waitForJob(await begin({ messageIds: await batches(1), agentId }))
    const { setJobBudget } = await app.client.run(SetBudgetDocument, { jobId, budget: 0.1 })
    expect(setJobBudget).toMatchObject({ job: { id: jobId, budget: 0.1 } })
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', succeeded: 15 })
    // Each batch was read once: the answer that has crossed the budget was saved.
    await eventually(() => usage({ kinds: ['EXTRACTION'], jobIds: [jobId] })).toMatchObject([{ requests: 3 }])
    const { setJobBudget: late } = await app.client.run(SetBudgetDocument, { jobId, budget: 1 })
    expect(late).toMatchObject({ code: 'CONFLICT', message: 'The job has ended as SUCCEEDED' })
  })

  test('lets an answer that was paid for be repaired', async () => {
    let answers = 0
    served.chat = (request) => (answers++ === 0 ? { text: 'I am sorry.' } : readByMarks(request))
    const jobId = await begin({ messageIds: await batches(1), agentId, budget: 0.0005 })
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', succeeded: 5 })
    await eventually(async () => (await jobUsage(jobId)).usage.cost).toBeCloseTo(0.002, 9)
  })

  test('of embeddings holds up what it alone has asked for, and nothing else', async () => {
    const ids = await batches(2)
    await app.client.waitUntilEmbedded()
    // Until the budget stands.
    served.fault = () => ({ status: 429, headers: { 'retry-after-ms': '200' } })
    const { embed } = await app.client.run(EmbedDocument, { ids })
    if (embed?.__typename !== 'EmbedPayload') throw new Error('refused')
    const jobId = embed.job.id
    const [job] = await app.sql<{ id: string }>('select id from job')
    await app.sql(
      `insert into provider_usage values (current_date, 'environment', 'environment', 'EMBEDDING', $1, 1, 0, 1, 0, 1, 5, 0)`,
      [job?.id],
    )
    await app.client.run(SetBudgetDocument, { jobId, budget: 1 })
    delete served.fault
    await eventually(async () => {
      const [event] = await app.sql<{ message: string }>(
        `select message from job_event where message like '%used up its budget%'`,
      )
      return event?.message ?? ''
    }).toContain('The job has used up its budget of 1 USD (spent: 5.00 USD)')
    app.statements.splice(0)
    await ingest(app.client, ['Something else'])
    await eventually(async () => {
      const [row] = await app.sql<{ status: string }>(
        `select status from embedding e join message m on m.id = e.owner_id where m.content = 'Something else'`,
      )
      return row?.status
    }).toBe('READY')
    expect(await jobUsage(jobId)).toMatchObject({ state: 'RUNNING' })
    // Nor is it claimed and given back all the time.
    const claims = app.statements.filter((text) => text.includes('with due as materialized'))
    expect(claims.length).toBeLessThan(30)
    await app.client.run(SetBudgetDocument, { jobId, budget: null })
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', succeeded: 10 })
  })

  test('is refused where nobody knows what it costs', async () => {
    const messageIds = await batches(1)
    await expect(begin({ messageIds, budget: 1 })).rejects.toThrow('A budget needs an agent')
    const free = await addProvider(app.client, {
      name: 'Unpriced',
      type: 'OPENAI',
      baseUrl: `${app.provider.url}/v1`,
      extractionModel: 'marks',
    })
    const unpriced = await addAgent(app.client, { name: 'Unpriced', providerId: free })
    await expect(begin({ messageIds, agentId: unpriced, budget: 1 })).rejects.toThrow(
      'A budget needs prices: give provider Unpriced',
    )
    await expect(begin({ messageIds, agentId, budget: -1 })).rejects.toThrow('budget is -1')
    const { setJobBudget } = await app.client.run(SetBudgetDocument, { jobId: missingId('Job'), budget: 1 })
    expect(setJobBudget).toMatchObject({ code: 'NOT_FOUND' })
  })

  test('that waits can be cancelled', async () => {
    const jobId = await begin({ messageIds: await batches(2), agentId, budget: 0.0005 })
    await untilWaiting(jobId)
    await cancelJob(app.client, jobId)
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'CANCELLED' })
  })
})
