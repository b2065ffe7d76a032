import { randomBytes } from 'node:crypto'
import { LLMock } from '@copilotkit/aimock'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { createKeyRing } from '../../../src/providers/keys.ts'
import { createProviders } from '../../../src/providers/providers.ts'
import { rotateKeys } from '../../../src/providers/rotate-keys.ts'
import { graphql } from '../../support/generated/index.ts'
import { globalId, missingId } from '../../support/ids.ts'
import {
  createGate,
  type Fault,
  type ProviderRequest,
  ProviderServer,
} from '../../support/provider-server.ts'
import { eventually, startTestServer, type TestServer } from '../../support/server.ts'

const encryptionKey = randomBytes(32)

/** Nobody works here; providers are added to it. */
let server: TestServer
/** A server to add, of either protocol. */
let upstream: ProviderServer
beforeAll(async () => {
  server = await startTestServer({ env: { QUARRY_ENCRYPTION_KEY: encryptionKey.toString('base64') } })
  upstream = await ProviderServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await upstream.close()
})
beforeEach(async () => {
  await server.database.query('delete from provider')
  upstream.options = { dimensions: 96, chat: () => ({ text: '{"weekday":"Tuesday"}' }) }
  upstream.requests = 0
})

const ProvidersDocument = graphql(`
  query AllProviders {
    providers {
      __typename id name type baseUrl isActive isEditable hasApiKey embeddingModel embeddingDimensions extractionModel
      requestsPerMinute tokensPerMinute maxParallelRequests statedRequestsPerMinute statedTokensPerMinute
      pricePerMillionTokensIn pricePerMillionTokensOut version state error validatedAt waitingUntil
    }
  }
`)

const ProviderDocument = graphql(`
  query OneProvider($id: ID!) {
    node(id: $id) { __typename ... on Provider { id name state error version embeddingDimensions } }
  }
`)

