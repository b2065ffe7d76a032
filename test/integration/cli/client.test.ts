import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ApiClient, type ClientOptions, type Timing } from '../../../src/cli/client.ts'
import { SetupError } from '../../../src/errors.ts'
import { appendJobEvent, insertJob } from '../../../src/jobs/records.ts'
import { startTestServer, type TestServer } from '../../support/server.ts'
import { addressOf, startTcpProxy, through } from '../../support/tcp-proxy.ts'

const quick: Partial<Timing> = { firstRetryMs: 5, mostRetryMs: 20 }
const follow = `subscription Follow($id: ID!, $afterSeq: String) {
  jobEvents(jobId: $id, afterSeq: $afterSeq) { seq message }
}`
const progress = 'subscription Progress { embeddingProgress { seq } }'

interface Followed {
  jobEvents: { seq: string; message: string | null }
}

let server: TestServer
beforeAll(async () => {
  server = await startTestServer()
})
afterAll(() => server[Symbol.asyncDispose]())

/** A client behind a network that can be broken. */
async function proxiedClient(options: ClientOptions = {}) {
  const proxy = await startTcpProxy(addressOf(server.url))
  const client = new ApiClient(through(proxy, server.url), { timing: quick, ...options })
  return {
    proxy,
    client,
    async [Symbol.asyncDispose]() {
      await client.close()
      await proxy[Symbol.asyncDispose]()
    },
  }
}

/** Resolves when the client has noticed that the server is away. */
function untilAway(client: ApiClient): Promise<void> {
  return new Promise((resolve) => client.onOutage(resolve))
}

/** A job at which nobody works, and a hand that makes its events. */
async function startJob() {
  const { database } = server
  const id = await database.transaction((transaction) => insertJob(transaction, 'EMBED', {}))
  await database.query("update job set state = 'RUNNING' where id = $1", [id])
  return {
    globalId: Buffer.from(`Job:${id}`).toString('base64'),
    tell: (message: string) =>
      database.transaction((transaction) => appendJobEvent(transaction, id, message)),
    end: () =>
      database.transaction(async (transaction) => {
        await transaction.query("update job set state = 'SUCCEEDED' where id = $1", [id])
        await appendJobEvent(transaction, id, 'end')
      }),
  }
}

