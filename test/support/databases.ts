import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { inject } from 'vitest'
import { type DatabaseConfig, parseConfig } from '../../src/config.ts'
import { type Database, openDatabase } from '../../src/db/database.ts'
import { type EmbeddingSpace, ensureActiveSpace } from '../../src/embedding/spaces.ts'
import { createLogger } from '../../src/log.ts'
import { createEmbeddingProvider } from '../../src/providers/create.ts'
import { temporaryFolder } from './processes.ts'

/** A migrated, empty database of its own; `await using` removes it. */
export interface TestDatabase extends AsyncDisposable {
  config: DatabaseConfig
}

/** Where global-setup.ts has put the migrated database that each test copies. */
export interface Template {
  engine: 'embedded' | 'postgres'
  /** embedded: a data folder; postgres: the URL of the template database. */
  location: string
}

declare module 'vitest' {
  interface ProvidedContext {
    template: Template
  }
}

/** A copy of the migrated template, on the engine that this run tests (Postgres if QUARRY_TEST_DATABASE_URL is set). */
export async function createTestDatabase(): Promise<TestDatabase> {
  const template = inject('template')
  return template.engine === 'embedded' ? copyFolder(template.location) : copyDatabase(template.location)
}

/** A copy of a database that nobody has open. */
export function copyTestDatabase(config: DatabaseConfig): Promise<TestDatabase> {
  return config.kind === 'embedded' ? copyFolder(config.dataDir) : copyDatabase(config.url)
}

/**
 * A temporary folder whose `data` is a migrated data folder, so that a command on it starts in a third of the time;
 * `await using` removes it.
 */
export async function preparedFolder(): Promise<AsyncDisposable & { path: string }> {
  const folder = await temporaryFolder()
  const template = inject('template')
  if (template.engine === 'embedded') await copyFiles(template.location, join(folder.path, 'data'))
  return folder
}

/** A database of its own, opened without an app; `await using` closes and removes it. */
export async function openTestDatabase(
  onFailure: (error: Error) => void = () => {},
): Promise<AsyncDisposable & { database: Database; config: DatabaseConfig }> {
  const own = await createTestDatabase()
  const database = await reopen(own.config, onFailure)
  return {
    database,
    config: own.config,
    async [Symbol.asyncDispose]() {
      await database.close()
      await own[Symbol.asyncDispose]()
    },
  }
}

/** The same with the space of the local model, in which nobody works. */
export async function openTestSpace(): Promise<
  AsyncDisposable & { database: Database; space: EmbeddingSpace }
> {
  const opened = await openTestDatabase()
  const local = createEmbeddingProvider(parseConfig({}).embedding)
  const space = await ensureActiveSpace(opened.database, local, createLogger('silent'))
  await local.close()
  return { ...opened, space, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() }
}

/** Opens a database of a test once more. */
export function reopen(
  config: DatabaseConfig,
  onFailure: (error: Error) => void = () => {},
): Promise<Database> {
  return openDatabase(config, { log: createLogger('silent'), onFailure })
}

async function copyFolder(template: string): Promise<TestDatabase> {
  const dataDir = await mkdtemp(join(tmpdir(), 'quarry-test-'))
  await copyFiles(template, dataDir)
  return {
    config: { kind: 'embedded', dataDir },
    [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true, force: true }),
  }
}

/** By the system's own: Node's takes five times as long for a thousand files. @param to is there, or is made */
async function copyFiles(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  await promisify(execFile)('cp', ['-R', `${from}/.`, to])
}

async function copyDatabase(templateUrl: string): Promise<TestDatabase> {
  const template = new URL(templateUrl)
  const name = `quarry_test_${randomBytes(6).toString('hex')}`
  const url = new URL(templateUrl)
  url.pathname = `/${name}`
  await runOnServer(templateUrl, `create database ${name} template ${template.pathname.slice(1)}`)
  return {
    config: { kind: 'postgres', url: url.href, poolSize: 10 },
    [Symbol.asyncDispose]: () => runOnServer(templateUrl, `drop database if exists ${name} with (force)`),
  }
}

/** Statements on databases run from `postgres`, where no test works: a template must have no connections. */
export async function runOnServer(url: string, statement: string): Promise<void> {
  const server = new URL(url)
  server.pathname = '/postgres'
  const client = new pg.Client({ connectionString: server.href })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