const CreateDocument = graphql(`
  mutation CreateProvider($input: CreateProviderInput!) {
    createProvider(input: $input) {
      __typename
      ... on CreateProviderPayload {
        provider {
          id name type baseUrl isActive hasApiKey embeddingModel embeddingDimensions extractionModel
          statedRequestsPerMinute statedTokensPerMinute version state error validatedAt waitingUntil
        }
      }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const UpdateDocument = graphql(`
  mutation UpdateProvider($input: UpdateProviderInput!) {
    updateProvider(input: $input) {
      __typename
      ... on UpdateProviderPayload {
        provider {
          id name baseUrl hasApiKey embeddingModel embeddingDimensions extractionModel requestsPerMinute
          pricePerMillionTokensIn version state error
        }
      }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const DeleteDocument = graphql(`
  mutation DeleteProvider($input: DeleteProviderInput!) {
    deleteProvider(input: $input) {
      __typename
      ... on DeleteProviderPayload { deletedProviderId }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const ValidateDocument = graphql(`
  mutation ValidateProvider($input: ValidateProviderInput!) {
    validateProvider(input: $input) {
      __typename
      ... on ValidateProviderPayload { provider { id state error validatedAt embeddingDimensions waitingUntil } }
      ... on UserError { code message }
    }
  }
`)

type CreateInput = Parameters<typeof create>[0]
async function create(
  input: {
    name?: string
    type?: 'LOCAL' | 'OPENAI' | 'OLLAMA'
    baseUrl?: string | null
    apiKey?: string | null
    embeddingModel?: string | null
    extractionModel?: string | null
    requestsPerMinute?: number
    maxParallelRequests?: number
    pricePerMillionTokensIn?: number
  } = {},
) {
  const defaults = {
    name: 'Upstream',
    type: 'OPENAI' as const,
    baseUrl: `${upstream.url}/v1`,
    embeddingModel: 'embedder',
  }
  const { createProvider } = await server.client.run(CreateDocument, { input: { ...defaults, ...input } })
  return createProvider
}

async function created(input: CreateInput = {}) {
  const result = await create(input)
  if (result?.__typename !== 'CreateProviderPayload') throw new Error(JSON.stringify(result))
  return result.provider
}

async function update(id: string, change: Record<string, unknown>) {
  return (await server.client.run(UpdateDocument, { input: { id, ...change } })).updateProvider
}

async function updated(id: string, change: Record<string, unknown>) {
  const result = await update(id, change)
  if (result?.__typename !== 'UpdateProviderPayload') throw new Error(JSON.stringify(result))
  return result.provider
}

async function validated(id: string) {
  const { validateProvider } = await server.client.run(ValidateDocument, { input: { id } })
  if (validateProvider?.__typename !== 'ValidateProviderPayload')
    throw new Error(JSON.stringify(validateProvider))
  return validateProvider.provider
}

const added = async () =>
  (await server.client.run(ProvidersDocument)).providers.filter(({ isEditable }) => isEditable)

const rowId = (id: string) => Buffer.from(id, 'base64').toString().replace('Provider:', '')

describe('a provider that is added', () => {
  test('is tried out by one text and one question, and says what was found out', async () => {
    const seen: ProviderRequest[] = []
    const fault = (request: ProviderRequest): Fault => {
      seen.push(request)
      return {
        headers: {
          'x-ratelimit-limit-requests': request.messages.length > 0 ? '500' : '3000',
          'x-ratelimit-limit-tokens': '200000',
        },
      }
    }
    upstream.options = { ...upstream.options, fault }
    const provider = await created({ apiKey: 'sk-1', extractionModel: 'chatter', requestsPerMinute: 100 })
    expect(provider).toMatchObject({
      name: 'Upstream',
      type: 'OPENAI',
      baseUrl: `${upstream.url}/v1`,
      isActive: true,
      hasApiKey: true,
      embeddingModel: 'embedder',
      embeddingDimensions: 96,
      extractionModel: 'chatter',
      statedRequestsPerMinute: 500,
      statedTokensPerMinute: 200_000,
      version: 1,
      state: 'CONNECTED',
      error: null,
      waitingUntil: null,
    })
    expect(Date.parse(String(provider.validatedAt))).not.toBeNaN()
    expect(seen.map(({ model }) => model).sort()).toEqual(['chatter', 'embedder'])
    for (const { headers } of seen) expect(headers.authorization).toBe('Bearer sk-1')
    expect(seen.find(({ texts }) => texts.length > 0)?.texts).toHaveLength(1)
    const all = (await server.client.run(ProvidersDocument)).providers
    expect(all.map(({ name }) => name)).toEqual(['openai (environment)', 'Upstream'])
    expect(all[1]).toMatchObject({
      requestsPerMinute: 100,
      tokensPerMinute: null,
      pricePerMillionTokensIn: null,
    })
    const { node } = await server.client.run(ProviderDocument, { id: provider.id })
    expect(node).toMatchObject({ __typename: 'Provider', name: 'Upstream', embeddingDimensions: 96 })
  })

  test('may be an Ollama server, without a key or with one for a proxy', async () => {
    const base = { type: 'OLLAMA', baseUrl: `${upstream.url}/`, extractionModel: 'llama' } as const
    const bare = await created(base)
    expect(bare).toMatchObject({
      state: 'CONNECTED',
      hasApiKey: false,
      embeddingDimensions: 96,
      baseUrl: upstream.url,
    })
    expect(upstream.last?.headers.authorization).toBeUndefined()
    await created({ ...base, name: 'Behind a proxy', apiKey: 'token' })
    expect(upstream.last?.headers.authorization).toBe('Bearer token')
  })

  test('may be the model inside', async () => {
    const provider = await created({ type: 'LOCAL', baseUrl: null, embeddingModel: null })
    expect(provider).toMatchObject({
      state: 'CONNECTED',
      baseUrl: null,
      embeddingModel: 'universal-sentence-encoder-lite',
      embeddingDimensions: 512,
    })
  })

  test('works with servers that others have written', async () => {
    const mock = new LLMock({ port: 0 })
    await mock.start()
    try {
      mock.onMessage(/.*/, { content: '{"weekday":"Tuesday"}' })
      mock.onEmbedding(/.*/, { embedding: Array.from({ length: 24 }, (_, at) => at + 1) })
      const openai = await created({ baseUrl: `${mock.url}/v1`, extractionModel: 'chatter' })
      expect(openai).toMatchObject({ state: 'CONNECTED', error: null, embeddingDimensions: 24 })
      // Its /api/embed answers in the shape of Ollama's older /api/embeddings.
      const models = { embeddingModel: null, extractionModel: 'llama' }
      const ollama = await created({ name: 'Ollama', type: 'OLLAMA', baseUrl: mock.url, ...models })
      expect(ollama).toMatchObject({ state: 'CONNECTED', error: null, embeddingDimensions: null })
    } finally {
      await mock.stop()
    }
  })

  test.each<[string, Fault, string]>([
    ['refuses the key', { status: 401, body: '{"error":{"message":"bad key"}}' }, 'answered 401: bad key'],
    [
      'knows no such model',
      { status: 404, body: '{"error":{"message":"no model embedder"}}' },
      'answered 404',
    ],
    ['answers nonsense', { body: '<html>' }, 'is no JSON'],
    ['breaks off', { end: 'reset' }, 'cannot be reached'],
    [
      'redirects',
      { status: 307, headers: { location: 'http://169.254.169.254/latest' } },
      'It redirects to 169.254.169.254, which is not followed',
    ],
  ])('that %s is stored in ERROR with the reason', async (_what, fault, reason) => {
    upstream.options = { ...upstream.options, fault: () => fault }
    const provider = await created({ apiKey: 'sk-1' })
    expect(provider).toMatchObject({ state: 'ERROR', embeddingDimensions: null, validatedAt: null })
    expect(provider.error).toContain(reason)
    upstream.options = { ...upstream.options, fault: () => null }
    expect(await validated(provider.id)).toMatchObject({
      state: 'CONNECTED',
      error: null,
      embeddingDimensions: 96,
    })
  })

  test('that asks to wait says until when', async () => {
    upstream.options = {
      ...upstream.options,
      fault: () => ({ status: 429, headers: { 'retry-after': '60' } }),
    }
    const { state, waitingUntil } = await created()
    expect(state).toBe('ERROR')
    expect(Date.parse(String(waitingUntil)) - Date.now()).toBeGreaterThan(30_000)
  })

  test('that embeds, but does not answer in JSON, is in ERROR with both kept apart', async () => {
    upstream.options = { ...upstream.options, chat: () => ({ text: 'On Tuesday, I think.' }) }
    const provider = await created({ extractionModel: 'chatter' })
    expect(provider).toMatchObject({ state: 'ERROR', embeddingDimensions: 96 })
    expect(provider.error).toContain('(chatter): found "On Tuesday, I think.", expected JSON')
  })

  test.each<[string, NonNullable<CreateInput>, string, string]>([
    ['no address', { baseUrl: 'nonsense' }, 'baseUrl', 'is not a URL'],
    [
      'an address with a password',
      { baseUrl: 'http://u:p@example.com' },
      'baseUrl',
      'a user name or a password',
    ],
    ['the metadata service', { baseUrl: 'http://0xa9fea9fe/v1' }, 'baseUrl', 'is a metadata'],
    ['a private address', { baseUrl: 'http://10.0.0.1/v1' }, 'baseUrl', 'QUARRY_PROVIDER_NETWORK=private'],
    ['a long address', { baseUrl: `http://a.example/${'x'.repeat(2000)}` }, 'baseUrl', 'at most 2000'],
    ['no name', { name: ' ' }, 'name', 'is empty'],
    ['no model', { embeddingModel: null }, 'embeddingModel', 'needs one of them'],
    ['no key for OpenAI itself', { baseUrl: null }, 'apiKey', 'OpenAI asks for one'],
    ['an empty key', { apiKey: '' }, 'apiKey', 'is empty'],
    ['a key with a line break', { apiKey: 'sk-secret\nX: y' }, 'apiKey', 'white space'],
    ['a key that is a file', { apiKey: 'x'.repeat(5000) }, 'apiKey', 'at most 4096'],
    ['no requests', { requestsPerMinute: 0 }, 'requestsPerMinute', 'is 0; it must be 1..'],
    [
      'a price below nothing',
      { pricePerMillionTokensIn: -1 },
      'pricePerMillionTokensIn',
      'is -1; it must be 0..',
    ],
    [
      'a local one with a key',
      { type: 'LOCAL', baseUrl: null, embeddingModel: null, apiKey: 'x' },
      'apiKey',
      'LOCAL',
    ],
    ['a local one elsewhere', { type: 'LOCAL' }, 'baseUrl', 'LOCAL'],
  ])('is refused with %s', async (_what, input, path, message) => {
    const result = await create(input)
    expect(result).toMatchObject({ __typename: 'InputError', code: 'INVALID_INPUT', path: [path] })
    expect(JSON.stringify(result)).toContain(message)
    expect(JSON.stringify(result)).not.toContain('secret')
    expect(await added()).toEqual([])
    expect(upstream.requests).toBe(0)
  })

  test('has a name of its own, also when two add it at once', async () => {
    const results = await Promise.all([create(), create(), create()])
    expect(results.map((result) => result?.__typename).sort()).toEqual([
      'ConflictError',
      'ConflictError',
      'CreateProviderPayload',
    ])
    expect(await create()).toMatchObject({
      code: 'CONFLICT',
      message: 'There is a provider named "Upstream" already; take another name',
    })
    const other = await created({ name: 'Other' })
    expect(await update(other.id, { name: 'Upstream' })).toMatchObject({ __typename: 'ConflictError' })
  })
})

