import type { Sql } from '../db/database.ts'
import { type EmbeddingSpace, partitionName } from '../embedding/spaces.ts'
import type { ProcessRole } from '../jobs/processes.ts'
import type { JobKind } from '../jobs/records.ts'
import type { StoredTrigger } from './triggers.ts'

/*
 * What doctor reads and nobody else does. All of it only reads: doctor runs each statement in a transaction that is read
 * only.
 */

/** All triggers of our tables; those of foreign keys left out. */
export async function readTriggers(sql: Sql): Promise<StoredTrigger[]> {
  return sql.query<StoredTrigger>(
    `select t.tgname as name, c.relname as "table", t.tgenabled in ('O', 'A') as "isEnabled"
     from pg_trigger t join pg_class c on c.oid = t.tgrelid
     where c.relnamespace = current_schema()::regnamespace and not t.tgisinternal order by 2, 1`,
  )
}

/** Whether the table that holds the vectors of a space is there and part of `embedding`. */
export async function isPartitionThere(sql: Sql, space: Pick<EmbeddingSpace, 'id'>): Promise<boolean> {
  const rows = await sql.query(
    `select from pg_inherits where inhparent = 'embedding'::regclass and inhrelid = to_regclass($1)`,
    [partitionName(space)],
  )
  return rows.length > 0
}

/** How many texts have no embedding row in a space, whatever its status: nobody would ever embed them. */
export async function countMissingRows(sql: Sql, spaceId: number): Promise<number> {
  return count(
    sql,
    `embeddable o where not exists (
       select from embedding e where e.space_id = $1 and e.kind = o.kind and e.owner_id = o.owner_id)`,
    spaceId,
  )
}

/** How many have one that is of another text than the one that is stored: it was changed while triggers were off. */
export async function countOutdatedRows(sql: Sql, spaceId: number): Promise<number> {
  return count(
    sql,
    `embeddable o join embedding e using (kind, owner_id)
     where e.space_id = $1 and e.content_hash <> text_hash(o.text)`,
    spaceId,
  )
}

/** How many embedding rows are of something that is deleted. */
export async function countOrphanedRows(sql: Sql, spaceId: number): Promise<number> {
  return count(
    sql,
    `embedding e where e.space_id = $1
       and not exists (select from embeddable o where o.kind = e.kind and o.owner_id = e.owner_id)`,
    spaceId,
  )
}

async function count(sql: Sql, what: string, spaceId: number): Promise<number> {
  const [row] = await sql.query<{ n: number }>(`select count(*)::float8 as n from ${what}`, [spaceId])
  if (!row) throw new Error('a count returned no row')
  return row.n
}

/** For whoever has to mend what the counts above find; done by hand, as it was broken. */
export const renewOutdatedRows = `select void_embeddings(kind, array_agg(owner_id), array_agg(text)) from (select distinct o.* from embeddable o join embedding e using (kind, owner_id) where e.content_hash <> text_hash(o.text)) as changed group by kind`
export const deleteOrphanedRows = `delete from embedding e where not exists (select from embeddable o where o.kind = e.kind and o.owner_id = e.owner_id)`

/** Why most of those that failed have failed; null if none has. */
export async function readCommonestFailure(
  sql: Sql,
  spaceId: number,
): Promise<{ error: string; n: number } | null> {
  const [row] = await sql.query<{ error: string; n: number }>(
    `select last_error as error, count(*)::float8 as n from embedding
     where space_id = $1 and status = 'FAILED' and last_error is not null
     group by 1 order by 2 desc, 1 limit 1`,
    [spaceId],
  )
  return row ?? null
}

export interface FailingJobs {
  kind: JobKind
  /** In a row. */
  failures: number
  /** Of the last one. */
  error: string | null
}

/** Kinds of jobs for which an alert is open. */
export async function readFailingJobs(sql: Sql): Promise<FailingJobs[]> {
  return sql.query<FailingJobs>(
    `select kind, failures, error from alert where type = 'JOBS_FAILING' and resolved_at is null order by kind`,
  )
}

/** Processes that have given a sign of life within so many seconds, by role. */
export async function countLivingProcesses(
  sql: Sql,
  withinSeconds: number,
): Promise<{ role: ProcessRole; n: number }[]> {
  return sql.query<{ role: ProcessRole; n: number }>(
    `select role, count(*)::int as n from process
     where heartbeat_at > clock_timestamp() - make_interval(secs => $1) group by role order by role`,
    [withinSeconds],
  )
}

/** What the database's clock says, milliseconds since 1970. */
export async function readClock(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ ms: number }>(
    `select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms`,
  )
  if (!row) throw new Error('the question for the time returned no row')
  return row.ms
}

/** Bytes that the database takes on its disk, indexes included. */
export async function readDatabaseSize(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ bytes: number }>(
    'select pg_database_size(current_database())::float8 as bytes',
  )
  if (!row) throw new Error('the question for the size of the database returned no row')
  return row.bytes
}

/** Whether the server takes changes at all, as new sessions are set up. */
export async function readWritability(sql: Sql): Promise<{ isStandby: boolean; isReadOnly: boolean }> {
  const [row] = await sql.query<{ isStandby: boolean; isReadOnly: boolean }>(
    `select pg_is_in_recovery() as "isStandby", current_setting('default_transaction_read_only') = 'on' as "isReadOnly"`,
  )
  if (!row) throw new Error('the question whether the server takes changes returned no row')
  return row
}
