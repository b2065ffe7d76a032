import type { Database, Sql } from '../db/database.ts'
import type { Logger } from '../log.ts'
import type { Task } from './runner.ts'

/** Rows that one statement deletes: a long one would hold up others. */
const batchSize = 1_000

/** The task that deletes jobs, with their events and files, that ended long ago, and alerts that are over as long. */
export function retentionTask(database: Database, retentionDays: number, log: Logger): Task {
  return async () => {
    let jobs = 0
    for (let deleted = batchSize; deleted === batchSize; jobs += deleted)
      deleted = await deleteEndedJobs(database, retentionDays)
    await deleteOldAlerts(database, retentionDays)
    if (jobs > 0) log.info({ jobs, retentionDays }, 'Cleared jobs that ended long ago')
  }
}

async function deleteEndedJobs(sql: Sql, days: number): Promise<number> {
  const deleted = await sql.query(
    `delete from job where id in (
       select id from job where finished_at < now() - make_interval(days => $1) order by finished_at limit ${batchSize})
     returning 1`,
    [days],
  )
  return deleted.length
}

async function deleteOldAlerts(sql: Sql, days: number): Promise<void> {
  await sql.query('delete from alert where resolved_at < now() - make_interval(days => $1)', [days])
}
