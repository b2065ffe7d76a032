import type { Database, Sql } from '../db/database.ts'
import type { Logger } from '../log.ts'
import { type TableFacts, upkeepOf } from './index-plan.ts'
import { type EmbeddingSpace, partitionName } from './space.ts'

/** Where autovacuum should have been, it is given twice the time. */
const patience = { embedded: 1, postgres: 2 }
/** A vacuum of a large table takes long, on the embedded engine from everybody. */
const vacuumLimitMs = 60 * 60_000

/**
 * Clears away rows that are gone and brings up to date what the planner knows. The embedded engine has no autovacuum, so
 * there it is done for every table; elsewhere only where autovacuum is behind with the vectors.
 */
export async function lookAfterTables(
  database: Database,
  spaces: readonly Pick<EmbeddingSpace, 'id'>[],
  log: Logger,
): Promise<void> {
  const names = database.engine === 'embedded' ? null : spaces.map(partitionName)
  for (const table of await readTables(database, names)) {
    const need = upkeepOf(table, patience[database.engine])
    if (need === null) continue
    const started = performance.now()
    await database.session(vacuumLimitMs, (session) =>
      session.query(`${need === 'vacuum' ? 'vacuum (analyze)' : 'analyze'} ${table.name}`),
    )
    const ms = Math.round(performance.now() - started)
    log.debug(
      { table: table.name, need, dead: table.dead, changed: table.changed, ms },
      'Looked after a table',
    )
  }
}

/** Tables as Postgres counts their rows. @param names null: all that are ours */
async function readTables(
  sql: Sql,
  names: readonly string[] | null,
): Promise<(TableFacts & { name: string })[]> {
  return sql.query<TableFacts & { name: string }>(
    `select relid::regclass::text as name, n_live_tup::float8 as live, n_dead_tup::float8 as dead,
       n_mod_since_analyze::float8 as changed
     from pg_stat_user_tables where $1::text[] is null or relname = any ($1)`,
    [names],
  )
}

/** maintenance_work_mem as it is set now, in bytes. */
export async function readMaintenanceMemory(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ bytes: number }>(
    `select pg_size_bytes(current_setting('maintenance_work_mem'))::float8 as bytes`,
  )
  if (!row) throw new Error('maintenance_work_mem could not be read')
  return row.bytes
}

/** Remembers when the rows of each index last changed while some were owed. */
export function changeOfRows(limitMs: number): {
  isStalled(name: string, rows: number, owed: number): boolean
} {
  const seen = new Map<string, { rows: number; at: number }>()
  return {
    isStalled(name, rows, owed) {
      const last = seen.get(name)
      if (!last || last.rows !== rows || owed === 0) seen.set(name, { rows, at: performance.now() })
      return last !== undefined && last.rows === rows && owed > 0 && performance.now() - last.at > limitMs
    },
  }
}
