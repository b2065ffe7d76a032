import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Sql, Transaction } from '../../../src/db/database.ts'
import { addJobProgress, endJob, insertJob, type JobKind, startJob } from '../../../src/jobs/records.ts'
import { createAtom } from '../../../src/knowledge/atoms.ts'
import { providerEnv, startProviderApp, startTestApp } from '../../support/apps.ts'
import { createTestDatabase } from '../../support/databases.ts'
import { begin, overEvents, overSocket, type Subscribe } from '../../support/events.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId, globalId, missingId } from '../../support/ids.ts'
import { createAtom as createAtomByHand, createTopic } from '../../support/knowledge.ts'
import { ingest, message } from '../../support/messages.ts'
import { startTestServer, type TestServer } from '../../support/server.ts'

/** Nobody works here: only what a test does happens. */
let server: TestServer
beforeAll(async () => {
  server = await startTestServer()
})
afterAll(() => server[Symbol.asyncDispose]())

const IngestedDocument = graphql(`
  subscription Ingested($sourceId: ID) { messageIngested(sourceId: $sourceId) { id content source { id name } } }
`)

const IngestedWithAllDocument = graphql(`
  subscription IngestedWithAll {
    messageIngested {
      content
      source { name }
      topic { name }
      replyTo { content }
      embeddingStatus
      embeddingError
    }
  }
`)

const ExtractedDocument = graphql(`
  subscription Extracted($topicId: ID) {
    atomExtracted(topicId: $topicId) { title embeddingStatus topics { nodes { name } } }
  }
`)

const UpdatedDocument = graphql(`
  subscription Updated($kinds: [JobKind!]) { jobUpdated(kinds: $kinds) { id kind state succeeded error } }
`)

const UpdatedWithEventsDocument = graphql(`
  subscription UpdatedWithEvents { jobUpdated { id state events(first: 100) { nodes { seq } } } }
`)

const EventsDocument = graphql(`
  subscription EventsWithJob($id: ID!, $afterSeq: String) {
    jobEvents(jobId: $id, afterSeq: $afterSeq) { seq message job { state succeeded } }
  }
`)

const SourceOfDocument = graphql(`
  query SourceOf($id: ID!) { node(id: $id) { ... on Message { source { id } } } }
`)

const protocols: [string, Subscribe][] = [
  ['graphql-ws', overSocket],
  ['server-sent events', overEvents],
]

const url = () => server.client.url

/** The next that are no pokes. */
async function take<Result>(
  events: AsyncGenerator<Result>,
  count: number,
  isWanted: (result: Result) => boolean,
): Promise<Result[]> {
  const taken: Result[] = []
  while (taken.length < count) {
    const { value, done } = await events.next()
    if (done) throw new Error(`the subscription ended after ${taken.length} of ${count}`)
    if (isWanted(value)) taken.push(value)
  }
  return taken
}

const poke = () => ingest(server.client, ['poke'])
const isNoPoke = ({ data }: { data?: { messageIngested: { content: string } } | null }) =>
  data?.messageIngested.content !== 'poke'

const isMessage =
  (content: string) =>
  ({ data }: { data?: { messageIngested: { content: string } } | null }) =>
    data?.messageIngested.content === content

/** Messages `<name> 1` and so on, all by one statement. @param padding characters that each has besides */
async function insertMany(sql: Sql, name: string, count: number, padding = 0): Promise<void> {
  const [source] = await sql.query<{ id: string }>('select id from source order by id limit 1')
  await sql.query(
    `insert into message (id, source_id, external_id, author, content, sent_at)
     select gen_random_uuid(), $1, $2 || n, 'ann', $2 || ' ' || n || repeat('.', $4), now() + n * interval '1 ms'
     from generate_series(1, $3::int) as n`,
    [source?.id, name, count, padding],
  )
}

async function sourceOf(messageId: string): Promise<string> {
  const { node } = await server.client.run(SourceOfDocument, { id: messageId })
  if (!node || !('source' in node)) throw new Error('no message')
  return node.source.id
}

async function extract(title: string, topicIds: readonly string[] = []) {
  return server.database.transaction(async (transaction) => {
    const jobId = await insertJob(transaction, 'EXTRACT', {})
    const fields = { type: 'IDEA', title, content: 'text', confidence: 0.9, reviewState: 'PENDING' } as const
    const origin = { extractedBy: 'LOCAL', model: 'rules', jobId } as const
    return createAtom(transaction, { ...fields, topicIds: topicIds.map(databaseId) }, origin)
  })
}

