import type { Database, Sql } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import { partitionName } from './space.ts'
import { tryCareLock } from './vector-index.ts'

/*
 * When the vectors of a retired space can be dropped. Each process enters what it may use before it uses it, and leaves
 * when nothing of it does any more; a dead one is taken out of `process`, and with that from here. A retired space
 * cannot be entered, so one that nobody is entered for is used by nobody, ever again.
 */

/** It waits for statements that are under way with these vectors; what takes longer is gone on with later. */
const dropLimitMs = 5_000

/**
 * Enters that a process may use a space.
 * @returns false if it is retired, or gone
 * @throws Error if the process itself is not entered (any more)
 */
export async function enterSpaceUse(
  database: Database,
  processId: string,
  spaceId: number,
): Promise<boolean> {
  return database.transaction(async (transaction) => {
    // Locked: whoever retires it comes before this, or sees it.
    const found = await transaction.query(
      `select from embedding_space where id = $1 and state <> 'RETIRED' for share`,
      [spaceId],
    )
    if (found.length === 0) return false
    await transaction.query(
      'insert into space_use (space_id, process_id) values ($1, $2) on conflict do nothing',
      [spaceId, processId],
    )
    return true
  })
}

export async function leaveSpaceUse(sql: Sql, processId: string, spaceId: number): Promise<void> {
  await sql.query('delete from space_use where space_id = $1 and process_id = $2', [spaceId, processId])
}

/** The numbers of the spaces that this process is entered for. */
export async function readSpaceUse(sql: Sql, processId: string): Promise<number[]> {
  const rows = await sql.query<{ id: number }>('select space_id as id from space_use where process_id = $1', [
    processId,
  ])
  return rows.map(({ id }) => id)
}

/** Drops the vectors of retired spaces that nobody uses any more. What cannot be dropped now is, at another look. */
export async function dropRetiredSpaces(database: Database, log: Logger): Promise<void> {
  const free = await database.query<{ id: number }>(
    `select s.id from embedding_space s where s.state = 'RETIRED' and s.dropped_at is null
       and not exists (select from space_use u where u.space_id = s.id)`,
  )
  for (const { id } of free) {
    try {
      if (await dropSpace(database, id))
        log.info({ space: id }, 'The vectors of a retired embedding space are dropped')
    } catch (error) {
      log.warn(
        { space: id, error: errorMessage(error) },
        'The vectors of a retired embedding space are still there',
      )
    }
  }
}

/** @returns false if another process is at it, or at its indexes */
async function dropSpace(database: Database, id: number): Promise<boolean> {
  return database.session(dropLimitMs, async (session) => {
    if (database.engine === 'postgres') {
      if (!(await tryCareLock(session, { id }))) return false
      await detachPartition(session, id)
    }
    await session.query(`drop table if exists ${partitionName({ id })}`)
    await database.transaction(async (transaction) => {
      for (const table of ['embedding_request', 'embedding_count', 'vector_index', 'search_sample']) {
        await transaction.query(`delete from ${table} where space_id = $1`, [id])
      }
      await transaction.query('delete from alert where space_id = $1 and resolved_at is null', [id])
      await transaction.query('update embedding_space set dropped_at = now() where id = $1', [id])
      await transaction.query(`select pg_notify('quarry_spaces', '')`)
    })
    return true
  })
}

/**
 * Takes the partition out of `embedding` while others write to it: dropped as a part of it, it would need all of
 * `embedding` for itself, and every write that comes would wait for every statement that is under way.
 */
async function detachPartition(session: Sql, id: number): Promise<void> {
  const partition = partitionName({ id })
  const [attached] = await session.query<{ isPending: boolean }>(
    `select inhdetachpending as "isPending" from pg_inherits
     where inhrelid = to_regclass($1) and inhparent = 'embedding'::regclass`,
    [partition],
  )
  if (!attached) return
  // One that was broken off has to be brought to its end.
  await session.query(
    `alter table embedding detach partition ${partition} ${attached.isPending ? 'finalize' : 'concurrently'}`,
  )
}
