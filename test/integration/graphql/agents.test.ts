import { LLMock } from '@copilotkit/aimock'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { byMarks, ExtractDocument, KnowledgeDocument } from '../../support/extraction.ts'
import type {
  CreateAgentInput,
  ExtractKnowledgeInput,
  TryAgentInput,
  UpdateAgentInput,
} from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { globalId, missingId } from '../../support/ids.ts'
import { retryJob } from '../../support/jobs.ts'
import { ingest } from '../../support/messages.ts'
import type { ProviderRequest, ProviderServerOptions } from '../../support/provider-server.ts'
import { addAgent, addProvider, changeProvider } from '../../support/providers.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
const served: ProviderServerOptions = {}
/** Chats that came since the test began, without those of validations. */
const asked: ProviderRequest[] = []
let providerId: string

beforeAll(async () => {
  app = await startProviderApp(served)
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(async () => {
  Object.assign(served, byMarks, {
    chat: (request: ProviderRequest) => {
      if (JSON.stringify(request.body).includes('weekday')) return { text: '{"weekday":"Tuesday"}' }
      asked.push(request)
      return byMarks.chat?.(request) ?? { text: '' }
    },
  })
  providerId = await addProvider(app.client, {
    name: 'Here',
    type: 'OPENAI',
    baseUrl: `${app.provider.url}/v1`,
    extractionModel: 'marks',
  })
  asked.splice(0)
})
afterEach(async () => {
  delete served.fault
  for (const table of ['message', 'atom', 'topic', 'agent', 'provider']) await app.sql(`delete from ${table}`)
})

const AgentsDocument = graphql(`
  query AllAgents {
    agents {
      __typename id name description provider { id name } model instructions hasDefaultInstructions temperature
      maxOutputTokens isActive isDefault version createdAt updatedAt
    }
    defaultInstructions
  }
`)

const AgentDocument = graphql(`
  query OneAgent($id: ID!) {
    node(id: $id) { __typename ... on Agent { id name model instructions isDefault version } }
  }
`)

const CreateDocument = graphql(`
  mutation CreateAgent($input: CreateAgentInput!) {
    createAgent(input: $input) {
      __typename
      ... on CreateAgentPayload { agent { id name model instructions temperature version isDefault } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const UpdateDocument = graphql(`
  mutation UpdateAgent($input: UpdateAgentInput!) {
    updateAgent(input: $input) {
      __typename
      ... on UpdateAgentPayload { agent { id name instructions maxOutputTokens temperature isActive isDefault version } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const DeleteDocument = graphql(`
  mutation DeleteAgent($input: DeleteAgentInput!) {
    deleteAgent(input: $input) {
      __typename
      ... on DeleteAgentPayload { deletedAgentId }
      ... on UserError { code message }
    }
  }
`)

const DeleteProviderDocument = graphql(`
  mutation DeleteProviderOfAgent($id: ID!) {
    deleteProvider(input: { id: $id }) {
      __typename
      ... on UserError { code message }
    }
  }
`)

const JobAgentDocument = graphql(`
  query JobAgent($id: ID!) {
    node(id: $id) { ... on Job { state error agent { id name } events(first: 100) { nodes { message } } } }
  }
`)

const TryDocument = graphql(`
  mutation TryAgent($input: TryAgentInput!) {
    tryAgent(input: $input) {
      __typename
      ... on TryAgentPayload {
        model
        topics { name confidence topic { id } messages { content } }
        atoms { type title content confidence topicName citations { quote message { content } } }
        links { from type to strength }
        rejections { kind text reason }
        problems tokensIn tokensOut durationMs
      }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const ProviderStateDocument = graphql(`
  query StateOfProvider($id: ID!) {
    node(id: $id) { ... on Provider { state error } }
  }
`)

const create = async (input: Partial<CreateAgentInput> = {}) =>
  (await app.client.run(CreateDocument, { input: { name: 'Reader', providerId, ...input } })).createAgent
const agentOf = (input: Partial<CreateAgentInput> = {}) =>
  addAgent(app.client, { name: 'Reader', providerId, ...input })
const update = async (input: UpdateAgentInput) =>
  (await app.client.run(UpdateDocument, { input })).updateAgent
const tryOut = async (input: TryAgentInput) => (await app.client.run(TryDocument, { input })).tryAgent

async function begin(input: ExtractKnowledgeInput) {
  const { extractKnowledge } = await app.client.run(ExtractDocument, { input })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error(extractKnowledge?.message ?? 'no answer')
  return extractKnowledge.job.id
}

async function messageIds(...texts: string[]) {
  const { messages } = await ingest(app.client, texts)
  return messages.map(({ id }) => id)
}

const systemPrompts = () => asked.map(({ messages }) => messages[0]?.content ?? '')

describe('agents', () => {
  test('are added, listed by name, fetched, changed and deleted', async () => {
    const first = await create({ name: 'Second', instructions: 'Only decisions.', temperature: 0.3 })
    expect(first).toMatchObject({
      __typename: 'CreateAgentPayload',
      agent: { model: 'marks', instructions: 'Only decisions.', temperature: 0.3, version: 1 },
    })
    const id = await agentOf({ name: 'First', model: 'other', maxOutputTokens: 500 })
    const { agents, defaultInstructions } = await app.client.run(AgentsDocument)
    expect(agents).toMatchObject([
      {
        __typename: 'Agent',
        id,
        name: 'First',
        description: '',
        provider: { id: providerId, name: 'Here' },
        model: 'other',
        instructions: defaultInstructions,
        hasDefaultInstructions: true,
        temperature: 0,
        maxOutputTokens: 500,
        isActive: true,
        isDefault: false,
      },
      { name: 'Second', hasDefaultInstructions: false },
    ])
    expect(await update({ id, expectedVersion: 1, instructions: 'All.', maxOutputTokens: null })).toEqual({
      __typename: 'UpdateAgentPayload',
      agent: {
        id,
        name: 'First',
        instructions: 'All.',
        maxOutputTokens: null,
        temperature: 0,
        isActive: true,
        isDefault: false,
        version: 2,
      },
    })
    expect(await update({ id, instructions: null })).toMatchObject({
      agent: { instructions: defaultInstructions },
    })
    expect((await app.client.run(AgentDocument, { id })).node).toMatchObject({
      __typename: 'Agent',
      version: 3,
    })
    expect((await app.client.run(DeleteDocument, { input: { id } })).deleteAgent).toEqual({
      __typename: 'DeleteAgentPayload',
      deletedAgentId: id,
    })
    expect((await app.client.run(AgentDocument, { id })).node).toBeNull()
    expect((await app.client.run(DeleteDocument, { input: { id } })).deleteAgent).toMatchObject({
      __typename: 'NotFoundError',
    })
  })

  test('are listed with their providers in two statements, however many they are', async () => {
    for (const name of ['A', 'B', 'C']) await agentOf({ name })
    app.statements.splice(0)
    await app.client.run(AgentsDocument)
    expect(app.statements.filter((text) => /from (agent|provider)\b/.test(text))).toHaveLength(2)
  })

  test.each<[string, Partial<CreateAgentInput>, string, RegExp]>([
    ['a name that is taken', { name: 'Taken' }, 'CONFLICT', /named "Taken" already/],
    ['no name', { name: ' ' }, 'INVALID_INPUT', /name is empty/],
    ['no such provider', { providerId: missingId('Provider') }, 'NOT_FOUND', /provider/],
    [
      'a provider of the environment',
      { providerId: globalId('Provider', 'environment') },
      'INVALID_INPUT',
      /the environment configures; add one by createProvider/,
    ],
    ['too high a temperature', { temperature: 2.1 }, 'INVALID_INPUT', /temperature is 2.1; it must be 0..2/],
    ['no tokens', { maxOutputTokens: 0 }, 'INVALID_INPUT', /maxOutputTokens is 0/],
    ['too long instructions', { instructions: 'x'.repeat(50_001) }, 'INVALID_INPUT', /at most 50000/],
    ['empty instructions', { instructions: '  ' }, 'INVALID_INPUT', /instructions is empty/],
    [
      'a default one that is not active',
      { isActive: false, isDefault: true },
      'INVALID_INPUT',
      /this is the default agent/,
    ],
  ])('are refused with %s', async (_what, input, code, message) => {
    await agentOf({ name: 'Taken' })
    expect(await create(input)).toMatchObject({ code, message: expect.stringMatching(message) })
  })

  test('need a model, their own or the extractionModel of the provider', async () => {
    const embedder = await addProvider(app.client, {
      name: 'Embedder',
      type: 'OPENAI',
      baseUrl: `${app.provider.url}/v1`,
      embeddingModel: 'e',
    })
    expect(await create({ providerId: embedder })).toMatchObject({
      path: ['model'],
      message: expect.stringContaining('provider Embedder has no extractionModel'),
    })
    const local = await addProvider(app.client, { name: 'Inside', type: 'LOCAL' })
    expect(await create({ providerId: local, model: 'x' })).toMatchObject({ path: ['providerId'] })
  })

  test('of two changes of one version the second is refused', async () => {
    const id = await agentOf()
    const answers = await Promise.all([
      update({ id, expectedVersion: 1, name: 'One' }),
      update({ id, expectedVersion: 1, name: 'Two' }),
    ])
    expect(answers.map((answer) => answer?.__typename).sort()).toEqual([
      'ConflictError',
      'UpdateAgentPayload',
    ])
    expect(answers.find((answer) => answer?.__typename === 'ConflictError')).toMatchObject({
      message: expect.stringContaining('it has version 2, expected 1'),
    })
  })

  test('one of them is the default one, whoever makes several that at once', async () => {
    const names = ['A', 'B', 'C', 'D']
    const ids = await Promise.all(names.map((name) => agentOf({ name })))
    await Promise.all(ids.map((id) => update({ id, isDefault: true })))
    const { agents } = await app.client.run(AgentsDocument)
    expect(agents.filter(({ isDefault }) => isDefault)).toHaveLength(1)
  })

  test('keep their provider from being deleted, which names them', async () => {
    const id = await agentOf({ name: 'Reader of decisions' })
    expect((await app.client.run(DeleteProviderDocument, { id: providerId })).deleteProvider).toEqual({
      __typename: 'ConflictError',
      code: 'CONFLICT',
      message:
        'The provider is used by agent "Reader of decisions": give these another provider first, or set isActive to false',
    })
    await app.client.run(DeleteDocument, { input: { id } })
    expect((await app.client.run(DeleteProviderDocument, { id: providerId })).deleteProvider).toMatchObject({
      __typename: 'DeleteProviderPayload',
    })
  })
})

describe('the instructions that are given are the ones that a model is sent', () => {
  const mock = new LLMock({ port: 0 })
  beforeAll(async () => {
    await mock.start()
    mock.onMessage(/BEGIN DATA/, { content: '{"topics":[],"atoms":[],"links":[]}' })
    mock.onMessage(/.*/, { content: '{"weekday":"Tuesday"}' })
  })
  afterAll(() => mock.stop())

  test.each([
    ['OPENAI', () => `${mock.url}/v1`],
    ['OLLAMA', () => mock.url],
  ] as const)('by %s', async (type, baseUrl) => {
    const input = { name: type, type, baseUrl: baseUrl(), extractionModel: 'mocked' }
    const id = await agentOf({
      providerId: await addProvider(app.client, input),
      instructions: 'Look for nothing but RISKS of the harbour crane.',
      temperature: 0.4,
      maxOutputTokens: 321,
    })
    mock.clearRequests()
    const job = await app.client.waitForJob(
      await begin({ messageIds: await messageIds('The crane may fall'), agentId: id }),
    )
    expect(job).toMatchObject({ state: 'SUCCEEDED', succeeded: 1 })
    const [request] = mock.getRequests()
    expect(JSON.stringify(request?.body)).toContain('Look for nothing but RISKS of the harbour crane.')
    // Not beside those that ship: instead of them.
    expect(JSON.stringify(request?.body)).not.toContain('You read chat messages of a team')
    expect(mock.getRequests()).toHaveLength(1)
    // It tells the requests of both protocols in the words of OpenAI's.
    expect(request?.body).toMatchObject({ model: 'mocked', temperature: 0.4, max_tokens: 321 })
  })
})

describe('an extraction by an agent', () => {
  test('asks its model with its instructions and numbers, and says who it was', async () => {
    const id = await agentOf({ instructions: 'Only harbours.', temperature: 0.25, maxOutputTokens: 777 })
    const ids = await messageIds('PROBLEM: The crane is stuck #harbour')
    const jobId = await begin({ messageIds: ids, agentId: id })
    expect(await app.client.waitForJob(jobId)).toMatchObject({
      state: 'SUCCEEDED',
      result: { extractor: 'openai/marks', atomsCreated: 1 },
    })
    expect(systemPrompts()).toEqual([expect.stringMatching(/^Only harbours\.\n/)])
    expect(asked[0]?.body).toMatchObject({ model: 'marks', temperature: 0.25, max_tokens: 777 })
    expect((await app.client.run(JobAgentDocument, { id: jobId })).node).toMatchObject({
      agent: { id, name: 'Reader' },
    })
    const { atoms } = await app.client.run(KnowledgeDocument)
    expect(atoms.nodes).toMatchObject([{ extractedBy: 'OPENAI', extractionModel: 'marks' }])
  })

  test('is read by the default agent where none is named, and by the same one when it is retried', async () => {
    const first = await agentOf({ name: 'First', instructions: 'By the first.', isDefault: true })
    const second = await agentOf({ name: 'Second', instructions: 'By the second.' })
    served.fault = ({ messages }) => (messages.length > 0 ? { status: 400, body: '{"error":"no"}' } : null)
    const jobId = await begin({ messageIds: await messageIds('PROBLEM: It rains') })
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'FAILED' })
    delete served.fault
    asked.splice(0)
    expect(await update({ id: second, isDefault: true })).toMatchObject({ agent: { isDefault: true } })
    await retryJob(app.client, jobId)
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED' })
    expect(systemPrompts()).toEqual([expect.stringMatching(/^By the first\./)])
    expect((await app.client.run(JobAgentDocument, { id: jobId })).node).toMatchObject({
      agent: { id: first },
    })
    await app.client.waitForJob(await begin({ messageIds: await messageIds('PROBLEM: It snows') }))
    expect(systemPrompts()[1]).toMatch(/^By the second\./)
  })

  test('without any agent is read by what the environment configures', async () => {
    await agentOf()
    const jobId = await begin({ messageIds: await messageIds('The build fails because the disk is full') })
    expect(await app.client.waitForJob(jobId)).toMatchObject({ result: { extractor: 'local/rules' } })
    expect(asked).toEqual([])
    expect((await app.client.run(JobAgentDocument, { id: jobId })).node).toMatchObject({ agent: null })
  })

  test('is refused where the agent or its provider may not work, and says why', async () => {
    const id = await agentOf()
    const ids = await messageIds('x')
    const input = { messageIds: ids, agentId: id }
    await expect(begin({ ...input, agentId: missingId('Agent') })).rejects.toThrow('no agent with this id')
    await update({ id, isActive: false })
    await expect(begin(input)).rejects.toThrow('Agent Reader: it is not active')
    await update({ id, isActive: true })
    await changeProvider(app.client, { id: providerId, isActive: false })
    await expect(begin(input)).rejects.toThrow('Provider Here: it is not active')
    await app.sql(
      `update provider set is_active = true, key_ciphertext = '\\x00', key_nonce = $1, key_tag = $2,
      key_id = 'feedfeedfeedfeed'`,
      [Buffer.alloc(12), Buffer.alloc(16)],
    )
    await expect(begin(input)).rejects.toThrow(/Provider Here: .*feedfeedfeedfeed/)
  })

  test('waits while the provider may not be used, says why, and fails when the agent is deleted', async () => {
    const id = await agentOf({ isDefault: true })
    await changeProvider(app.client, { id: providerId, isActive: false })
    const jobId = await begin({ messageIds: await messageIds('PROBLEM: It rains') })
    await eventuallyWaiting(jobId, 'Provider Here: it is not active')
    await app.client.run(DeleteDocument, { input: { id } })
    // What waits is taken up again when its time has come; here, now.
    await app.sql(
      'select graphile_worker.reschedule_jobs(array_agg(id), run_at => now()) from graphile_worker.jobs',
    )
    const job = await app.client.waitForJob(jobId)
    expect(job.state).toBe('FAILED')
    expect((await app.client.run(JobAgentDocument, { id: jobId })).node).toMatchObject({
      error: expect.stringContaining('The agent that was to read is deleted'),
    })
  })

  test('tells of the provider in its row what it sees of it', async () => {
    const id = await agentOf()
    served.fault = ({ messages }) =>
      messages.length > 0 ? { status: 401, body: '{"error":{"message":"key expired"}}' } : null
    const jobId = await begin({ messageIds: await messageIds('PROBLEM: It rains'), agentId: id })
    await eventuallyWaiting(jobId, 'key expired')
    expect((await app.client.run(ProviderStateDocument, { id: providerId })).node).toMatchObject({
      state: 'ERROR',
      error: expect.stringContaining('key expired'),
    })
    delete served.fault
    await app.sql(
      'select graphile_worker.reschedule_jobs(array_agg(id), run_at => now()) from graphile_worker.jobs',
    )
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED' })
    expect((await app.client.run(ProviderStateDocument, { id: providerId })).node).toEqual({
      state: 'CONNECTED',
      error: null,
    })
  })
})

const JobEventsDocument = graphql(`
  subscription EventsUntilWaiting($jobId: ID!) {
    jobEvents(jobId: $jobId) { message }
  }
`)

/** Resolves when the job says that it waits, for this reason. */
async function eventuallyWaiting(jobId: string, reason: string): Promise<void> {
  for await (const { jobEvents } of app.client.subscribe(JobEventsDocument, { jobId })) {
    if (jobEvents.message?.startsWith('Waiting for the provider')) {
      expect(jobEvents.message).toContain(reason)
      return
    }
  }
  throw new Error('the job ended without waiting')
}

describe('a trial', () => {
  const texts = [
    'PROBLEM: The cache is full #red-builds',
    'SOLUTION: Clear it every night #red-builds >SOLVES The cache',
    'IDEA: Buy a larger one ?0.5',
    'RISK: It may burn !quote',
  ]

  test('shows what would be extracted and what would not, and stores nothing', async () => {
    const id = await agentOf()
    const ids = await messageIds(...texts)
    const tables = [
      'topic',
      'atom',
      'citation',
      'atom_link',
      'revision',
      'message_extraction',
      'job',
      'agent',
    ]
    const counts = async () => {
      const sums = tables.map((table) => `(select count(*)::int from ${table}) as ${table}`)
      return (await app.sql(`select ${sums.join(', ')}`))[0]
    }
    const before = await counts()
    const trial = await tryOut({ agentId: id, messageIds: ids })
    expect(trial).toMatchObject({
      __typename: 'TryAgentPayload',
      model: 'marks',
      topics: [{ name: 'red builds', topic: null, messages: [{ content: texts[0] }, { content: texts[1] }] }],
      atoms: [
        {
          type: 'PROBLEM',
          title: 'The cache is full',
          topicName: 'red builds',
          citations: [{ quote: texts[0], message: { content: texts[0] } }],
        },
        { type: 'SOLUTION', title: 'Clear it every night' },
      ],
      links: [{ from: 'Clear it every night', type: 'SOLVES', to: 'The cache is full', strength: 0.8 }],
      rejections: [
        { kind: 'ATOM', text: 'Buy a larger one', reason: 'Its confidence is 0.5, below 0.7.' },
        { kind: 'CITATION', text: 'nobody wrote this' },
        { kind: 'ATOM', text: 'It may burn', reason: 'No message proves it: none of its quotes is real.' },
      ],
      problems: [],
      tokensIn: 100,
      tokensOut: 10,
    })
    expect(await counts()).toEqual(before)
  })

  test('may be of an agent that is not stored, or of a stored one with other instructions', async () => {
    const id = await agentOf({ instructions: 'Stored.', temperature: 0.1 })
    const ids = await messageIds('x')
    await tryOut({ providerId, instructions: 'Draft.', messageIds: ids })
    await tryOut({ agentId: id, messageIds: ids })
    await tryOut({ agentId: id, instructions: 'Changed.', messageIds: ids })
    await tryOut({ agentId: id, instructions: null, messageIds: ids })
    expect(systemPrompts().map((prompt) => prompt.slice(0, 8))).toEqual([
      'Draft.\n\n',
      'Stored.\n',
      'Changed.',
      'You read',
    ])
    expect(asked.map(({ body }) => body.temperature)).toEqual([0, 0.1, 0.1, 0.1])
  })

  test('names the topic that exists', async () => {
    const id = await agentOf()
    const ids = await messageIds(texts[0] ?? '')
    await app.client.waitForJob(await begin({ messageIds: ids, agentId: id }))
    const [topic] = await app.sql<{ id: string }>('select id from topic')
    served.chat = () => ({
      text: JSON.stringify({
        topics: [{ key: 't1', name: '', description: '', keywords: [], confidence: 1, messages: ['m1'] }],
        atoms: [],
        links: [{ from: 'x9', type: 'SOLVES', to: 'x8', strength: null }],
      }),
    })
    const trial = await tryOut({ agentId: id, messageIds: ids })
    expect(trial).toMatchObject({
      topics: [{ name: 'red builds', topic: { id: globalId('Topic', topic?.id ?? '') } }],
      problems: [expect.stringContaining('"x9"'), expect.stringContaining('"x8"')],
      tokensIn: 200,
    })
  })

  test('is refused without who or what to try, and says what the provider said', async () => {
    const id = await agentOf()
    const ids = await messageIds('x')
    expect(await tryOut({ messageIds: ids })).toMatchObject({ path: ['providerId'] })
    expect(await tryOut({ agentId: id, messageIds: [] })).toMatchObject({ path: ['messageIds'] })
    expect(await tryOut({ agentId: missingId('Agent'), messageIds: ids })).toMatchObject({
      code: 'NOT_FOUND',
    })
    expect(await tryOut({ agentId: id, messageIds: [missingId('Message')] })).toMatchObject({
      code: 'NOT_FOUND',
    })
    served.fault = () => ({ status: 500, body: 'down' })
    expect(await tryOut({ agentId: id, messageIds: ids })).toMatchObject({
      __typename: 'ProviderError',
      message: expect.stringContaining('answered 500: down'),
    })
  })
})
