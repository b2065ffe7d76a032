import { setTimeout as delay } from 'node:timers/promises'
import { createBell } from '../bell.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Database } from './database.ts'

export interface LookOptions {
  /** Channel on which is said that there may be something to do. */
  channel: string
  /** Does what there is to do; what it is in the middle of when it is aborted may reject. */
  look(signal: AbortSignal): Promise<void>
  /** After so long it looks although nobody has said anything: a notification can be lost, and patience runs out unseen. */
  lookAgainMs: number
  /** Leaves at least so long between two looks: few larger ones cost less than many small ones. None unless given. */
  leastIntervalMs?: number
  /** The same after a look that has failed, so that one that always fails is not made at each notification. */
  afterFailureMs?: number
  /** What is logged of a look that fails. */
  trouble: string
  log: Logger
}

/** Looks at once, whenever the database notifies, and again after a while, one look at a time, until stopped. */
export async function keepLooking(
  database: Pick<Database, 'listen'>,
  options: LookOptions,
): Promise<{ stop(): Promise<void> }> {
  const { channel, look, lookAgainMs, leastIntervalMs = 0, afterFailureMs = leastIntervalMs, log } = options
  const stopping = new AbortController()
  const { signal } = stopping
  const bell = createBell()
  const pause = (ms: number) => delay(ms, undefined, { signal }).catch(() => {})

  async function keep(): Promise<void> {
    while (!signal.aborted) {
      try {
        await look(signal)
        await pause(leastIntervalMs)
      } catch (error) {
        if (signal.aborted) return
        log.warn({ error: errorMessage(error) }, options.trouble)
        await pause(afterFailureMs)
      }
      await bell.wait({ signal, limitMs: lookAgainMs })
    }
  }

  const unlisten = await database.listen(channel, bell.ring)
  const kept = keep()
  return {
    async stop() {
      stopping.abort(new Error('This process is stopping'))
      await unlisten()
      await kept
    },
  }
}
