import type { TriggerRules } from '../config.ts'
import { groupedChannel } from '../conversations/group.ts'
import type { Database, Transaction } from '../db/database.ts'
import { keepLooking } from '../db/keep-looking.ts'
import { advisoryLock } from '../db/locks.ts'
import { enqueueJob } from '../jobs/queue.ts'
import type { Logger } from '../log.ts'
import { readWaiting } from './claims.ts'

/** Patience runs out without anything happening. */
const lookAgainMs = 60_000
/** Grouping notifies many times a second while much comes in. */
const leastIntervalMs = 1_000
/** After a failure (a wrong key, say) the next try by itself waits this long. */
const pauseAfterFailure = '15 minutes'

/** Starts extractions by itself when enough has come in, or some has waited for long enough, until stopped. */
export function startExtractionTrigger(
  database: Database,
  rules: TriggerRules,
  log: Logger,
): Promise<{ stop(): Promise<void> }> {
  return keepLooking(database, {
    channel: groupedChannel,
    async look() {
      const jobId = await database.transaction((transaction) => enqueueDueExtraction(transaction, rules))
      if (jobId) log.info({ jobId }, 'Enough has come in to be extracted')
    },
    lookAgainMs,
    leastIntervalMs,
    trouble: 'Could not see whether there is something to extract',
    log,
  })
}

/**
 * Queues an EXTRACT job if one is due and none that a trigger started is under way: ten messages that come in at once
 * start one, whichever processes see them.
 * @returns its id, null if none is due
 */
export async function enqueueDueExtraction(
  transaction: Transaction,
  rules: TriggerRules,
): Promise<string | null> {
  await transaction.query('select pg_advisory_xact_lock($1)', [advisoryLock.triggerExtraction])
  const underWay = await transaction.query(
    `select from job where kind = 'EXTRACT' and params ? 'waiting' and (state in ('QUEUED', 'RUNNING')
       or (state = 'FAILED' and finished_at > now() - interval '${pauseAfterFailure}')) limit 1`,
  )
  if (underWay.length > 0) return null
  const waiting = await readWaiting(transaction, rules)
  const isDue = waiting.count >= rules.messages || (waiting.count > 0 && waiting.hours >= rules.patienceHours)
  return isDue ? enqueueJob(transaction, 'EXTRACT', { waiting: true }) : null
}
