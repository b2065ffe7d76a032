import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { createSchema, createYoga } from 'graphql-yoga'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { createLogger } from '../../../src/log.ts'
import { createMetrics } from '../../../src/metrics.ts'
import { observeOperations } from '../../../src/server/observe-operations.ts'
import { maxSocketOperations } from '../../../src/server/sockets.ts'
import { ingest } from '../../support/messages.ts'
import { eventually, startTestServer, type TestServer } from '../../support/server.ts'

const progress = 'subscription { embeddingProgress { seq } }'
const openProgress = 'quarry_subscriptions{field="embeddingProgress"}'
const openEvents = 'quarry_subscriptions{field="jobEvents"}'

/** A socket that has said what it is, and the messages that it gets. */
async function openSocket(server: TestServer, options: WebSocket.ClientOptions = {}) {
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws', options)
  const messages: { id?: string; type: string; payload?: unknown }[] = []
  socket.on('message', (data) => messages.push(JSON.parse(String(data))))
  await once(socket, 'open')
  socket.send(JSON.stringify({ type: 'connection_init' }))
  await once(socket, 'message')
  return {
    socket,
    messages,
    ask(id: string, query: string) {
      socket.send(JSON.stringify({ id, type: 'subscribe', payload: { query } }))
    },
    async closed() {
      const [code] = (await once(socket, 'close')) as [number]
      return code
    },
  }
}

/** A request by hand, so that its client can stop reading, or leave, where no library would let it. */
function sendRequest(server: { url: string }, query: string, accept: string): Socket {
  const { hostname, port } = new URL(server.url)
  const body = JSON.stringify({ query })
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  socket.write(
    [
      'POST /graphql HTTP/1.1',
      `host: ${hostname}:${port}`,
      'content-type: application/json',
      `accept: ${accept}`,
      `content-length: ${Buffer.byteLength(body)}`,
      '',
      body,
    ].join('\r\n'),
  )
  return socket
}

const eventBytes = 4_000
const jobEvents = 20_000

/** A job that has ended with many events: to follow it is to be sent 80 MB. Returns the subscription. */
async function longJob({ database }: TestServer): Promise<string> {
  const id = '01a205b4-5aeb-74e5-9d26-e9f9d4492508'
  await database.query(
    `insert into job (id, kind, state, last_seq) values ($1, 'BACKFILL', 'SUCCEEDED', $2)`,
    [id, jobEvents],
  )
  await database.query(
    `insert into job_event (job_id, seq, message) select $1::uuid, n, repeat('x', $3) from generate_series(1, $2) n`,
    [id, jobEvents, eventBytes],
  )
  const globalId = Buffer.from(`Job:${id}`).toString('base64')
  return `subscription { jobEvents(jobId: "${globalId}") { seq message } }`
}

/** Resolves when a number has stopped to grow: it was the same before and after fifty other requests. */
async function settled(server: TestServer, count: () => number): Promise<number> {
  for (;;) {
    const before = count()
    for (let n = 0; n < 50; n++) await server.client.send('{ embeddingSpaces { dimensions } }')
    if (before > 0 && count() === before) return before
  }
}

describe('a subscription leaves nothing behind', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await startTestServer()
  })
  afterAll(() => server[Symbol.asyncDispose]())

  const gone = async () => {
    await eventually(() => server.metric(openProgress)).toBe(0)
    await eventually(() => server.listeners()).toBe(0)
  }

  test.each([
    ['is completed', (socket: WebSocket) => socket.send(JSON.stringify({ id: '1', type: 'complete' }))],
    ['closes its socket', (socket: WebSocket) => socket.close()],
    ['is cut off', (socket: WebSocket) => socket.terminate()],
  ])('when its client over WebSocket %s', async (_name, leave) => {
    const { socket, ask, messages } = await openSocket(server)
    for (const id of ['1', '2', '3']) ask(id, progress)
    await eventually(() => messages.filter(({ type }) => type === 'next').length).toBe(3)
    expect(await server.metric(openProgress)).toBe(3)
    leave(socket)
    if (socket.readyState === WebSocket.OPEN) {
      await eventually(() => server.metric(openProgress)).toBe(2)
      socket.close()
    }
    await gone()
  })

  test('when its client of server-sent events leaves, at whatever moment', async () => {
    const reading = sendRequest(server, progress, 'text/event-stream')
    await once(reading, 'data')
    await eventually(() => server.metric(openProgress)).toBe(1)
    reading.destroy()
    await gone()
    // From before the request is read to after the first event: what is begun in between is ended, too.
    for (let requests = 0; requests < 20; requests++) {
      const socket = sendRequest(server, progress, 'text/event-stream')
      for (let turn = 0; turn < requests; turn++) await server.client.send('{ __typename }')
      socket.destroy()
    }
    await ingest(server.client, ['news'])
    await gone()
  })
})