describe('while it is tried out', () => {
  test('it is VALIDATING, and whoever listens is told', async () => {
    using gate = createGate()
    upstream.options = { ...upstream.options, fault: () => gate.opened }
    let told = 0
    const unlisten = await server.database.listen('quarry_provider', () => told++)
    const creating = created()
    await eventually(async () => (await added())[0]?.state).toBe('VALIDATING')
    await eventually(() => told).toBeGreaterThanOrEqual(2)
    gate.open()
    expect((await creating).state).toBe('CONNECTED')
    await eventually(() => told).toBeGreaterThanOrEqual(3)
    await unlisten()
  })

  test('what was found out about an address that is no longer its own is dropped', async () => {
    await using other = await ProviderServer.start({ dimensions: 32 })
    using gate = createGate()
    const { id } = await created()
    upstream.options = { ...upstream.options, fault: () => gate.opened }
    const validating = validated(id)
    await eventually(() => upstream.underWay).toBe(1)
    expect(await updated(id, { baseUrl: `${other.url}/v1` })).toMatchObject({ embeddingDimensions: 32 })
    gate.open()
    expect(await validating).toMatchObject({ state: 'CONNECTED', embeddingDimensions: 32 })
  })

  test('it may be deleted', async () => {
    using gate = createGate()
    const { id } = await created()
    upstream.options = { ...upstream.options, fault: () => gate.opened }
    const validating = server.client.run(ValidateDocument, { input: { id } })
    await eventually(() => upstream.underWay).toBe(1)
    await server.client.run(DeleteDocument, { input: { id } })
    gate.open()
    expect((await validating).validateProvider).toMatchObject({ __typename: 'NotFoundError' })
  })

  test('a process that died in the middle leaves it PENDING, not VALIDATING for ever', async () => {
    const { id } = await created()
    await server.database.query(
      `update provider set state = 'VALIDATING', validating_until = now() - interval '1 second'`,
    )
    const { node } = await server.client.run(ProviderDocument, { id })
    expect(node).toMatchObject({ state: 'PENDING' })
  })
})

