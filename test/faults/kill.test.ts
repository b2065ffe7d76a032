import { randomInt } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ideas, importChat, writeChat } from '../support/chats.ts'
import type { TestClient } from '../support/client.ts'
import { type Member, startFleet } from '../support/fleet.ts'
import { temporaryFolder } from '../support/processes.ts'

const rounds = 20
const messagesPerRound = 100

/** One kill: who, and when. The numbers decide where in its work it is hit; nobody knows where that is. */
const kill = fc.record({
  victim: fc.nat({ max: 2 }),
  /** Embedded: also the process of the database, in the same moment. */
  withEngine: fc.boolean(),
  /** Milliseconds after the upload. */
  afterMs: fc.integer({ min: 0, max: 1200 }),
  /** Embedded: killed while it starts, after this share of what a start takes, in percent; null: while it works. */
  whileStarting: fc.oneof(
    { weight: 3, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.integer({ min: 10, max: 100 }) },
  ),
})

test('kill -9 at random moments, 20 times, during import, embedding and extraction, loses and doubles nothing', async () => {
  const seed = Number(process.env.QUARRY_TEST_SEED ?? randomInt(2 ** 31 - 1))
  console.info(`kill -9: QUARRY_TEST_SEED=${seed} repeats the moments of this run`)
  const plan = fc.sample(kill, { seed, numRuns: rounds, unbiased: true })
  await using folder = await temporaryFolder()
  const files = await Promise.all(
    plan.map((_, index) =>
      writeChat(folder.path, `round-${index}`, ideas(messagesPerRound, `round-${index}`)),
    ),
  )
  const lastAsked = new Map<string, number>()
  await using fleet = await startFleet({
    provider: {
      latencyMs: 30,
      fault({ texts }) {
        for (const text of texts) lastAsked.set(text, Date.now())
        return null
      },
    },
  })
  const isEmbedded = fleet.config.kind === 'embedded'
  const roles = isEmbedded ? (['serve'] as const) : (['serve', 'worker', 'worker'] as const)
  const members = roles.map((role) => fleet.start(role))
  const acknowledged = new Map<number, string>()

  async function upload(index: number, client: TestClient): Promise<void> {
    const path = files[index] ?? ''
    acknowledged.set(index, await importChat(client, path, { sourceName: 'rounds', extract: true }))
  }

  let startMs = 2000
  for (const [index, { victim, withEngine, afterMs, whileStarting }] of plan.entries()) {
    const begun = performance.now()
    if (isEmbedded && whileStarting !== null && index > 0) {
      await delay((whileStarting * startMs) / 100)
    } else {
      const [server] = members
      const client = await server?.client()
      startMs = isEmbedded ? performance.now() - begun : startMs
      // What the kill does to the answer is for whoever uploads to see: it uploads again in the end.
      if (client) upload(index, client).catch(() => {})
      await delay(afterMs)
    }
    const at = victim % members.length
    await members[at]?.kill(withEngine)
    members[at] = fleet.start(roles[at] ?? 'serve')
  }

  const client = await (members[0] as Member).client()
  for (const index of plan.keys()) if (!acknowledged.has(index)) await upload(index, client)
  await fleet.expectTruth(120_000)

  const all = rounds * messagesPerRound
  const [counts] = await fleet.sql(
    `select (select count(*)::int from message) as messages,
       (select count(*)::int from atom) as atoms,
       (select count(distinct content)::int from atom) as contents,
       (select count(*)::int from citation) as citations,
       (select count(*)::int from topic) as topics,
       (select count(*)::int from revision) as revisions,
       (select count(*)::int from message_extraction where extracted_at is not null) as read`,
  )
  expect(counts).toEqual({
    messages: all,
    atoms: all,
    contents: all,
    citations: all,
    topics: rounds,
    revisions: 0,
    read: all,
  })
  const jobs = await fleet.sql<{ id: string; kind: string; state: string; created: number }>(
    `select id, kind, state, error, succeeded, (result ->> 'created')::int as created, (result ->> 'updated')::int as updated from job`,
  )
  expect(jobs.filter(({ state }) => state !== 'SUCCEEDED')).toEqual([])
  const imports = jobs.filter(({ kind }) => kind === 'IMPORT')
  expect(imports.length).toBeGreaterThanOrEqual(rounds)
  expect(imports.reduce((sum, { created }) => sum + created, 0)).toBe(all)
  expect(imports).toEqual(imports.map((job) => ({ ...job, succeeded: messagesPerRound, updated: 0 })))

  const stored = await fleet.sql<{ content: string; at: Date }>(
    `select content, embedded_at as at from message join embedding on owner_id = message.id`,
  )
  const askedAfterStored = stored.filter(
    ({ content, at }) => (lastAsked.get(content) ?? Infinity) > at.getTime(),
  )
  expect(askedAfterStored).toEqual([])
}, 300_000)
