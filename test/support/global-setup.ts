import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import type { DatabaseConfig } from '../../src/config.ts'
import { openDatabase } from '../../src/db/database.ts'
import { migrate } from '../../src/db/migrate.ts'
import { createLogger } from '../../src/log.ts'
import '../../scripts/build.js'
import { runOnServer } from './databases.ts'

/** Migrates one database, once; each test file copies it, which is many times faster. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const serverUrl = process.env.QUARRY_TEST_DATABASE_URL
  return serverUrl ? setupPostgres(project, serverUrl) : setupEmbedded(project)
}

async function setupEmbedded(project: TestProject): Promise<() => Promise<void>> {
  const dataDir = await mkdtemp(join(tmpdir(), 'quarry-template-'))
  await migrateOnce({ kind: 'embedded', dataDir })
  project.provide('template', { engine: 'embedded', location: dataDir })
  return () => rm(dataDir, { recursive: true, force: true })
}

async function setupPostgres(project: TestProject, serverUrl: string): Promise<() => Promise<void>> {
  const name = `quarry_template_${project.name}_${process.pid}`
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  await runOnServer(serverUrl, `create database ${name}`)
  await migrateOnce({ kind: 'postgres', url: url.href, poolSize: 4 })
  project.provide('template', { engine: 'postgres', location: url.href })
  return () => runOnServer(serverUrl, `drop database if exists ${name} with (force)`)
}

async function migrateOnce(config: DatabaseConfig): Promise<void> {
  const database = await openDatabase(config, {
    log: createLogger('warn'),
    onFailure: (error) => {
      throw error
    },
  })
  await migrate(database)
  await database.close()
}
