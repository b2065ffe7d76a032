import { once } from 'node:events'
import { createServer } from 'node:net'
import { inspect } from 'node:util'
import { LLMock } from '@copilotkit/aimock'
import { Ollama } from 'ollama'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { OllamaProvider } from '../../../src/providers/ollama.ts'
import { OpenAiProvider } from '../../../src/providers/openai.ts'
import {
  type EmbeddingProvider,
  ProviderError,
  type ProviderFailure,
} from '../../../src/providers/provider.ts'
import { type Fault, hashVector, ProviderServer } from '../../support/provider-server.ts'

const key = 'sk-very-secret-key'
const dimensions = 8

async function failureOf(promise: Promise<unknown>): Promise<ProviderError> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(ProviderError)
  return error as ProviderError
}

function openAi(baseUrl: string, options: { timeoutMs?: number; dimensions?: number } = {}): OpenAiProvider {
  return new OpenAiProvider({ apiKey: key, baseUrl: `${baseUrl}/v1`, model: 'test-model', ...options })
}

function ollama(baseUrl: string, options: { timeoutMs?: number } = {}): OllamaProvider {
  return new OllamaProvider({ baseUrl, model: 'test-model', ...options })
}

function float32(text: string): Float32Array {
  return Float32Array.from(hashVector(text, dimensions))
}

