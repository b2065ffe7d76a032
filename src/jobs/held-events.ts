import { setTimeout as delay } from 'node:timers/promises'
import { createBell } from '../bell.ts'
import type { Database, Sql } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'

/** Channel on which append_job_event says that it has held one back. */
const heldChannel = 'quarry_job_held'
/** A little more than least_event_interval(): the first look then finds it due. */
const dueAfterMs = 160
/** A notification can be lost, what is held cannot. */
const lookAgainMs = 5_000

/**
 * Tells the counts that came too soon after the event before, as soon as they may be told, until stopped. Any process
 * does it for all: the numbers that a watcher sees are never older than a moment, also when a job then pauses.
 */
export async function startHeldEvents(database: Database, log: Logger): Promise<{ stop(): Promise<void> }> {
  const stopping = new AbortController()
  const bell = createBell()
  const unlisten = await database.listen(heldChannel, bell.ring)

  async function work(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        if ((await reportHeld(database)) > 0) bell.ring()
      } catch (error) {
        if (!stopping.signal.aborted)
          log.warn({ error: errorMessage(error) }, 'Held events could not be told')
      }
      await bell.wait({ signal: stopping.signal, limitMs: lookAgainMs })
      await delay(dueAfterMs, undefined, { signal: stopping.signal }).catch(() => {})
    }
  }

  const working = work()
  return {
    async stop() {
      stopping.abort()
      await unlisten()
      await working
    },
  }
}

/** @returns how many jobs still hold something back */
async function reportHeld(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ held: number }>('select report_held_jobs() as held')
  return row?.held ?? 0
}
