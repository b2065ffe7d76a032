import { hostname } from 'node:os'
import type { Database, Sql } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import { bringForward, clearTakenOut, requeueForgotten } from './queue.ts'

export type ProcessRole = 'server' | 'worker'

/** This process's place among those that work on the database. */
export interface ProcessRecord {
  /** Changes when others took this process for dead and it had to enter again: what it had leased is no longer its. */
  readonly id: string
  /** Says under which ids this process locks jobs in the queue. The list may grow. */
  setWorkers(workerIds: readonly string[]): Promise<void>
  stop(): Promise<void>
}

const heartbeatMs = 5_000
/** A process that was silent for so long is dead to the others. */
export const deadAfterSeconds = 30

/**
 * Enters this process and keeps its heartbeat. With each beat the dead are cleared: their leases fall with their row
 * and their jobs are unlocked, so what a killed process had in hand is taken up by others within a minute. (The job
 * queue itself would wait four hours.) An embedded database has one process at a time: whoever else is entered is dead.
 */
export async function enterProcess(
  database: Database,
  role: ProcessRole,
  log: Logger,
): Promise<ProcessRecord> {
  await holdHeartbeats(database)
  await clearDeadProcesses(database, database.engine === 'embedded' ? 0 : deadAfterSeconds)
  if (database.engine === 'embedded') await unlockAllJobs(database)
  await bringForward(database)
  let id = await insertProcess(database, role)
  let workers: readonly string[] = []

  async function beat(): Promise<void> {
    if (!(await writeHeartbeat(database, id, workers))) {
      log.warn({ process: id }, 'Others took this process for dead (it was suspended); it enters again')
      id = await insertProcess(database, role)
      await writeWorkers(database, id, workers)
    }
    await holdHeartbeats(database)
    await clearDeadProcesses(database, deadAfterSeconds)
    await unlockOrphans(database)
    await bringForward(database)
    await clearTakenOut(database)
    const forgotten = await requeueForgotten(database)
    if (forgotten.length > 0)
      log.warn({ jobs: forgotten }, 'Jobs that nobody worked on are in the queue again')
    await database.query('select compact_embedding_counts()')
  }

  let beating: Promise<void> = Promise.resolve()
  let isBeating = false
  const timer = setInterval(() => {
    // A beat that hangs on a lost database must not pile up others behind it.
    if (isBeating) return
    isBeating = true
    beating = beat()
      .catch((error) =>
        log.warn({ error: errorMessage(error) }, 'The heartbeat of this process could not be written'),
      )
      .finally(() => {
        isBeating = false
      })
  }, heartbeatMs)

  return {
    get id() {
      return id
    },
    async setWorkers(workerIds) {
      workers = workerIds
      await writeWorkers(database, id, workers)
    },
    async stop() {
      clearInterval(timer)
      await beating
      await removeProcess(database, id)
    },
  }
}

async function insertProcess(sql: Sql, role: ProcessRole): Promise<string> {
  const [row] = await sql.query<{ id: string }>(
    'insert into process (role, host, pid) values ($1, $2, $3) returning id::text as id',
    [role, hostname(), process.pid],
  )
  if (!row) throw new Error('insert into process returned no row')
  return row.id
}

/** With the workers that there are by now: the queue makes new ones when it connects again. */
async function writeHeartbeat(sql: Sql, id: string, workerIds: readonly string[]): Promise<boolean> {
  const rows = await sql.query(
    'update process set heartbeat_at = now(), workers = $2 where id = $1 returning id',
    [id, workerIds],
  )
  return rows.length > 0
}

async function writeWorkers(sql: Sql, id: string, workerIds: readonly string[]): Promise<void> {
  await sql.query('update process set workers = $2 where id = $1', [id, workerIds])
}

/** When the clock of the database was set back, a heartbeat that is still to come would keep a dead process for as long. */
async function holdHeartbeats(sql: Sql): Promise<void> {
  await sql.query('update process set heartbeat_at = now() where heartbeat_at > now()')
}

/** After a restart of the server every heartbeat is old: all get the time to beat once before any is judged. */
async function clearDeadProcesses(sql: Sql, afterSeconds: number): Promise<void> {
  await sql.query(
    `delete from process
     where heartbeat_at <= now() - make_interval(secs => $1)
       and ($1 = 0 or pg_postmaster_start_time() <= now() - make_interval(secs => $1))`,
    [afterSeconds],
  )
}

/**
 * What nobody who is entered has locked was locked by one that is gone. It may have been about to enter: that takes
 * moments. A lock of the far future is one of a clock that was set back.
 */
async function unlockOrphans(sql: Sql): Promise<void> {
  await sql.query(
    `select graphile_worker.force_unlock_workers(array_agg(distinct locked_by)) from graphile_worker.jobs
     where locked_at not between now() - make_interval(secs => $1) and now() + make_interval(secs => $1)
       and not exists (select from process p where locked_by = any (p.workers)) having count(*) > 0`,
    [deadAfterSeconds],
  )
}

/** Whatever is locked when the only process of a database starts was locked by one that is gone. */
async function unlockAllJobs(sql: Sql): Promise<void> {
  await sql.query(
    `select graphile_worker.force_unlock_workers(array_agg(distinct locked_by))
     from graphile_worker.jobs where locked_by is not null having count(*) > 0`,
  )
}

async function removeProcess(sql: Sql, id: string): Promise<void> {
  await sql.query('delete from process where id = $1', [id])
}
