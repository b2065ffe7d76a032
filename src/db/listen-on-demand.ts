import type { Database } from './database.ts'
import type { Unlisten } from './listen.ts'

/** Listens as long as somebody needs it: once, however many they are. */
export interface DemandListener {
  /**
   * Resolves when nothing that comes from then on is missed, with the function that says that it is needed no longer.
   * Rejects if the database cannot be told.
   */
  join(): Promise<() => void>
}

/** @param onNotification its payload, or null when notifications may have been missed; never after the last has left */
export function listenOnDemand(
  database: Pick<Database, 'listen'>,
  channels: readonly string[],
  onNotification: (payload: string | null) => void,
): DemandListener {
  let members = 0
  let listening: Promise<() => Promise<void>> | null = null

  function begin(): Promise<() => Promise<void>> {
    // A listener that is still on its way out must neither be heard any more nor take this one with it.
    const started: Promise<() => Promise<void>> = listenToAll(database, channels, (payload) => {
      if (listening === started) onNotification(payload)
    })
    started.catch(() => {
      if (listening === started) listening = null
    })
    return started
  }

  function leave(): void {
    members--
    if (members > 0 || !listening) return
    const ended = listening
    listening = null
    // A database that is gone has no listener left either.
    ended.then((unlisten) => unlisten()).catch(() => {})
  }

  return {
    async join() {
      members++
      let isMember = true
      const end = () => {
        if (isMember) leave()
        isMember = false
      }
      listening ??= begin()
      try {
        await listening
      } catch (error) {
        end()
        throw error
      }
      return end
    },
  }
}

async function listenToAll(
  database: Pick<Database, 'listen'>,
  channels: readonly string[],
  onNotification: (payload: string | null) => void,
): Promise<() => Promise<void>> {
  const begun = await Promise.allSettled(
    channels.map((channel) => database.listen(channel, (payload) => onNotification(payload))),
  )
  const unlistens = begun.flatMap((one): Unlisten[] => (one.status === 'fulfilled' ? [one.value] : []))
  const unlisten = async () => {
    await Promise.all(unlistens.map((stop) => stop()))
  }
  const failed = begun.find((one) => one.status === 'rejected')
  if (!failed) return unlisten
  await unlisten()
  throw failed.reason
}
