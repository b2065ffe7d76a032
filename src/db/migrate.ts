import { createHash, randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runMigrations } from 'graphile-worker'
import { SetupError } from '../errors.ts'
import type { Database, Transaction } from './database.ts'

interface Migration {
  name: string
  sql: string
  checksum: string
}

const migrationsDir = fileURLToPath(new URL('../../prisma/migrations', import.meta.url))
const leastServerVersion = 150_000
const leastVectorVersion = [0, 8] as const
/** Prisma's own lock number for migrations, so that `prisma migrate deploy` and this runner exclude each other. */
const migrationLock = 72707369

/**
 * Brings the database to the state of this code: extension, tables, job queue. Safe when several processes start at
 * once: they wait for each other, and the second finds nothing to do. Keeps Prisma's `_prisma_migrations` table.
 * @returns the names of the migrations that were applied now
 * @throws SetupError if the server or pgvector is missing or too old, or the database is newer than this code
 */
export async function migrate(database: Database): Promise<string[]> {
  const known = await readMigrations()
  const applied = await database.transaction(async (transaction) => {
    await transaction.query('select pg_advisory_xact_lock($1)', [migrationLock])
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

async function requireServer(transaction: Transaction): Promise<void> {
  const [server] = await transaction.query<{
    number: number
    version: string
    offered: string | null
    installed: string | null
  }>(
    `select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
       (select default_version from pg_available_extensions where name = 'vector') as offered,
       (select extversion from pg_extension where extname = 'vector') as installed`,
  )
  if (!server || server.number < leastServerVersion) {
    throw new SetupError(
      `Quarry needs PostgreSQL 15 or newer; this server is ${server?.version}. Upgrade it.`,
    )
  }
  if (server.offered === null) {
    throw new SetupError(
      'The Postgres server has no pgvector. Install it (Debian: postgresql-NN-pgvector; containers: the pgvector/pgvector image) and start again.',
    )
  }
  const version = server.installed ?? server.offered
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major < leastVectorVersion[0] || (major === leastVectorVersion[0] && minor < leastVectorVersion[1])) {
    const remedy =
      server.installed && server.offered !== server.installed
        ? `Run: alter extension vector update (the server offers ${server.offered}).`
        : 'Install a newer pgvector on the server, then run: alter extension vector update.'
    throw new SetupError(`Quarry needs pgvector 0.8 or newer; this database has ${version}. ${remedy}`)
  }
}

async function applyMissing(transaction: Transaction, known: readonly Migration[]): Promise<string[]> {
  await transaction.query(`create table if not exists _prisma_migrations (
    id varchar(36) primary key, checksum varchar(64) not null, finished_at timestamptz,
    migration_name varchar(255) not null, logs text, rolled_back_at timestamptz,
    started_at timestamptz not null default now(), applied_steps_count integer not null default 0)`)
  const rows = await transaction.query<{ name: string; checksum: string; isFinished: boolean }>(
    `select migration_name as name, checksum, finished_at is not null as "isFinished"
     from _prisma_migrations where rolled_back_at is null`,
  )
  const present = new Map(rows.map((row) => [row.name, row]))
  const unknown = rows
    .map((row) => row.name)
    .filter((name) => !known.some((migration) => migration.name === name))
  if (unknown.length > 0) {
    throw new SetupError(
      `The database is newer than this code: it has ${unknown.join(', ')}, which this version does not know. Start the newer version, or use another database.`,
    )
  }
  const applied: string[] = []
  for (const migration of known) {
    const row = present.get(migration.name)
    if (row && !row.isFinished) {
      throw new SetupError(
        `Migration ${migration.name} was begun by another tool and not finished. Mend the database, then mark it with: prisma migrate resolve.`,
      )
    }
    if (row && row.checksum !== migration.checksum) {
      throw new SetupError(
        `Migration ${migration.name} was changed after it had been applied (checksum ${row.checksum}, now ${migration.checksum}). Restore the file; changes belong in a new migration.`,
      )
    }
    if (row) continue
    await transaction.query(migration.sql)
    await transaction.query(
      `insert into _prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count)
       values ($1, $2, now(), $3, 1)`,
      [randomUUID(), migration.checksum, migration.name],
    )
    applied.push(migration.name)
  }
  return applied
}

/** Graphile Worker brings its own tables and is itself safe against processes that start together. */
async function migrateJobQueue(database: Database): Promise<void> {
  await runMigrations({ pgPool: database.pool, noPreparedStatements: database.engine === 'embedded' })
}