describe('a change', () => {
  test('keeps what is left out, and takes away what is null', async () => {
    const { id } = await created({
      extractionModel: 'chatter',
      requestsPerMinute: 10,
      pricePerMillionTokensIn: 0.02,
    })
    upstream.requests = 0
    expect(await updated(id, { name: 'Renamed', requestsPerMinute: null })).toMatchObject({
      name: 'Renamed',
      embeddingModel: 'embedder',
      extractionModel: 'chatter',
      requestsPerMinute: null,
      pricePerMillionTokensIn: 0.02,
      embeddingDimensions: 96,
      state: 'CONNECTED',
      version: 2,
    })
    // Nothing that the server could see is another.
    expect(upstream.requests).toBe(0)
    expect(await updated(id, { extractionModel: null })).toMatchObject({ extractionModel: null, version: 3 })
    expect(upstream.requests).toBe(1)
  })

  test('of different things by two at once keeps both', async () => {
    const { id } = await created()
    await Promise.all([updated(id, { name: 'Renamed' }), updated(id, { requestsPerMinute: 7 })])
    expect(await added()).toMatchObject([{ name: 'Renamed', requestsPerMinute: 7, version: 3 }])
  })

  test('meant for a version that is no longer there is refused', async () => {
    const { id, version } = await created()
    const results = await Promise.all(
      ['A', 'B'].map((name) => update(id, { name, expectedVersion: version })),
    )
    expect(results.map((result) => result?.__typename).sort()).toEqual([
      'ConflictError',
      'UpdateProviderPayload',
    ])
    expect(results.find((result) => result?.__typename === 'ConflictError')).toMatchObject({
      message:
        'The provider was changed meanwhile: it has version 2, expected 1. Read it again and decide anew',
    })
  })

  test('of the address asks for the key again, which would else go where somebody else reads it', async () => {
    await using thief = await ProviderServer.start()
    const { id } = await created({ apiKey: 'sk-1' })
    expect(await update(id, { baseUrl: `${thief.url}/v1` })).toMatchObject({
      __typename: 'InputError',
      path: ['apiKey'],
    })
    expect(await update(id, { baseUrl: null })).toMatchObject({ __typename: 'InputError', path: ['apiKey'] })
    expect(thief.requests).toBe(0)
    // The same address otherwise spelt is no other.
    expect(await updated(id, { baseUrl: `${upstream.url}/v1/` })).toMatchObject({
      hasApiKey: true,
      version: 2,
    })
    expect(await updated(id, { baseUrl: `${thief.url}/v1`, apiKey: null })).toMatchObject({
      hasApiKey: false,
    })
    expect(thief.last?.headers.authorization ?? '').not.toContain('sk-1')
  })

  test('of the key is used at once', async () => {
    const { id } = await created({ apiKey: 'sk-1' })
    await updated(id, { apiKey: 'sk-2' })
    expect(upstream.last?.headers.authorization).toBe('Bearer sk-2')
  })

  test('of what does not exist is refused', async () => {
    for (const id of [missingId('Provider'), globalId('Provider', 'nonsense')]) {
      expect(await update(id, { name: 'x' })).toMatchObject({ __typename: 'NotFoundError' })
      const { deleteProvider } = await server.client.run(DeleteDocument, { input: { id } })
      expect(deleteProvider).toMatchObject({ __typename: 'NotFoundError' })
      const { validateProvider } = await server.client.run(ValidateDocument, { input: { id } })
      expect(validateProvider).toMatchObject({ __typename: 'NotFoundError' })
    }
  })
})

