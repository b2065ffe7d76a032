import type { Database } from '../db/database.ts'
import { keepLooking } from '../db/keep-looking.ts'
import { entityKinds } from '../embedding/spaces.ts'
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
export function startKeepingWords(database: Database, log: Logger): Promise<{ stop(): Promise<void> }> {
  async function cut(signal: AbortSignal): Promise<void> {
    for (const kind of entityKinds) {
      for (let stored = batchSize; stored === batchSize && !signal.aborted; ) {
        stored = await database.transaction((transaction) => storeMissingWords(transaction, kind, batchSize))
        if (stored > 0) log.debug({ kind, stored }, 'Cut texts into words')
      }
    }
  }

  return keepLooking(database, {
    channel: wordlessChannel,
    async look(signal) {
      await cut(signal)
      if (await areStatisticsDue(database)) await database.transaction(countWords)
    },
    lookAgainMs,
    afterFailureMs: lookAgainMs,
    trouble: 'Words of texts could not be stored or counted',
    log,
  })
}
