import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { json } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { byMarks, ExtractDocument, openAiExtractor } from '../../support/extraction.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId, missingId } from '../../support/ids.ts'
import { cancelJob, retryJob } from '../../support/jobs.ts'
import { ingest } from '../../support/messages.ts'
import { temporaryFolder } from '../../support/processes.ts'
import type { ProviderRequest, ProviderServerOptions } from '../../support/provider-server.ts'

const provider: ProviderServerOptions = { ...byMarks }
let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  app = await startProviderApp(provider, { env: openAiExtractor })
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(() => {
  app.provider.options.fault = () => null
})
afterEach(async () => {
  app.provider.options.fault = () => null
  await app.sql('delete from message')
})

const ControlEmbedDocument = graphql(`
  mutation ControlEmbed($input: EmbedInput!) {
    embed(input: $input) {
      __typename
      ... on EmbedPayload { job { id } }
      ... on UserError { message }
    }
  }
`)

const ControlBackfillDocument = graphql(`
  mutation ControlBackfill($input: BackfillEmbeddingsInput!) {
    backfillEmbeddings(input: $input) {
      __typename
      ... on BackfillEmbeddingsPayload { job { id } }
      ... on UserError { message }
    }
  }
`)

const ControlImportDocument = graphql(`
  mutation ControlImport($file: File!) {
    importChat(input: { file: $file, sourceName: "control" }) {
      __typename
      ... on ImportChatPayload { job { id } }
      ... on UserError { message }
    }
  }
`)

async function startEmbed(ids: string[], force = false): Promise<string> {
  const { embed } = await app.client.run(ControlEmbedDocument, { input: { ids, force } })
  if (embed?.__typename !== 'EmbedPayload') throw new Error(embed?.message)
  return embed.job.id
}

async function startBackfill(retryFailed: boolean): Promise<string> {
  const { backfillEmbeddings } = await app.client.run(ControlBackfillDocument, { input: { retryFailed } })
  if (backfillEmbeddings?.__typename !== 'BackfillEmbeddingsPayload') throw new Error('no payload')
  return backfillEmbeddings.job.id
}

async function importLines(texts: readonly string[]): Promise<string> {
  await using folder = await temporaryFolder()
  const path = join(folder.path, 'chat.jsonl')
  const lines = texts.map((text, n) =>
    JSON.stringify({ id: `c${n}`, author: 'ann', sentAt: '2026-05-04T09:00:00Z', text }),
  )
  await writeFile(path, lines.join('\n'))
  const { importChat } = await app.client.upload(ControlImportDocument, {}, path)
  if (importChat?.__typename !== 'ImportChatPayload') throw new Error(importChat?.message)
  return importChat.job.id
}

async function ready(texts: string[]): Promise<string[]> {
  const { messages } = await ingest(app.client, texts)
  await app.client.waitUntilEmbedded()
  return messages.map(({ id }) => id)
}

const statuses = async () =>
  (await app.sql<{ status: string }>('select status::text from embedding order by owner_id')).map(
    ({ status }) => status,
  )

/** Makes the provider hang on what is asked for, and resolves when it is asked. */
function hang(isMeant: (request: ProviderRequest) => boolean): Promise<void> {
  return new Promise((resolve) => {
    app.provider.options.fault = (request) => {
      if (!isMeant(request)) return null
      resolve()
      return { end: 'hang' }
    }
  })
}