describe('a subscription', () => {
  test('tells each event once, however often the connection is cut', async () => {
    await using network = await proxiedClient()
    const job = await startJob()
    const cuts = 15
    const telling = (async () => {
      for (let cut = 0; cut < cuts; cut++) {
        for (let n = 0; n < 4; n++) await job.tell(`${cut}`)
        network.proxy.cut()
      }
      await job.end()
    })()
    const seqs: number[] = []
    const events = network.client.subscribe<Followed>(
      follow,
      { id: job.globalId },
      { seqOf: ({ jobEvents }) => jobEvents.seq },
    )
    for await (const { jobEvents } of events) {
      seqs.push(Number(jobEvents.seq))
      // Slower than they come: some have arrived but are not taken yet when the connection is cut.
      await delay(2)
    }
    await telling
    expect(seqs).toEqual(Array.from({ length: cuts * 4 + 2 }, (_, index) => index + 1))
    expect(network.proxy.wereCut).toBeGreaterThan(0)
  })

  test('goes on when the server is back, and says meanwhile that it is away', async () => {
    await using network = await proxiedClient()
    const { client, proxy } = network
    const outages: (string | null)[] = []
    client.onOutage(() => outages.push(client.outage))
    const away = untilAway(client)
    const job = await startJob()
    const events = client.subscribe<Followed>(
      follow,
      { id: job.globalId },
      { seqOf: ({ jobEvents }) => jobEvents.seq },
    )
    expect((await events.next()).value?.jobEvents.message).toBe('Queued')
    const next = events.next()
    await proxy.refuse()
    await job.tell('meanwhile')
    await away
    await proxy.resume()
    expect((await next).value?.jobEvents.message).toBe('meanwhile')
    expect(outages[0]).toMatch(/closed|reset|REFUSED/)
    expect(outages.at(-1)).toBeNull()
    await events.return()
  })

  test('is given up when the server stays away for longer than the patience', async () => {
    await using network = await proxiedClient({ timing: { ...quick, patienceMs: 100 } })
    const events = network.client.subscribe(progress)
    await events.next()
    const next = events.next()
    await network.proxy.refuse()
    await expect(next).rejects.toThrow(/server at http:\S+ has been away for 0\.\d s: .*REFUSED/)
    await expect(next).rejects.toThrow(SetupError)
  })

  test('notices a network that has gone silent', async () => {
    await using network = await proxiedClient({ timing: { ...quick, pingMs: 50, pongMs: 50 } })
    const away = untilAway(network.client)
    const job = await startJob()
    const events = network.client.subscribe<Followed>(
      follow,
      { id: job.globalId },
      { seqOf: ({ jobEvents }) => jobEvents.seq },
    )
    await events.next()
    const next = events.next()
    network.proxy.stall()
    await away
    await job.tell('after the silence')
    await network.proxy.resume()
    expect((await next).value?.jobEvents.message).toBe('after the silence')
    await events.return()
  })

  test('goes where the server is now', async () => {
    await using first = await startTcpProxy(addressOf(server.url))
    await using second = await startTcpProxy(addressOf(server.url))
    let now = through(first, server.url)
    const client = new ApiClient(now, { timing: quick, locate: () => now })
    const events = client.subscribe(progress, {}, { isEndless: true })
    await events.next()
    const next = events.next()
    now = through(second, server.url)
    await first.refuse()
    expect((await next).done).toBe(false)
    expect(client.graphqlUrl).toBe(new URL('/graphql', now).href)
    await client.close()
    await expect(events.next()).rejects.toThrow('The client is closed')
  })

  test('that is refused says why', async () => {
    await using network = await proxiedClient()
    const events = network.client.subscribe(follow, { id: 'nonsense' })
    await expect(events.next()).rejects.toThrow(/"nonsense" is not the id of a Job/)
    await expect(network.client.subscribe('subscription { nothing }').next()).rejects.toThrow(/nothing/)
  })
})

describe('an interrupt', () => {
  const interruption = new Error('interrupted')

  test.each(['that waits for news', 'whose server is away', 'whose network is silent'])(
    'ends a subscription %s at once',
    async (state) => {
      const interrupt = new AbortController()
      await using network = await proxiedClient({ signal: interrupt.signal })
      const events = network.client.subscribe(progress)
      await events.next()
      const next = events.next()
      if (state === 'whose server is away') {
        const away = untilAway(network.client)
        await network.proxy.refuse()
        await away
      }
      if (state === 'whose network is silent') network.proxy.stall()
      interrupt.abort(interruption)
      await expect(next).rejects.toBe(interruption)
      await expect(network.client.subscribe(progress).next()).rejects.toBe(interruption)
      await expect(network.client.request('{ __typename }')).rejects.toBe(interruption)
    },
  )

  test.each([0, 1, 2, 3, 5, 8])(
    'ends a subscription that begins while the one before is closed, %d ms after its begin',
    async (ms) => {
      const interrupt = new AbortController()
      await using network = await proxiedClient({ signal: interrupt.signal })
      const before = network.client.subscribe(progress)
      await before.next()
      await before.return()
      const events = network.client.subscribe(progress, {}, { isEndless: true })
      const ended = (async () => {
        for await (const _ of events);
      })()
      await delay(ms)
      interrupt.abort(interruption)
      await expect(ended).rejects.toBe(interruption)
    },
  )
})

test('what only reads is asked again while the server is away; what changes something is not', async () => {
  await using network = await proxiedClient()
  await network.proxy.refuse()
  await expect(network.client.request('{ __typename }')).rejects.toThrow(/No Quarry server answers at/)
  const away = untilAway(network.client)
  const answer = network.client.read('{ __typename }')
  await away
  await network.proxy.resume()
  expect(await answer).toEqual({ __typename: 'Query' })
  expect(network.client.outage).toBeNull()
})
