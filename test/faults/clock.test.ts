import { fileURLToPath } from 'node:url'
import { expect, inject, test } from 'vitest'
import { ideas } from '../support/chats.ts'
import { ExtractDocument } from '../support/extraction.ts'
import { startFleet } from '../support/fleet.ts'
import { ingest } from '../support/messages.ts'

const shiftedClock = fileURLToPath(new URL('../support/shifted-clock.js', import.meta.url))
const hourMs = 60 * 60 * 1000
const ideaCount = 20

// On Postgres the clock of the database counts; see processes.test.ts. Embedded, the process's clock is the database's.
test('a clock that is an hour ahead, then right, then an hour behind: nothing waits for the wrong hour', async ({
  skip,
}) => {
  if (inject('template').engine === 'postgres') skip('Postgres: its own clock counts, see processes.test.ts')
  await using fleet = await startFleet()
  const shifted = (ms: number) => ({
    NODE_OPTIONS: `--import=${shiftedClock}`,
    TEST_CLOCK_SHIFT_MS: String(ms),
  })

  const ahead = fleet.start('serve', shifted(hourMs))
  const client = await ahead.client()
  const [clock] = await fleet.sql<{ at: Date }>('select now() as at')
  expect(Math.abs((clock?.at.getTime() ?? 0) - Date.now() - hourMs)).toBeLessThan(60_000)
  await ingest(client, ideas(ideaCount, 'ahead'))
  await client.waitUntilEmbedded()
  // From here on all fails: what is tried again later has a moment of the wrong hour for that.
  fleet.provider.options.fault = () => ({ status: 503, body: 'later' })
  const { extractKnowledge } = await client.run(ExtractDocument, {
    input: { period: { to: '2030-01-01T00:00:00Z' } },
  })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error('the extraction was refused')
  await expect
    .poll(() => fleet.sql(`select from job where state = 'QUEUED' and failures > 0`), { timeout: 20_000 })
    .toHaveLength(1)
  // Only now: an extraction would wait for it to be embedded.
  await ingest(client, ['to be tried again'])
  await expect
    .poll(() => fleet.sql(`select from embedding where attempts > 0 and leased_by is null`), {
      timeout: 20_000,
    })
    .toHaveLength(1)
  expect((await ahead.stop()).code).toBe(0)

  fleet.provider.options.fault = () => null
  const right = fleet.start('serve')
  await right.ready
  await fleet.expectTruth(60_000)
  expect((await right.stop()).code).toBe(0)

  const behind = fleet.start('serve', shifted(-hourMs))
  await ingest(await behind.client(), ideas(ideaCount, 'behind'))
  await fleet.expectTruth(30_000)
  const [atoms] = await fleet.sql('select count(*)::int as n from atom')
  expect(atoms).toEqual({ n: ideaCount })
}, 180_000)
