import { randomInt } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ideas, importChat, writeChat } from '../support/chats.ts'
import { type Fleet, type Member, needsPostgres, startFleet } from '../support/fleet.ts'
import { message, tryIngest } from '../support/messages.ts'
import { startPrivatePostgres } from '../support/private-postgres.ts'
import { temporaryFolder } from '../support/processes.ts'
import { addressOf, startTcpProxy, through } from '../support/tcp-proxy.ts'

const batches = 12
const batchSize = 50

/** Tries until it succeeds, as whoever needs it done does; what became of a try that failed is not known. */
async function insist(server: Member, attempt: () => Promise<boolean>): Promise<void> {
  while (!(await attempt().catch(() => false))) {
    if (!server.isAlive()) throw new Error(`the server has ended:\n${server.output()}`)
    await delay(200)
  }
}

/** Delivers messages in batches, each until it is acknowledged. */
async function deliver(server: Member): Promise<void> {
  const client = await server.client()
  for (let batch = 0; batch < batches; batch++) {
    const messages = ideas(batchSize, `batch-${batch}`).map((text) => message(text))
    await insist(
      server,
      async () => (await tryIngest(client, messages)).__typename === 'IngestMessagesPayload',
    )
    await delay(100)
  }
}

async function upload(server: Member, path: string): Promise<void> {
  const client = await server.client()
  const options = { sourceName: 'imported', extract: true }
  await insist(server, async () => (await importChat(client, path, options)) !== '')
}

async function expectAllThere(fleet: Fleet, imported: number): Promise<void> {
  await fleet.expectTruth(100_000)
  const [counts] = await fleet.sql(
    `select (select count(*)::int from message join source on source.id = source_id where type = 'api') as delivered,
       (select count(*)::int from message join source on source.id = source_id where type <> 'api') as imported,
       (select count(*)::int from atom) as atoms, (select count(distinct content)::int from atom) as contents,
       (select count(*)::int from job where state <> 'SUCCEEDED') as "notSucceeded"`,
  )
  expect(counts).toEqual({
    delivered: batches * batchSize,
    imported,
    atoms: imported,
    contents: imported,
    notSucceeded: 0,
  })
}

// They wait for the most part, so they do it side by side.
describe.concurrent('with several processes', () => {
  test('Postgres restarted in the middle, cleanly, as in a crash, and by a crash of its own: nothing is lost, and nobody has to be restarted', async ({
    skip,
  }) => {
    needsPostgres(skip)
    await using postgres = await startPrivatePostgres()
    await using folder = await temporaryFolder()
    await using fleet = await startFleet({
      database: { kind: 'postgres', url: postgres.url, poolSize: 10 },
      provider: { latencyMs: 50 },
    })
    const server = fleet.start('serve')
    const worker = fleet.start('worker')
    await Promise.all([server.ready, worker.ready])
    const path = await writeChat(folder.path, 'restarts', ideas(300, 'restarts'))
    const delivered = deliver(server)
    const uploaded = upload(server, path)
    for (const restart of ['fast', 'immediate', 'crash'] as const) {
      await delay(500)
      if (restart === 'crash') await postgres.crash()
      else await postgres.restart(restart)
    }
    await Promise.all([delivered, uploaded])
    await expectAllThere(fleet, 300)
    for (const member of [server, worker]) expect(member.isAlive() ? '' : member.output()).toBe('')
  }, 180_000)

  test('connections to Postgres that are cut, refused and stalled, ten times, at random moments: nothing is lost, and nobody has to be restarted', async ({
    skip,
  }) => {
    needsPostgres(skip)
    const seed = Number(process.env.QUARRY_TEST_SEED ?? randomInt(2 ** 31 - 1))
    console.info(`cuts: QUARRY_TEST_SEED=${seed} repeats the moments of this run`)
    const plan = fc.sample(
      fc.record({
        afterMs: fc.integer({ min: 50, max: 700 }),
        how: fc.constantFrom('cut', 'cut', 'cut', 'refuse', 'stall' as const),
        forMs: fc.integer({ min: 100, max: 1500 }),
      }),
      { seed, numRuns: 10, unbiased: true },
    )
    await using folder = await temporaryFolder()
    await using fleet = await startFleet({ provider: { latencyMs: 50 } })
    if (fleet.config.kind !== 'postgres') throw new Error('no Postgres')
    await using proxy = await startTcpProxy(addressOf(fleet.config.url))
    const env = { DATABASE_URL: through(proxy, fleet.config.url) }
    const server = fleet.start('serve', env)
    const worker = fleet.start('worker', env)
    await Promise.all([server.ready, worker.ready])
    const path = await writeChat(folder.path, 'cuts', ideas(300, 'cuts'))
    const delivered = deliver(server)
    const uploaded = upload(server, path)
    for (const { afterMs, how, forMs } of plan) {
      await delay(afterMs)
      if (how === 'cut') {
        proxy.cut()
        continue
      }
      if (how === 'refuse') await proxy.refuse()
      else proxy.stall()
      await delay(forMs)
      await proxy.resume()
    }
    await Promise.all([delivered, uploaded])
    await expectAllThere(fleet, 300)
    expect(proxy.wereCut).toBeGreaterThan(10)
    for (const member of [server, worker]) expect(member.isAlive() ? '' : member.output()).toBe('')
  }, 180_000)
})