describe('deletion', () => {
  test('takes the provider away', async () => {
    const { id } = await created()
    const { deleteProvider } = await server.client.run(DeleteDocument, { input: { id } })
    expect(deleteProvider).toEqual({ __typename: 'DeleteProviderPayload', deletedProviderId: id })
    expect((await server.client.run(ProviderDocument, { id })).node).toBeNull()
  })

  test('is refused while something refers to it', async () => {
    const { id } = await created()
    await server.database.query('create table some_user (provider_id uuid references provider)')
    await server.database.query('insert into some_user values ($1)', [rowId(id)])
    const { deleteProvider } = await server.client.run(DeleteDocument, { input: { id } })
    expect(deleteProvider).toMatchObject({ __typename: 'ConflictError' })
    expect(JSON.stringify(deleteProvider)).toContain('used by rows of some user')
    await server.database.query('drop table some_user')
  })
})

describe('the provider of the environment', () => {
  const id = globalId('Provider', 'environment')

  test('is there, and cannot be changed or deleted', async () => {
    const [first] = (await server.client.run(ProvidersDocument)).providers
    expect(first).toMatchObject({
      id,
      isEditable: false,
      isActive: true,
      hasApiKey: true,
      embeddingDimensions: 64,
    })
    const { deleteProvider } = await server.client.run(DeleteDocument, { input: { id } })
    for (const result of [await update(id, { name: 'x' }), deleteProvider]) {
      expect(result).toMatchObject({ __typename: 'InputError', path: ['id'] })
      expect(JSON.stringify(result)).toContain('change its variables')
    }
  })

  test('can be tried out', async () => {
    server.provider.options = {
      dimensions: 64,
      fault: () => ({ status: 401, body: '{"error":{"message":"no"}}' }),
    }
    expect(await validated(id)).toMatchObject({ state: 'ERROR' })
    server.provider.options = { dimensions: 64 }
    expect(await validated(id)).toMatchObject({ state: 'CONNECTED', error: null })
  })
})

