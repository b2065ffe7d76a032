import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../../../src/config.ts'
import type { Database } from '../../../src/db/database.ts'
import { ensureActiveSpace, entityKinds } from '../../../src/embedding/spaces.ts'
import { createLogger } from '../../../src/log.ts'
import { createEmbeddingProvider } from '../../../src/providers/create.ts'
import { defaultCalibration } from '../../../src/providers/provider.ts'
import { providerEnv } from '../../support/apps.ts'
import { openTestDatabase } from '../../support/databases.ts'
import { ProviderServer } from '../../support/provider-server.ts'

let server: ProviderServer
let own: Awaited<ReturnType<typeof openTestDatabase>>
let database: Database

beforeAll(async () => {
  server = await ProviderServer.start()
  own = await openTestDatabase()
  database = own.database
  await start()
})
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  await server.close()
})

/** What an app does with its space at its start. */
async function start(env: Record<string, string> = {}, on = database) {
  const { embedding, indexes } = parseConfig({ ...providerEnv(server), ...env })
  const provider = createEmbeddingProvider(embedding)
  try {
    return await ensureActiveSpace(on, provider, createLogger('silent'), indexes)
  } finally {
    await provider.close()
  }
}

const indexNames = async () =>
  (
    await database.query<{ name: string }>(
      `select c.relname as name from pg_index i join pg_class c on c.oid = i.indexrelid
       where c.relname like '%\\_vector' and i.indisvalid order by 1`,
    )
  ).map(({ name }) => name)

describe('at the start', () => {
  test('there is one space, of what the provider is, with an index for each kind', async () => {
    const space = await start()
    expect(space).toEqual({
      id: 1,
      provider: 'OPENAI',
      providerId: null,
      model: 'text-embedding-3-small',
      dimensions: 64,
      state: 'ACTIVE',
      precision: 'FULL',
      ...defaultCalibration,
    })
    expect(await start()).toEqual(space)
    expect(await indexNames()).toHaveLength(entityKinds.length)
  })

  test('of several that start at once on a new database, all agree on one space', async () => {
    await using fresh = await openTestDatabase()
    const provider = createEmbeddingProvider(parseConfig(providerEnv(server)).embedding)
    const log = createLogger('silent')
    const spaces = await Promise.all([1, 2, 3].map(() => ensureActiveSpace(fresh.database, provider, log)))
    expect(new Set(spaces.map(({ id }) => id)).size).toBe(1)
    expect(await fresh.database.query('select from embedding_space')).toHaveLength(1)
    await provider.close()
  })

  test('a vector index that was dropped, or whose build was interrupted, is built again', async () => {
    const whole = await indexNames()
    await database.query('drop index embedding_1_message_vector')
    await database.query(
      `update pg_index set indisvalid = false where indexrelid = 'embedding_1_atom_vector'::regclass`,
    )
    expect(await indexNames()).toEqual(['embedding_1_topic_vector'])
    await start()
    expect(await indexNames()).toEqual(whole)
  })

  test('a space gets the precision that is configured, else what its dimensions allow', async () => {
    const large = { OPENAI_EMBEDDING_MODEL: 'text-embedding-3-large' }
    const cases = [
      [{ QUARRY_EMBEDDING_PRECISION: 'half' }, 'HALF'],
      [{ ...large, OPENAI_EMBEDDING_DIMENSIONS: '2000' }, 'FULL'],
      [{ ...large, OPENAI_EMBEDDING_DIMENSIONS: '2001' }, 'HALF'],
    ] as const
    for (const [env, precision] of cases) {
      await using fresh = await openTestDatabase()
      expect(await start(env, fresh.database)).toMatchObject({ precision })
      const [index] = await fresh.database.query<{ type: string }>(
        `select pg_get_indexdef('embedding_1_message_vector'::regclass) as type`,
      )
      expect(index?.type).toContain(precision === 'HALF' ? 'halfvec_cosine_ops' : ' vector_cosine_ops')
    }
    await using fresh = await openTestDatabase()
    const env = { ...large, OPENAI_EMBEDDING_DIMENSIONS: '2001', QUARRY_EMBEDDING_PRECISION: 'full' }
    await expect(start(env, fresh.database)).rejects.toThrow(
      /QUARRY_EMBEDDING_PRECISION is full, but the vectors have 2001 dimensions/,
    )
  })

  test('a space keeps its precision until another one is configured, which is then asked for', async () => {
    const next = async () =>
      (await database.query('select precision, next_precision as next from embedding_space'))[0]
    expect(await start({ QUARRY_EMBEDDING_PRECISION: 'half' })).toMatchObject({ precision: 'FULL' })
    expect(await next()).toEqual({ precision: 'FULL', next: 'HALF' })
    await start()
    expect(await next()).toEqual({ precision: 'FULL', next: 'HALF' })
    await start({ QUARRY_EMBEDDING_PRECISION: 'full' })
    expect(await next()).toEqual({ precision: 'FULL', next: null })
  })

  test.each([
    [
      'disabled',
      'alter table atom disable trigger atom_embedding_update',
      'alter table atom enable trigger atom_embedding_update',
    ],
    [
      'for replicas only',
      'alter table message enable replica trigger message_embedding_insert',
      'alter table message enable trigger message_embedding_insert',
    ],
    [
      'dropped',
      'drop trigger embedding_deleted on embedding',
      `create trigger embedding_deleted after delete on embedding
       referencing old table as old_rows for each statement execute function embedding_changed()`,
    ],
  ])('a trigger that is %s is refused by name', async (_name, breaking, mending) => {
    const [trigger] = breaking.match(/\w+_(insert|update|deleted)\b/) ?? []
    await database.query(breaking)
    await expect(start()).rejects.toThrow(new RegExp(`lacks the triggers.*${trigger}.*prisma/migrations`))
    await database.query(mending)
    await start()
  })

  test.each([
    ['model', { OPENAI_EMBEDDING_MODEL: 'text-embedding-3-large' }, /openai\/text-embedding-3-large/],
    ['dimension', { OPENAI_EMBEDDING_DIMENSIONS: '32' }, /text-embedding-3-small with 32 dimensions/],
    ['provider', { QUARRY_EMBEDDING_PROVIDER: 'local' }, /asks for local\//],
  ])('another %s is refused, with what to do', async (_name, env, asked) => {
    const error = await start(env).catch((reason: Error) => reason)
    expect(String(error)).toMatch(/was embedded by openai\/text-embedding-3-small with 64 dimensions/)
    expect(String(error)).toMatch(asked)
    expect(String(error)).toMatch(/Set QUARRY_EMBEDDING_PROVIDER and its model back, or use another database/)
  })

  test('rows that were loaded while triggers were off are queued, or skipped where blank', async () => {
    await database.query('alter table message disable trigger message_embedding_insert')
    await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
    await database.query(
      `insert into message (id, source_id, external_id, author, content, sent_at)
       select gen_random_uuid(), id, text, 'ann', text, now() from source, unnest(array['loaded', ' ']) as text`,
    )
    await database.query('alter table message enable trigger message_embedding_insert')
    const statuses = () =>
      database.query(
        'select content, status from message left join embedding on owner_id = message.id order by content desc',
      )
    expect(await statuses()).toEqual([
      { content: 'loaded', status: null },
      { content: ' ', status: null },
    ])
    await start()
    expect(await statuses()).toEqual([
      { content: 'loaded', status: 'PENDING' },
      { content: ' ', status: 'SKIPPED' },
    ])
  })
})
