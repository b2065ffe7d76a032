import { v7 as uuidv7 } from 'uuid'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { endJob, insertJob, startJob } from '../../../src/jobs/records.ts'
import { graphql } from '../../support/generated/index.ts'
import { globalId, missingId } from '../../support/ids.ts'
import { ingest } from '../../support/messages.ts'
import { startTestServer, type TestServer } from '../../support/server.ts'

/** Nobody works here: only what a test does happens. */
let server: TestServer
beforeAll(async () => {
  server = await startTestServer()
})
afterAll(() => server[Symbol.asyncDispose]())

const AlertsDocument = graphql(`
  query OpenAlerts { alerts { id kind failures error raisedAt resolvedAt job { id state } } }
`)

const AlertDocument = graphql(`
  query OneAlert($id: ID!) { node(id: $id) { __typename id ... on Alert { kind resolvedAt job { id } } } }
`)

const ProvidersDocument = graphql(`
  query ProviderStates {
    embeddingSpaces { provider { id state error validatedAt waitingUntil } }
    again: embeddingSpaces { provider { state error validatedAt waitingUntil } }
  }
`)

const ProgressDocument = graphql(`
  subscription ProgressOf {
    embeddingProgress {
      seq ratePerSecond etaSeconds lastError waitingUntil coverage { kind ready pending }
    }
  }
`)

const CancelDocument = graphql(`
  mutation Cancel($input: CancelJobInput!) {
    cancelJob(input: $input) {
      __typename
      ... on CancelJobPayload { job { id state waitingUntil finishedAt } }
      ... on UserError { code message }
    }
  }
`)

const RetryDocument = graphql(`
  mutation Retry($input: RetryJobInput!) {
    retryJob(input: $input) {
      __typename
      ... on RetryJobPayload { job { id state error finishedAt } }
      ... on UserError { code message }
    }
  }
`)

const JobDocument = graphql(`query JobThatWaits($id: ID!) { node(id: $id) { ... on Job { waitingUntil } } }`)

async function insertAlert(
  kind: string,
  failures: number,
  fields: { jobId?: string; resolvedAt?: string } = {},
) {
  const id = uuidv7()
  await server.database.query(
    `insert into alert (id, kind, failures, error, job_id, resolved_at) values ($1, $2, $3, 'why', $4, $5)`,
    [id, kind, failures, fields.jobId ?? null, fields.resolvedAt ?? null],
  )
  return globalId('Alert', id)
}

/** As src/providers/status.ts says it. */
async function setProvider(set: string): Promise<void> {
  await server.database.query(
    `insert into provider_status (purpose, state) values ('EMBEDDING', 'CONNECTED') on conflict do nothing`,
  )
  await server.database.query(`update provider_status set ${set} where purpose = 'EMBEDDING'`)
  await server.database.query(`select pg_notify('quarry_provider', '')`)
}

describe('alerts', () => {
  test('are those that are open, newest first, and nodes', async () => {
    expect((await server.client.run(AlertsDocument)).alerts).toEqual([])
    const jobId = await server.database.transaction((transaction) => insertJob(transaction, 'IMPORT', {}))
    const over = await insertAlert('IMPORT', 3, { resolvedAt: '2026-01-02T00:00:00Z' })
    const first = await insertAlert('IMPORT', 4, { jobId })
    const second = await insertAlert('EXTRACT', 3)
    await server.database.query(
      `update alert set raised_at = raised_at - interval '1 minute' where kind = 'IMPORT'`,
    )
    const { alerts } = await server.client.run(AlertsDocument)
    expect(alerts).toMatchObject([
      { id: second, kind: 'EXTRACT', failures: 3, error: 'why', resolvedAt: null, job: null },
      { id: first, kind: 'IMPORT', failures: 4, job: { id: globalId('Job', jobId), state: 'QUEUED' } },
    ])
    expect((await server.client.run(AlertDocument, { id: over })).node).toEqual({
      __typename: 'Alert',
      id: over,
      kind: 'IMPORT',
      resolvedAt: '2026-01-02T00:00:00.000Z',
      job: null,
    })
  })
})

describe('the provider', () => {
  test('is PENDING until somebody asks it for something', async () => {
    await server.database.query('delete from provider_status')
    const { embeddingSpaces } = await server.client.run(ProvidersDocument)
    expect(embeddingSpaces).toMatchObject([
      { provider: { state: 'PENDING', error: null, validatedAt: null, waitingUntil: null } },
    ])
  })

  test('says what is wrong, and until when it is left alone; read once for all fields', async () => {
    await setProvider(
      `state = 'ERROR', error = 'wrong key', validated_at = '2026-01-01', waiting_until = '2126-01-01'`,
    )
    const before = server.statements('provider_status')
    const { embeddingSpaces } = await server.client.run(ProvidersDocument)
    expect(embeddingSpaces).toMatchObject([
      { provider: { state: 'ERROR', error: 'wrong key', waitingUntil: '2126-01-01T00:00:00.000Z' } },
    ])
    expect(embeddingSpaces[0]?.provider.validatedAt).toMatch(/^202[56]-/)
    expect(server.statements('provider_status') - before).toBe(1)
    await setProvider(`state = 'CONNECTED', error = null, waiting_until = '2026-01-01'`)
    const later = await server.client.run(ProvidersDocument)
    expect(later.again).toMatchObject([{ provider: { state: 'CONNECTED', waitingUntil: null } }])
    await setProvider('waiting_until = null')
  })
})