/** A job of which this test is the worker. */
async function startWork(kind: JobKind, on = server.database) {
  const job = await on.transaction(async (transaction) =>
    startJob(transaction, await insertJob(transaction, kind, {})),
  )
  if (!job) throw new Error('no job')
  return {
    id: globalId('Job', job.id),
    succeed: (count: number) =>
      on.transaction((transaction) =>
        addJobProgress(transaction, job, { succeeded: count, failed: 0, skipped: 0 }, {}, {}),
      ),
    say: (words: string, sql: Sql = on) => sql.query('select append_job_event($1, $2)', [job.id, words]),
    end: (within?: Transaction) => {
      const end = (transaction: Transaction) => endJob(transaction, job, 'SUCCEEDED', null)
      return within ? end(within) : on.transaction(end)
    },
  }
}

describe.each(protocols)('over %s', (_name, subscribe) => {
  test('messageIngested tells what is new, in its order, and not what is only changed', async () => {
    const events = subscribe(url(), IngestedDocument, {})
    await begin(events, poke)
    const [one, two] = [message('told first'), message('told second')]
    await ingest(server.client, [one, two])
    const told = await take(events, 2, isNoPoke)
    await ingest(server.client, [{ ...one, content: 'changed' }])
    await ingest(server.client, ['told third'])
    told.push(...(await take(events, 1, isNoPoke)))
    expect(told.map(({ data }) => data?.messageIngested.content)).toEqual([
      'told first',
      'told second',
      'told third',
    ])
    expect(told[0]?.data?.messageIngested.source.name).toBe('Test')
    await events.return(undefined)
  })

  test('messageIngested tells those of a source', async () => {
    const other = { name: 'Other', type: 'api' }
    const { messages } = await ingest(server.client, ['of the other source'], other)
    const sourceId = await sourceOf(messages[0]?.id ?? '')
    const events = subscribe(url(), IngestedDocument, { sourceId })
    await begin(events, () => ingest(server.client, ['poke'], other))
    await ingest(server.client, ['of this one'])
    await ingest(server.client, ['of the other one'], other)
    const [told] = await take(events, 1, isNoPoke)
    expect(told?.data?.messageIngested).toMatchObject({
      content: 'of the other one',
      source: { id: sourceId },
    })
    await events.return(undefined)
  })

  test('atomExtracted tells what is extracted, and not what people write', async () => {
    const events = subscribe(url(), ExtractedDocument, {})
    await begin(events, () => extract('poke'))
    const topic = await createTopic(server.client, { name: `Extracted by ${_name}` })
    await createAtomByHand(server.client, { type: 'IDEA', title: 'By hand', content: 'text' })
    await extract('Found', [topic.id])
    const [told] = await take(events, 1, ({ data }) => data?.atomExtracted.title !== 'poke')
    expect(told?.data?.atomExtracted).toEqual({
      title: 'Found',
      embeddingStatus: 'PENDING',
      topics: { nodes: [{ name: `Extracted by ${_name}` }] },
    })
    await events.return(undefined)
  })

  test('atomExtracted tells those of a topic', async () => {
    const topic = await createTopic(server.client, { name: `Chosen by ${_name}` })
    const events = subscribe(url(), ExtractedDocument, { topicId: topic.id })
    await begin(events, () => extract('poke', [topic.id]))
    await extract('Elsewhere')
    await extract('Here', [topic.id])
    const [told] = await take(events, 1, ({ data }) => data?.atomExtracted.title !== 'poke')
    expect(told?.data?.atomExtracted.title).toBe('Here')
    await events.return(undefined)
  })

  test('jobUpdated tells the newest state of jobs of a kind, to the end', async () => {
    const events = subscribe(url(), UpdatedDocument, { kinds: ['IMPORT'] })
    await begin(events, () => startWork('IMPORT'))
    const other = await startWork('EXTRACT')
    const job = await startWork('IMPORT')
    await job.succeed(3)
    await other.end()
    await job.end()
    const states = []
    for (;;) {
      const [told] = await take(events, 1, () => true)
      expect(told?.data?.jobUpdated.kind).toBe('IMPORT')
      if (told?.data?.jobUpdated.id === job.id) states.push(told.data.jobUpdated)
      if (states.at(-1)?.state === 'SUCCEEDED') break
    }
    expect(states.at(-1)).toMatchObject({ state: 'SUCCEEDED', succeeded: 3, error: null })
    await events.return(undefined)
  })

  test('jobEvents tell all events with the job as it is now, and complete', async () => {
    const job = await startWork('IMPORT')
    const events = subscribe(url(), EventsDocument, { id: job.id })
    const stored = await take(events, 2, () => true)
    expect(stored.map(({ data }) => data?.jobEvents.message)).toEqual(['Queued', 'Started'])
    await job.say('half way')
    expect((await take(events, 1, () => true))[0]?.data?.jobEvents).toMatchObject({
      seq: '3',
      job: { state: 'RUNNING' },
    })
    await job.end()
    const rest = []
    for await (const { data } of events) rest.push(data?.jobEvents)
    expect(rest.at(-1)).toMatchObject({ job: { state: 'SUCCEEDED' } })
    const again = []
    for await (const { data } of subscribe(url(), EventsDocument, { id: job.id, afterSeq: '3' }))
      again.push(data?.jobEvents)
    expect(again).toEqual(rest)
  })

  test('what does not exist, or is something else, is refused', async () => {
    const answerTo = async (events: AsyncGenerator<object>) => JSON.stringify((await events.next()).value)
    const missingSource = subscribe(url(), IngestedDocument, { sourceId: missingId('Source') })
    expect(await answerTo(missingSource)).toMatch(/There is no source with this sourceId.*NOT_FOUND/)
    const missingTopic = subscribe(url(), ExtractedDocument, { topicId: missingId('Topic') })
    expect(await answerTo(missingTopic)).toMatch(/There is no topic with this topicId.*NOT_FOUND/)
    const missingJob = subscribe(url(), EventsDocument, { id: missingId('Job') })
    expect(await answerTo(missingJob)).toMatch(/There is no such job.*NOT_FOUND/)
    const noKinds = subscribe(url(), UpdatedDocument, { kinds: [] })
    expect(await answerTo(noKinds)).toMatch(/kinds is empty.*INVALID_INPUT/)
    for (const noSource of [missingId('Topic'), 'x']) {
      const events = subscribe(url(), IngestedDocument, { sourceId: noSource })
      expect(await answerTo(events)).toMatch(/is not the id of a Source.*BAD_USER_INPUT/)
    }
  })

  test('who falls too far behind is told so, and the subscription ends', async () => {
    const events = subscribe(url(), IngestedDocument, {})
    await begin(events, poke)
    // One statement: all of it comes at once.
    await insertMany(server.database, _name, 10_100)
    let last: Awaited<ReturnType<typeof events.next>>['value']
    for await (const event of events) last = event
    expect(last.errors).toMatchObject([
      {
        message: expect.stringMatching(/More than 10000 came.*the query `messages`, and subscribe again/),
        extensions: { code: 'MISSED' },
      },
    ])
  })
})

