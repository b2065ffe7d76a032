import { type IncomingMessage, request } from 'node:http'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { ReadableStream } from 'node:stream/web'
import { getIntrospectionQuery } from 'graphql'
import { type Client, createClient } from 'graphql-ws'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { exampleTabs } from '../../../src/server/graphiql.ts'
import { startProviderApp } from '../../support/apps.ts'
import { ingest } from '../../support/messages.ts'

const maxBodyKib = 64
const friend = 'https://friend.example'
let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  app = await startProviderApp(
    {},
    { env: { QUARRY_MAX_BODY_KB: `${maxBodyKib}`, QUARRY_CORS_ORIGINS: friend } },
  )
})
afterAll(() => app[Symbol.asyncDispose]())

const json = { 'content-type': 'application/json' }
const strict = { ...json, accept: 'application/graphql-response+json' }

function post(body: unknown, headers: Record<string, string> = json): Promise<Response> {
  return fetch(app.client.url, {
    method: 'POST',
    headers,
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
}

/** A request with headers that fetch would not let pass, as a browser sends them. */
async function rawRequest(headers: Record<string, string>, method = 'POST') {
  const { hostname, port, pathname } = new URL(app.client.url)
  const sent = request({ hostname, port, path: pathname, method, headers: { ...json, ...headers } })
  sent.end(method === 'POST' ? JSON.stringify({ query: '{ __typename }' }) : undefined)
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve).once('error', reject)
  })
  return { status: response.statusCode, headers: response.headers, body: await text(response) }
}

const own = () => new URL(app.client.url).origin

describe('an operation over HTTP', () => {
  test('is answered by POST and by GET', async () => {
    const query = '{ embeddingSpaces { dimensions } }'
    const expected = { data: { embeddingSpaces: [{ dimensions: 64 }] } }
    expect(await (await post({ query })).json()).toEqual(expected)
    const byGet = await fetch(`${app.client.url}?query=${encodeURIComponent(query)}`, { headers: strict })
    expect(await byGet.json()).toEqual(expected)
  })

  test.each([
    ['a query that cannot be parsed', { query: '{' }, 400],
    ['a query that is not valid', { query: '{ nothing }' }, 400],
    ['no query', {}, 400],
    ['variables that do not fit', { query: 'query($id: ID!) { node(id: $id) { id } }' }, 400],
    ['a mistake that leaves data', { query: '{ node(id: "x") { id } }' }, 200],
    ['nothing wrong', { query: '{ __typename }' }, 200],
  ])('with %s has the status of the GraphQL over HTTP specification', async (_name, body, status) => {
    const response = await post(body, strict)
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toMatch(/^application\/graphql-response\+json/)
  })

  test('that changes something is refused by GET', async () => {
    const mutation = 'mutation { createTopic(input: { name: "by GET" }) { __typename } }'
    const response = await fetch(`${app.client.url}?query=${encodeURIComponent(mutation)}`, {
      headers: strict,
    })
    expect(response.status).toBe(405)
    expect(await app.sql(`select from topic where name = 'by GET'`)).toEqual([])
  })

  test.each([
    ['no JSON', '{', json],
    ['of another type', '{ __typename }', { 'content-type': 'text/plain' }],
  ])('in a body that is %s is a mistake of the caller', async (_name, body, headers) => {
    const { status } = await post(body, headers)
    expect(status).toBeGreaterThanOrEqual(400)
    expect(status).toBeLessThan(500)
  })
})

describe('an error inside', () => {
  test('leaves the process masked, over HTTP and over WebSocket', async () => {
    await app.sql('alter table topic rename to hidden_topic')
    try {
      const query = '{ topics { nodes { name } } }'
      const response = await post({ query })
      const body = await response.text()
      expect(JSON.parse(body)).toMatchObject({
        errors: [
          { message: 'Unexpected error.', path: ['topics'], extensions: { code: 'INTERNAL_SERVER_ERROR' } },
        ],
      })
      expect(body).not.toMatch(/hidden_topic|prisma|stack|relation/i)
      const results = []
      const socket = connect()
      for await (const result of socket.iterate({ query })) results.push(result)
      await socket.dispose()
      expect(JSON.stringify(results)).toContain('Unexpected error.')
      expect(JSON.stringify(results)).not.toMatch(/hidden_topic|prisma|relation/i)
    } finally {
      await app.sql('alter table hidden_topic rename to topic')
    }
  })
})

