import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join, resolve } from 'node:path'
import pg from 'pg'
import type { Config, DatabaseConfig } from '../config.ts'
import { type Database, hidePassword, openDatabase, type Sql } from '../db/database.ts'
import { currentHolder } from '../db/lock.ts'
import { readServer } from '../db/migrate.ts'
import { errorMessage, QuarryError, SetupError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { nearestThatExists } from './disk.ts'
import { type Judgement, ok, warning, wrong } from './finding.ts'
import { judgeServer } from './judge.ts'
import { readWritability } from './statements.ts'

/** Where what there is to know can be learnt. */
export type Place =
  /** A running server has the database, or is all that is configured. */
  | { kind: 'server'; url: string; judgement: Judgement | null; howToSeeMore: string }
  | { kind: 'database'; database: Database; sql: Sql; judgement: Judgement }
  /** Nobody can be asked. */
  | {
      kind: 'nowhere'
      cause: string
      /** Whether that is as it should be: there is nothing yet. */
      isNothingThere: boolean
      judgement: Judgement
    }

/** How long is waited for what, milliseconds. */
export interface Limits {
  /** For a database to let a connection in. */
  connectMs: number
  /** For the answer to one statement. */
  statementMs: number
  /** For connections to end; what has not by then is left to its fate. */
  closeMs: number
}

/** Counting what is missing among a million texts takes seconds. */
export const usualLimits: Limits = { connectMs: 10_000, statementMs: 30_000, closeMs: 10_000 }
/** What the database says of its own limit is told before the line is given up. */
const graceMs = 1_000

/** Finds out where the database can be asked, and opens it if nobody else has it. Makes nothing that is not there. */
export async function findPlace(
  { serverUrl, database }: Pick<Config, 'serverUrl' | 'database'>,
  log: Logger,
  limits: Limits,
): Promise<Place> {
  if (serverUrl !== null) {
    return {
      kind: 'server',
      url: serverUrl,
      judgement: null,
      howToSeeMore: 'Run quarry doctor where the server runs, without QUARRY_URL.',
    }
  }
  try {
    return database.kind === 'embedded'
      ? await findInFolder(database, log, limits)
      : await findOnPostgres(database, log, limits)
  } catch (error) {
    if (error instanceof QuarryError) return nowhere('the database cannot be opened', wrong(error.message))
    if (!isSystemError(error)) throw error
    return nowhere(
      'the data folder cannot be reached',
      wrong(
        `the data folder cannot be reached: ${error.message}`,
        'Give this user access to it, or set QUARRY_DATA_DIR to another folder.',
      ),
    )
  }
}

const nowhere = (cause: string, judgement: Judgement, isNothingThere = false): Place => ({
  kind: 'nowhere',
  cause,
  isNothingThere,
  judgement,
})

async function findInFolder(
  config: Extract<DatabaseConfig, { kind: 'embedded' }>,
  log: Logger,
  limits: Limits,
): Promise<Place> {
  const folder = resolve(config.dataDir)
  const existing = await nearestThatExists(folder)
  const isThere = existing === folder
  if (!(await stat(existing)).isDirectory()) {
    const message = `the data folder ${folder} cannot be used: ${existing} is a file`
    return nowhere('there is no data folder', wrong(message, 'Set QUARRY_DATA_DIR to a folder.'))
  }
  const refusal = await whyNotWritable(existing)
  if (refusal !== null) {
    const message = `the data folder ${folder} ${isThere ? 'cannot be written' : `cannot be made in ${existing}`} (${refusal})`
    const remedy = 'Make it writable for this user, or set QUARRY_DATA_DIR to another folder.'
    return nowhere('the data folder cannot be written', wrong(message, remedy))
  }
  const holder = isThere ? currentHolder(folder) : null
  if (holder) {
    const who = `process ${holder.owner} on ${holder.host} since ${holder.since}`
    if (holder.host !== hostname()) {
      return nowhere(
        `the data folder is held by a process on ${holder.host}`,
        warning(
          `the data folder ${folder} is held by ${who}, which cannot be seen from here`,
          `Run quarry doctor on ${holder.host}. If that machine no longer runs it, delete ${join(folder, 'lock.json')}.`,
        ),
      )
    }
    if (holder.url === null) {
      return nowhere(
        `the data folder is held by process ${holder.owner}, which serves no API`,
        warning(
          `the data folder ${folder} is held by ${who}, which serves no API (yet)`,
          'A server that starts takes some seconds, another command as long as it works: then try again.',
        ),
      )
    }
    return {
      kind: 'server',
      url: holder.url,
      judgement: ok(`the data folder ${folder} is held by ${who}, serving ${holder.url}`),
      howToSeeMore: `Stop the server (process ${holder.owner}) and run quarry doctor again.`,
    }
  }
  // Opening what is not there would make it.
  if (!(await isFile(join(folder, 'postgres', 'PG_VERSION')))) {
    const found = isThere ? 'has no database yet' : 'does not exist yet'
    return nowhere(
      'there is no database yet',
      ok(`the data folder ${folder} ${found}; the first start makes it`),
      true,
    )
  }
  return open(config, `${folder}, embedded and held by nobody else`, log, limits)
}

async function findOnPostgres(
  config: Extract<DatabaseConfig, { kind: 'postgres' }>,
  log: Logger,
  limits: Limits,
): Promise<Place> {
  const where = hidePassword(config.url)
  try {
    await knock(config.url, limits.connectMs)
  } catch (error) {
    const message = `the database of DATABASE_URL (${where}) cannot be reached: ${errorMessage(error)}`
    const remedy = 'Start it, correct DATABASE_URL, or unset it to use the embedded database.'
    return nowhere('the database cannot be reached', wrong(message, remedy))
  }
  return open(config, where, log, limits)
}

/** Whether somebody is there: the pool waits for a server that says nothing as long as that says nothing. */
async function knock(url: string, limitMs: number): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: limitMs,
    query_timeout: limitMs,
  })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('select 1')
  } finally {
    await client.end().catch(() => {})
  }
}

