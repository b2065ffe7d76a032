import { v7 as uuidv7 } from 'uuid'
import type { Database, Sql, Transaction } from '../db/database.ts'
import type { Logger } from '../log.ts'
import type { JobKind } from './records.ts'
import type { Task } from './runner.ts'

/** Jobs of one kind that fail in a row before people are told. */
const failuresForAlert = 3

/** Jobs of one kind fail in a row, or a vector index finds too few of the nearest rows. */
export type AlertType = 'JOBS_FAILING' | 'RECALL_LOW'

const webhookLimitMs = 10_000

interface AlertRow {
  id: string
  type: AlertType
  /** JOBS_FAILING: of the jobs. */
  kind: JobKind | null
  /** RECALL_LOW: whose index. */
  entityKind: string | null
  failures: number
  error: string | null
  jobId: string | null
  raisedAt: Date
  notifiedAt: Date | null
}

/**
 * The task that the end of a job asks for (trigger job_ended): raises an alert for a kind of jobs that keeps failing,
 * and resolves it when one succeeds. An alert stands in the log, in the API, in the metrics, and is posted to the
 * webhook, if there is one, until that has taken it: what the webhook refuses is tried again by the queue.
 */
export function alertTask(
  database: Database,
  { webhookUrl, log }: { webhookUrl: string | null; log: Logger },
): Task {
  return async (payload) => {
    const { kind } = payload as { kind: JobKind }
    const { alert, isNew, resolved } = await database.transaction(async (transaction) => {
      const { failures, error, jobId } = await readFailures(transaction, kind)
      if (failures < failuresForAlert)
        return { alert: null, isNew: false, resolved: await resolveAlert(transaction, kind) }
      return { ...(await raiseAlert(transaction, kind, failures, error, jobId)), resolved: false }
    })
    if (resolved) log.info({ kind }, 'Jobs of this kind succeed again: the alert is over')
    if (!alert) return
    if (isNew) {
      const { failures, error, jobId } = alert
      log.error({ kind, failures, error, jobId }, `Alert: ${failures} jobs of one kind have failed in a row`)
    }
    await tell(database, webhookUrl, alert)
  }
}

/** The task that posts an alert which was raised by no job; what the webhook refuses is tried again by the queue. */
export function postAlertTask(database: Database, webhookUrl: string | null): Task {
  return async (payload) => {
    const alert = await findAlert(database, (payload as { alertId: string }).alertId)
    if (alert) await tell(database, webhookUrl, alert)
  }
}

async function tell(sql: Sql, webhookUrl: string | null, alert: AlertRow): Promise<void> {
  if (webhookUrl === null || alert.notifiedAt) return
  await post(webhookUrl, alert)
  await markNotified(sql, alert.id)
}

/**
 * Raises the alert that an index of vectors finds too few of the nearest rows, or brings its words up to date.
 * @returns whether it is new
 */
export async function raiseRecallAlert(
  transaction: Transaction,
  index: { spaceId: number; kind: string },
  error: string,
): Promise<boolean> {
  const [alert] = await transaction.query<{ id: string; isNew: boolean }>(
    `insert into alert (id, type, space_id, entity_kind, error) values ($1, 'RECALL_LOW', $2, $3, $4)
     on conflict (space_id, entity_kind) where resolved_at is null and type = 'RECALL_LOW'
       do update set error = excluded.error
     returning id, xmax = 0 as "isNew"`,
    [uuidv7(), index.spaceId, index.kind, error],
  )
  if (!alert?.isNew) return false
  await transaction.query(
    `select graphile_worker.add_job('post_alert', json_build_object('alertId', $1::text), queue_name => 'alerts',
       max_attempts => 10, job_key => 'post_alert ' || $1)`,
    [alert.id],
  )
  return true
}

/** @returns whether there was one */
export async function resolveRecallAlert(
  sql: Sql,
  index: { spaceId: number; kind: string },
): Promise<boolean> {
  const resolved = await sql.query(
    `update alert set resolved_at = now()
     where type = 'RECALL_LOW' and space_id = $1 and entity_kind = $2 and resolved_at is null returning id`,
    [index.spaceId, index.kind],
  )
  return resolved.length > 0
}

const alertColumns = `id, type, kind, entity_kind as "entityKind", failures, error, job_id as "jobId",
  raised_at as "raisedAt", notified_at as "notifiedAt"`

async function findAlert(sql: Sql, id: string): Promise<AlertRow | null> {
  const [alert] = await sql.query<AlertRow>(
    `select ${alertColumns} from alert where id = $1 and resolved_at is null`,
    [id],
  )
  return alert ?? null
}

/** How many jobs of a kind have failed since the last one that succeeded, and what the last one was. */
async function readFailures(
  sql: Sql,
  kind: JobKind,
): Promise<{ failures: number; error: string | null; jobId: string | null }> {
  const [row] = await sql.query<{ failures: number; error: string | null; jobId: string | null }>(
    `select count(*)::int as failures, (array_agg(error order by finished_at desc, id desc))[1] as error,
       (array_agg(id order by finished_at desc, id desc))[1] as "jobId"
     from job where kind = $1 and state = 'FAILED' and finished_at > coalesce(
       (select max(finished_at) from job where kind = $1 and state = 'SUCCEEDED'), '-infinity')`,
    [kind],
  )
  return row ?? { failures: 0, error: null, jobId: null }
}

async function raiseAlert(
  transaction: Transaction,
  kind: JobKind,
  failures: number,
  error: string | null,
  jobId: string | null,
): Promise<{ alert: AlertRow | null; isNew: boolean }> {
  const [alert] = await transaction.query<AlertRow & { isNew: boolean }>(
    `insert into alert (id, kind, failures, error, job_id) values ($1, $2, $3, $4, $5)
     on conflict (kind) where resolved_at is null
       do update set failures = excluded.failures, error = excluded.error, job_id = excluded.job_id
     returning ${alertColumns}, xmax = 0 as "isNew"`,
    [uuidv7(), kind, failures, error, jobId],
  )
  return alert ? { alert, isNew: alert.isNew } : { alert: null, isNew: false }
}

async function resolveAlert(transaction: Transaction, kind: JobKind): Promise<boolean> {
  const resolved = await transaction.query(
    'update alert set resolved_at = now() where kind = $1 and resolved_at is null returning id',
    [kind],
  )
  return resolved.length > 0
}

async function markNotified(sql: Sql, id: string): Promise<void> {
  await sql.query('update alert set notified_at = now() where id = $1', [id])
}

async function post(url: string, alert: AlertRow): Promise<void> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(bodyOf(alert)),
    signal: AbortSignal.timeout(webhookLimitMs),
    redirect: 'error',
  })
  await response.body?.cancel()
  if (!response.ok) throw new Error(`The webhook for alerts answered ${response.status}`)
}

function bodyOf({ type, kind, entityKind, failures, error, jobId, raisedAt }: AlertRow) {
  if (type === 'RECALL_LOW') return { type, text: `Quarry: ${error}`, entityKind, error, raisedAt }
  const text = `Quarry: ${failures} ${kind} jobs have failed in a row. The last one: ${error ?? 'no reason was kept'}`
  return { type, text, kind, failures, error, jobId, raisedAt }
}
