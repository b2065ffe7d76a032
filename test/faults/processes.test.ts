import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { describe, expect, test, vi } from 'vitest'
import { ideas } from '../support/chats.ts'
import { ExtractDocument } from '../support/extraction.ts'
import { type Fleet, type Member, needsPostgres, startFleet } from '../support/fleet.ts'
import { graphql } from '../support/generated/index.ts'
import { ingest, message, testSource } from '../support/messages.ts'
import { createGate, type Fault, type ProviderRequest } from '../support/provider-server.ts'
import { addressOf, startTcpProxy } from '../support/tcp-proxy.ts'

const shiftedClock = new URL('../support/shifted-clock.js', import.meta.url)
const hourMs = 60 * 60 * 1000

const FindWordDocument = graphql(`
  query FindWordWhileDown($query: String!) {
    search(query: $query, mode: KEYWORD, first: 5, filter: { includeNoise: true }) { edges { node { ... on Message { content } } } }
  }
`)

/** The key that a process was started with: it tells the provider who asks. */
const askedBy = ({ headers }: ProviderRequest) => headers.authorization?.replace('Bearer ', '') ?? ''
const named = (name: string) => ({ OPENAI_API_KEY: name })

async function extractAll(member: Member): Promise<void> {
  const client = await member.client()
  const { extractKnowledge } = await client.run(ExtractDocument, {
    input: { period: { to: '2030-01-01T00:00:00Z' } },
  })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error('the extraction was refused')
}

/** Who is entered under this process id, and what it has in hand. */
async function inHand({ sql }: Fleet, { pid }: Member): Promise<{ leases: number; jobs: number }> {
  const [row] = await sql<{ leases: number; jobs: number }>(
    `select (select count(*)::int from embedding where leased_by = p.id) as leases,
       (select count(*)::int from graphile_worker.jobs where locked_by = any (p.workers)) as jobs
     from process p where pid = $1`,
    [pid],
  )
  return row ?? { leases: 0, jobs: 0 }
}

/** Not expect.poll, which cannot be used in what runs side by side. */
const eventually = (check: () => Promise<void>) => vi.waitFor(check, { timeout: 70_000, interval: 300 })

const heldTexts = 200
const readIdeas = 60

/**
 * A worker that has texts leased and an extraction under way, both with a provider that does not answer it.
 * @param fate what its requests get in the end
 */
async function startHolding(fleet: Fleet, fate: () => Promise<Fault | null>): Promise<Member> {
  const { provider } = fleet
  const server = fleet.start('serve', named('server'))
  const client = await server.client()
  await ingest(client, ideas(readIdeas, 'held'))
  await client.waitUntilEmbedded()
  let isReading = false
  provider.options.fault = (request) => {
    // What the server takes up hangs as well, until it hands it back to the worker.
    if (askedBy(request) === 'server') return { end: 'hang' }
    if (request.messages.length > 0) isReading = true
    return fate()
  }
  await extractAll(server)
  await ingest(
    client,
    Array.from({ length: heldTexts }, (_, n) => `held text ${n}`),
  )
  expect((await server.stop()).code).toBe(0)
  const worker = fleet.start('worker', named('worker'))
  await worker.ready
  await eventually(async () => {
    expect({ ...(await inHand(fleet, worker)), isReading }).toEqual({
      leases: heldTexts,
      jobs: 1,
      isReading: true,
    })
  })
  return worker
}

async function expectReadOnce({ sql }: Fleet): Promise<void> {
  const [counts] = await sql(
    `select (select count(*)::int from atom) as atoms, (select count(distinct content)::int from atom) as contents,
       (select count(*)::int from topic) as topics, (select count(*)::int from revision) as revisions,
       (select state from job where kind = 'EXTRACT') as state,
       (select succeeded from job where kind = 'EXTRACT') as succeeded`,
  )
  expect(counts).toEqual({
    atoms: readIdeas,
    contents: readIdeas,
    topics: 1,
    revisions: 0,
    state: 'SUCCEEDED',
    succeeded: readIdeas,
  })
}

