import type { Database, Sql } from '../db/database.ts'
import { createFeed, type Feed } from '../db/feed.ts'
import type { Logger } from '../log.ts'
import { jobChannel } from './records.ts'

/** Jobs as they change; they can be chosen by their kind. */
export function createJobFeed(database: Database, log: Logger): Feed {
  return createFeed({
    database,
    log,
    channel: jobChannel,
    isState: true,
    readIds: (payload) => payload.split(' ', 1),
    readSince: (seconds, limit) => changedJobs(database, seconds, limit),
    readGroups: (ids) => kindsOfJobs(database, ids),
  })
}

/** Each change appends an event; the states and ends are looked at first because they are indexed. */
async function changedJobs(sql: Sql, seconds: number, limit: number): Promise<string[]> {
  const jobs = await sql.query<{ id: string }>(
    `select j.id from job j, (select clock_timestamp() - make_interval(secs => $1) as at) as since
     where (j.state in ('QUEUED', 'RUNNING') or j.finished_at >= since.at) and j.last_event_at >= since.at
     order by j.last_event_at, j.id limit $2`,
    [seconds, limit],
  )
  return jobs.map(({ id }) => id)
}

async function kindsOfJobs(sql: Sql, ids: readonly string[]): Promise<{ id: string; group: string }[]> {
  return sql.query('select id, kind as "group" from job where id = any ($1::uuid[])', [ids])
}