describe('a limit', () => {
  test('on the body is told by 413', async () => {
    const large = 'x'.repeat(maxBodyKib * 1024)
    const query = 'query($query: String!) { search(query: $query, mode: KEYWORD) { nodes { __typename } } }'
    expect((await post({ query, variables: { query: large } })).status).toBe(413)
    const { status } = await post({ query, variables: { query: 'x'.repeat(9_000) } })
    expect(status).toBe(200)
  })

  const deep = `{ ${'messages { nodes { source { '.repeat(5)} id ${'} } }'.repeat(5)} }`
  const deepByFragments = [
    '{ messages { nodes { ...f0 } } }',
    ...[0, 1, 2, 3].map(
      (at) => `fragment f${at} on Message { source { messages { nodes { ...f${at + 1} } } } }`,
    ),
    'fragment f4 on Message { id }',
  ].join(' ')
  const many = (count: number, selection: (index: number) => string) =>
    `{ ${Array.from({ length: count }, (_, index) => selection(index)).join(' ')} }`

  test.each([
    ['depth', deep, /depth/i],
    ['depth through fragments', deepByFragments, /depth/i],
    ['aliases', many(51, (index) => `a${index}: messages { nodes { id } }`), /alias/i],
    ['tokens', many(2001, () => '__typename'), /token/i],
  ])('on %s is told before anything is done', async (_name, query, message) => {
    app.statements.length = 0
    const answer = await app.client.send(query)
    expect(answer.data ?? null).toBeNull()
    expect(answer.errors?.[0]?.message).toMatch(message)
    expect(app.statements.filter((statement) => statement.includes('"message"'))).toEqual([])
  })

  test.each([600, 2000, 100_000])(
    'holds for a selection of %d levels, without a stack overflow',
    async (levels) => {
      // As much as fits into a body.
      const query = `{ ${'a{'.repeat(levels)}b${'}'.repeat(levels)} }`.slice(0, maxBodyKib * 1024 - 100)
      const { errors } = await app.client.send(query)
      expect(errors?.[0]?.message).toMatch(/depth|token|Cannot query field/i)
    },
  )

  test('lets the introspection of GraphiQL through', async () => {
    expect((await app.client.send(getIntrospectionQuery({ descriptions: true }))).errors).toBeUndefined()
  })
})

describe('a page of another origin', () => {
  test('is refused before anything is done, also where a browser asks no leave first', async () => {
    for (const origin of ['https://evil.example', 'http://127.0.0.1:1', 'null', 'garbage']) {
      const { status, body } = await rawRequest({ origin })
      expect(status).toBe(403)
      expect(JSON.parse(body)).toMatchObject({ errors: [{ message: expect.stringContaining(origin) }] })
      expect((await rawRequest({ origin, 'content-type': 'text/plain' })).status).toBe(403)
      expect((await rawRequest({ origin, 'access-control-request-method': 'POST' }, 'OPTIONS')).status).toBe(
        403,
      )
    }
  })

  test('is let in where it is listed, and is ours', async () => {
    const { status, headers } = await rawRequest({ origin: friend })
    expect(status).toBe(200)
    expect(headers['access-control-allow-origin']).toBe(friend)
    expect(headers['access-control-allow-credentials']).toBeUndefined()
    expect((await rawRequest({ origin: own() })).status).toBe(200)
    expect((await rawRequest({})).headers['access-control-allow-origin']).not.toBe('*')
  })

  test('cannot reach us by a name of its own that leads to this machine', async () => {
    const { port } = new URL(app.client.url)
    for (const host of [`evil.example:${port}`, `127.0.0.1.evil.example:${port}`]) {
      expect((await rawRequest({ host, origin: `http://${host}` })).status).toBe(403)
    }
    expect((await rawRequest({ host: `localhost:${port}` })).status).toBe(200)
  })

  test('opens no WebSocket', async () => {
    const outcome = (options: object) =>
      new Promise<string>((resolve) => {
        const socket = new WebSocket(app.client.url.replace(/^http/, 'ws'), 'graphql-transport-ws', options)
        socket.once('open', () => resolve('open'))
        socket.once('error', (error) => resolve(error.message))
        socket.once('open', () => socket.close())
      })
    expect(await outcome({ origin: 'https://evil.example' })).toMatch(/40[13]/)
    expect(await outcome({ origin: own() })).toBe('open')
    expect(await outcome({})).toBe('open')
  })
})