describe('an EMBED that is cancelled', () => {
  test('takes back what it alone has made owed, and breaks off its request', async () => {
    const ids = await ready(['one to embed anew', 'another to embed anew'])
    const asked = hang(({ texts }) => texts.length > 0)
    const jobId = await startEmbed(ids, true)
    await asked
    expect(await statuses()).toEqual(['STALE', 'STALE'])
    await cancelJob(app.client, jobId)
    expect(await statuses()).toEqual(['READY', 'READY'])
    await expect.poll(() => app.provider.underWay, { timeout: 2_000 }).toBe(0)
    expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'CANCELLED', succeeded: 0, failed: 0 })
    expect(await app.sql('select from embedding_request')).toEqual([])
    expect(await app.sql('select from embedding where leased_by is not null')).toEqual([])
  })

  test('leaves what is owed anyway to be embedded, and what another job asked for to that', async () => {
    const asked = hang(({ texts }) => texts.length > 0)
    const { messages } = await ingest(app.client, ['a new text, owed to nobody but itself'])
    const ids = messages.map(({ id }) => id)
    await asked
    const jobId = await startEmbed(ids)
    const other = await startEmbed(ids, true)
    await cancelJob(app.client, jobId)
    expect(await statuses()).toEqual(['PENDING'])
    app.provider.options.fault = () => null
    // The request that hangs is ended by its time-out in a minute; a changed text needs none of it.
    await app.sql(`update message set content = 'its text, changed'`)
    await app.client.waitUntilEmbedded()
    expect(await app.client.waitForJob(other)).toMatchObject({ state: 'SUCCEEDED', succeeded: 1 })
  })

  test('and retried embeds what it has not, and counts each text once', async () => {
    const ids = await ready(['alpha of the retried', 'beta of the retried', 'gamma of the retried'])
    const asked = hang(({ texts }) => texts.length > 0)
    const jobId = await startEmbed(ids, true)
    await asked
    await cancelJob(app.client, jobId)
    app.provider.options.fault = () => null
    await retryJob(app.client, jobId)
    expect(await app.client.waitForJob(jobId)).toMatchObject({
      state: 'SUCCEEDED',
      total: 3,
      succeeded: 3,
      failed: 0,
      skipped: 0,
    })
    await expect(retryJob(app.client, jobId)).rejects.toThrow(/nothing left to retry/)
    await expect(cancelJob(app.client, jobId)).rejects.toThrow(/has ended as SUCCEEDED/)
  })
})

test('a job of which every text failed has FAILED with the reason; retried, it takes up just those', async () => {
  const poison = ({ texts }: ProviderRequest) =>
    texts.some((text) => text.includes('poison')) ? { status: 400, body: 'this is refused' } : null
  app.provider.options.fault = poison
  const { messages } = await ingest(app.client, ['a good text', 'a poison text'])
  await app.client.waitUntilEmbedded()
  const jobId = await startEmbed(messages.map(({ id }) => id))
  expect(await app.client.waitForJob(jobId)).toMatchObject({
    state: 'FAILED',
    total: 2,
    succeeded: 0,
    failed: 1,
    skipped: 1,
    error: expect.stringMatching(/^None of the 1 texts could be embedded: .*this is refused/),
  })
  app.provider.options.fault = () => null
  await retryJob(app.client, jobId)
  expect(await app.client.waitForJob(jobId)).toMatchObject({
    state: 'SUCCEEDED',
    total: 2,
    succeeded: 1,
    failed: 0,
    skipped: 1,
    error: null,
  })
})

test('a backfill that takes up what had FAILED gives it back as it was when it is cancelled', async () => {
  app.provider.options.fault = () => ({ status: 400, body: 'refused once' })
  await ingest(app.client, ['what was refused'])
  await app.client.waitUntilEmbedded()
  expect(await statuses()).toEqual(['FAILED'])
  const asked = hang(() => true)
  const jobId = await startBackfill(true)
  await asked
  await cancelJob(app.client, jobId)
  expect(await app.sql('select status::text, last_error as error from embedding')).toEqual([
    { status: 'FAILED', error: expect.stringMatching(/refused once/) },
  ])
  app.provider.options.fault = () => null
  await retryJob(app.client, jobId)
  expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', total: 1, succeeded: 1 })
})

test('an import that is cancelled keeps what it has stored, and retried goes on behind it', async () => {
  const texts = Array.from({ length: 4_000 }, (_, n) => `line ${n % 7}`)
  const jobId = await importLines(texts)
  const stored = () => app.sql<{ n: number }>('select count(*)::int as n from message')
  await expect.poll(async () => (await stored())[0]?.n, { timeout: 10_000, interval: 5 }).toBeGreaterThan(0)
  await cancelJob(app.client, jobId)
  const job = await app.client.waitForJob(jobId)
  const [{ n } = { n: -1 }] = await stored()
  expect(job).toMatchObject({ state: 'CANCELLED', succeeded: n })
  expect(n).toBeLessThan(texts.length)
  await retryJob(app.client, jobId)
  expect(await app.client.waitForJob(jobId)).toMatchObject({
    state: 'SUCCEEDED',
    total: texts.length,
    succeeded: texts.length,
    result: { created: texts.length, updated: 0, unchanged: 0 },
  })
  expect(await app.sql('select from import_chunk')).toEqual([])
})

