import type { App } from '../../src/app.ts'
import { startApp } from '../../src/app.ts'
import { type Config, type DatabaseConfig, parseConfig } from '../../src/config.ts'
import { createLogger } from '../../src/log.ts'
import { TestClient } from './client.ts'
import { createTestDatabase } from './databases.ts'

export interface TestApp extends AsyncDisposable {
  client: TestClient
  config: Config
  app: App
  /** Statements that the app has sent, its own and Prisma's; empty it to count from here on. */
  statements: string[]
}

export interface TestAppOptions {
  /** The database to use; else a new one that goes with the app. */
  database?: DatabaseConfig
  /** Environment variables on top of the defaults, such as the provider's. */
  env?: Record<string, string>
}

/** A whole app with its API on a free port and a client; `await using` stops it and removes its database. */
export async function startTestApp(options: TestAppOptions = {}): Promise<TestApp> {
  const own = options.database ? null : await createTestDatabase()
  const database = options.database ?? own?.config
  if (!database) throw new Error('no database for the test')
  const config: Config = {
    ...parseConfig({ PORT: '0', QUARRY_EMBEDDING_THREADS: '1', ...options.env }),
    database,
  }
  const statements: string[] = []
  const app = await startApp({
    config,
    log: createLogger(process.env.QUARRY_TEST_LOG === 'debug' ? 'debug' : 'silent'),
    role: 'server',
    onStatement: (text) => statements.push(text),
  })
  const client = new TestClient(app.url ?? '')
  return {
    client,
    config,
    app,
    statements,
    async [Symbol.asyncDispose]() {
      await client.close()
      await app.stop()
      await own?.[Symbol.asyncDispose]()
    },
  }
}
