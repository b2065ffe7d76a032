import { Semaphore } from 'async-mutex'
import type { Database } from './database.ts'

/** Share of a process's connections that work in the background may have at once. */
const backgroundShare = 0.4

/**
 * The same database for work that nobody waits for. It never has all connections at once: under a backfill, requests
 * would stand in one queue with it, and each would wait for a dozen statements of others. Sessions do not count: there
 * are few, and they may need a statement beside them.
 */
export function forBackground(database: Database): Database {
  const { max } = database.pool.options
  const slots = new Semaphore(Math.max(1, Math.floor(max * backgroundShare)))
  return {
    ...database,
    query: (text, values, name) => slots.runExclusive(() => database.query(text, values, name)),
    transaction: (work) => slots.runExclusive(() => database.transaction(work)),
  }
}