test('what extracts by the environment is a provider of its own, with the status of its purpose', async () => {
  await using chats = await ProviderServer.start({ chat: () => ({ text: 'no JSON' }) })
  const env = {
    QUARRY_EXTRACTION_PROVIDER: 'ollama',
    OLLAMA_BASE_URL: chats.url,
    OLLAMA_EXTRACTION_MODEL: 'llama',
  }
  await using other = await startTestServer({ env })
  const id = globalId('Provider', 'extraction')
  const { validateProvider } = await other.client.run(ValidateDocument, { input: { id } })
  expect(validateProvider).toMatchObject({ provider: { id, state: 'ERROR' } })
  const { providers } = await other.client.run(ProvidersDocument)
  expect(providers).toMatchObject([
    { name: 'openai (environment)', state: 'PENDING', extractionModel: null },
    {
      name: 'ollama (environment, extraction)',
      state: 'ERROR',
      embeddingModel: null,
      extractionModel: 'llama',
    },
  ])
})

describe('keys', () => {
  /** A key as nothing else looks, in the forms in which it could be hidden. */
  function uniqueKey() {
    const key = `sk-${randomBytes(24).toString('base64url')}"\\end`
    const bytes = Buffer.from(key)
    const forms = [key, JSON.stringify(key).slice(1, -1), encodeURIComponent(key), bytes.toString('hex')]
    return { key, forms: [...forms, bytes.toString('base64').replace(/=+$/, ''), key.slice(3, 30)] }
  }

  async function dump(): Promise<string> {
    const tables = await server.database.query<{ name: string }>(
      `select format('%I.%I', table_schema, table_name) as name from information_schema.tables
       where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'`,
    )
    const rows: string[] = []
    for (const { name } of tables) {
      for (const { row } of await server.database.query<{ row: string }>(
        `select t::text as row from ${name} t`,
      ))
        rows.push(row)
    }
    return rows.join('\n')
  }

  test('are nowhere, whatever happens to them', async () => {
    const [one, two] = [uniqueKey(), uniqueKey()]
    const answers: unknown[] = []
    const payloads: unknown[] = []
    const unlisten = await server.database.listen('quarry_provider', (payload) => payloads.push(payload))
    const provider = await created({ apiKey: one.key, extractionModel: 'chatter' })
    answers.push(provider, await server.client.run(ProvidersDocument))
    // A server that repeats the key in every form.
    const echo = (status: number, key: string): Fault => ({
      status,
      body: JSON.stringify({ error: { message: `no ${key} ${encodeURIComponent(key)}`, key } }),
    })
    for (const status of [401, 400, 500]) {
      upstream.options = { ...upstream.options, fault: () => echo(status, one.key) }
      answers.push(await validated(provider.id))
    }
    upstream.options = { ...upstream.options, fault: () => ({ body: JSON.stringify({ key: one.key }) }) }
    answers.push(await validated(provider.id))
    upstream.options = { fault: () => null, chat: () => ({ text: `the key is ${one.key}` }) }
    answers.push(await validated(provider.id))
    upstream.options = { fault: () => ({ end: 'reset' }) }
    answers.push(await updated(provider.id, { apiKey: two.key }))
    answers.push(
      await create({ apiKey: two.key }),
      await create({ name: 'Other', baseUrl: 'x', apiKey: two.key }),
    )
    answers.push(await create({ name: 'Other', apiKey: `${two.key}\n` }))
    // Mistakes of the call itself, which GraphQL answers.
    const document = CreateDocument.toString()
    answers.push(await server.client.send(document, { input: { apiKey: two.key } }))
    answers.push(
      await server.client.send(
        `mutation Inline { createProvider(input: { apiKey: ${JSON.stringify(two.key)} }) }`,
      ),
    )
    const everything = [...answers, ...payloads].map((each) => JSON.stringify(each)).join('\n')
    const log = server.log.join('\n')
    const tables = await dump()
    expect(tables).toContain('Upstream')
    expect(log).toContain('CreateProvider')
    for (const form of [...one.forms, ...two.forms]) {
      expect(log).not.toContain(form)
      expect(tables).not.toContain(form)
    }
    // GraphQL repeats a wrong value to whoever sent it, and to nobody else.
    for (const form of one.forms) expect(everything).not.toContain(form)
    await unlisten()
  })

  test('cannot be stored without QUARRY_ENCRYPTION_KEY, and the answer says so; other providers can', async () => {
    await using other = await startTestServer()
    const input = {
      name: 'U',
      type: 'OPENAI',
      baseUrl: `${upstream.url}/v1`,
      embeddingModel: 'embedder',
    } as const
    const { createProvider } = await other.client.run(CreateDocument, { input: { ...input, apiKey: 'sk-1' } })
    expect(createProvider).toMatchObject({ __typename: 'InputError', path: ['apiKey'] })
    expect(JSON.stringify(createProvider)).toContain('QUARRY_ENCRYPTION_KEY is not set')
    const bare = (await other.client.run(CreateDocument, { input })).createProvider
    if (bare?.__typename !== 'CreateProviderPayload') throw new Error(JSON.stringify(bare))
    const { updateProvider } = await other.client.run(UpdateDocument, {
      input: { id: bare.provider.id, apiKey: 'sk-1' },
    })
    expect(updateProvider).toMatchObject({ __typename: 'InputError', path: ['apiKey'] })
  })

  test('are encrypted anew by rotation, once, and work all along', async () => {
    const { database } = server
    const { id } = await created({ apiKey: 'sk-1' })
    await created({ name: 'Second', apiKey: 'sk-2' })
    await created({ name: 'Without' })
    const newKey = randomBytes(32)
    const both = createKeyRing([newKey, encryptionKey])
    expect(await rotateKeys(database, both)).toEqual({ rotated: 2, failed: [] })
    expect(await rotateKeys(database, both)).toEqual({ rotated: 0, failed: [] })
    const providers = createProviders({
      database,
      keys: createKeyRing([newKey]),
      network: 'loopback',
      usage: server.usage,
    })
    expect(await providers.validate(rowId(id))).toMatchObject({ state: 'CONNECTED', version: 1 })
    expect(upstream.last?.headers.authorization).toBe('Bearer sk-1')
    await providers.close()
    // This server has only the old one: it says so, and what needs no key goes on.
    const states = (await added()).map(({ name, state, error }) => [name, state, error?.slice(0, 43) ?? null])
    const missing = 'The API key was stored under the encryption'
    expect(states).toEqual([
      ['Second', 'ERROR', missing],
      ['Upstream', 'ERROR', missing],
      ['Without', 'CONNECTED', null],
    ])
    expect(await validated(id)).toMatchObject({ state: 'ERROR' })
    // Set again, the key is under a key that is there.
    expect(await updated(id, { apiKey: 'sk-3' })).toMatchObject({ state: 'CONNECTED' })
  })

  test('that no encryption key opens are told by rotation, and left as they are', async () => {
    await created({ apiKey: 'sk-1' })
    const stored = () => server.database.query('select * from provider order by id')
    const before = await stored()
    const strange = createKeyRing([randomBytes(32)])
    expect(await rotateKeys(server.database, strange)).toMatchObject({
      rotated: 0,
      failed: [{ name: 'Upstream' }],
    })
    expect(await stored()).toEqual(before)
  })

  test('moved to another row do not open', async () => {
    const { id } = await created({ apiKey: 'sk-1' })
    const other = await created({ name: 'Thief', apiKey: 'sk-2' })
    upstream.requests = 0
    await server.database.query(
      `update provider p set key_ciphertext = o.key_ciphertext, key_nonce = o.key_nonce, key_tag = o.key_tag
       from provider o where p.id = $1 and o.id = $2`,
      [rowId(other.id), rowId(id)],
    )
    expect((await validated(other.id)).error).toContain('belongs to another provider')
    expect(upstream.requests).toBe(0)
  })
})

