import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../../src/config.ts'
import type { Database } from '../../../src/db/database.ts'
import { createIndexCare, usualBuildLimits } from '../../../src/embedding/index-care.ts'
import { type CareRules, careRules } from '../../../src/embedding/index-plan.ts'
import { isIndexPlanned } from '../../../src/embedding/recall.ts'
import { createSearchSample } from '../../../src/embedding/search-sample.ts'
import { type EmbeddingSpace, ensureActiveSpace } from '../../../src/embedding/spaces.ts'
import {
  readCaredSpaces,
  readVectorIndexes,
  requestMeasure,
  requestPrecision,
  requestRebuild,
} from '../../../src/embedding/vector-index.ts'
import { vectorBytes } from '../../../src/embedding/vectors.ts'
import { createLogger } from '../../../src/log.ts'
import { createMetrics } from '../../../src/metrics.ts'
import { createEmbeddingProvider } from '../../../src/providers/create.ts'
import { providerEnv } from '../../support/apps.ts'
import { openTestDatabase, reopen } from '../../support/databases.ts'
import { hashVector, ProviderServer } from '../../support/provider-server.ts'

const dimensions = 64
const name = 'embedding_1_message_vector'
const small = { maxRows: 1_999, m: 4, efConstruction: 16 }
const large = { maxRows: Number.POSITIVE_INFINITY, m: 8, efConstruction: 32 }
/** What is good enough for recall. */
const good = { ...large, m: 16, efConstruction: 64 }
const rules: CareRules = {
  ...careRules,
  classes: [small, large],
  deferFrom: 2_000,
  bloatFromBytes: 64 * 1024,
}

let server: ProviderServer
let own: Awaited<ReturnType<typeof openTestDatabase>>
let database: Database
let space: EmbeddingSpace
const stopping = new AbortController()

beforeAll(async () => {
  server = await ProviderServer.start()
  own = await openTestDatabase()
  database = own.database
  await start()
  await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
})
afterAll(async () => {
  stopping.abort()
  await own[Symbol.asyncDispose]()
  await server.close()
})
/** As a new database is: opening one for each test would take most of the time. */
beforeEach(async () => {
  await database.query(`drop index if exists ${name}, ${name}_next, ${name}_old`)
  for (const table of ['message', 'vector_index', 'search_sample', 'alert']) {
    await database.query(`delete from ${table}`)
  }
  await database.query(`update embedding_space set precision = 'FULL', next_precision = null`)
  await database.query('vacuum (analyze) embedding_1')
  space = await start()
})

/** What an app does with its space at its start. */
async function start(): Promise<EmbeddingSpace> {
  const provider = createEmbeddingProvider(parseConfig(providerEnv(server)).embedding)
  const { limits } = parseConfig({}).indexes
  try {
    return await ensureActiveSpace(database, provider, createLogger('silent'), { precision: null, limits })
  } finally {
    await provider.close()
  }
}

const spacesOf = (one: EmbeddingSpace) => ({ active: () => ({ space: one }), all: () => [{ space: one }] })

/** Looks once, as index care does in an app every few seconds. */
async function look(given: Partial<CareRules> = {}, on = database): Promise<void> {
  const sample = createSearchSample(false)
  const log = createLogger('silent')
  const options = {
    database: on,
    spaces: spacesOf(space),
    sample,
    limits: usualBuildLimits,
    metrics: createMetrics(),
    log,
  }
  const care = await createIndexCare({ ...options, rules: { ...rules, ...given } }, stopping.signal)
  await care.look()
}

async function insertMessages(from: number, to: number): Promise<void> {
  await database.query(
    `insert into message (id, source_id, external_id, author, content, sent_at)
     select gen_random_uuid(), (select id from source), i::text, 'ann', 'message ' || i, now()
     from generate_series($1::int, $2) as i`,
    [from, to],
  )
}

/** Gives what is owed a vector. */
async function embedOwed(): Promise<void> {
  const owed = await database.query<{ id: string }>(
    `select owner_id as id from embedding where status = 'PENDING'`,
  )
  const ids = owed.map(({ id }) => id)
  await database.query(
    `update embedding e set status = 'READY', vector = f.vector::vector, embedded_at = now()
     from unnest($1::uuid[], $2::text[]) as f(id, vector) where e.owner_id = f.id`,
    [ids, ids.map((id) => `[${hashVector(id, dimensions).join(',')}]`)],
  )
}

async function fill(rows: number): Promise<void> {
  await insertMessages(1, rows)
  await embedOwed()
}

async function readIndex() {
  const [message] = await readVectorIndexes(database, await readCaredSpaces(database))
  if (!message) throw new Error('there is no place for an index of messages')
  return message
}

const idOf = async (index: string) =>
  (await database.query<{ id: number | null }>('select to_regclass($1)::oid::int as id', [index]))[0]?.id ??
  null

