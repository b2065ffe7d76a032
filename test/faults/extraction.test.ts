import { expect, test } from 'vitest'
import { ideas } from '../support/chats.ts'
import { ExtractDocument } from '../support/extraction.ts'
import { startFleet } from '../support/fleet.ts'
import { ingest } from '../support/messages.ts'

const messageCount = 120

test('an extraction that is killed in the middle goes on with what it has not read, and makes nothing twice', async () => {
  let asked = 0
  let tellSecond: () => void = () => {}
  const second = new Promise<void>((resolve) => {
    tellSecond = resolve
  })
  await using fleet = await startFleet({
    provider: {
      fault({ messages }) {
        if (messages.length === 0) return null
        asked++
        if (asked !== 2) return null
        tellSecond()
        return { end: 'hang' }
      },
    },
  })
  const victim = fleet.start('serve')
  const before = await victim.client()
  await ingest(before, ideas(messageCount, 'read'))
  const { extractKnowledge } = await before.run(ExtractDocument, {
    input: { period: { to: '2030-01-01T00:00:00Z' } },
  })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error('the extraction was refused')
  await second
  await victim.kill()

  const client = await fleet.start('serve').client()
  const job = await client.waitForJob(extractKnowledge.job.id)
  const all = messageCount
  expect(job).toMatchObject({ state: 'SUCCEEDED', total: all, succeeded: all, failed: 0, attempts: 2 })
  expect(job.result).toMatchObject({ atomsCreated: all, messagesAssigned: all })
  // 50 before the kill, then 70 in two batches; the one that hung is asked again.
  expect(asked).toBe(4)
  await fleet.expectTruth(60_000)
})
