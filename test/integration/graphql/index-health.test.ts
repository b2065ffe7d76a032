import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
import { ingest } from '../../support/messages.ts'
import { eventually } from '../../support/server.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
beforeAll(async () => {
  app = await startProviderApp()
  await ingest(
    app.client,
    Array.from({ length: 30 }, (_, n) => `message number ${n}`),
  )
  await app.client.waitUntilEmbedded()
})
afterAll(() => app[Symbol.asyncDispose]())

const IndexesDocument = graphql(`
  query VectorIndexes {
    vectorIndexes {
      space { model state precision } kind name state reason buildProgress rows sizeBytes precision m efConstruction
      deadRows bloat builtAt buildSeconds buildReason recall recallQueries recallSource measuredAt
      rebuildRequestedAt measureRequestedAt lastError
    }
  }
`)
const RebuildDocument = graphql(`
  mutation RebuildVectorIndexes($input: RebuildVectorIndexesInput!) {
    rebuildVectorIndexes(input: $input) {
      __typename
      ... on RebuildVectorIndexesPayload { vectorIndexes { kind rebuildRequestedAt } }
      ... on InputError { message path }
    }
  }
`)
const MeasureDocument = graphql(`
  mutation MeasureVectorIndexes($input: MeasureVectorIndexesInput!) {
    measureVectorIndexes(input: $input) {
      __typename
      ... on MeasureVectorIndexesPayload { vectorIndexes { kind measureRequestedAt } }
      ... on InputError { message path }
    }
  }
`)

const read = async () => (await app.client.run(IndexesDocument)).vectorIndexes
const ofMessages = async () => (await read())[0]

describe('vector indexes', () => {
  test('are told of, each kind of the space', async () => {
    const indexes = await read()
    expect(indexes.map(({ kind, rows, state }) => ({ kind, rows, state }))).toEqual([
      { kind: 'MESSAGE', rows: 30, state: 'READY' },
      { kind: 'ATOM', rows: 0, state: 'READY' },
      { kind: 'TOPIC', rows: 0, state: 'READY' },
    ])
    expect(indexes[0]).toMatchObject({
      space: { model: 'text-embedding-3-small', state: 'ACTIVE', precision: 'FULL' },
      name: 'embedding_1_message_vector',
      reason: null,
      buildProgress: null,
      precision: 'FULL',
      m: 16,
      efConstruction: 64,
      bloat: expect.any(Number),
      buildReason: 'there was none',
      recall: null,
      lastError: null,
    })
    expect(indexes[0]?.sizeBytes).toBeGreaterThan(0)
  })

  test('are built anew when somebody asks', async () => {
    const before = (await ofMessages())?.builtAt
    const asked = await app.client.run(RebuildDocument, { input: { kinds: ['MESSAGE'] } })
    expect(asked.rebuildVectorIndexes).toMatchObject({
      __typename: 'RebuildVectorIndexesPayload',
      vectorIndexes: [{ kind: 'MESSAGE', rebuildRequestedAt: expect.any(String) }],
    })
    await eventually(ofMessages).toMatchObject({
      rebuildRequestedAt: null,
      buildReason: 'it was asked for',
      state: 'READY',
    })
    expect((await ofMessages())?.builtAt).not.toBe(before)
  })

  test('are measured when somebody asks', async () => {
    await app.client.run(MeasureDocument, { input: {} })
    await eventually(ofMessages).toMatchObject({
      measureRequestedAt: null,
      recall: 1,
      recallQueries: 30,
      recallSource: 'STORED',
    })
  })

  test.each([
    ['rebuildVectorIndexes', RebuildDocument],
    ['measureVectorIndexes', MeasureDocument],
  ] as const)('are not asked for by an empty list (%s)', async (field, document) => {
    const { data } = await app.client.send<Record<string, unknown>>(document.toString(), {
      input: { kinds: [] },
    })
    expect(data?.[field]).toEqual({
      __typename: 'InputError',
      message: 'kinds is empty; leave it out to mean all',
      path: ['kinds'],
    })
  })

  test('are among the metrics, with their recall and whether searches have one', async () => {
    const scraped = await (await fetch(new URL('/metrics', app.client.url))).text()
    for (const line of [
      'quarry_vector_index_usable{kind="MESSAGE"} 1',
      'quarry_vector_index_rows{kind="MESSAGE"} 30',
      'quarry_vector_index_recall_ratio{kind="MESSAGE"} 1',
      'quarry_vector_index_build_seconds_count{kind="MESSAGE"} 1',
    ]) {
      expect(scraped).toContain(line)
    }
    expect(scraped).toMatch(/quarry_vector_index_bytes\{kind="MESSAGE"\} [1-9]/)
    expect(scraped).not.toContain('quarry_vector_index_recall_ratio{kind="ATOM"}')
  })
})

const AlertsDocument = graphql(`
  query RecallAlerts { alerts { type kind entityKind failures error job { id } resolvedAt } }
`)

test('an alert of low recall names what the index is of, and is over with the next measurement', async () => {
  await app.sql(
    `insert into alert (id, type, space_id, entity_kind, error) values (gen_random_uuid(), 'RECALL_LOW', 1, 'MESSAGE', 'too low')`,
  )
  expect((await app.client.run(AlertsDocument)).alerts).toEqual([
    {
      type: 'RECALL_LOW',
      kind: null,
      entityKind: 'MESSAGE',
      failures: 0,
      error: 'too low',
      job: null,
      resolvedAt: null,
    },
  ])
  await app.client.run(MeasureDocument, { input: { kinds: ['MESSAGE'] } })
  await eventually(async () => (await app.client.run(AlertsDocument)).alerts).toEqual([])
})

test('it is posted to the webhook, once', async () => {
  const posts: unknown[] = []
  const webhook = createServer((request, response) => {
    void json(request).then((body) => {
      posts.push(body)
      response.writeHead(204).end()
    })
  }).listen(0, '127.0.0.1')
  await once(webhook, 'listening')
  const { port } = webhook.address() as AddressInfo
  const env = { QUARRY_ALERT_WEBHOOK_URL: `http://127.0.0.1:${port}/hook` }
  await using other = await startProviderApp({}, { env })
  await other.sql(
    `insert into alert (id, type, space_id, entity_kind, error) values (gen_random_uuid(), 'RECALL_LOW', 1, 'ATOM', 'too low')`,
  )
  const post = `select graphile_worker.add_job('post_alert', json_build_object('alertId', id)) from alert`
  await other.sql(post)
  const notified = () => other.sql('select notified_at is not null as yes from alert')
  await eventually(notified).toEqual([{ yes: true }])
  await other.sql(post)
  await eventually(() => other.sql('select from graphile_worker.jobs')).toEqual([])
  expect(posts).toEqual([
    {
      type: 'RECALL_LOW',
      text: 'Quarry: too low',
      entityKind: 'ATOM',
      error: 'too low',
      raisedAt: expect.any(String),
    },
  ])
  webhook.close()
})