const vectorIndexes = async () =>
  (
    await database.query<{ name: string }>(
      `select c.relname as name from pg_class c join pg_am a on a.oid = c.relam
       where a.amname = 'hnsw' and c.relname like '%message%' order by 1`,
    )
  ).map((row) => row.name)

/** Whether a search by meaning is planned with the index. */
const isPlanned = () => isIndexPlanned(database, space, 'MESSAGE', name)

describe('an index', () => {
  test('is built anew when its rows have become many more, and searches use the new one', async () => {
    await fill(900)
    await look()
    expect((await readIndex()).present).toMatchObject({ m: 4, efConstruction: 16, isValid: true })
    const before = await idOf(name)
    await insertMessages(901, 2_000)
    await embedOwed()
    await look()
    expect(await readIndex()).toMatchObject({
      rows: 2_000,
      present: { m: 8, efConstruction: 32, isValid: true },
      next: null,
      isOldThere: false,
      buildReason: 'it has 2000 rows, for which m = 4 is not made',
    })
    expect(await idOf(name)).not.toBe(before)
    expect(await vectorIndexes()).toEqual([name])
    expect(await isPlanned()).toBe(true)
    const after = await idOf(name)
    await look()
    expect(await idOf(name)).toBe(after)
  })

  test('that is mostly dead is built anew, and what the planner knows is brought up to date', async () => {
    await fill(2_000)
    await look()
    // Vectors of other texts: each is a new place in the graph, and leaves a dead one.
    for (let round = 0; round < 2; round++) {
      await database.query(`update embedding set vector = vector + $1::vector where kind = 'MESSAGE'`, [
        `[${hashVector(`shift ${round}`, dimensions).join(',')}]`,
      ])
    }
    const bloated = (await readIndex()).present?.bytes ?? 0
    await look()
    const { present, buildReason, rows } = await readIndex()
    expect(buildReason).toMatch(/^\d\d % of it is dead$/)
    expect(present?.bytes).toBeLessThan(bloated / 2)
    expect(rows).toBe(2_000)
    expect(await isPlanned()).toBe(true)
  })

  test('that was dropped by hand is built again, and so is one that is not valid', async () => {
    await fill(100)
    await database.query(`drop index ${name}`)
    await look()
    expect((await readIndex()).present?.isValid).toBe(true)
    await database.query(`update pg_index set indisvalid = false where indexrelid = '${name}'::regclass`)
    await look()
    expect((await readIndex()).present?.isValid).toBe(true)
    expect(await vectorIndexes()).toEqual([name])
  })

  test('is built anew when somebody asks, however many processes look', async () => {
    await fill(100)
    await look()
    const before = await idOf(name)
    await requestRebuild(database, ['MESSAGE'])
    const isShared = database.engine === 'postgres'
    const others = isShared ? await Promise.all([reopen(own.config), reopen(own.config)]) : []
    await Promise.all([look(), ...others.map((other) => look({}, other))])
    await look()
    expect(await readIndex()).toMatchObject({ rebuildRequestedAt: null, buildReason: 'it was asked for' })
    expect(await idOf(name)).not.toBe(before)
    expect(await vectorIndexes()).toEqual([name])
    await Promise.all(others.map((other) => other.close()))
  })
})

describe('what an interrupted build has left', () => {
  const makeNext = (m: number) =>
    database.query(`create index ${name}_next on embedding_1 using hnsw ((vector::vector(${dimensions})) vector_cosine_ops)
      with (m = ${m}, ef_construction = 16) where kind = 'MESSAGE' and vector is not null`)

  test('is dropped if it is of no use', async () => {
    await fill(100)
    await look()
    await makeNext(8)
    await database.query(`update pg_index set indisvalid = false where indexrelid = '${name}_next'::regclass`)
    const before = await idOf(name)
    await look()
    expect(await vectorIndexes()).toEqual([name])
    expect(await idOf(name)).toBe(before)
  })

  test('is put in place if it only lacked that', async () => {
    await fill(100)
    await makeNext(4)
    const built = await idOf(`${name}_next`)
    await look()
    expect(await vectorIndexes()).toEqual([name])
    expect(await idOf(name)).toBe(built)
  })

  test('is cleared away if it was replaced', async () => {
    await fill(100)
    await look()
    await database.query(`alter index ${name} rename to ${name}_old`)
    await look()
    await database.query(`update vector_index set built_at = now() - interval '2 minutes'`)
    await look()
    expect(await vectorIndexes()).toEqual([name])
  })
})

describe('an index of a space that is filled', () => {
  test('is built when nearly all its rows are there, unless that would hold up everything', async () => {
    await database.query(`drop index ${name}`)
    await insertMessages(1, 2_000)
    await look()
    const isDeferred = database.engine === 'postgres'
    expect((await readIndex()).present === null).toBe(isDeferred)
    await embedOwed()
    await look()
    expect(await readIndex()).toMatchObject({ rows: 2_000, present: { m: 8, isValid: true } })
    expect(await isPlanned()).toBe(true)
  })

  test('is not built at the start of a process either, nor when the process starts again', async () => {
    await database.query(`drop index ${name}`)
    await insertMessages(1, 10_000)
    await start()
    expect((await readIndex()).present === null).toBe(database.engine === 'postgres')
  })
})