describe('clients of a provider', () => {
  const open = () =>
    createProviders({
      database: server.database,
      keys: createKeyRing([encryptionKey]),
      network: 'loopback',
      usage: server.usage,
    })

  test('embed and chat with its key, and share its limits', async () => {
    const { id } = await created({
      apiKey: 'sk-1',
      extractionModel: 'chatter',
      requestsPerMinute: 3,
      maxParallelRequests: 1,
    })
    const providers = open()
    const embedding = await providers.embedding(rowId(id))
    const chat = await providers.chat(rowId(id))
    expect(embedding).toMatchObject({ type: 'openai', model: 'embedder', limits: { maxParallelRequests: 1 } })
    upstream.peakParallel = 0
    const schema = { name: 'any', json: {} }
    await Promise.all([
      embedding.embed(['one']),
      embedding.embed(['two']),
      chat.ask({ messages: [{ role: 'user', content: 'three' }], schema }),
    ])
    expect(upstream.peakParallel).toBe(1)
    expect(upstream.last?.headers.authorization).toBe('Bearer sk-1')
    const again = await providers.embedding(rowId(id), 'another-model')
    await expect(again.embed(['four'])).rejects.toMatchObject({ failure: 'RATE_LIMITED' })
    await Promise.all([embedding.close(), chat.close(), again.close(), providers.close()])
  })

  test('are not to be had of one that is not active, has no such model, or a key that cannot be read', async () => {
    const { id } = await created({ apiKey: 'sk-1' })
    const providers = open()
    await expect(providers.chat(rowId(id))).rejects.toThrow('it has no chat model')
    const blind = createProviders({
      database: server.database,
      keys: createKeyRing([]),
      network: 'loopback',
      usage: server.usage,
    })
    await expect(blind.embedding(rowId(id))).rejects.toMatchObject({ failure: 'MISCONFIGURED' })
    await updated(id, { isActive: false })
    await expect(providers.embedding(rowId(id))).rejects.toThrow('it is not active')
    await Promise.all([providers.close(), blind.close()])
  })
})
