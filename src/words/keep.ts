import { setTimeout as delay } from 'node:timers/promises'
import { createBell } from '../bell.ts'
import type { Database } from '../db/database.ts'
import { entityKinds } from '../embedding/spaces.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import { areStatisticsDue, countWords } from './statistics.ts'
import { storeMissingWords, wordlessChannel } from './store.ts'

const batchSize = 500
/** How often it is looked whether frequencies are out of date; texts without words are told of. */
const lookAgainMs = 2_000

/**
 * Keeps what a search by words needs while this process runs: cuts texts that have no words, whoever wrote them, and
 * counts words again when the texts have become many more or fewer.
 */
export async function startKeepingWords(database: Database, log: Logger): Promise<{ stop(): Promise<void> }> {
  const stopping = new AbortController()
  const bell = createBell()
  const { signal } = stopping

  async function cut(): Promise<void> {
    for (const kind of entityKinds) {
      for (let stored = batchSize; stored === batchSize && !signal.aborted; ) {
        stored = await database.transaction((transaction) => storeMissingWords(transaction, kind, batchSize))
        if (stored > 0) log.debug({ kind, stored }, 'Cut texts into words')
      }
    }
  }

  async function keep(): Promise<void> {
    while (!signal.aborted) {
      try {
        await cut()
        if (await areStatisticsDue(database)) await database.transaction(countWords)
      } catch (error) {
        log.warn({ error: errorMessage(error) }, 'Words of texts could not be stored or counted')
        await delay(lookAgainMs, undefined, { signal }).catch(() => {})
      }
      await bell.wait({ signal, limitMs: lookAgainMs })
    }
  }

  const unlisten = await database.listen(wordlessChannel, bell.ring)
  const kept = keep()
  return {
    async stop() {
      stopping.abort()
      await kept
      await unlisten()
    },
  }
}