test('an extraction of which a batch failed reads just that one again when it is retried', async () => {
  const texts = Array.from({ length: 100 }, (_, n) => `IDEA: Thought of number ${n}`)
  const { messages } = await ingest(app.client, texts)
  const ids = messages.map(({ id }) => id)
  let isFirst = true
  app.provider.options.fault = ({ messages: chat }) => {
    if (chat.length === 0 || !isFirst) return null
    isFirst = false
    return { status: 400, body: 'the content filter minds' }
  }
  const { extractKnowledge } = await app.client.run(ExtractDocument, { input: { messageIds: ids } })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload') throw new Error('refused')
  const { id } = extractKnowledge.job
  expect(await app.client.waitForJob(id)).toMatchObject({ state: 'SUCCEEDED', succeeded: 50, failed: 50 })
  await retryJob(app.client, id)
  expect(await app.client.waitForJob(id)).toMatchObject({
    state: 'SUCCEEDED',
    total: 100,
    succeeded: 100,
    failed: 0,
    result: { atomsCreated: 100 },
  })
})

test('a job that waits in the queue is cancelled there, and is not run', async () => {
  const jobId = await startBackfill(false)
  await app.client.waitForJob(jobId)
  const id = databaseId(jobId)
  await app.sql(
    `with queued as (update job set state = 'QUEUED', finished_at = null where id = $1 returning id)
     select graphile_worker.add_job('BACKFILL', json_build_object('jobId', id), job_key => id::text,
       run_at => now() + interval '1 hour') from queued`,
    [id],
  )
  await cancelJob(app.client, jobId)
  expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'CANCELLED', attempts: 1 })
  expect(await app.sql('select from graphile_worker.jobs where key = $1', [id])).toEqual([])
  // Once more changes nothing.
  await cancelJob(app.client, jobId)
})

test('what is not there can be neither cancelled nor retried', async () => {
  await expect(cancelJob(app.client, missingId('Job'))).rejects.toThrow(/no such job/)
  await expect(retryJob(app.client, missingId('Job'))).rejects.toThrow(/no such job/)
})

test('events that only tell counts come at most ten a second, and the last one is always told', async () => {
  const jobId = await importLines(Array.from({ length: 4_000 }, (_, n) => `short line ${n}`))
  await app.client.waitForJob(jobId)
  const events = await app.sql<{ at: Date; seq: string; data: { state: string; succeeded: number } }>(
    'select at, seq, data from job_event where job_id = $1 order by job_event.seq',
    [databaseId(jobId)],
  )
  expect(events.map(({ seq }) => Number(seq))).toEqual(events.map((_, index) => index + 1))
  expect(events.at(-1)?.data).toMatchObject({ state: 'SUCCEEDED', succeeded: 4_000 })
  for (const { at } of events) {
    const within = events.filter((other) => other.at >= at && other.at.getTime() < at.getTime() + 1_000)
    expect(within.length).toBeLessThanOrEqual(10)
  }
}, 60_000)

test('counts that were held back are told, although the job then pauses', async () => {
  const id = '0193f4c0-0000-7000-8000-000000000001'
  await app.sql(`insert into job (id, kind, state) values ($1, 'EXTRACT', 'RUNNING')`, [id])
  // In one go: the second comes too soon after the first.
  await app.sql(`select append_job_event('${id}', 'Started')`)
  await app.sql(
    `with counted as (update job set succeeded = 5 where id = '${id}' returning id)
     select append_job_event(id, null, '{"detail": 1}') from counted`,
  )
  const newest = () =>
    app.sql('select seq::int, data from job_event where job_id = $1 order by seq desc limit 1', [id])
  await expect
    .poll(newest, { timeout: 10_000 })
    .toMatchObject([{ seq: 2, data: { succeeded: 5, detail: 1, state: 'RUNNING' } }])
  await app.sql('delete from job where id = $1', [id])
})

