import { createHash, randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runMigrations } from 'graphile-worker'
import { SetupError } from '../errors.ts'
import type { Database, Sql, Transaction } from './database.ts'
import { advisoryLock } from './locks.ts'

export interface Migration {
  name: string
  sql: string
  checksum: string
}

const migrationsDir = fileURLToPath(new URL('../../prisma/migrations', import.meta.url))
const leastServerVersion = 150_000
const leastVectorVersion = [0, 8] as const

/** What a server says of itself and of pgvector. */
export interface ServerFacts {
  /** As 150004. */
  number: number
  version: string
  /** Version of pgvector that the server could install; null: it has none. */
  offered: string | null
  /** Version that this database has; null: none yet. */
  installed: string | null
}

/** How far a database is, compared with the migrations of this code. */
export interface MigrationState {
  /** In the order in which they are applied. */
  pending: readonly Migration[]
  /** How many of ours are applied, changed ones included. */
  applied: number
  /** Begun by another tool and not finished. */
  unfinished: readonly string[]
  /** Not those that were applied. */
  changed: readonly { name: string; found: string; expected: string }[]
  /** That this code does not know: the database is newer. */
  unknown: readonly string[]
}

/**
 * Brings the database to the state of this code: extension, tables, job queue. Safe when several processes start at
 * once: they wait for each other, and the second finds nothing to do. Keeps Prisma's `_prisma_migrations` table.
 * @returns the names of the migrations that were applied now
 * @throws SetupError if the server or pgvector is missing or too old, or the database is newer than this code
 */
export async function migrate(database: Database): Promise<string[]> {
  const known = await readMigrations()
  const applied = await database.transaction(async (transaction) => {
    await transaction.query('select pg_advisory_xact_lock($1)', [advisoryLock.migrations])
    await requireServer(transaction)
    return applyMissing(transaction, known)
  })
  await migrateJobQueue(database)
  return applied
}

async function readMigrations(): Promise<Migration[]> {
  const entries = await readdir(migrationsDir, { withFileTypes: true })
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  return Promise.all(
    names.sort().map(async (name) => {
      const sql = await readFile(join(migrationsDir, name, 'migration.sql'), 'utf8')
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') }
    }),
  )
}

export async function readServer(sql: Sql): Promise<ServerFacts> {
  const [server] = await sql.query<ServerFacts>(
    `select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
       (select default_version from pg_available_extensions where name = 'vector') as offered,
       (select extversion from pg_extension where extname = 'vector') as installed`,
  )
  if (!server) throw new Error('the question for the version of the server returned no row')
  return server
}

/** Why this server cannot be used, and what to do; null if it can. */
export function serverProblem({ number, version }: ServerFacts): string | null {
  return number < leastServerVersion
    ? `Quarry needs PostgreSQL 15 or newer; this server is ${version}. Upgrade it.`
    : null
}

/** Why its pgvector cannot be used, and what to do; null if it can. */
export function vectorProblem({ offered, installed }: ServerFacts): string | null {
  const version = installed ?? offered
  if (version === null) {
    return 'The Postgres server has no pgvector. Install it (Debian: postgresql-NN-pgvector; containers: the pgvector/pgvector image) and start again.'
  }
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > leastVectorVersion[0] || (major === leastVectorVersion[0] && minor >= leastVectorVersion[1])) {
    return null
  }
  const remedy =
    installed && offered && offered !== installed
      ? `Run: alter extension vector update (the server offers ${offered}).`
      : 'Install a newer pgvector on the server, then run: alter extension vector update.'
  return `Quarry needs pgvector 0.8 or newer; this database has ${version}. ${remedy}`
}

async function requireServer(transaction: Transaction): Promise<void> {
  const server = await readServer(transaction)
  const problem = serverProblem(server) ?? vectorProblem(server)
  if (problem !== null) throw new SetupError(problem)
}

/** Compares the database with the migrations of this code; changes nothing, also in a database that has no tables yet. */
export async function readMigrationState(sql: Sql): Promise<MigrationState> {
  const [table] = await sql.query<{ isThere: boolean }>(
    `select to_regclass('_prisma_migrations') is not null as "isThere"`,
  )
  return compareMigrations(await readMigrations(), table?.isThere ? await readRecords(sql) : [])
}

interface MigrationRecord {
  name: string
  checksum: string
  isFinished: boolean
}

async function readRecords(sql: Sql): Promise<MigrationRecord[]> {
  return sql.query<MigrationRecord>(
    `select migration_name as name, checksum, finished_at is not null as "isFinished"
     from _prisma_migrations where rolled_back_at is null`,
  )
}

function compareMigrations(known: readonly Migration[], records: readonly MigrationRecord[]): MigrationState {
  const recordOf = new Map(records.map((record) => [record.name, record]))
  const present = known.flatMap((migration) => {
    const record = recordOf.get(migration.name)
    return record ? [{ ...record, expected: migration.checksum }] : []
  })
  return {
    pending: known.filter(({ name }) => !recordOf.has(name)),
    applied: present.filter(({ isFinished }) => isFinished).length,
    unfinished: present.filter(({ isFinished }) => !isFinished).map(({ name }) => name),
    changed: present
      .filter(({ checksum, expected }) => checksum !== expected)
      .map(({ name, checksum, expected }) => ({ name, found: checksum, expected })),
    unknown: records.map(({ name }) => name).filter((name) => !known.some((each) => each.name === name)),
  }
}

/** Why nothing can be applied, and what to do; null if it can. */
export function migrationProblem({ unknown, unfinished, changed }: MigrationState): string | null {
  if (unknown.length > 0) {
    return `The database is newer than this code: it has ${unknown.join(', ')}, which this version does not know. Start the newer version, or use another database.`
  }
  if (unfinished.length > 0) {
    return `Migration ${unfinished[0]} was begun by another tool and not finished. Mend the database, then mark it with: prisma migrate resolve.`
  }
  const [first] = changed
  if (!first) return null
  return `Migration ${first.name} was changed after it had been applied (checksum ${first.found}, now ${first.expected}). Restore the file; changes belong in a new migration.`
}

async function applyMissing(transaction: Transaction, known: readonly Migration[]): Promise<string[]> {
  await transaction.query(`create table if not exists _prisma_migrations (
    id varchar(36) primary key, checksum varchar(64) not null, finished_at timestamptz,
    migration_name varchar(255) not null, logs text, rolled_back_at timestamptz,
    started_at timestamptz not null default now(), applied_steps_count integer not null default 0)`)
  const state = compareMigrations(known, await readRecords(transaction))
  const problem = migrationProblem(state)
  if (problem !== null) throw new SetupError(problem)
  for (const { name, sql, checksum } of state.pending) {
    await transaction.query(sql)
    await transaction.query(
      `insert into _prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count)
       values ($1, $2, now(), $3, 1)`,
      [randomUUID(), checksum, name],
    )
  }
  return state.pending.map(({ name }) => name)
}

/** Graphile Worker brings its own tables and is itself safe against processes that start together. */
async function migrateJobQueue(database: Database): Promise<void> {
  await runMigrations({ pgPool: database.pool, noPreparedStatements: database.engine === 'embedded' })
}
