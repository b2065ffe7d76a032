import { expect, test } from 'vitest'
import { startFleet } from '../support/fleet.ts'
import { ingest } from '../support/messages.ts'
import {
  activate,
  addEmbedder,
  readSpace,
  readSpaces,
  searchFor,
  startMigration,
  tryRetire,
} from '../support/migration.ts'

const texts = Array.from({ length: 300 }, (_, index) => `what is moved to another model ${index}`)

/** Each is the moment at which everything is killed, after the one before has been done. */
const steps = ['started', 'half-way', 'filled', 'activated', 'back', 'activated again', 'retired'] as const

test('kill -9 in each step of a migration: it goes on where it was, and nothing is lost or mixed', async () => {
  // Embedded in small requests, so that there is a half-way.
  await using fleet = await startFleet({ provider: { latencyMs: 40 } })
  const roles = fleet.config.kind === 'embedded' ? (['serve'] as const) : (['serve', 'worker'] as const)
  let members = roles.map((role) => fleet.start(role))
  const clientNow = async () => {
    const [server] = members
    if (!server) throw new Error('there is no server')
    return server.client()
  }
  let client = await clientNow()
  await ingest(client, texts)
  await client.waitUntilEmbedded()
  const providerId = await addEmbedder(client, fleet.provider)
  const firstId = (await readSpaces(client))[0]?.id ?? ''
  let spaceId = ''
  let jobId = ''

  for (const step of steps) {
    switch (step) {
      case 'started': {
        const started = await startMigration(client, { providerId, dimensions: 96 })
        spaceId = started.space.id
        jobId = started.jobId
        break
      }
      case 'half-way':
        await expect
          .poll(async () => (await readSpace(client, spaceId)).coverage[0]?.ready ?? 0, {
            timeout: 60_000,
            interval: 20,
          })
          .toBeGreaterThan(0)
        break
      case 'filled':
        expect(await client.waitForJob(jobId)).toMatchObject({
          state: 'SUCCEEDED',
          succeeded: texts.length,
          failed: 0,
        })
        break
      case 'back':
        await activate(client, firstId)
        break
      case 'activated':
      case 'activated again':
        await activate(client, spaceId)
        break
      case 'retired':
        expect(await tryRetire(client, firstId)).toMatchObject({ space: { state: 'RETIRED' } })
    }
    await Promise.all(members.map((member) => member.kill(true)))
    members = roles.map((role) => fleet.start(role))
    client = await clientNow()
    const isNew = step.startsWith('activated') || step === 'retired'
    const found = await searchFor(client, texts[42] ?? '')
    expect(found.space?.id, step).toBe(isNew ? spaceId : firstId)
    expect(found.edges[0], step).toMatchObject({ node: { content: texts[42] } })
    expect(found.edges[0]?.similarity, step).toBeCloseTo(1, 3)
  }
  // A killed process is taken for dead after half a minute: until then its place keeps the vectors.
  await expect
    .poll(async () => (await readSpace(client, firstId)).droppedAt, { timeout: 90_000, interval: 500 })
    .not.toBeNull()
  await ingest(client, ['written in the end'])
  await fleet.expectTruth(90_000)
}, 300_000)