/** @param where the database is, for people */
async function open(
  config: DatabaseConfig,
  where: string,
  log: Logger,
  { statementMs }: Limits,
): Promise<Place> {
  let fail: (error: Error) => void = () => {}
  const failed = new Promise<never>((_, reject) => {
    fail = reject
  })
  failed.catch(() => {})
  // One for what is read, one for what is read while a statement that ran into its limit is still being ended.
  const own = config.kind === 'postgres' ? { ...config, poolSize: 2 } : config
  const database = await openDatabase(own, { log, onFailure: (error) => fail(error) })
  const sql = readOnly(database, failed, statementMs)
  try {
    const judgement = judgeServer(await readServer(sql), await readWritability(sql), where)
    return { kind: 'database', database, sql, judgement }
  } catch (error) {
    await database.close()
    const message = `the database (${where}) was opened, but does not answer: ${errorMessage(error)}`
    return nowhere('the database does not answer', wrong(message, 'Its log says why.'))
  }
}

/**
 * Runs each statement in a transaction of its own that is read only: whatever doctor runs changes nothing, and one that
 * fails spoils no other.
 * @param failed ends the waiting for an engine that is broken
 */
function readOnly(database: Database, failed: Promise<never>, limitMs: number): Sql {
  return {
    async query<Row extends object>(text: string, values: readonly unknown[] = []) {
      const asked = database.transaction(async (transaction) => {
        await transaction.query('set transaction read only')
        await transaction.query(`set local statement_timeout = ${Math.trunc(limitMs)}`)
        return transaction.query<Row>(text, values)
      })
      // Its error would be nobody's when the waiting has ended before.
      asked.catch(() => {})
      let timer: NodeJS.Timeout | undefined
      // A network that has gone silent tells nobody, and the limit of the statement is the database's.
      const late = new Promise<never>((_, reject) => {
        const error = new SetupError(`there was no answer within ${limitMs / 1000} s`)
        timer = setTimeout(() => reject(error), limitMs + graceMs)
      })
      try {
        return await Promise.race([asked, failed, late])
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

/** What the operating system refuses, such as to look into a folder above. */
const isSystemError = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && 'syscall' in error

async function whyNotWritable(folder: string): Promise<string | null> {
  try {
    await access(folder, constants.W_OK | constants.X_OK)
    return null
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : errorMessage(error)
  }
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
}