test('a subscription that begins only after its client has left is ended at once', async () => {
  const moments = new EventEmitter()
  const left = once(moments, 'left')
  const asked = once(moments, 'asked')
  let isEnded = false
  const events: AsyncIterableIterator<unknown> = {
    [Symbol.asyncIterator]: () => events,
    next: () => new Promise(() => {}),
    return: async () => {
      isEnded = true
      return { done: true, value: undefined }
    },
  }
  const yoga = createYoga({
    schema: createSchema({
      typeDefs: 'type Query { n: Int } type Subscription { late: Int }',
      resolvers: {
        Subscription: {
          late: {
            async subscribe() {
              moments.emit('asked')
              await left
              return events
            },
          },
        },
      },
    }),
    context: { requestId: '1', log: createLogger('silent') },
    plugins: [observeOperations(createMetrics())],
  })
  const server = createServer((request, response) => {
    response.once('close', () => moments.emit('left'))
    void yoga(request, response)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const socket = sendRequest({ url }, 'subscription { late }', 'text/event-stream')
  await asked
  socket.destroy()
  await eventually(() => isEnded).toBe(true)
  await new Promise((resolve) => server.close(resolve))
})

describe('a client that does not read', () => {
  test.each(['server-sent events', 'WebSocket'])(
    'holds up itself only, in bounded memory, and is cut off: %s',
    async (protocol) => {
      await using server = await startTestServer({ patience: { stalledMs: 1_000, pingMs: 1_000 } })
      const query = await longJob(server)
      const pages = () => server.statements('from job_event')
      let closed: Promise<unknown>
      if (protocol === 'WebSocket') {
        const { socket, ask } = await openSocket(server)
        ask('1', query)
        await once(socket, 'message')
        socket.pause()
        closed = once(socket, 'close')
      } else {
        const socket = sendRequest(server, query, 'text/event-stream')
        // It never reads: the operating system fills up, and then the server waits.
        socket.pause()
        closed = once(socket, 'close')
      }
      const read = await settled(server, pages)
      // Pages of 100 events: what the operating system's buffers take, a few MB, and not all of the 80.
      expect(read * 100 * eventBytes).toBeLessThan((jobEvents * eventBytes) / 3)
      await eventually(() => server.metric(openEvents)).toBe(0)
      await eventually(server.listeners).toBe(0)
      expect(pages()).toBeLessThanOrEqual(read + 1)
      void closed
    },
  )

  test('but asks and asks is not listened to, until it reads', async () => {
    await using server = await startTestServer()
    const content = 'x'.repeat(5_000)
    await ingest(
      server.client,
      Array.from({ length: 20 }, (_, n) => `${n} ${content}`),
    )
    const { socket, ask, messages } = await openSocket(server)
    let asked = 0
    /** Ten at a time, so that they are not refused as too many at once. */
    const askMore = async (rounds: number) => {
      for (let round = 0; round < rounds; round++) {
        for (let n = 0; n < 10; n++)
          ask(`${asked++}`, 'query Flood { messages(first: 20) { nodes { content } } }')
        await server.client.send('{ __typename }')
      }
    }
    const heard = () => server.log.filter((line) => /"operation":"Flood"|was refused/.test(line)).length
    socket.pause()
    // 30 MB of answers: more than the operating system takes.
    await askMore(30)
    const before = await settled(server, heard)
    expect(before).toBeLessThan(asked)
    await askMore(5)
    expect(await settled(server, heard)).toBe(before)
    socket.resume()
    const answers = () => messages.filter(({ type }) => type === 'next' || type === 'error').length
    await eventually(answers).toBe(asked)
    expect(server.log.some((line) => line.includes('"level":50'))).toBe(false)
    socket.close()
  })
})

describe('a socket', () => {
  test('that does not answer a ping is cut off', async () => {
    await using server = await startTestServer({ patience: { pingMs: 500 } })
    const dead = await openSocket(server, { autoPong: false })
    dead.ask('1', progress)
    expect(await dead.closed()).toBe(1006)
    await eventually(async () => (await server.metric(openProgress)) ?? 0).toBe(0)
    const alive = await openSocket(server)
    for (let pings = 0; pings < 3; pings++) await once(alive.socket, 'ping')
    expect(alive.socket.readyState).toBe(WebSocket.OPEN)
    alive.socket.close()
  })

  test('that does not say what it is is closed', async () => {
    await using server = await startTestServer({ patience: { initMs: 100 } })
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws')
    const [code] = await once(socket, 'close')
    expect(code).toBe(4408)
  })

  test('has so many operations at once, and the others on it go on', async () => {
    await using server = await startTestServer()
    const { socket, ask, messages } = await openSocket(server)
    const of = (type: string) => messages.filter((message) => message.type === type)
    for (let n = 0; n < maxSocketOperations; n++) ask(`s${n}`, progress)
    await eventually(() => of('next').length).toBe(maxSocketOperations)
    ask('more', '{ __typename }')
    await eventually(() => of('error').length).toBe(1)
    expect(of('error')[0]).toMatchObject({
      id: 'more',
      payload: [{ extensions: { code: 'TOO_MANY_OPERATIONS' } }],
    })
    socket.send(JSON.stringify({ id: 's0', type: 'complete' }))
    await eventually(() => server.metric(openProgress)).toBe(maxSocketOperations - 1)
    ask('again', '{ __typename }')
    await eventually(() => messages.find(({ id, type }) => id === 'again' && type === 'next')).toBeTruthy()
    socket.close()
  })

  test('that sends nonsense is closed, and only debugging hears of it', async () => {
    await using server = await startTestServer()
    const { socket, closed } = await openSocket(server)
    socket.send('nonsense')
    expect(await closed()).toBe(4400)
    const large = await openSocket(server)
    large.socket.send('x'.repeat(9 * 1024 * 1024))
    expect(await large.closed()).toBe(1009)
    expect(server.log.filter((line) => /"level":[456]0/.test(line))).toEqual([])
  })
})

describe('the end of a server', () => {
  /** Searches that wait for the provider until they are let go. */
  function slowSearches(server: TestServer) {
    let letGo: () => void = () => {}
    const gate = new Promise<void>((resolve) => {
      letGo = resolve
    })
    let asked = 0
    server.provider.options.fault = async () => {
      asked++
      await gate
      return null
    }
    return {
      letGo,
      underWay: () => asked,
      query: (text: string) => `{ search(query: "${text}", mode: SEMANTIC) { nodes { __typename } } }`,
    }
  }

  test('says goodbye to those who listen, and waits for no dead ones', async () => {
    await using server = await startTestServer({ patience: { goodbyeMs: 200 } })
    const alive = await openSocket(server)
    alive.ask('1', progress)
    await once(alive.socket, 'message')
    const dead = await openSocket(server)
    dead.ask('1', progress)
    await once(dead.socket, 'message')
    dead.socket.pause()
    const stream = sendRequest(server, progress, 'text/event-stream')
    await once(stream, 'data')
    const streamEnded = once(stream.resume(), 'close')
    const before = performance.now()
    const code = alive.closed()
    await server.close()
    expect(performance.now() - before).toBeLessThan(5_000)
    expect(await code).toBe(1001)
    await streamEnded
    await eventually(server.listeners).toBe(0)
    dead.socket.terminate()
  })

  test('lets what is under way finish, over HTTP and over WebSocket', async () => {
    await using server = await startTestServer()
    const { letGo, underWay, query } = slowSearches(server)
    const overHttp = server.client.send(query('http'))
    const overSocket = await openSocket(server)
    overSocket.ask('1', query('socket'))
    await eventually(underWay).toBe(2)
    const closing = server.close()
    letGo()
    expect((await overHttp).data).toEqual({ search: { nodes: [] } })
    expect(await overSocket.closed()).toBe(1001)
    expect(overSocket.messages.find(({ type }) => type === 'next')).toMatchObject({
      payload: { data: { search: { nodes: [] } } },
    })
    await closing
    await expect(fetch(`${server.url}/health`)).rejects.toThrow()
  })

  test('cuts what takes too long', async () => {
    await using server = await startTestServer({ patience: { finishMs: 200, goodbyeMs: 200 } })
    const { letGo, underWay, query } = slowSearches(server)
    const overHttp = server.client.send(query('http'))
    overHttp.catch(() => {})
    const overSocket = await openSocket(server)
    overSocket.ask('1', query('socket'))
    await eventually(underWay).toBe(2)
    const before = performance.now()
    await server.close()
    expect(performance.now() - before).toBeLessThan(5_000)
    await expect(overHttp).rejects.toThrow()
    letGo()
  })
})