describe('however many subscribe', () => {
  const many = 20

  test('a message is read once, with what they select of it', async () => {
    const following = Array.from({ length: many }, () => overSocket(url(), IngestedWithAllDocument, {}))
    await Promise.all(following.map((events) => begin(events, poke)))
    await ingest(server.client, ['the last poke'])
    const isLast = isMessage('the last poke')
    await Promise.all(following.map((events) => take(events, 1, isLast)))
    const question = message('a question')
    const told = message('an answer', { replyToExternalId: question.externalId })
    const before = { rows: server.statements('"public"."message"'), all: server.statements('') }
    await ingest(server.client, [question, told, ...Array.from({ length: 15 }, (_, n) => `more ${n}`)])
    const all = await Promise.all(following.map((events) => take(events, 17, isNoPoke)))
    for (const one of all) expect(one).toEqual(all[0])
    expect(all[0]?.[1]?.data?.messageIngested).toEqual({
      content: 'an answer',
      source: { name: 'Test' },
      topic: null,
      replyTo: { content: 'a question' },
      embeddingStatus: 'PENDING',
      embeddingError: null,
    })
    expect(server.statements('"public"."message"') - before.rows).toBe(1)
    // Of them, a dozen are what the ingest needs.
    expect(server.statements('') - before.all).toBeLessThan(30)
    for (const events of following) await events.return(undefined)
  })

  test('who does not read holds up nobody', async () => {
    const leaving = new AbortController()
    const body = JSON.stringify({ query: IngestedDocument.toString() })
    const headers = { 'content-type': 'application/json', accept: 'text/event-stream' }
    await fetch(url(), { method: 'POST', headers, body, signal: leaving.signal })
    const events = overSocket(url(), IngestedDocument, {})
    await begin(events, poke)
    const before = server.statements('"public"."message"')
    // Much more than lies in the buffers between the two.
    await insertMany(server.database, 'big', 400, 50_000)
    const told = await take(events, 400, isNoPoke)
    expect(told.map(({ data }) => data?.messageIngested.content.split('.')[0])).toEqual(
      Array.from({ length: 400 }, (_, index) => `big ${index + 1}`),
    )
    // What the other one has not taken is not read for it either.
    expect(server.statements('"public"."message"') - before).toBeLessThanOrEqual(25)
    leaving.abort()
    await events.return(undefined)
  })

  test('a job is read once, with its events', async () => {
    const following = Array.from({ length: many }, () => overSocket(url(), UpdatedWithEventsDocument, {}))
    await Promise.all(following.map((events) => begin(events, () => startWork('IMPORT'))))
    const job = await startWork('IMPORT')
    const tell = (state: string) =>
      Promise.all(
        following.map((one) =>
          take(one, 1, ({ data }) => data?.jobUpdated.id === job.id && data.jobUpdated.state === state),
        ),
      )
    await tell('RUNNING')
    const before = server.statements('"public"."job"')
    const events = server.statements('"public"."job_event"')
    await job.end()
    await tell('SUCCEEDED')
    expect(server.statements('"public"."job"') - before).toBe(1)
    expect(server.statements('"public"."job_event"') - events).toBe(1)
    for (const one of following) await one.return(undefined)
  })

  test('the events of a job are read once', async () => {
    const job = await startWork('IMPORT')
    const following = Array.from({ length: many }, () => overSocket(url(), EventsDocument, { id: job.id }))
    await Promise.all(following.map((events) => take(events, 2, () => true)))
    const statements = server.statements('')
    await job.say('one more')
    const told = await Promise.all(following.map((events) => take(events, 1, () => true)))
    for (const one of told) expect(one).toEqual(told[0])
    // One said it, one found it, one read the job for its `job`; one more may look after it, or beat.
    expect(server.statements('') - statements).toBeLessThanOrEqual(8)
    await job.end()
    for (const one of following) for await (const _ of one);
  })

  test('who is behind gets the earlier events from the database, without gap or repetition', async () => {
    const job = await startWork('IMPORT')
    const slow = overSocket(url(), EventsDocument, { id: job.id })
    await take(slow, 1, () => true)
    // More than are kept in memory.
    await server.database.query(
      `select append_job_event($1, 'step ' || n) from generate_series(1, 600) as n`,
      [databaseId(job.id)],
    )
    const late = overSocket(url(), EventsDocument, { id: job.id, afterSeq: '10' })
    const [tail] = await take(late, 1, () => true)
    expect(tail?.data?.jobEvents.seq).toBe('11')
    await job.end()
    const seqs = []
    for await (const { data } of slow) seqs.push(Number(data?.jobEvents.seq))
    expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, index) => index + 2))
    expect(seqs.length).toBeGreaterThan(600)
    let last = 11
    for await (const { data } of late) expect(Number(data?.jobEvents.seq)).toBe(++last)
    expect(last).toBe(seqs.at(-1))
  })
})

