import type { Sql } from '../db/database.ts'
import type { ProcessRole } from './processes.ts'
import type { JobKind, JobState } from './records.ts'

export const jobKinds = [
  'IMPORT',
  'EMBED',
  'BACKFILL',
  'EXTRACT',
  'MIGRATE_EMBEDDINGS',
] as const satisfies readonly JobKind[]

/** How full the job queue is, tasks that are no jobs included. */
export interface QueueDepth {
  /** Could be begun now. */
  ready: number
  /** Wait for their time. */
  scheduled: number
  /** Are being worked on. */
  locked: number
  /** Have failed too often, and are not tried again. */
  exhausted: number
  /** How long the longest-waiting of the ready ones could have been begun, in seconds; 0 if there is none. */
  oldestReadySeconds: number
}

/** Counts the queue's entries: they are as many as there is work left, however much was done. */
export async function readQueueDepth(sql: Sql): Promise<QueueDepth> {
  const [depth] = await sql.query<QueueDepth>(
    `select
       count(*) filter (where is_open and run_at <= now())::int as ready,
       count(*) filter (where is_open and run_at > now())::int as scheduled,
       count(*) filter (where locked_at is not null)::int as locked,
       count(*) filter (where locked_at is null and not is_open)::int as exhausted,
       coalesce(extract(epoch from now() - min(run_at) filter (where is_open and run_at <= now())), 0)::float8
         as "oldestReadySeconds"
     from (select run_at, locked_at, locked_at is null and attempts < max_attempts as is_open
       from graphile_worker.jobs) as entry`,
  )
  if (!depth) throw new Error('the count of the job queue returned no row')
  return depth
}

export interface JobCount {
  kind: JobKind
  state: JobState
  n: number
}

/** Jobs that have not ended, by kind and state: read through the index of the states, where they are few. */
export async function countOpenJobs(sql: Sql): Promise<JobCount[]> {
  return sql.query<JobCount>(
    `select kind, state, count(*)::int as n from job where state in ('QUEUED', 'RUNNING') group by 1, 2`,
  )
}

/** Jobs that have ended and are still kept, by kind and state. Reads them all: not for every scrape. */
export async function countEndedJobs(sql: Sql): Promise<JobCount[]> {
  return sql.query<JobCount>(
    `select kind, state, count(*)::int as n from job where state in ('SUCCEEDED', 'FAILED', 'CANCELLED') group by 1, 2`,
  )
}

/** Kinds of jobs for which an alert is open, with how many have failed in a row. */
export async function readOpenAlerts(sql: Sql): Promise<{ kind: JobKind; failures: number }[]> {
  return sql.query<{ kind: JobKind; failures: number }>(
    `select kind, failures from alert where type = 'JOBS_FAILING' and resolved_at is null`,
  )
}

/** Processes that are entered, by role. */
export async function countProcesses(sql: Sql): Promise<{ role: ProcessRole; n: number }[]> {
  return sql.query<{ role: ProcessRole; n: number }>(
    'select role, count(*)::int as n from process group by role',
  )
}

/** How long ago a process gave its last sign of life, in seconds; null if others took it for dead. */
export async function readHeartbeatAge(sql: Sql, processId: string): Promise<number | null> {
  const [row] = await sql.query<{ seconds: number }>(
    'select extract(epoch from now() - heartbeat_at)::float8 as seconds from process where id = $1',
    [processId],
  )
  return row?.seconds ?? null
}
