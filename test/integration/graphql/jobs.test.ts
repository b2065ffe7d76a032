import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import type { BackfillEmbeddingsInput, EmbedInput } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId, missingId } from '../../support/ids.ts'
import { createAtom, createTopic } from '../../support/knowledge.ts'
import { ingest } from '../../support/messages.ts'
import { createGate } from '../../support/provider-server.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  app = await startProviderApp()
})
afterAll(() => app[Symbol.asyncDispose]())
beforeEach(() => {
  app.provider.options.fault = () => null
})

const EmbedDocument = graphql(`
  mutation Embed($input: EmbedInput!) {
    embed(input: $input) {
      __typename
      ... on EmbedPayload { job { id kind state total } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const BackfillDocument = graphql(`
  mutation Backfill($input: BackfillEmbeddingsInput!) {
    backfillEmbeddings(input: $input) {
      __typename
      ... on BackfillEmbeddingsPayload { job { id kind } }
      ... on InputError { code message path }
    }
  }
`)

const EventsDocument = graphql(`
  subscription JobEventsFrom($id: ID!, $afterSeq: String) {
    jobEvents(jobId: $id, afterSeq: $afterSeq) { seq message data job { id } }
  }
`)

const ProgressDocument = graphql(`
  subscription ProgressFrom($afterSeq: String, $kinds: [EntityKind!]) {
    embeddingProgress(afterSeq: $afterSeq, kinds: $kinds) {
      seq at ratePerSecond etaSeconds lastError coverage { kind total ready pending stale failed skipped percentReady }
    }
  }
`)

const JobListDocument = graphql(`
  query JobList($filter: JobFilter) {
    jobs(filter: $filter) { nodes { id kind state events(first: 100) { nodes { seq message } } } }
  }
`)

const embed = async (input: EmbedInput) => (await app.client.run(EmbedDocument, { input })).embed

async function startEmbed(input: EmbedInput): Promise<string> {
  const answer = await embed(input)
  if (answer?.__typename !== 'EmbedPayload') throw new Error(answer?.message)
  return answer.job.id
}

async function startBackfill(input: BackfillEmbeddingsInput): Promise<string> {
  const { backfillEmbeddings } = await app.client.run(BackfillDocument, { input })
  if (backfillEmbeddings?.__typename !== 'BackfillEmbeddingsPayload') throw new Error('no payload')
  return backfillEmbeddings.job.id
}

async function eventsOf(id: string, afterSeq: string | null = null) {
  const events = []
  for await (const { jobEvents } of app.client.subscribe(EventsDocument, { id, afterSeq }))
    events.push(jobEvents)
  return events
}

const idsOf = (rows: readonly { id: string }[]) => rows.map(({ id }) => id)

describe('embed', () => {
  test('passes over what is READY and what has nothing to embed', async () => {
    const { messages } = await ingest(app.client, ['ready', '  '])
    await app.client.waitUntilEmbedded()
    const before = app.provider.texts
    const job = await app.client.waitForJob(await startEmbed({ ids: idsOf(messages) }))
    expect(job).toMatchObject({
      kind: 'EMBED',
      state: 'SUCCEEDED',
      total: 2,
      succeeded: 0,
      failed: 0,
      skipped: 2,
    })
    expect(app.provider.texts).toBe(before)
  })

  test('with force embeds again what is READY, of every kind', async () => {
    const { messages } = await ingest(app.client, ['forced message', ' '])
    const topic = await createTopic(app.client, { name: 'Forced topic' })
    const atom = await createAtom(app.client, { type: 'IDEA', title: 'Forced', content: 'atom' })
    await app.client.waitUntilEmbedded()
    const before = app.provider.texts
    const ids = [...idsOf(messages), topic.id, atom.id, atom.id]
    const job = await app.client.waitForJob(await startEmbed({ ids, force: true }))
    expect(job).toMatchObject({ state: 'SUCCEEDED', total: 4, succeeded: 3, failed: 0, skipped: 1 })
    expect(app.provider.texts).toBe(before + 3)
  })

  test('takes up again what had FAILED, and counts what fails again', async () => {
    app.provider.options.fault = ({ texts }) =>
      texts.some((text) => text.startsWith('poison')) ? { status: 400, body: '{}' } : null
    const { messages } = await ingest(app.client, ['poison one', 'poison two', 'wholesome'])
    await app.client.waitUntilEmbedded()
    app.provider.options.fault = ({ texts }) =>
      texts.includes('poison two') ? { status: 400, body: '{}' } : null
    const job = await app.client.waitForJob(await startEmbed({ ids: idsOf(messages) }))
    expect(job).toMatchObject({ state: 'SUCCEEDED', total: 3, succeeded: 1, failed: 1, skipped: 1 })
  })

  test('ends when its rows are deleted while it waits', async () => {
    using gate = createGate()
    app.provider.options.fault = () => gate.opened
    const { messages } = await ingest(app.client, ['soon gone'])
    const id = await startEmbed({ ids: idsOf(messages) })
    await app.sql('delete from message where id = $1', [databaseId(messages[0]?.id ?? '')])
    gate.open()
    const { node } = await app.client.run(JobStateDocument, { id })
    expect(node).toMatchObject({ state: 'SUCCEEDED', total: 1, succeeded: 0, failed: 0, skipped: 1 })
  })

  test('refuses ids that do not exist, of other types, none, and too many', async () => {
    const { messages } = await ingest(app.client, ['exists'])
    expect(await embed({ ids: [...idsOf(messages), missingId('Atom')] })).toMatchObject({
      code: 'NOT_FOUND',
      message: '1 of the 2 ids do not exist',
    })
    expect(await embed({ ids: [missingId('Source')] })).toMatchObject({
      code: 'INVALID_INPUT',
      path: ['ids', '0'],
    })
    expect(await embed({ ids: [] })).toMatchObject({ path: ['ids'] })
    expect(await embed({ ids: Array.from({ length: 1001 }, () => missingId('Atom')) })).toMatchObject({
      path: ['ids'],
    })
  })
})

const JobStateDocument = graphql(`
  query JobState($id: ID!) { node(id: $id) { ... on Job { state total succeeded failed skipped startedAt finishedAt } } }
`)

describe('backfillEmbeddings', () => {
  test('has nothing to do where everything is embedded', async () => {
    await ingest(app.client, ['embedded'])
    await app.client.waitUntilEmbedded()
    const job = await app.client.waitForJob(await startBackfill({}))
    expect(job).toMatchObject({ kind: 'BACKFILL', state: 'SUCCEEDED', total: 0, succeeded: 0, skipped: 0 })
  })

  test('makes the records that are missing', async () => {
    const { messages } = await ingest(app.client, ['lost record'])
    await app.client.waitUntilEmbedded()
    await app.sql('delete from embedding where owner_id = $1', [databaseId(messages[0]?.id ?? '')])
    const job = await app.client.waitForJob(await startBackfill({ kinds: ['MESSAGE'] }))
    expect(job).toMatchObject({ state: 'SUCCEEDED', total: 1, succeeded: 1, failed: 0 })
  })

  test('retries what had FAILED only if asked to, and only of the kinds that are named', async () => {
    await app.client.waitForJob(await startBackfill({ retryFailed: true }))
    app.provider.options.fault = ({ texts }) =>
      texts.some((text) => text.includes('spoilt')) ? { status: 400, body: '{}' } : null
    await ingest(app.client, ['spoilt message'])
    await createTopic(app.client, { name: 'spoilt topic' })
    await app.client.waitUntilEmbedded()
    app.provider.options.fault = () => null
    const run = async (input: BackfillEmbeddingsInput) => app.client.waitForJob(await startBackfill(input))
    expect(await run({})).toMatchObject({ total: 0 })
    expect(await run({ retryFailed: true, kinds: ['TOPIC'] })).toMatchObject({ total: 1, succeeded: 1 })
    expect(await run({ retryFailed: true, kinds: ['MESSAGE', 'ATOM'] })).toMatchObject({ succeeded: 1 })
  })

  test('is refused with an empty list of kinds', async () => {
    const { backfillEmbeddings } = await app.client.run(BackfillDocument, { input: { kinds: [] } })
    expect(backfillEmbeddings).toMatchObject({ __typename: 'InputError', path: ['kinds'] })
  })
})

describe('jobEvents', () => {
  test('tells all that was, then what comes, and ends with the job', async () => {
    using gate = createGate()
    app.provider.options.fault = () => gate.opened
    const { messages } = await ingest(app.client, ['followed live', 'and another'])
    const id = await startEmbed({ ids: idsOf(messages) })
    const seen = []
    for await (const { jobEvents } of app.client.subscribe(EventsDocument, { id })) {
      seen.push(jobEvents)
      if (jobEvents.data?.state === 'RUNNING') gate.open()
    }
    expect(seen.map(({ seq }) => seq)).toEqual(seen.map((_, index) => String(index + 1)))
    expect(seen[0]).toMatchObject({ message: 'Queued', data: { state: 'QUEUED' }, job: { id } })
    expect(seen.at(-1)?.data).toMatchObject({ state: 'SUCCEEDED', total: 2, succeeded: 2 })
  })

  test('after a number replays exactly the rest', async () => {
    const { messages } = await ingest(app.client, ['replayed'])
    const id = await startEmbed({ ids: idsOf(messages) })
    const all = await eventsOf(id)
    expect(all.length).toBeGreaterThan(1)
    for (const [index, { seq }] of all.entries())
      expect(await eventsOf(id, seq)).toEqual(all.slice(index + 1))
    expect(await eventsOf(id, '999999999999999999')).toEqual([])
  })

  test('are the same for everybody who follows', async () => {
    using gate = createGate()
    app.provider.options.fault = () => gate.opened
    const { messages } = await ingest(app.client, ['followed by three'])
    const id = await startEmbed({ ids: idsOf(messages) })
    const following = [eventsOf(id), eventsOf(id), eventsOf(id)]
    gate.open()
    const [first, ...others] = await Promise.all(following)
    for (const other of others) expect(other).toEqual(first)
  })

  test('of a job that does not exist are refused', async () => {
    await expect(eventsOf(missingId('Job'))).rejects.toThrow(/There is no such job.*NOT_FOUND/)
  })

  test.each(['-1', 'x', '1.5', ''])(
    'after %o, which is no number, is a mistake of the caller',
    async (afterSeq) => {
      await expect(eventsOf(missingId('Job'), afterSeq)).rejects.toThrow('BAD_USER_INPUT')
    },
  )
})

describe('embeddingProgress', () => {
  test('tells the state at once, and goes on until all is embedded', async () => {
    await app.client.waitUntilEmbedded()
    using gate = createGate()
    app.provider.options.fault = () => gate.opened
    await ingest(app.client, ['progress one', 'progress two'])
    let seen = 0
    let last = '0'
    for await (const { embeddingProgress } of app.client.subscribe(ProgressDocument, {
      kinds: ['MESSAGE'],
    })) {
      seen++
      expect(BigInt(embeddingProgress.seq)).toBeGreaterThanOrEqual(BigInt(last))
      last = embeddingProgress.seq
      expect(embeddingProgress.coverage.map(({ kind }) => kind)).toEqual(['MESSAGE'])
      const [messages] = embeddingProgress.coverage
      if (!messages) throw new Error('no messages are counted')
      const { total, ready, pending, stale, failed, skipped } = messages
      expect(ready + pending + stale + failed + skipped).toBe(total)
      if (seen === 1) {
        expect(pending).toBe(2)
        gate.open()
      }
      if (pending === 0) {
        expect(embeddingProgress).toMatchObject({ etaSeconds: 0, coverage: [{ percentReady: 100 }] })
        break
      }
    }
    expect(seen).toBeGreaterThan(1)
  })

  test('after a number tells what has changed since', async () => {
    await ingest(app.client, ['before'])
    await app.client.waitUntilEmbedded()
    const snapshots = app.client.subscribe(ProgressDocument, { afterSeq: null })
    const { value: first } = await snapshots.next()
    const seq: string = first?.embeddingProgress.seq
    const total: number = first?.embeddingProgress.coverage[0]?.total
    await snapshots.return(undefined)

    const later = app.client.subscribe(ProgressDocument, { afterSeq: seq })
    const news = later.next()
    await ingest(app.client, ['after'])
    // The number is that of the whole database: what is no news of embeddings may be told first, never what was before.
    for (let told = (await news).value; ; told = (await later.next()).value) {
      expect(BigInt(told?.embeddingProgress.seq)).toBeGreaterThanOrEqual(BigInt(seq))
      if (told?.embeddingProgress.coverage[0]?.total === total + 1) break
    }
    await later.return(undefined)
  })

  test('goes on while another session keeps a transaction open', async ({ skip }) => {
    if (app.config.database.kind === 'embedded') skip('embedded: one transaction at a time')
    const holding = await app.session()
    try {
      await holding.query('begin')
      await holding.query('select pg_current_xact_id()')
      await ingest(app.client, ['beside a long transaction'])
      await app.client.waitUntilEmbedded()
    } finally {
      await holding.end()
    }
  })

  test('has a reason while something could not be embedded', async () => {
    app.provider.options.fault = () => ({ status: 400, body: '{"error":{"message":"no such luck"}}' })
    const { messages } = await ingest(app.client, ['unlucky'])
    await app.client.waitUntilEmbedded()
    const snapshots = app.client.subscribe(ProgressDocument, { afterSeq: null })
    const { value } = await snapshots.next()
    expect(value?.embeddingProgress.lastError).toContain('no such luck')
    await snapshots.return(undefined)
    expect(messages).toHaveLength(1)
  })
})

test('jobs are listed newest first, by kind and state, with their events', async () => {
  const backfill = await startBackfill({})
  await app.client.waitForJob(backfill)
  const { messages } = await ingest(app.client, ['for a list'])
  const embedding = await startEmbed({ ids: idsOf(messages) })
  await app.client.waitForJob(embedding)
  const list = async (filter: Parameters<typeof app.client.run<unknown, object>>[1]) =>
    (await app.client.run(JobListDocument, { filter })).jobs.nodes
  expect((await list({})).slice(0, 2).map(({ id }) => id)).toEqual([embedding, backfill])
  const kinds = new Set((await list({ kinds: ['BACKFILL'] })).map(({ kind }) => kind))
  expect(kinds).toEqual(new Set(['BACKFILL']))
  expect(await list({ states: ['QUEUED', 'CANCELLED'] })).toEqual([])
  const [newest] = await list({ kinds: ['EMBED'], states: ['SUCCEEDED'] })
  expect(newest?.events.nodes.map(({ seq }) => seq)).toEqual(
    newest?.events.nodes.map((_, at) => String(at + 1)),
  )
})