describe('another precision', () => {
  test('is indexed beside the one in use, and searches change over when all indexes are there', async () => {
    await fill(2_000)
    await look()
    await requestPrecision(database, space.id, 'HALF')
    await look()
    expect(space.precision).toBe('HALF')
    expect(await readCaredSpaces(database)).toMatchObject([{ precision: 'HALF', nextPrecision: null }])
    expect((await readIndex()).present).toMatchObject({ precision: 'HALF', isValid: true })
    expect(await isPlanned()).toBe(true)
    // Other processes look every ten seconds; until then they use the one of before.
    expect(await vectorIndexes()).toEqual([name, `${name}_old`])
    await look()
    expect(await vectorIndexes()).toEqual([name, `${name}_old`])
    await database.query(`update vector_index set built_at = now() - interval '2 minutes'`)
    await look()
    expect(await vectorIndexes()).toEqual([name])
  })

  test('that is no longer wanted leaves nothing behind', async () => {
    await fill(100)
    await look()
    await database.query(`create index ${name}_next on embedding_1 using hnsw ((vector::halfvec(${dimensions})) halfvec_cosine_ops)
      with (m = 8, ef_construction = 32) where kind = 'MESSAGE' and vector is not null`)
    await look()
    expect(await vectorIndexes()).toEqual([name])
    expect((await readIndex()).present).toMatchObject({ precision: 'FULL' })
  })
})

describe('recall', () => {
  const openAlerts = () =>
    database.query(
      'select type, kind, entity_kind as "entityKind", error from alert where resolved_at is null',
    )

  test('that is low raises an alert, and is over when the index is built anew', async () => {
    const poor = { maxRows: Number.POSITIVE_INFINITY, m: 2, efConstruction: 4 }
    await fill(2_000)
    await look({ classes: [poor] })
    const measured = await readIndex()
    expect(measured).toMatchObject({ recallSource: 'STORED', recallQueries: 50 })
    expect(measured.recall).toBeLessThan(0.95)
    expect(await openAlerts()).toMatchObject([
      {
        type: 'RECALL_LOW',
        kind: null,
        entityKind: 'MESSAGE',
        error: expect.stringMatching(
          /finds \d\d\.\d %; 95 % are expected\. Build it anew: quarry index --rebuild message$/,
        ),
      },
    ])
    // Whoever runs jobs posts it.
    expect(
      await database.query(
        `select from graphile_worker.jobs j join alert a on j.key = 'post_alert ' || a.id`,
      ),
    ).toHaveLength(1)
    await look({ classes: [good] })
    expect((await readIndex()).recall).toBeGreaterThan(0.95)
    expect(await openAlerts()).toEqual([])
  })

  test('is measured with searches where there are enough, of which the newest are kept', async () => {
    await fill(500)
    const sample = createSearchSample(false)
    const queries = sample.of(
      { get: async (query: string) => vectorBytes(Float32Array.from(hashVector(query, dimensions))) },
      space,
    )
    const care = await createIndexCare(
      {
        database,
        spaces: spacesOf(space),
        sample,
        limits: usualBuildLimits,
        metrics: createMetrics(),
        log: createLogger('silent'),
        rules: { ...rules, classes: [good] },
      },
      stopping.signal,
    )
    for (let round = 0; round < 12; round++) {
      for (let query = 0; query < 30; query++) await queries.get(`${round} ${query}`)
      await care.look()
    }
    const [kept] = await database.query('select count(*)::int as n from search_sample')
    expect(kept).toEqual({ n: 200 })
    // So few rows are not measured by themselves.
    expect((await readIndex()).recall).toBeNull()
    await requestMeasure(database, ['MESSAGE', 'TOPIC'])
    await care.look()
    const indexes = await readVectorIndexes(database, await readCaredSpaces(database))
    expect(indexes).toMatchObject([
      { kind: 'MESSAGE', recallSource: 'SEARCHES', recallQueries: 50, measureRequestedAt: null },
      { kind: 'ATOM', recall: null },
      { kind: 'TOPIC', recall: null, measuredAt: expect.any(Date), measureRequestedAt: null },
    ])
    expect(indexes[0]?.recall).toBeGreaterThan(0.95)
  })
})

test('where nobody else does it, dead rows are cleared away and statistics brought up to date', async () => {
  if (database.engine === 'postgres') return
  await fill(600)
  await look()
  await database.query(`update message set author = 'bo'`)
  await look()
  const [message] = await database.query<{ dead: number; changed: number }>(
    `select n_dead_tup::int as dead, n_mod_since_analyze::int as changed from pg_stat_user_tables where relname = 'message'`,
  )
  expect(message).toEqual({ dead: 0, changed: 0 })
})
