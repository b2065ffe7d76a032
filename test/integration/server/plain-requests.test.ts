import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import { createSchema, createYoga, type YogaServerInstance } from 'graphql-yoga'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Caller } from '../../../src/graphql/context.ts'
import { createLogger } from '../../../src/log.ts'
import { createPlainRequests } from '../../../src/server/plain-requests.ts'
import { startProviderApp } from '../../support/apps.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  app = await startProviderApp()
})
afterAll(() => app[Symbol.asyncDispose]())

const json = { 'content-type': 'application/json' }

interface Answer {
  status: number | undefined
  headers: Record<string, unknown>
  body: string
}

/** @param path a question mark behind it changes nothing but the way that the request takes */
async function post(
  path: '/graphql' | '/graphql?',
  body: string,
  headers: Record<string, string>,
): Promise<Answer> {
  const { hostname, port } = new URL(app.client.url)
  const length = Buffer.byteLength(body)
  const sent = request({
    hostname,
    port,
    path,
    method: 'POST',
    headers: { 'content-length': length, 'x-request-id': 'same', ...headers },
  })
  sent.end(body)
  return new Promise((resolve, reject) => {
    sent.once('error', reject).once('response', async (response) => {
      const { date: _date, ...headers } = response.headers
      resolve({ status: response.statusCode, headers, body: await text(response) })
    })
  })
}

/** The answer on Yoga's way, and on the lean one: once to make the document known, once more because it is. */
async function bothWays(body: string, headers: Record<string, string> = json) {
  const byYoga = await post('/graphql?', body, headers)
  return { byYoga, answers: [await post('/graphql', body, headers), await post('/graphql', body, headers)] }
}

const named = 'query One { __typename } query Two { embeddingSpaces { dimensions } }'
const bodies: [string, unknown][] = [
  ['a query', { query: '{ __typename }' }],
  ['variables', { query: 'query($id: ID!) { node(id: $id) { id } }', variables: { id: 'x' } }],
  ['no variables, said so', { query: '{ __typename }', variables: null, operationName: null }],
  ['variables that are missing', { query: 'query($id: ID!) { node(id: $id) { id } }' }],
  ['variables of another kind', { query: 'query($id: ID!) { node(id: $id) { id } }', variables: { id: {} } }],
  ['variables that are a list', { query: '{ __typename }', variables: [] }],
  ['an operation by name', { query: named, operationName: 'Two' }],
  ['several operations and no name', { query: named }],
  ['several operations and a wrong name', { query: named, operationName: 'Three' }],
  ['an empty name', { query: '{ __typename }', operationName: '' }],
  ['a name that is a number', { query: named, operationName: 2 }],
  ['extensions', { query: '{ __typename }', extensions: { a: 1 } }],
  ['a parameter that there is not', { query: '{ __typename }', other: 1 }],
  ['an empty parameter that there is not', { query: '{ __typename }', other: null }],
  ['no query', {}],
  ['a query that is a number', { query: 1 }],
  ['an empty query', { query: '' }],
  ['a list', [{ query: '{ __typename }' }]],
  ['nothing', null],
  ['a query that cannot be parsed', { query: '{' }],
  ['a query that is not valid', { query: '{ nothing }' }],
  ['a query that is too deep', { query: `{ ${'a { '.repeat(20)} b ${'}'.repeat(20)} }` }],
  ['a mistake that leaves data', { query: '{ node(id: "x") { id } }' }],
  ['a mistake that leaves none', { query: '{ search(query: "x", first: 0) { edges { rank } } }' }],
  ['a mutation', { query: 'mutation { deleteMessages(input: { ids: [] }) { __typename } }' }],
  ['letters of all kinds', { query: 'query($q: ID!) { node(id: $q) { id } }', variables: { q: 'é\u2028𝒳' } }],
]

