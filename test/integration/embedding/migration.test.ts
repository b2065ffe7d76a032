import { expect, test } from 'vitest'
import { startProviderApp, type TestApp } from '../../support/apps.ts'
import { ingest, message } from '../../support/messages.ts'
import {
  activate,
  addEmbedder,
  readSpace,
  readSpaces,
  searchFor,
  startMigration,
  tryActivate,
  tryRetire,
} from '../../support/migration.ts'
import { ProviderServer } from '../../support/provider-server.ts'

const chats = Array.from({ length: 40 }, (_, index) => `text number ${index}`)

/** Whether the vectors of a space are dropped. */
const isDropped = async (app: TestApp, dimensions: number) => {
  const [space] = await app.sql<{ isDropped: boolean }>(
    `select dropped_at is not null and to_regclass('embedding_' || id) is null as "isDropped"
     from embedding_space where dimensions = $1`,
    [dimensions],
  )
  return space?.isDropped
}

test('everything moves to another model and back, and the space of before is retired', async () => {
  await using app = await startProviderApp()
  await using upstream = await ProviderServer.start({ dimensions: 96 })
  const { client } = app
  await ingest(client, chats)
  await client.waitUntilEmbedded()
  const [first] = await readSpaces(client)
  if (!first) throw new Error('there is no space')
  const providerId = await addEmbedder(client, upstream)

  const { space, jobId, kind } = await startMigration(client, { providerId, dimensions: 128 })
  expect(kind).toBe('MIGRATE_EMBEDDINGS')
  expect(space).toMatchObject({ state: 'BUILDING', model: 'embedder', dimensions: 128, isFilled: true })
  expect(space.provider.id).toBe(providerId)
  expect(await client.waitForJob(jobId)).toMatchObject({ state: 'SUCCEEDED', total: 40, succeeded: 40 })
  expect(upstream.last?.body).toMatchObject({ dimensions: 128 })

  // Searches go on in the old space, and what is written is embedded in both.
  expect((await searchFor(client, 'text number 7')).space).toMatchObject({ id: first.id })
  await ingest(client, ['written meanwhile'])
  const both = () =>
    app.sql(
      `select space_id, status from embedding join message on message.id = owner_id where content = 'written meanwhile'`,
    )
  await expect.poll(both).toEqual([
    { space_id: 1, status: 'READY' },
    { space_id: 2, status: 'READY' },
  ])

  await activate(client, space.id)
  const asked = app.provider.requests
  const found = await searchFor(client, 'text number 7')
  expect(found.space).toMatchObject({ id: space.id, dimensions: 128 })
  expect(found.edges[0]).toMatchObject({ similarity: 1, node: { content: 'text number 7' } })
  expect(app.provider.requests).toBe(asked)
  expect(await readSpace(client, first.id)).toMatchObject({ state: 'BUILDING', isFilled: true })
  expect(await tryActivate(client, space.id)).toMatchObject({ code: 'CONFLICT' })
  expect(await tryRetire(client, space.id)).toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('activate another space first'),
  })

  // The way back.
  await ingest(client, ['written afterwards'])
  await expect
    .poll(async () => (await readSpace(client, first.id)).coverage[0])
    .toMatchObject({ total: 42, ready: 42 })
  expect(await tryActivate(client, first.id)).toMatchObject({ space: { id: first.id, state: 'ACTIVE' } })
  expect(await searchFor(client, 'written afterwards')).toMatchObject({
    space: { id: first.id },
    edges: [{ similarity: 1, node: { content: 'written afterwards' } }, {}, {}, {}, {}],
  })

  await activate(client, space.id)
  expect(await tryRetire(client, first.id)).toMatchObject({ space: { state: 'RETIRED' } })
  expect(await tryRetire(client, first.id)).toMatchObject({ code: 'CONFLICT' })
  expect(await tryActivate(client, first.id, true)).toMatchObject({ code: 'CONFLICT' })
  // An operation that began before searches changed over may take some seconds.
  await expect.poll(() => isDropped(app, 64), { timeout: 25_000 }).toBe(true)
  const counts = 'select from embedding_count where space_id = 1'
  expect(await app.sql(counts)).toEqual([])
  await ingest(client, [message('written in the end')])
  await client.waitUntilEmbedded()
  expect((await searchFor(client, 'written in the end')).edges[0]).toMatchObject({ similarity: 1 })
}, 60_000)
