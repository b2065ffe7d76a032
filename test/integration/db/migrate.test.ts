import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Database } from '../../../src/db/database.ts'
import { migrate } from '../../../src/db/migrate.ts'
import { openTestDatabase, reopen } from '../../support/databases.ts'

let own: Awaited<ReturnType<typeof openTestDatabase>>
let database: Database

beforeAll(async () => {
  own = await openTestDatabase()
  database = own.database
})
afterAll(() => own[Symbol.asyncDispose]())

const folder = new URL('../../../prisma/migrations/', import.meta.url)
const names = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name)
  .sort()

/** As a database is before Quarry first sees it. */
async function empty(): Promise<void> {
  await database.query('drop schema if exists graphile_worker cascade')
  await database.query('drop schema public cascade')
  await database.query('create schema public')
}

describe('a new database', () => {
  beforeEach(empty)

  test('is brought up to date by one of several that start at once', async () => {
    // A folder has one owner; on Postgres each is a process of its own.
    const others = own.config.kind === 'postgres' ? [await reopen(own.config), await reopen(own.config)] : []
    try {
      const outcomes = await Promise.all([database, database, database, ...others].map(migrate))
      expect(outcomes.flat()).toEqual(names)
    } finally {
      for (const other of others) await other.close()
    }
    expect(await database.query('select from message')).toEqual([])
    expect(await database.query(`select from pg_extension where extname = 'vector'`)).toHaveLength(1)
    expect(await database.query('select from graphile_worker.jobs')).toEqual([])
  })

  test('tells Prisma what was applied', async () => {
    await migrate(database)
    const rows = await database.query(
      `select migration_name, checksum, applied_steps_count, logs, rolled_back_at, finished_at is not null as finished
       from _prisma_migrations order by 1`,
    )
    expect(rows).toEqual(
      names.map((name) => ({
        migration_name: name,
        checksum: createHash('sha256')
          .update(readFileSync(new URL(`${name}/migration.sql`, folder)))
          .digest('hex'),
        applied_steps_count: 1,
        logs: null,
        rolled_back_at: null,
        finished: true,
      })),
    )
  })

  test('is left as it was where something fails', async () => {
    await database.query('create table topic (taken boolean)')
    await expect(migrate(database)).rejects.toThrow(/topic/)
    expect(
      await database.query(`select tablename from pg_tables where schemaname = 'public' order by 1`),
    ).toEqual([{ tablename: 'topic' }])
    await database.query('drop table topic')
    expect(await migrate(database)).toEqual(names)
  })
})

describe('a database that is up to date', () => {
  beforeEach(async () => {
    await empty()
    await migrate(database)
  })

  test('is left alone', async () => {
    await database.query(
      `insert into topic (id, name, key, color, icon) values (gen_random_uuid(), 'Kept', 'kept', '#000000', 'x')`,
    )
    expect(await migrate(database)).toEqual([])
    expect(await database.query('select name from topic')).toEqual([{ name: 'Kept' }])
  })

  const record = (name: string, finished: boolean) =>
    database.query(
      `insert into _prisma_migrations (id, checksum, migration_name, finished_at)
       values (gen_random_uuid(), 'x', $1, case when $2::boolean then now() end)`,
      [name, finished],
    )

  test('by a newer version is refused by name', async () => {
    await record('99990101000000_future', true)
    await expect(migrate(database)).rejects.toThrow(/newer than this code.*99990101000000_future/)
  })

  test('but for a migration that was rolled back is no newer one', async () => {
    await record('99990101000000_future', false)
    await database.query('update _prisma_migrations set rolled_back_at = now() where finished_at is null')
    expect(await migrate(database)).toEqual([])
  })

  test('by a migration that was changed since is refused by name', async () => {
    await database.query(`update _prisma_migrations set checksum = 'other'`)
    await expect(migrate(database)).rejects.toThrow(/was changed after it had been applied.*other/)
  })

  test('but for a migration that was not finished is refused by name', async () => {
    await database.query('update _prisma_migrations set finished_at = null')
    await expect(migrate(database)).rejects.toThrow(/not finished.*prisma migrate resolve/)
  })
})