function connect(): Client {
  return createClient({
    url: app.client.url.replace(/^http/, 'ws'),
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    lazyCloseTimeout: 1_000,
  })
}

const progress = 'subscription { embeddingProgress { coverage { kind total } } }'
const total = (result: unknown) =>
  (result as { data: { embeddingProgress: { coverage: { total: number }[] } } }).data.embeddingProgress
    .coverage[0]?.total

describe('a subscription', () => {
  test('over WebSocket outlives a bad operation on the same socket', async () => {
    const socket = connect()
    const following = socket.iterate({ query: progress })
    const { value: first } = await following.next()
    for (const query of ['{', '{ nothing }', 'subscription { embeddingProgress(afterSeq: "x") { seq } }']) {
      const failed = await socket
        .iterate({ query })
        .next()
        .catch((errors: unknown) => errors)
      expect(JSON.stringify(failed)).toMatch(/message/)
    }
    await ingest(app.client, ['news for the socket'])
    // What came in before may still be embedded now: that is told, too.
    let latest = total(first)
    while (latest === total(first)) latest = total((await following.next()).value)
    expect(latest).toBe((total(first) ?? Number.NaN) + 1)
    await following.return?.()
    await socket.dispose()
  })

  test('over server-sent events tells the state at once and then what changes', async () => {
    const leaving = new AbortController()
    const response = await fetch(app.client.url, {
      method: 'POST',
      headers: { ...json, accept: 'text/event-stream' },
      body: JSON.stringify({ query: progress }),
      signal: leaving.signal,
    })
    expect(response.headers.get('content-type')).toContain('text/event-stream')
    const totals: (number | undefined)[] = []
    let received = ''
    for await (const chunk of Readable.fromWeb(response.body as ReadableStream)) {
      received += Buffer.from(chunk).toString('utf8')
      const events = [...received.matchAll(/^data: (\{.*\})$/gm)].map(([, data]) =>
        total(JSON.parse(data ?? '')),
      )
      if (events.length === 1 && totals.length === 0) await ingest(app.client, ['news by events'])
      totals.splice(0, totals.length, ...events)
      if (totals.at(-1) !== totals[0]) break
    }
    leaving.abort()
    expect(totals.at(-1)).toBe((totals[0] ?? Number.NaN) + 1)
  })
})

describe('GraphiQL', () => {
  test('is served to browsers, from the root, too, and names no other host', async () => {
    const response = await fetch(own(), { headers: { accept: 'text/html' } })
    expect(response.url).toBe(app.client.url)
    const page = await response.text()
    expect(page).toContain('Quarry')
    expect(
      [...page.matchAll(/\b(?:src|href)\s*=\s*["'](https?:)?\/\/[^"']*/g)].map(([found]) => found),
    ).toEqual([])
    expect(page.match(/@import\s+url\(|import\s*\(\s*["']https?:/g)).toBeNull()
  })

  test('opens with examples that work', async () => {
    for (const { query } of exampleTabs) {
      if (/^subscription/m.test(query)) continue
      expect((await app.client.send(query)).errors).toBeUndefined()
    }
  })
})