describe('embeddingProgress', () => {
  const follow = () => server.client.subscribe(ProgressDocument)
  type Progress = Awaited<ReturnType<ReturnType<typeof follow>['next']>>['value']['embeddingProgress']

  /** The first that is as wanted. */
  async function until(
    snapshots: ReturnType<typeof follow>,
    isWanted: (progress: Progress) => boolean,
  ): Promise<Progress> {
    for (;;) {
      const { value, done } = await snapshots.next()
      if (done) throw new Error('the progress ended')
      if (isWanted(value.embeddingProgress)) return value.embeddingProgress
    }
  }

  test('tells that the provider waits, without any other change, and by itself that it no longer does', async () => {
    await ingest(server.client, ['waits for the provider'])
    const snapshots = follow()
    expect((await snapshots.next()).value.embeddingProgress.waitingUntil).toBeNull()
    await setProvider(`waiting_until = clock_timestamp() + interval '3 seconds'`)
    const waiting = await until(snapshots, ({ waitingUntil }) => waitingUntil !== null)
    const over = await until(snapshots, ({ waitingUntil }) => waitingUntil === null)
    expect(over.coverage).toEqual(waiting.coverage)
    await snapshots.return(undefined)
  })

  test('tells why the provider does nothing, and once it does, no longer', async () => {
    const snapshots = follow()
    await snapshots.next()
    await setProvider(`state = 'ERROR', error = 'wrong key'`)
    expect(await until(snapshots, ({ lastError }) => lastError !== null)).toMatchObject({
      lastError: 'wrong key',
    })
    await setProvider(`state = 'CONNECTED', error = null`)
    await until(snapshots, ({ lastError }) => lastError === null)
    await snapshots.return(undefined)
  })

  test('has a rate that falls when nothing more happens, while something is owed', async () => {
    const { messages } = await ingest(server.client, ['one', 'two', 'three', 'four'])
    expect(messages).toHaveLength(4)
    const snapshots = follow()
    await snapshots.next()
    await server.database.query(
      `update embedding set status = 'READY', embedded_at = now() where owner_id in (
         select id from message where content in ('one', 'two'))`,
    )
    const moving = await until(snapshots, ({ ratePerSecond }) => ratePerSecond > 0)
    expect(moving.etaSeconds).toBeGreaterThan(0)
    const slower = await until(snapshots, ({ ratePerSecond }) => ratePerSecond < moving.ratePerSecond)
    expect(slower.coverage).toEqual(moving.coverage)
    expect(slower.etaSeconds).toBeGreaterThan(moving.etaSeconds ?? Number.NaN)
    expect(BigInt(slower.seq)).toBeGreaterThanOrEqual(BigInt(moving.seq))
    await snapshots.return(undefined)
  })

  test('is read once for all, however many begin to follow at once', async () => {
    const before = server.statements('embedding_count')
    const following = Array.from({ length: 30 }, follow)
    await Promise.all(following.map((snapshots) => snapshots.next()))
    // Those that come while it is read for the first share the next read; a look by itself may come between.
    expect(server.statements('embedding_count') - before).toBeLessThan(12)
    for (const snapshots of following) await snapshots.return(undefined)
  })
})

describe('a job', () => {
  test('says until when it waits', async () => {
    const id = await server.database.transaction((transaction) => insertJob(transaction, 'EXTRACT', {}))
    const read = async () => (await server.client.run(JobDocument, { id: globalId('Job', id) })).node
    expect(await read()).toEqual({ waitingUntil: null })
    await server.database.query(`update job set waiting_until = '2126-01-01T00:00:00Z' where id = $1`, [id])
    expect(await read()).toEqual({ waitingUntil: '2126-01-01T00:00:00.000Z' })
  })

  test('is cancelled and taken up again, where there is something to cancel or to take up', async () => {
    const id = await server.database.transaction((transaction) => insertJob(transaction, 'EXTRACT', {}))
    const input = { jobId: globalId('Job', id) }
    const cancel = async () => (await server.client.run(CancelDocument, { input })).cancelJob
    const retry = async () => (await server.client.run(RetryDocument, { input })).retryJob
    expect(await retry()).toMatchObject({ __typename: 'ConflictError', code: 'CONFLICT' })
    expect(await cancel()).toMatchObject({ job: { id: input.jobId, state: 'CANCELLED', waitingUntil: null } })
    expect(await cancel()).toMatchObject({ job: { state: 'CANCELLED', finishedAt: expect.any(String) } })
    expect(await retry()).toMatchObject({ job: { id: input.jobId, state: 'QUEUED', finishedAt: null } })
    await server.database.transaction(async (transaction) => {
      const job = await startJob(transaction, id)
      if (job) await endJob(transaction, job, 'SUCCEEDED', null)
    })
    expect(await cancel()).toMatchObject({ __typename: 'ConflictError' })
    expect(await retry()).toMatchObject({ __typename: 'ConflictError' })
  })

  test('that does not exist can be neither', async () => {
    const input = { jobId: missingId('Job') }
    const { cancelJob } = await server.client.run(CancelDocument, { input })
    expect(cancelJob).toMatchObject({ __typename: 'NotFoundError', code: 'NOT_FOUND' })
    const { retryJob } = await server.client.run(RetryDocument, { input })
    expect(retryJob).toMatchObject({ __typename: 'NotFoundError', code: 'NOT_FOUND' })
    const { errors } = await server.client.send(
      'mutation { cancelJob(input: { jobId: "x" }) { __typename } }',
    )
    expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }])
  })
})
