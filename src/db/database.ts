import { PrismaPg } from '@prisma/adapter-pg'
import { Mutex } from 'async-mutex'
import pg from 'pg'
import type { DatabaseConfig } from '../config.ts'
import { errorMessage, SetupError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { startupOptions } from './connection.ts'
import { startEmbeddedServer } from './embedded.ts'
import { PrismaClient } from './generated/prisma/client.ts'
import {
  type NotificationListener,
  postgresListener,
  sharedSessionListener,
  type Unlisten,
} from './listen.ts'

/** Something that runs hand-written SQL: the database itself (any free connection) or one transaction. */
export interface Sql {
  /**
   * @param name makes Postgres keep the plan of this text on the connection: for hot statements whose best plan does
   *   not depend on their values. A name belongs to one text. The embedded engine has one session for all connections,
   *   where names would collide, and ignores it.
   */
  query<Row extends object>(text: string, values?: readonly unknown[], name?: string): Promise<Row[]>
}

/** A transaction's own connection. Functions that must be inside one ask for this instead of Sql. */
export interface Transaction extends Sql {
  readonly isTransaction: true
}

export interface Database extends Sql {
  readonly engine: DatabaseConfig['kind']
  readonly pool: pg.Pool
  readonly prisma: PrismaClient
  /** Commits when `work` resolves, rolls back when it throws. Inside, use only the transaction that is given. */
  transaction<Result>(work: (transaction: Transaction) => Promise<Result>): Promise<Result>
  /**
   * Lends a connection of its own, for what cannot be in a transaction (create index concurrently, vacuum) or must hold
   * a lock for longer than one, and throws it away afterwards, with its settings and locks. The embedded engine has one
   * session for all: what is set or locked there stays, so use `set local` in a transaction. It is lent to one at a time
   * there, because a lock would keep nobody out.
   * @param limitMs how long one statement may take
   */
  session<Result>(limitMs: number, work: (session: Sql) => Promise<Result>): Promise<Result>
  /**
   * Calls back for each NOTIFY on the channel. The payload is null after a lost connection was restored: anything
   * may have been missed, so read again.
   */
  listen(channel: string, onNotification: (payload: string | null) => void): Promise<Unlisten>
  /** Publishes the API's address to commands that run beside this server; only embedded folders keep one. Resolves when they see it. */
  publishAddress(url: string): Promise<void>
  close(): Promise<void>
}

export interface DatabaseOptions {
  log: Logger
  /** The database is gone for good (embedded engine broken); the process should end. */
  onFailure(error: Error): void
  /** Called for each statement, also Prisma's; tests count them. */
  onStatement?: (text: string) => void
}

/** No statement that the API or a job waits for may wait for ever. Index builds set their own limit. */
const statementLimitMs = 120_000
/** A process that was suspended in the middle of a transaction must not hold up the others with its locks. */
const idleTransactionLimitMs = 30_000
/** PGlite answers one statement at a time: more connections only queue. */
const embeddedPoolSize = 10

/**
 * Connects to the configured database. Does not migrate: see migrate.ts.
 * @throws SetupError if it cannot be reached or the folder is held by another process
 */
export async function openDatabase(config: DatabaseConfig, options: DatabaseOptions): Promise<Database> {
  return config.kind === 'embedded' ? openEmbedded(config.dataDir, options) : openPostgres(config, options)
}

async function openEmbedded(dataDir: string, options: DatabaseOptions): Promise<Database> {
  const server = await startEmbeddedServer(dataDir, options.onFailure)
  const pool = createPool(options, {
    host: server.socketDir,
    user: 'postgres',
    database: 'postgres',
    max: embeddedPoolSize,
    query_timeout: statementLimitMs,
  })
  return assemble(
    'embedded',
    pool,
    sharedSessionListener(pool),
    (url) => server.publishAddress(url),
    () => server.stop(),
  )
}

async function openPostgres(
  config: Extract<DatabaseConfig, { kind: 'postgres' }>,
  options: DatabaseOptions,
): Promise<Database> {
  const connection: pg.ClientConfig = { connectionString: config.url, options: startupOptions }
  const pool = createPool(options, {
    ...connection,
    max: config.poolSize,
    statement_timeout: statementLimitMs,
    idle_in_transaction_session_timeout: idleTransactionLimitMs,
  })
  try {
    await pool.query('select 1')
  } catch (error) {
    await pool.end()
    throw new SetupError(
      `The database of DATABASE_URL (${hidePassword(config.url)}) cannot be reached: ${errorMessage(error)}. ` +
        'Start it, correct DATABASE_URL, or unset it to use the embedded database.',
      { cause: error },
    )
  }
  const listener = postgresListener(connection, options.log)
  return assemble(
    'postgres',
    pool,
    listener,
    async () => {},
    () => listener.close(),
  )
}

function createPool(options: DatabaseOptions, config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config)
  // Without a handler, a broken idle connection would end the process; the pool replaces it by itself.
  pool.on('error', (error) => options.log.warn({ error: error.message }, 'An idle database connection broke'))
  const { onStatement } = options
  pool.on('connect', (client) => {
    // The same for a connection that breaks while it is lent out: whoever runs a statement gets the error anyway.
    client.on('error', (error) => options.log.debug({ error: error.message }, 'A database connection broke'))
    if (onStatement) observeStatements(client, onStatement)
  })
  return pool
}