describe.each<[string, (url: string, options?: { timeoutMs?: number }) => EmbeddingProvider]>([
  ['openai', openAi],
  ['ollama', ollama],
])('%s', (type, make) => {
  it('gives every text its vector, in order, with one request', async () => {
    await using server = await ProviderServer.start({ dimensions })
    const provider = make(server.url)
    expect(await provider.embed(['a', 'b', 'a'])).toEqual([float32('a'), float32('b'), float32('a')])
    expect(server).toMatchObject({ requests: 1, texts: 3 })
    expect(server.last).toMatchObject({ protocol: type, model: 'test-model', texts: ['a', 'b', 'a'] })
  })

  it('asks for the dimensions once, by embedding one word', async () => {
    await using server = await ProviderServer.start({ dimensions })
    const provider = make(server.url)
    expect(await provider.dimensions()).toBe(dimensions)
    expect(await provider.dimensions()).toBe(dimensions)
    expect(server).toMatchObject({ requests: 1, texts: 1 })
  })

  it('does not send blank texts, for which providers refuse the request, nor broken characters', async () => {
    await using server = await ProviderServer.start({ dimensions })
    const provider = make(server.url)
    expect(await provider.embed(['', 'a', ' \n\t'])).toEqual([null, float32('a'), null])
    expect(server.last?.texts).toEqual(['a'])
    expect(await provider.embed(['', ' '])).toEqual([null, null])
    expect(await provider.embed([])).toEqual([])
    expect(server.requests).toBe(1)
    await provider.embed(['half \ud83d of 😀'])
    expect(server.last?.texts).toEqual(['half \ufffd of 😀'])
  })

  const first = (vectors: unknown[]): { embedding?: unknown } => Object(vectors[0])
  /** The answer with the values of its first vector changed, in whatever protocol. */
  const editFirst = (values: unknown): Fault => ({
    edit: (vectors) => [
      type === 'openai' ? { ...first(vectors), embedding: values } : values,
      ...vectors.slice(1),
    ],
  })

  it.each<[string, Fault, ProviderFailure, RegExp]>([
    ['a short answer', { edit: (vectors) => vectors.slice(1) }, 'BAD_ANSWER', /1 vectors for 2 texts/],
    ['a long answer', { edit: (vectors) => [...vectors, ...vectors] }, 'BAD_ANSWER', /4 vectors for 2 texts/],
    ['another dimension', editFirst([1, 2, 3]), 'BAD_ANSWER', /text 1 of 2 has 3 dimensions, expected 8/],
    ['zeros', editFirst(Array(dimensions).fill(0)), 'BAD_ANSWER', /text 1 of 2 is zero/],
    // JSON has no NaN: servers write null for it.
    ['NaN', editFirst([null, 1, 1, 1, 1, 1, 1, 1]), 'BAD_ANSWER', /has null at position 1/],
    ['no vectors at all', { body: '{"ok":true}' }, 'BAD_ANSWER', /found \{"ok":true\}, expected \{/],
    [
      'a page with status 200',
      { body: '<html><h1>Welcome</h1>', headers: { 'content-type': 'text/html' } },
      'BAD_ANSWER',
      /found <html><h1>Welcome.*Is the base URL right/,
    ],
    ['JSON that was cut off', { body: '{"data": [{"emb' }, 'BAD_ANSWER', /is no JSON/],
    ['nothing', { body: '' }, 'BAD_ANSWER', /expected \{/],
    ['a connection that breaks', { end: 'reset' }, 'UNAVAILABLE', /cannot be reached/],
    [
      'an error of the server',
      { status: 500, body: '{"error":{"message":"boom"}}' },
      'UNAVAILABLE',
      /500: boom/,
    ],
    [
      'a page of a proxy',
      { status: 502, body: '<html>Bad Gateway</html>', headers: { 'content-type': 'text/html' } },
      'UNAVAILABLE',
      /502: .*Bad Gateway/,
    ],
    ['a time-out of a proxy', { status: 408 }, 'UNAVAILABLE', /answered 408/],
    [
      'a key that is wrong, which it repeats',
      { status: 401, body: `{"error":{"message":"Incorrect API key provided: ${key}"}}` },
      'UNAUTHORIZED',
      /Incorrect API key provided.*Check the API key/,
    ],
    ['what must not be', { status: 403, body: '{"error":"no access"}' }, 'UNAUTHORIZED', /403: .*no access/],
    ['a bad request', { status: 400, body: '{"error":{"message":"too long"}}' }, 'REFUSED', /400: too long/],
    ['a body that is too large', { status: 413, body: 'too large' }, 'REFUSED', /413: too large/],
  ])('maps %s', async (_, fault, failure, message) => {
    await using server = await ProviderServer.start({ dimensions })
    const provider = make(server.url)
    await provider.dimensions()
    server.options = { dimensions, fault: () => fault }
    const error = await failureOf(provider.embed(['one', 'two']))
    expect(error.failure).toBe(failure)
    expect(error.message).toMatch(message)
    expect(error.message).toContain(new URL(server.url).host)
    expect(error.message).toContain('test-model')
    expect(server.requests).toBe(2)
    // After a failure the next request is as good as any.
    server.options = { dimensions }
    expect(await provider.embed(['one'])).toEqual([float32('one')])
  })

  it('tells how long to wait when there are too many requests', async () => {
    await using server = await ProviderServer.start({ dimensions })
    const provider = make(server.url)
    const wait = async (headers: Record<string, string>) => {
      server.options = { fault: () => ({ status: 429, headers, body: '{"error":{"message":"slow down"}}' }) }
      const error = await failureOf(provider.embed(['one']))
      expect(error.failure).toBe('RATE_LIMITED')
      return error.retryAfterMs
    }
    expect(await wait({ 'retry-after': '3' })).toBe(3000)
    expect(await wait({ 'retry-after-ms': '250', 'retry-after': '1' })).toBe(250)
    expect(await wait({})).toBeNull()
    const date = await wait({ 'retry-after': new Date(Date.now() + 60_000).toUTCString() })
    expect(date).toBeGreaterThan(50_000)
    expect(date).toBeLessThanOrEqual(60_000)
  })

  it('says that the connection was refused', async () => {
    const free = createServer().listen(0, '127.0.0.1')
    await once(free, 'listening')
    const address = free.address()
    if (address === null || typeof address === 'string') throw new Error('Expected a port.')
    free.close()
    await once(free, 'close')
    const error = await failureOf(make(`http://127.0.0.1:${address.port}`).embed(['one']))
    expect(error.failure).toBe('UNAVAILABLE')
    expect(error.message).toContain('ECONNREFUSED')
  })

  it.each<Fault['end']>(['hang', 'stall'])(
    'gives up after the time-out when the answer does %s',
    async (end) => {
      await using server = await ProviderServer.start({ dimensions, fault: () => ({ end }) })
      const arrival = server.arrival()
      const error = await failureOf(make(server.url, { timeoutMs: 300 }).embed(['one']))
      expect(error.failure).toBe('UNAVAILABLE')
      expect(error.message).toContain('did not answer within 300 ms')
      await (await arrival).left
    },
  )

  it.each<Fault['end']>(['hang', 'stall'])('hangs up at an abort while the answer does %s', async (end) => {
    await using server = await ProviderServer.start({ dimensions, fault: () => ({ end }) })
    const provider = make(server.url)
    const controller = new AbortController()
    const reason = new Error('enough')
    const arrival = server.arrival()
    const embedding = provider.embed(['one'], controller.signal)
    const rejected = expect(embedding).rejects.toBe(reason)
    const { left } = await arrival
    controller.abort(reason)
    await rejected
    await left
    await expect(provider.embed(['two'], controller.signal)).rejects.toBe(reason)
    expect(server.requests).toBeLessThanOrEqual(1)
  })

  it('fails what is under way when it closes, and what comes later', async () => {
    await using server = await ProviderServer.start({ dimensions, fault: () => ({ end: 'hang' }) })
    const provider = make(server.url)
    const arrival = server.arrival()
    const failing = failureOf(provider.embed(['one']))
    const { left } = await arrival
    await provider.close()
    await left
    for (const failure of [await failing, await failureOf(provider.embed(['two']))]) {
      expect(failure.failure).toBe('UNAVAILABLE')
      expect(failure.message).toContain('closed')
    }
  })
})

describe('openai', () => {
  it('never shows the key in an error, nor keeps it in a cause, though servers repeat it', async () => {
    await using server = await ProviderServer.start()
    for (const status of [400, 401, 500]) {
      server.options = { fault: () => ({ status, body: `{"error":{"message":"bad key ${key}"}}` }) }
      const error = await failureOf(openAi(server.url).embed(['one']))
      expect(error.message).toContain('bad key [key]')
      expect(inspect(error, { depth: 10 })).not.toContain(key)
    }
    server.options = {
      fault: () => ({ body: `<html>${key}</html>`, headers: { 'content-type': 'text/html' } }),
    }
    expect(inspect(await failureOf(openAi(server.url).embed(['one'])), { depth: 10 })).not.toContain(key)
  })

  it('sends the key, and asks for base64', async () => {
    await using server = await ProviderServer.start({ dimensions })
    await openAi(server.url).embed(['one'])
    expect(server.last?.headers.authorization).toBe(`Bearer ${key}`)
    expect(server.last?.body).toEqual({ input: ['one'], model: 'test-model', encoding_format: 'base64' })
  })

  it('takes plain numbers from a server that knows no base64', async () => {
    await using server = await ProviderServer.start({
      fault: () => ({ edit: () => [{ index: 0, embedding: hashVector('one', dimensions) }] }),
    })
    expect(await openAi(server.url).embed(['one'])).toEqual([float32('one')])
  })

  it('stops to ask for base64 when the server refuses that', async () => {
    await using server = await ProviderServer.start({
      dimensions,
      fault: ({ body }) =>
        'encoding_format' in body
          ? { status: 400, body: '{"error":{"message":"Unsupported parameter: encoding_format"}}' }
          : null,
    })
    const provider = openAi(server.url)
    server.options.latencyMs = 50
    const failures = await Promise.all([
      failureOf(provider.embed(['one'])),
      failureOf(provider.embed(['two'])),
    ])
    expect(server.peakParallel).toBe(2)
    expect(failures.map((failure) => failure.isRetryable)).toEqual([true, true])
    expect(await provider.embed(['one'])).toEqual([float32('one')])
  })

  it('puts vectors in the order of their index', async () => {
    await using server = await ProviderServer.start({
      dimensions,
      fault: () => ({ edit: (vectors) => vectors.toReversed() }),
    })
    expect(await openAi(server.url).embed(['a', 'b', 'c'])).toEqual([
      float32('a'),
      float32('b'),
      float32('c'),
    ])
  })

  it('takes vectors without index as they come', async () => {
    await using server = await ProviderServer.start({
      fault: () => ({ edit: () => [{ embedding: hashVector('one', dimensions) }] }),
    })
    expect(await openAi(server.url).embed(['one'])).toEqual([float32('one')])
  })

  it('sends dimensions where they are configured, and checks that it gets them', async () => {
    await using server = await ProviderServer.start({ dimensions })
    const provider = openAi(server.url, { dimensions: 5 })
    expect(await provider.dimensions()).toBe(5)
    expect((await provider.embed(['one']))[0]).toHaveLength(5)
    expect(server.last?.body).toMatchObject({ dimensions: 5 })
    server.options = {
      fault: () => ({ edit: () => [{ index: 0, embedding: hashVector('one', dimensions) }] }),
    }
    expect((await failureOf(provider.embed(['one']))).message).toContain('has 8 dimensions, expected 5')
  })

  it('says what to do when the model takes no dimensions', async () => {
    const body = '{"error":{"message":"This model does not support specifying dimensions."}}'
    await using server = await ProviderServer.start({ fault: () => ({ status: 400, body }) })
    const error = await failureOf(openAi(server.url, { dimensions: 5 }).embed(['one']))
    expect(error.failure).toBe('MISCONFIGURED')
    expect(error.message).toContain('Leave the dimensions (5) out')
  })

  it('does not blame the texts when the model or the address does not exist', async () => {
    await using server = await ProviderServer.start()
    const error = await failureOf(openAi(`${server.url}/nowhere`).embed(['one']))
    expect(error.failure).toBe('MISCONFIGURED')
    expect(error.isRetryable).toBe(false)
    expect(error.message).toContain('Check the base URL and the name of the model')
  })
})

describe('ollama', () => {
  it('asks not to cut what is too long', async () => {
    await using server = await ProviderServer.start({ dimensions })
    await ollama(`${server.url}/`).embed(['one'])
    expect(server.last?.body).toEqual({ model: 'test-model', input: ['one'], truncate: false })
  })

  it('says how to get a model that is missing', async () => {
    const body = `{"error":"model \\"test-model\\" not found, try pulling it first"}`
    await using server = await ProviderServer.start({ fault: () => ({ status: 404, body }) })
    const error = await failureOf(ollama(server.url).embed(['one']))
    expect(error.failure).toBe('MISCONFIGURED')
    expect(error.message).toContain('Run `ollama pull test-model` on the server.')
  })

  it('says to check the address when that is what does not exist', async () => {
    await using server = await ProviderServer.start()
    const error = await failureOf(ollama(`${server.url}/nowhere`).embed(['one']))
    expect(error.failure).toBe('MISCONFIGURED')
    expect(error.message).toContain('Check the base URL')
  })

  it.each([400, 500])(
    'takes a text that is too long for refused, whatever the status (%i)',
    async (status) => {
      const body = '{"error":"the input length exceeds the context length"}'
      await using server = await ProviderServer.start({ fault: () => ({ status, body }) })
      const error = await failureOf(ollama(server.url).embed(['one']))
      expect(error.failure).toBe('REFUSED')
      expect(error.message).toContain('fewer than 500 (estimated) tokens')
    },
  )
})

describe('the test server', () => {
  it('speaks the protocol that the official client of Ollama speaks', async () => {
    await using server = await ProviderServer.start({ dimensions })
    const answer = await new Ollama({ host: server.url }).embed({
      model: 'm',
      input: ['a', 'b'],
      truncate: false,
    })
    expect(answer.embeddings).toEqual([hashVector('a', dimensions), hashVector('b', dimensions)])
  })
})

// An implementation of the protocols that we did not write. It cannot answer in another order, with other indices, with
// too few vectors, HTML, headers without a body, or Ollama's vectors for several texts (it has only the shape of the
// older endpoint); for those there is ProviderServer.
describe('aimock', () => {
  const mock = new LLMock({ port: 0 })
  beforeAll(async () => {
    await mock.start()
  })
  afterEach(() => {
    mock.clearChaos()
    mock.reset()
  })
  afterAll(() => mock.stop())

  it('gives openai a vector per text, though it knows no base64', async () => {
    const provider = openAi(mock.url)
    expect(await provider.dimensions()).toBe(1536)
    const [a, b, again] = await provider.embed(['a', 'b', 'a'])
    expect(a).toHaveLength(1536)
    expect(a).toEqual(again)
    expect(a).not.toEqual(b)
  })

  it('gives openai the dimensions that are asked for', async () => {
    expect((await openAi(mock.url, { dimensions: 256 }).embed(['a']))[0]).toHaveLength(256)
  })

  it('has a fixture of another dimension refused', async () => {
    mock.onEmbedding(/.*/, { embedding: [0.5, 0.25] })
    const provider = openAi(mock.url)
    expect(await provider.embed(['a'])).toEqual([Float32Array.of(0.5, 0.25)])
    const error = await failureOf(openAi(mock.url, { dimensions: 3 }).embed(['a']))
    expect(error).toMatchObject({ failure: 'BAD_ANSWER' })
    expect(error.message).toContain('has 2 dimensions, expected 3')
  })

  it('has zeros refused', async () => {
    mock.onEmbedding(/.*/, { embedding: [0, 0] })
    expect((await failureOf(openAi(mock.url).embed(['a']))).message).toContain('is zero')
  })

  it.each<[string, (url: string) => EmbeddingProvider]>([
    ['openai', openAi],
    ['ollama', ollama],
  ])('has its failures mapped for %s', async (_, make) => {
    const provider = make(mock.url)
    mock.onEmbedding(/.*/, { error: { message: 'slow down' }, status: 429, retryAfter: 17 })
    expect(await failureOf(provider.embed(['a']))).toMatchObject({
      failure: 'RATE_LIMITED',
      retryAfterMs: 17_000,
    })
    mock.reset()
    for (const [status, failure] of [
      [401, 'UNAUTHORIZED'],
      [400, 'REFUSED'],
      [404, 'MISCONFIGURED'],
      [503, 'UNAVAILABLE'],
    ] as const) {
      mock.onEmbedding(/.*/, { error: { message: `for ${status}` }, status })
      const error = await failureOf(provider.embed(['a']))
      expect(error.failure).toBe(failure)
      expect(error.message).toContain(`answered ${status}`)
      expect(error.message).toContain(`for ${status}`)
      mock.reset()
    }
    mock.setChaos({ malformedRate: 1 })
    expect((await failureOf(provider.embed(['a']))).failure).toBe('BAD_ANSWER')
    mock.setChaos({ disconnectRate: 1 })
    expect((await failureOf(provider.embed(['a']))).failure).toBe('UNAVAILABLE')
    mock.setChaos({ rateLimitRate: 1 })
    expect((await failureOf(provider.embed(['a']))).retryAfterMs).toBe(1000)
    mock.setChaos({ dropRate: 1 })
    expect((await failureOf(provider.embed(['a']))).failure).toBe('UNAVAILABLE')
  })

  it('has its Ollama answer refused, which is that of the endpoint for one text', async () => {
    expect((await failureOf(ollama(mock.url).embed(['a', 'b']))).failure).toBe('BAD_ANSWER')
  })
})