// All of them wait for the most part, for half a minute and more: they do it side by side.
describe.concurrent('several processes', () => {
  // The longest first: no more than five are under way at once.
  test('that lose their provider for 30 seconds go on with everything else, and with the rest when it is back', async ({
    skip,
  }) => {
    // The waits are the same on every database, and here others wait beside it.
    needsPostgres(skip)
    await using fleet = await startFleet()
    await using proxy = await startTcpProxy(addressOf(fleet.provider.url))
    const env = { OPENAI_BASE_URL: `http://${proxy.host}:${proxy.port}/v1` }
    const server = fleet.start('serve', env)
    const worker = fleet.start('worker', env)
    const client = await server.client()
    await ingest(client, ideas(readIdeas, 'down'))
    await client.waitUntilEmbedded()
    await proxy.refuse()
    const down = performance.now()
    await ingest(
      client,
      Array.from({ length: 1000 }, (_, n) => `meanwhile ${n}`),
    )
    await extractAll(server)
    await eventually(async () =>
      expect(
        await fleet.sql(`select from embedding where last_error like '%cannot be reached%'`),
      ).not.toEqual([]),
    )
    const { search } = await client.run(FindWordDocument, { query: 'meanwhile 77' })
    expect(search.edges.map(({ node }) => (node as { content?: string }).content)).toContain('meanwhile 77')
    await delay(30_000 - (performance.now() - down))
    const [{ failed } = { failed: -1 }] = await fleet.sql<{ failed: number }>(
      `select count(*)::int as failed from embedding where status = 'FAILED'`,
    )
    expect(failed).toBe(0)
    await proxy.resume()
    // Who was tried several times has a long wait before it by now; that it is kept is tested elsewhere.
    await fleet.sql('update embedding set next_attempt_at = null')
    await fleet.expectTruth(70_000)
    await expectReadOnce(fleet)
    expect([server.isAlive(), worker.isAlive()]).toEqual([true, true])
  }, 180_000)

  test('what a killed worker had in hand, texts and a job, is taken up by another within a minute', async ({
    skip,
  }) => {
    needsPostgres(skip)
    await using fleet = await startFleet()
    const sent = new Map<string, number>()
    const worker = await startHolding(fleet, () => new Promise(() => {}))
    fleet.provider.options.fault = ({ texts }) => {
      for (const text of texts) sent.set(text, (sent.get(text) ?? 0) + 1)
      return null
    }
    const other = fleet.start('worker')
    await other.ready
    await delay(1000)
    expect(await inHand(fleet, worker)).toEqual({ leases: heldTexts, jobs: 1 })
    const killed = performance.now()
    await worker.kill()
    await fleet.expectTruth(60_000)
    const seconds = Math.round((performance.now() - killed) / 1000)
    console.info(`what a killed worker had in hand was done by another after ${seconds} s`)
    expect(seconds).toBeLessThan(60)
    expect([...sent].filter(([text, times]) => text.startsWith('held text') && times > 1)).toEqual([])
    await expectReadOnce(fleet)
  }, 180_000)

  test('a worker that was suspended writes nothing of what others have taken over, and then works on', async ({
    skip,
  }) => {
    needsPostgres(skip)
    await using fleet = await startFleet()
    using gate = createGate()
    // Vectors of nothing: they would show if they were ever stored.
    const stale: Fault = {
      edit: (all) => all.map((entry) => ({ ...(entry as object), embedding: Array(64).fill(0.125) })),
    }
    const worker = await startHolding(fleet, () => gate.opened.then(() => stale))
    worker.suspend()
    fleet.provider.options.fault = () => null
    const other = fleet.start('worker', named('other'))
    await other.ready
    await eventually(async () =>
      expect(await fleet.sql(`select from embedding where status <> 'READY'`)).toEqual([]),
    )
    await eventually(async () =>
      expect(await fleet.sql(`select from job where state <> 'SUCCEEDED'`)).toEqual([]),
    )
    gate.open()
    worker.resume()
    await worker.line(/Others took this process for dead/)
    expect((await other.stop()).code).toBe(0)
    // Only the one that came back is left to do this.
    await fleet.sql(
      `insert into message (id, source_id, external_id, author, content, sent_at)
       select gen_random_uuid(), id, 'late', 'ann', 'after the suspension', now() from source where name = $1`,
      [testSource.name],
    )
    await fleet.expectTruth(30_000)
    expect(worker.isAlive()).toBe(true)
    await expectReadOnce(fleet)
  }, 180_000)

  test('a worker that was suspended in the middle of a transaction does not hold up the others with its locks', async ({
    skip,
  }) => {
    needsPostgres(skip)
    await using fleet = await startFleet()
    if (fleet.config.kind !== 'postgres') throw new Error('no Postgres')
    const server = fleet.start('serve')
    const client = await server.client()
    await ingest(client, ideas(readIdeas, 'held'))
    await client.waitUntilEmbedded()
    const session = new pg.Client({ connectionString: fleet.config.url })
    await session.connect()
    // Whoever saves what was read waits for this, with all locks taken before it.
    await session.query('begin; lock table atom in share row exclusive mode')
    await extractAll(server)
    await eventually(async () => {
      const waiting = await fleet.sql(
        `select from pg_locks where not granted and relation = 'atom'::regclass`,
      )
      expect(waiting).toHaveLength(1)
    })
    server.suspend()
    await session.query('commit')
    await session.end()
    const other = fleet.start('worker')
    await other.ready
    await eventually(async () =>
      expect(await fleet.sql(`select from job where state <> 'SUCCEEDED'`)).toEqual([]),
    )
    server.resume()
    await server.line(/Others took this process for dead/)
    await fleet.expectTruth(30_000)
    expect(server.isAlive()).toBe(true)
    await expectReadOnce(fleet)
  }, 180_000)

  test('whose clocks are an hour ahead and an hour behind work side by side, wait no longer than they should, and none is taken for dead', async ({
    skip,
  }) => {
    needsPostgres(skip)
    await using fleet = await startFleet({ provider: { latencyMs: 20 } })
    const shifted = (name: string, ms: number) => ({
      ...named(name),
      NODE_OPTIONS: `--import=${fileURLToPath(shiftedClock)}`,
      TEST_CLOCK_SHIFT_MS: String(ms),
    })
    const refusals = new Map<string, number>()
    const answers = new Map<string, number>()
    // Each is asked to wait as often as it has lanes, until a moment by the right clock; and one text fails once.
    let hasFailed = false
    fleet.provider.options.fault = (request) => {
      const name = askedBy(request)
      const refused = refusals.get(name) ?? 0
      if (refused < 4 && request.texts.length > 0) {
        refusals.set(name, refused + 1)
        const until = new Date(Date.now() + 2000).toUTCString()
        return { status: 429, headers: { 'retry-after': until }, body: '{}' }
      }
      if (!hasFailed && request.texts.includes('clock 0')) {
        hasFailed = true
        return { status: 503, body: 'later' }
      }
      answers.set(name, (answers.get(name) ?? 0) + 1)
      return null
    }
    const members = [
      fleet.start('serve', named('right')),
      fleet.start('worker', shifted('ahead', hourMs)),
      fleet.start('worker', shifted('behind', -hourMs)),
    ]
    const names = ['right', 'ahead', 'behind']
    await Promise.all(members.map(({ ready }) => ready))
    const client = await (members[0] as Member).client()
    await ingest(client, ideas(readIdeas, 'clock'))
    let count = 0
    const until = performance.now() + 45_000
    while (names.some((name) => !answers.get(name)) && performance.now() < until) {
      await ingest(
        client,
        Array.from({ length: 20 }, () => `clock ${count++}`),
      )
      await delay(100)
    }
    expect([...answers.keys()].toSorted()).toEqual(names.toSorted())
    await extractAll(members[0] as Member)
    // The text that failed is due after 10 s, whoever takes it up.
    await fleet.expectTruth(40_000)
    await expectReadOnce(fleet)
    const beats = await fleet.sql<{ seconds: number }>(
      'select abs(extract(epoch from now() - heartbeat_at))::float8 as seconds from process',
    )
    expect(beats).toHaveLength(3)
    for (const { seconds } of beats) expect(seconds).toBeLessThan(15)
    for (const member of members) expect(member.output()).not.toMatch(/took this process for dead/)
  }, 180_000)

  test('of which two and then four work at once embed each text exactly once', async ({ skip }) => {
    needsPostgres(skip)
    const sent = new Map<string, number>()
    const askers = new Set<string>()
    await using fleet = await startFleet({
      provider: {
        latencyMs: 50,
        fault(request) {
          for (const text of request.texts) sent.set(text, (sent.get(text) ?? 0) + 1)
          askers.add(askedBy(request))
          return null
        },
      },
    })
    const server = fleet.start('serve', named('server'))
    const client = await server.client()
    let workers = 1
    for (const total of [2, 4]) {
      while (workers < total) await fleet.start('worker', named(`worker-${workers++}`)).ready
      const calls = Array.from({ length: 6 }, (_, call) =>
        Array.from({ length: 500 }, (_, n) => message(`${total} at once, call ${call}, text ${n}`)),
      )
      await Promise.all(calls.map((messages) => ingest(client, messages)))
      await fleet.expectTruth(40_000)
      expect(askers.size).toBe(total)
    }
    expect(sent.size).toBe(6000)
    expect([...sent].filter(([, times]) => times > 1)).toEqual([])
  }, 180_000)
})