describe('a job that is taken up again', () => {
  test('goes on with its numbers, for those who followed it before', async () => {
    const job = await startWork('IMPORT')
    await job.end()
    const seen = []
    for await (const { data } of overSocket(url(), EventsDocument, { id: job.id })) seen.push(data?.jobEvents)
    const afterSeq = seen.at(-1)?.seq ?? ''
    await server.database.query(
      `update job set state = 'RUNNING', finished_at = null, attempts = attempts + 1 where id = $1`,
      [databaseId(job.id)],
    )
    const events = overSocket(url(), EventsDocument, { id: job.id, afterSeq })
    await begin(events, () => job.say('again'))
    await server.database.query(`update job set state = 'FAILED', finished_at = now() where id = $1`, [
      databaseId(job.id),
    ])
    await job.say('over')
    let last = Number(afterSeq) + 1
    for await (const { data } of events) expect(Number(data?.jobEvents.seq)).toBe(++last)
    expect(last).toBeGreaterThan(Number(afterSeq) + 1)
  })

  test('that is deleted while it is followed ends its events', async () => {
    const job = await startWork('IMPORT')
    const events = overSocket(url(), EventsDocument, { id: job.id, afterSeq: '1' })
    await take(events, 1, () => true)
    await server.database.query('delete from job where id = $1', [databaseId(job.id)])
    // Nothing tells of a deletion: it is noticed at the next look, or at any notification of the job.
    await server.database.query(`select pg_notify('quarry_job', $1 || ' 3')`, [databaseId(job.id)])
    expect((await events.next()).done).toBe(true)
  })
})