function observeStatements(client: pg.PoolClient, onStatement: (text: string) => void): void {
  const query = client.query.bind(client) as (...args: unknown[]) => unknown
  client.query = ((...args: unknown[]) => {
    const [statement] = args
    onStatement(typeof statement === 'string' ? statement : ((statement as { text?: string }).text ?? ''))
    return query(...args)
  }) as typeof client.query
}

function assemble(
  engine: Database['engine'],
  pool: pg.Pool,
  listener: NotificationListener,
  publishAddress: (url: string) => Promise<void>,
  stop: () => Promise<void>,
): Database {
  const prisma = new PrismaClient({ adapter: new PrismaPg(pool) })
  const lent = new Mutex()
  let closing: Promise<void> | null = null
  return {
    engine,
    pool,
    prisma,
    listen: listener.listen,
    publishAddress,
    async query<Row extends object>(text: string, values: readonly unknown[] = [], name?: string) {
      const statement = { text, values: [...values], ...(name && engine === 'postgres' ? { name } : {}) }
      return (await pool.query<Row>(statement)).rows
    },
    async transaction(work) {
      const client = await pool.connect()
      let broken: Error | undefined
      try {
        await client.query('begin')
        const result = await work({
          isTransaction: true,
          async query<Row extends object>(text: string, values: readonly unknown[] = []) {
            return (await client.query<Row>(text, [...values])).rows
          },
        })
        await client.query('commit')
        return result
      } catch (error) {
        await client.query('rollback').catch((failed: Error) => {
          // A connection that cannot even roll back must not go back to the pool with its transaction open.
          broken = failed
        })
        throw error
      } finally {
        client.release(broken)
      }
    },
    session(limitMs, work) {
      const lend = async () => {
        const client = await pool.connect()
        try {
          // The client of the embedded engine has a limit of its own; there, a setting would be that of everybody.
          if (engine === 'postgres') await client.query(`set statement_timeout = ${Math.trunc(limitMs)}`)
          return await work({
            async query<Row extends object>(text: string, values: readonly unknown[] = []) {
              const statement = { text, values: [...values], query_timeout: limitMs }
              return (await client.query<Row>(statement)).rows
            },
          })
        } finally {
          client.release(true)
        }
      }
      return engine === 'embedded' ? lent.runExclusive(lend) : lend()
    },
    close() {
      closing ??= (async () => {
        await prisma.$disconnect()
        await pool.end()
        await stop()
      })()
      return closing
    },
  }
}

/** An address as errors and answers may show it. */
export function hidePassword(url: string): string {
  const parsed = new URL(url)
  if (parsed.password) parsed.password = '***'
  return parsed.href
}