test('a job that is under way and that nobody works on is taken up again', async () => {
  const jobId = await startBackfill(false)
  await app.client.waitForJob(jobId)
  await app.sql(
    `update job set state = 'RUNNING', finished_at = null, created_at = now() - interval '1 hour' where id = $1`,
    [databaseId(jobId)],
  )
  expect(await app.client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', attempts: 2 })
})

test('what was taken out of the queue while it was run does not stay there when its process loses the database', async () => {
  const [entry] = await app.sql<{ id: string }>(
    `select id from graphile_worker.add_job('IMPORT', payload => '{}', run_at => now() + interval '1 hour')`,
  )
  await app.sql(
    'update graphile_worker._private_jobs set attempts = max_attempts, run_at = now() where id = $1',
    [entry?.id],
  )
  const left = () => app.sql('select id from graphile_worker.jobs where id = $1', [entry?.id])
  await expect.poll(left, { timeout: 25_000 }).toEqual([])
})

describe('alerts', () => {
  const openAlerts = () => app.sql('select kind::text, failures from alert where resolved_at is null')

  test('are raised when three jobs of a kind fail in a row, and are over when one succeeds', async () => {
    app.provider.options.fault = () => ({ status: 400, body: 'refuses everything' })
    const { messages } = await ingest(app.client, ['whatever it is'])
    await app.client.waitUntilEmbedded()
    const ids = messages.map(({ id }) => id)
    await app.sql(`delete from job where kind = 'EMBED'`)
    for (let n = 1; n <= 3; n++) {
      expect(await openAlerts()).toEqual([])
      expect(await app.client.waitForJob(await startEmbed(ids))).toMatchObject({ state: 'FAILED' })
    }
    await expect.poll(openAlerts, { timeout: 10_000 }).toEqual([{ kind: 'EMBED', failures: 3 }])
    await app.client.waitForJob(await startEmbed(ids))
    await expect.poll(openAlerts, { timeout: 10_000 }).toEqual([{ kind: 'EMBED', failures: 4 }])
    app.provider.options.fault = () => null
    expect(await app.client.waitForJob(await startEmbed(ids))).toMatchObject({ state: 'SUCCEEDED' })
    await expect.poll(openAlerts, { timeout: 10_000 }).toEqual([])
  })
})

test('an alert is posted to the webhook until that takes it', async () => {
  const posts: { body: unknown; answered: number }[] = []
  const webhook = createServer((request, response) => {
    void json(request).then((body) => {
      const answered = posts.length === 0 ? 503 : 204
      posts.push({ body, answered })
      response.writeHead(answered).end()
    })
  }).listen(0, '127.0.0.1')
  await once(webhook, 'listening')
  const { port } = webhook.address() as AddressInfo
  const env = { QUARRY_ALERT_WEBHOOK_URL: `http://127.0.0.1:${port}/hook` }
  await using other = await startProviderApp({ fault: () => ({ status: 400, body: 'no' }) }, { env })
  const { messages } = await ingest(other.client, ['refused three times'])
  await other.client.waitUntilEmbedded()
  const input = { ids: messages.map(({ id }) => id) }
  for (let n = 1; n <= 3; n++) {
    const { embed } = await other.client.run(ControlEmbedDocument, { input })
    if (embed?.__typename !== 'EmbedPayload') throw new Error(embed?.message)
    await other.client.waitForJob(embed.job.id)
  }
  await expect.poll(() => posts.map(({ answered }) => answered), { timeout: 15_000 }).toEqual([503, 204])
  const [refused, taken] = posts
  expect(taken?.body).toEqual(refused?.body)
  expect(taken?.body).toMatchObject({
    type: 'JOBS_FAILING',
    kind: 'EMBED',
    failures: 3,
    error: expect.stringMatching(/None of the 1 texts/),
    text: expect.stringMatching(/3 EMBED jobs have failed in a row/),
  })
  const notified = () => other.sql('select notified_at is not null as yes from alert')
  await expect.poll(notified).toEqual([{ yes: true }])
  webhook.close()
})

test('jobs that ended long ago are cleared with their events, others stay', async () => {
  const old = await startBackfill(false)
  const fresh = await startBackfill(false)
  await app.client.waitForJob(old)
  await app.client.waitForJob(fresh)
  await app.sql(`update job set finished_at = now() - interval '31 days' where id = $1`, [databaseId(old)])
  await app.sql(`select graphile_worker.add_job('clear_ended_jobs')`)
  const left = () => app.sql('select from job_event where job_id = $1', [databaseId(old)])
  await expect.poll(left, { timeout: 10_000 }).toEqual([])
  expect(await app.sql('select from job where id = $1', [databaseId(fresh)])).toHaveLength(1)
})