test('nothing listens any more when the last has left', async () => {
  await using own = await startTestServer()
  const { client } = own
  const work = () => startWork('IMPORT', own.database)
  const job = await work()
  const before = own.listeners()
  for (const [, subscribe] of protocols) {
    const ingested = [1, 2].map(() => subscribe(client.url, IngestedDocument, {}))
    const updated = subscribe(client.url, UpdatedDocument, {})
    const events = subscribe(client.url, EventsDocument, { id: job.id })
    for (const one of ingested) await begin(one, () => ingest(client, ['poke']))
    await begin(updated, work)
    await events.next()
    expect(own.listeners()).toBe(before + 3)
    for (const one of [...ingested, updated, events]) await one.return(undefined)
    while (own.listeners() > before) await client.send('{ __typename }')
    expect(own.listeners()).toBe(before)
  }
})

describe('on Postgres', () => {
  /** Does something in a transaction that ends when the connection for notifications was just cut. */
  async function whileDeaf(of: TestServer, work: (transaction: Transaction) => Promise<unknown>) {
    await of.database.transaction(async (transaction) => {
      await work(transaction)
      const cut = await transaction.query(
        `select pg_terminate_backend(pid, 10000) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and query ilike 'listen "quarry%'`,
      )
      expect(cut).toHaveLength(1)
    })
  }

  test('a lost connection for notifications loses and repeats nothing', async ({ skip }) => {
    await using own = await startTestServer()
    if (own.database.engine === 'embedded') skip('embedded: the connection is never lost')
    const ingested = overSocket(own.client.url, IngestedDocument, {})
    const updated = overSocket(own.client.url, UpdatedDocument, {})
    const job = await startWork('IMPORT', own.database)
    const ended = await startWork('IMPORT', own.database)
    const events = overSocket(own.client.url, EventsDocument, { id: job.id })
    await begin(ingested, () => ingest(own.client, ['poke']))
    await begin(updated, () => ended.say('poke'))
    await take(events, 2, () => true)
    await ingest(own.client, ['before'])
    const told: string[] = (await take(ingested, 1, isNoPoke)).map(
      ({ data }) => data?.messageIngested.content ?? '',
    )
    await whileDeaf(own, async (transaction) => {
      await insertMany(transaction, 'unheard', 30)
      await job.say('unheard', transaction)
      await ended.end(transaction)
    })
    await take(updated, 1, ({ data }) => data?.jobUpdated.state === 'SUCCEEDED')
    expect((await take(events, 1, () => true))[0]?.data?.jobEvents).toMatchObject({
      seq: '3',
      message: 'unheard',
    })
    told.push(...(await take(ingested, 30, isNoPoke)).map(({ data }) => data?.messageIngested.content ?? ''))
    await ingest(own.client, ['after'])
    told.push(...(await take(ingested, 1, isNoPoke)).map(({ data }) => data?.messageIngested.content ?? ''))
    expect(told.toSorted()).toEqual(
      ['before', 'after', ...Array.from({ length: 30 }, (_, n) => `unheard ${n + 1}`)].toSorted(),
    )
    for (const one of [ingested, updated, events]) await one.return(undefined)
  })

  test('where too much came meanwhile, that is said', async ({ skip }) => {
    await using own = await startTestServer()
    if (own.database.engine === 'embedded') skip('embedded: the connection is never lost')
    const ingested = overSocket(own.client.url, IngestedDocument, {})
    await begin(ingested, () => ingest(own.client, ['poke']))
    await whileDeaf(own, (transaction) => insertMany(transaction, 'unheard', 10_100))
    let last: Awaited<ReturnType<typeof ingested.next>>['value']
    for await (const event of ingested) last = event
    expect(last.errors).toMatchObject([
      { message: expect.stringContaining('lost while much came in'), extensions: { code: 'MISSED' } },
    ])
  })

  test('what one process does, those at another are told', async ({ skip }) => {
    await using shared = await createTestDatabase()
    if (shared.config.kind === 'embedded') skip('embedded: one process')
    await using worker = await startProviderApp({}, { database: shared.config })
    await using other = await startTestApp({ database: shared.config, env: providerEnv(worker.provider) })
    const ingested = overSocket(other.client.url, IngestedDocument, {})
    const updated = overSocket(other.client.url, UpdatedDocument, { kinds: ['EMBED'] })
    await begin(ingested, () => ingest(worker.client, ['poke']))
    const { messages } = await ingest(worker.client, ['from the other process'])
    const [told] = await take(ingested, 1, isNoPoke)
    expect(told?.data?.messageIngested.id).toBe(messages[0]?.id)
    await begin(updated, () => worker.client.run(EmbedAgainDocument, { ids: messages.map(({ id }) => id) }))
    await ingested.return(undefined)
    await updated.return(undefined)
  })
})

const EmbedAgainDocument = graphql(`
  mutation EmbedAgain($ids: [ID!]!) { embed(input: { ids: $ids, force: true }) { __typename } }
`)
