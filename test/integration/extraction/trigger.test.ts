import { writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { byMarks, KnowledgeDocument, openAiExtractor } from '../../support/extraction.ts'
import { graphql } from '../../support/generated/index.ts'
import { ingest, message } from '../../support/messages.ts'
import { temporaryFolder } from '../../support/processes.ts'

/*
 * What starts an extraction by itself. Patience is tested by making messages older behind the app's back.
 */

let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  const env = { ...openAiExtractor, QUARRY_AUTO_EXTRACT: 'on' }
  app = await startProviderApp(byMarks, { env })
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(async () => {
  for (const table of ['message', 'atom', 'topic', 'job']) await app.sql(`delete from ${table}`)
})

const fresh = (count: number, text = 'IDEA: Worth a thought, number') =>
  Array.from({ length: count }, (_, index) =>
    message(`${text} ${index}`, { sentAt: new Date(Date.now() - 60_000 + index).toISOString() }),
  )

const JobsDocument = graphql(`
  query ExtractJobs {
    jobs(filter: { kinds: [EXTRACT] }) { nodes { id state total succeeded } }
  }
`)
const jobs = async () => (await app.client.run(JobsDocument)).jobs.nodes

/** The only job, when it has ended. */
async function onlyJob() {
  await expect.poll(jobs, { timeout: 10_000 }).toHaveLength(1)
  const [job] = await jobs()
  return app.client.waitForJob(job?.id ?? '')
}

/** Resolves when every message has a conversation: from then on the trigger has what it looks at. */
const grouped = () =>
  expect
    .poll(() => app.sql('select from message where conversation_id is null'), { timeout: 10_000 })
    .toEqual([])

describe('an extraction starts by itself', () => {
  test('when ten messages have come in, and once for all of them', async () => {
    await ingest(app.client, fresh(10))
    expect(await onlyJob()).toMatchObject({ state: 'SUCCEEDED', total: 10, succeeded: 10 })
    expect((await app.client.run(KnowledgeDocument)).atoms.nodes).toHaveLength(10)
    await ingest(app.client, fresh(9, 'IDEA: Another thought, number'))
    await grouped()
    expect(await jobs()).toHaveLength(1)
  })

  test('when ten more have come in, for these alone', async () => {
    await ingest(app.client, fresh(10))
    await onlyJob()
    await ingest(app.client, fresh(10, 'IDEA: Another thought, number'))
    await expect.poll(jobs, { timeout: 10_000 }).toHaveLength(2)
    const [newest] = await jobs()
    expect(await app.client.waitForJob(newest?.id ?? '')).toMatchObject({ total: 10, succeeded: 10 })
  })

  test('when one has waited for more than four hours', async () => {
    await ingest(app.client, fresh(1))
    await grouped()
    expect(await jobs()).toEqual([])
    await app.sql(
      `update message set created_at = now() - interval '241 minutes', sent_at = now() - interval '242 minutes'`,
    )
    // The next message that is grouped makes the trigger look; else it looks every minute.
    await ingest(app.client, fresh(1, 'IDEA: A late thought, number'))
    expect(await onlyJob()).toMatchObject({ state: 'SUCCEEDED', total: 2 })
  })
})

describe('no extraction starts by itself', () => {
  test.each([
    ['nine messages', () => fresh(9)],
    ['any number of messages that are noise', () => fresh(30).map((entry) => ({ ...entry, content: 'ok' }))],
    [
      'any number of messages that were old when they came in',
      () =>
        fresh(30).map((entry) => ({ ...entry, sentAt: new Date(Date.now() - 25 * 3_600_000).toISOString() })),
    ],
  ])('for %s', async (_name, messages) => {
    await ingest(app.client, messages())
    await grouped()
    expect(await jobs()).toEqual([])
  })
})

test('an import extracts what it brings, however old, if it is asked to', async () => {
  const ImportDocument = graphql(`
    mutation ImportToExtract($file: File!) {
      importChat(input: { file: $file, sourceName: "Old", extract: true }) {
        ... on ImportChatPayload { job { id } }
      }
    }
  `)
  await using folder = await temporaryFolder()
  const path = `${folder.path}/chat.jsonl`
  const lines = ['DECISION: We moved to Postgres', 'ok', 'RISK: The old dump is gone'].map((text, index) =>
    JSON.stringify({ id: `old-${index}`, author: 'ann', sentAt: `2019-01-01T00:0${index}:00Z`, text }),
  )
  await writeFile(path, lines.join('\n'))
  for (const expected of [2, 0]) {
    const { importChat } = await app.client.upload(ImportDocument, {}, path)
    if (!importChat || !('job' in importChat)) throw new Error('the import was refused')
    const { result } = await app.client.waitForJob(importChat.job.id)
    expect(await app.client.waitForJob(result.extractJobId)).toMatchObject({
      state: 'SUCCEEDED',
      total: expected,
    })
  }
  expect((await app.client.run(KnowledgeDocument)).atoms.nodes).toHaveLength(2)
})