describe('a request on the lean way is answered as by Yoga', () => {
  test.each(bodies)('with %s', async (_name, body) => {
    const { byYoga, answers } = await bothWays(JSON.stringify(body))
    expect(answers).toEqual([byYoga, byYoga])
  })

  test.each([
    '*/*',
    'application/json',
    'application/json, text/plain, */*',
    'application/graphql-response+json',
    'application/graphql-response+json, application/json',
    'application/graphql-response+json,application/json;q=0.9',
    'application/json, application/graphql-response+json',
    'application/graphql-response+json, text/event-stream',
    'text/html',
    'application/json;charset=latin1',
  ])('where %s is accepted', async (accept) => {
    for (const query of [
      '{ __typename }',
      '{ node(id: "x") { id } }',
      'query($id: ID!) { node(id: $id) { id } }',
    ]) {
      const { byYoga, answers } = await bothWays(JSON.stringify({ query }), { ...json, accept })
      expect(answers).toEqual([byYoga, byYoga])
    }
  })

  test.each([
    ['a charset', { 'content-type': 'application/json; charset=utf-8' }],
    ['another type', { 'content-type': 'text/plain' }],
    ['an encoding that it is not in', { ...json, 'content-encoding': 'gzip' }],
    ['a page of ours that asks', { ...json, origin: 'http://127.0.0.1' }],
  ])('with %s', async (_name, headers) => {
    const { byYoga, answers } = await bothWays(JSON.stringify({ query: '{ __typename }' }), headers)
    expect(answers).toEqual([byYoga, byYoga])
  })

  test('with any parameters, and any body', async () => {
    const query = fc.constantFrom<unknown>('{ __typename }', named, '{ node(id: "x") { id } }', '{', null)
    const params = fc.record(
      {
        query: fc.oneof({ weight: 4, arbitrary: query }, fc.jsonValue()),
        variables: fc.oneof(fc.constant(null), fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue()),
        operationName: fc.oneof(fc.constantFrom(null, 'One', 'Two', '__proto__'), fc.jsonValue()),
        extensions: fc.jsonValue(),
        __proto__: fc.jsonValue(),
      },
      { requiredKeys: [] },
    )
    const body = fc.oneof(
      { weight: 6, arbitrary: params.map((value) => JSON.stringify(value)) },
      fc.json(),
      fc.string({ minLength: 1 }),
    )
    await fc.assert(
      fc.asyncProperty(body, async (sent) => {
        const { byYoga, answers } = await bothWays(sent)
        expect(answers).toEqual([byYoga, byYoga])
      }),
      { numRuns: 100 },
    )
  })
})

test('Yoga makes no request of a plain one whose document it knows, and takes every other one', async () => {
  let requests = 0
  const caller = { requestId: '1', log: createLogger('silent') }
  const plain = createPlainRequests({
    path: '/graphql',
    maxBodyBytes: 100,
    yoga: (): YogaServerInstance<Caller, object> => yoga,
  })
  const yoga = createYoga<Caller>({
    schema: createSchema({
      typeDefs: 'scalar Big type Query { a: Int, big: Big }',
      // No JSON.
      resolvers: { Query: { a: () => 1, big: () => 1n } },
    }),
    plugins: [plain.plugin, { onRequest: () => void requests++ }],
    logging: false,
  })
  const server = createServer((request, response) => {
    void (plain.mayBePlain(request)
      ? plain.answer(request, response, caller)
      : yoga(request, response, caller))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const ask = async (body: string, headers: Record<string, string> = json, path = '/graphql') => {
    requests = 0
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body })
    return { requests, status: answer.status, body: await answer.text() }
  }
  const known = JSON.stringify({ query: '{ a }' })
  const answered = { status: 200, body: '{"data":{"a":1}}' }
  expect(await ask(known)).toEqual({ ...answered, requests: 1 })
  expect(await ask(known)).toEqual({ ...answered, requests: 0 })
  expect(await ask(JSON.stringify({ query: '{ a, a }' }))).toEqual({ ...answered, requests: 1 })
  expect(await ask(known, json, '/graphql?x')).toEqual({ ...answered, requests: 1 })
  expect(await ask(known, { ...json, origin: 'http://friend.example' })).toEqual({ ...answered, requests: 1 })
  expect(await ask(known, { ...json, accept: 'application/json;q=1' })).toEqual({ ...answered, requests: 1 })
  expect(await ask(known.padEnd(101))).toEqual({ ...answered, requests: 1 })
  expect((await ask(JSON.stringify({ query: '{ b }' }))).requests).toBe(1)
  expect((await ask(JSON.stringify({ query: '{ b }' }))).requests).toBe(1)
  for (const requests of [1, 0]) {
    const answer = await ask(JSON.stringify({ query: '{ big }' }))
    expect(answer).toMatchObject({
      requests,
      status: 500,
      body: expect.stringContaining('Unexpected error.'),
    })
  }
  server.close()
  server.closeAllConnections()
})

test('a subscription is streamed to whoever does not say what is accepted', async () => {
  const body = JSON.stringify({ query: 'subscription { embeddingProgress { seq } }' })
  for (const _time of ['first', 'known']) {
    const leaving = new AbortController()
    const answer = await fetch(app.client.url, {
      method: 'POST',
      headers: json,
      body,
      signal: leaving.signal,
    })
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/)
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader()
    let told = ''
    while (!told.includes('"seq"')) {
      const chunk = await reader?.read()
      if (!chunk || chunk.done) break
      told += chunk.value
    }
    leaving.abort()
    expect(told).toContain('"seq"')
  }
  expect((await post('/graphql', body, { ...json, accept: 'application/json' })).status).toBe(406)
})

test('a request that its sender breaks off in the middle of its body leaves the server serving', async () => {
  const { hostname, port } = new URL(app.client.url)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect')
  const head = 'POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n'
  await new Promise((resolve) => socket.write(`${head}content-length: 1000\r\n\r\n{"query":`, resolve))
  socket.destroy()
  await once(socket, 'close')
  const body = JSON.stringify({ query: '{ __typename }' })
  expect((await post('/graphql', body, json)).status).toBe(200)
})
