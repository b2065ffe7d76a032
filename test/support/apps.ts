import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { type App, startApp } from '../../src/app.ts'
import { type Config, type DatabaseConfig, parseConfig } from '../../src/config.ts'
import { createLogger } from '../../src/log.ts'
import { TestClient } from './client.ts'
import { createTestDatabase } from './databases.ts'
import { temporaryFolder } from './processes.ts'
import { ProviderServer, type ProviderServerOptions } from './provider-server.ts'

export interface TestApp extends AsyncDisposable {
  client: TestClient
  config: Config
  app: App
  /** Statements that the app has sent, its own and Prisma's; empty it to count from here on. */
  statements: string[]
  /**
   * Reads and changes the database behind the app's back. On the embedded engine the app does not hear of notifications
   * that such a statement raises.
   */
  sql<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]>
  /** A session of its own on the same database. */
  session(): Promise<pg.Client>
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
    // What starts by itself would mix with what a test looks at.
    ...parseConfig({ PORT: '0', QUARRY_EMBEDDING_THREADS: '1', QUARRY_AUTO_EXTRACT: 'off', ...options.env }),
    database,
  }
  const statements: string[] = []
  const sockets = await temporaryFolder()
  const app = await withTemporaryFolder(sockets.path, () =>
    startApp({
      config,
      log: createLogger(process.env.QUARRY_TEST_LOG === 'debug' ? 'debug' : 'silent'),
      role: 'server',
      onStatement: (text) => statements.push(text),
    }),
  )
  const client = new TestClient(app.url ?? '')
  let backDoor: pg.Pool | null = null
  return {
    client,
    config,
    app,
    statements,
    async sql<Row extends object>(text: string, values: readonly unknown[] = []) {
      backDoor ??= new pg.Pool({ ...(await connectionOf(database, sockets.path)), max: 1 })
      return (await backDoor.query<Row>(text, [...values])).rows
    },
    async session() {
      const session = new pg.Client(await connectionOf(database, sockets.path))
      await session.connect()
      return session
    },
    async [Symbol.asyncDispose]() {
      await backDoor?.end()
      await client.close()
      await app.stop()
      await own?.[Symbol.asyncDispose]()
      await sockets[Symbol.asyncDispose]()
    },
  }
}

/** An app that embeds by a provider server: much faster than the local model, and it can be made to fail. */
export async function startProviderApp(
  provider: ProviderServerOptions = {},
  options: TestAppOptions = {},
): Promise<TestApp & { provider: ProviderServer }> {
  const server = await ProviderServer.start(provider)
  const app = await startTestApp({ ...options, env: { ...providerEnv(server), ...options.env } })
  return {
    ...app,
    provider: server,
    async [Symbol.asyncDispose]() {
      await app[Symbol.asyncDispose]()
      await server.close()
    },
  }
}

/** What makes an app embed by this server, with short vectors. */
export function providerEnv(server: ProviderServer): Record<string, string> {
  return {
    QUARRY_EMBEDDING_PROVIDER: 'openai',
    OPENAI_BASE_URL: `${server.url}/v1`,
    OPENAI_API_KEY: 'x',
    OPENAI_EMBEDDING_DIMENSIONS: '64',
  }
}

/** The embedded engine makes its socket in the folder for temporary files as it is when its process is started. */
function withTemporaryFolder<Result>(path: string, start: () => Result): Result {
  const usual = process.env.TMPDIR
  process.env.TMPDIR = path
  try {
    return start()
  } finally {
    if (usual === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = usual
  }
}

async function connectionOf(database: DatabaseConfig, sockets: string): Promise<pg.ClientConfig> {
  if (database.kind === 'postgres') return { connectionString: database.url }
  const [folder] = await readdir(sockets)
  if (!folder) throw new Error(`the embedded engine has made no socket in ${sockets}`)
  return { host: join(sockets, folder), user: 'postgres', database: 'postgres' }
}
