import type { TriggerRules } from '../config.ts'
import type { Sql, Transaction } from '../db/database.ts'
import type { ExtractionMessage } from './extractor.ts'

/** Which messages an EXTRACT job reads. */
export type ExtractionScope =
  /** These, also if they were read before or are noise: somebody asked for them. */
  | { messageIds: string[] }
  /** Sent from the first moment (ISO 8601) on and before the second. */
  | { from: string; to: string }
  /** All of a source. */
  | { sourceId: string }
  /** What came in lately and waits. */
  | { waiting: true }

/** A batch that failed this often is left alone until somebody asks or the text changes. */
const maxFailures = 3
/** What waited through a longer downtime is no longer news; `extractKnowledge` reads it. */
const maxWait = '7 days'

/** SQL: a message that nobody reads or has read; with `e`, its row in message_extraction. */
const isOpen = `(e.message_id is null or (e.extracted_at is null and e.failures < ${maxFailures}
  and not exists (select from job j where j.id = e.job_id and j.state in ('QUEUED', 'RUNNING'))))`

const isWaiting = (window: string) =>
  `m.noise <> 'NOISE' and m.sent_at > now() - interval '${maxWait}' and m.sent_at > m.created_at - make_interval(hours => ${window})`

/**
 * Gives the messages of a scope to a job, unless another job under way has them. Safe to repeat.
 * @returns how many it has
 */
export async function claimMessages(
  transaction: Transaction,
  jobId: string,
  scope: ExtractionScope,
  rules: TriggerRules,
): Promise<number> {
  const { where, values } = scopeCondition(scope, rules)
  await transaction.query(
    `insert into message_extraction (message_id, job_id)
     select m.id, $1 from message m left join message_extraction e on e.message_id = m.id
     where ${where}
     on conflict (message_id) do update set job_id = excluded.job_id, extracted_at = null, last_error = null
       where message_extraction.job_id is distinct from excluded.job_id
         and not exists (select from job j where j.id = message_extraction.job_id and j.state in ('QUEUED', 'RUNNING'))`,
    [jobId, ...values],
  )
  const [claimed] = await transaction.query<{ n: number }>(
    'select count(*)::int as n from message_extraction where job_id = $1 and extracted_at is null and last_error is null',
    [jobId],
  )
  return claimed?.n ?? 0
}

function scopeCondition(scope: ExtractionScope, rules: TriggerRules): { where: string; values: unknown[] } {
  if ('messageIds' in scope) return { where: 'm.id = any ($2::uuid[])', values: [scope.messageIds] }
  if ('sourceId' in scope)
    return { where: `m.source_id = $2 and m.noise <> 'NOISE' and ${isOpen}`, values: [scope.sourceId] }
  if ('from' in scope) {
    return {
      where: `m.sent_at >= $2::timestamptz and m.sent_at < $3::timestamptz and m.noise <> 'NOISE' and ${isOpen}`,
      values: [scope.from, scope.to],
    }
  }
  return { where: `${isWaiting('$2')} and ${isOpen}`, values: [rules.windowHours] }
}

/**
 * How many messages a job with this scope would read, and the newest of them, each as a conversation by itself and
 * without its vector.
 * @param limit of those that are given
 */
export async function readScopeSample(
  sql: Sql,
  scope: ExtractionScope,
  rules: TriggerRules,
  limit: number,
): Promise<{ count: number; messages: ExtractionMessage[] }> {
  const { where, values } = scopeCondition(scope, rules)
  const rows = await sql.query<ExtractionMessage & { count: number }>(
    `select m.id, m.author, m.sent_at as "sentAt", m.channel, m.content, m.id as "conversationId",
       null as "replyToId", null as vector, (count(*) over ())::int as count
     from message m left join message_extraction e on e.message_id = m.id
     where $1::uuid is null and ${where} order by m.sent_at desc, m.id desc limit ${Math.trunc(limit)}`,
    [null, ...values],
  )
  return { count: rows[0]?.count ?? 0, messages: rows }
}

export interface WaitingMessages {
  /** At most as many as are worth a job. */
  count: number
  /** Hours that the first of them has waited. */
  hours: number
}

export async function readWaiting(sql: Sql, rules: TriggerRules): Promise<WaitingMessages> {
  const [row] = await sql.query<WaitingMessages>(
    `select count(*)::int as count,
       coalesce(extract(epoch from now() - min(created_at)) / 3600, 0)::float8 as hours
     from (
       select m.created_at from message m left join message_extraction e on e.message_id = m.id
       where ${isWaiting('$1')} and ${isOpen} order by m.sent_at limit $2
     ) as waiting`,
    [rules.windowHours, rules.messages],
  )
  return row ?? { count: 0, hours: 0 }
}

export interface ClaimedMessage {
  id: string
  sentAt: Date
  /** Null until the message is grouped. */
  conversationId: string | null
}

/** What a job has claimed and still has to read. */
export async function readClaimed(sql: Sql, jobId: string): Promise<ClaimedMessage[]> {
  return sql.query<ClaimedMessage>(
    `select m.id, m.sent_at as "sentAt", m.conversation_id as "conversationId"
     from message_extraction e join message m on m.id = e.message_id
     where e.job_id = $1 and e.extracted_at is null and e.last_error is null`,
    [jobId],
  )
}

/** Marks messages as read, whether anything came of them or not. */
export async function markExtracted(
  transaction: Transaction,
  jobId: string,
  messageIds: readonly string[],
): Promise<void> {
  await transaction.query(
    `update message_extraction set extracted_at = now(), failures = 0, last_error = null
     where job_id = $1 and message_id = any ($2::uuid[])`,
    [jobId, messageIds],
  )
}

/** Marks messages whose batch failed: the job does not read them again, others may when it has ended. */
export async function markFailed(
  transaction: Transaction,
  jobId: string,
  messageIds: readonly string[],
  error: string,
): Promise<void> {
  await transaction.query(
    `update message_extraction set failures = failures + 1, last_error = $3
     where job_id = $1 and message_id = any ($2::uuid[])`,
    [jobId, messageIds, error],
  )
}

/** Lets a job read again what had failed in it. */
export async function forgetFailures(transaction: Transaction, jobId: string): Promise<void> {
  await transaction.query(
    `update message_extraction set failures = 0, last_error = null where job_id = $1 and extracted_at is null`,
    [jobId],
  )
}
