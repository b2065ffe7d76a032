import { mkdirSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { expect, inject, vi } from 'vitest'
import type { DatabaseConfig } from '../../src/config.ts'
import { currentHolder } from '../../src/db/lock.ts'
import { providerEnv } from './apps.ts'
import { TestClient } from './client.ts'
import { createTestDatabase, preparedFolder, reopen } from './databases.ts'
import { byMarks, openAiExtractor } from './extraction.ts'
import { startQuarry } from './processes.ts'
import { ProviderServer, type ProviderServerOptions } from './provider-server.ts'
import { expectTruth, findDeadProcesses, type Read, untilDone } from './truth.ts'

/** One `quarry` process of a fleet. */
export interface Member {
  readonly pid: number
  /** Fulfilled when it works; rejected if it ends before. */
  readonly ready: Promise<void>
  isAlive(): boolean
  /** Of a server, as soon as it is ready. */
  client(): Promise<TestClient>
  /** All that it has logged so far. */
  output(): string
  /** Resolves with the first line of its log that matches; rejects if it ends before. */
  line(pattern: RegExp): Promise<RegExpMatchArray>
  /** Resolves with its exit code; null if a signal ended it. */
  exit(): Promise<number | null>
  /**
   * kill -9; resolves when it is gone.
   * @param withEngine embedded: the process of the database as well, in the same moment, as when the power goes
   */
  kill(withEngine?: boolean): Promise<void>
  /** SIGTERM; resolves with its exit code and the milliseconds that it took. */
  stop(): Promise<{ code: number | null; ms: number }>
  /** SIGSTOP: it stands still, with all its connections open, until resume(). */
  suspend(): void
  resume(): void
}

/** A database, a provider that embeds and reads by marks, and any number of `quarry` processes on them. */
export interface Fleet extends AsyncDisposable {
  readonly config: DatabaseConfig
  readonly provider: ProviderServer
  /** All that were started, in that order, also those that have ended. */
  readonly members: readonly Member[]
  /** Reads and changes the database directly. Embedded and with no process running it is opened for each call. */
  readonly sql: Read
  /** Starts a process; `env` comes on top of the fleet's. */
  start(role: 'serve' | 'worker', env?: Record<string, string>): Member
  /**
   * Waits until all work has ended and the dead are cleared away, then fails the test with all that is not true.
   * @param limitMs for the waiting
   */
  expectTruth(limitMs: number): Promise<void>
}

export interface FleetOptions {
  /** On top of a provider that embeds and reads by marks. */
  provider?: ProviderServerOptions
  /** The database to use; else a new one that goes with the fleet. */
  database?: DatabaseConfig
  /** On top of what every process needs. */
  env?: Record<string, string>
  /** A command through which every process is started; see startQuarry. */
  through?: readonly string[]
}

export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  const folder = await preparedFolder()
  const own = options.database || inject('template').engine === 'embedded' ? null : await createTestDatabase()
  const config = options.database ?? own?.config ?? { kind: 'embedded', dataDir: join(folder.path, 'data') }
  const provider = await ProviderServer.start({ ...byMarks, dimensions: 64, ...options.provider })
  const members: Member[] = []
  const clients: TestClient[] = []
  /** Of each process: the embedded engine makes its socket there. */
  const temporary = new Map<Member, string>()
  const alive = () => members.filter((member) => member.isAlive())

  const env: Record<string, string> = {
    ...(config.kind === 'postgres' ? { DATABASE_URL: config.url } : { QUARRY_DATA_DIR: config.dataDir }),
    PORT: '0',
    QUARRY_AUTO_EXTRACT: 'off',
    ...providerEnv(provider),
    ...openAiExtractor,
    ...options.env,
  }

  async function connection(): Promise<pg.ClientConfig | null> {
    if (config.kind === 'postgres') return { connectionString: config.url }
    const server = alive().at(-1)
    if (!server) return null
    const root = temporary.get(server) ?? ''
    const socket = (await readdir(root, { recursive: true })).find((path) => path.endsWith('.s.PGSQL.5432'))
    if (!socket) throw new Error('the embedded engine is not ready')
    return { host: join(root, socket, '..'), user: 'postgres', database: 'postgres' }
  }

  const sql: Read = async <Row extends object>(text: string, values: readonly unknown[] = []) => {
    const connected = await connection()
    if (!connected) {
      const database = await reopen(config)
      return database.query<Row>(text, values).finally(() => database.close())
    }
    const client = new pg.Client(connected)
    // A connection that a test cuts would otherwise end the tests.
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query<Row>(text, [...values])).rows
    } finally {
      await client.end()
    }
  }

  function start(role: 'serve' | 'worker', extra: Record<string, string> = {}): Member {
    const root = join(folder.path, String(members.length))
    mkdirSync(root)
    const quarry = startQuarry([role], { ...env, TMPDIR: root, ...extra }, options.through)
    const { child } = quarry
    let client: TestClient | null = null
    const ready = quarry.line(role === 'serve' ? /"url":"(http:[^"]+)\/graphql"/ : /Quarry works/)
    ready.catch(() => {})
    const isAlive = () => child.exitCode === null && child.signalCode === null
    const member: Member = {
      pid: child.pid ?? 0,
      ready: ready.then(() => {}),
      isAlive,
      async client() {
        const [, url = ''] = await ready
        if (!client) {
          client = new TestClient(url)
          clients.push(client)
        }
        return client
      },
      output: quarry.output,
      line: quarry.line,
      exit: quarry.exit,
      async kill(withEngine = false) {
        const engine = withEngine && config.kind === 'embedded' ? currentHolder(config.dataDir) : null
        child.kill('SIGKILL')
        if (engine) killIfThere(engine.pid)
        await quarry.exit()
      },
      async stop() {
        const begun = performance.now()
        child.kill('SIGTERM')
        const code = await quarry.exit()
        return { code, ms: Math.round(performance.now() - begun) }
      },
      suspend: () => child.kill('SIGSTOP'),
      resume: () => child.kill('SIGCONT'),
    }
    member.ready.catch(() => {})
    members.push(member)
    temporary.set(member, root)
    return member
  }

  return {
    config,
    provider,
    members,
    sql,
    start,
    async expectTruth(limitMs) {
      await untilDone(sql, limitMs)
      const pids = alive().map(({ pid }) => pid)
      await vi.waitFor(async () => expect(await findDeadProcesses(sql, pids)).toEqual([]), {
        timeout: limitMs,
        interval: 500,
      })
      // Cleared by whoever looks next.
      const takenOut = () =>
        sql(
          'select id from graphile_worker.jobs where key is null and attempts >= max_attempts and locked_at is null',
        )
      await vi.waitFor(async () => expect(await takenOut()).toEqual([]), { timeout: limitMs, interval: 500 })
      await expectTruth(sql, provider.options.vector)
    },
    async [Symbol.asyncDispose]() {
      // A suspended process takes no signal but this one.
      await Promise.all(alive().map((member) => member.kill(true)))
      for (const client of clients) await client.close()
      await provider.close()
      await own?.[Symbol.asyncDispose]()
      await folder[Symbol.asyncDispose]()
    },
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

/** Skips a test on the embedded engine, and says why. */
export function needsPostgres(skip: (reason: string) => never): void {
  if (inject('template').engine === 'embedded') skip('embedded: one process at a time, in this one')
}
