import { setTimeout as delay } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import { errorMessage, QuarryError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Database } from './database.ts'
import { listenOnDemand } from './listen-on-demand.ts'

/*
 * Rows as they come or change, told to any number of followers in this process, whichever process has written them. The
 * database notifies of ids. They are kept in one log for all followers, each of whom only remembers how far it has got:
 * one that is slow costs nothing and holds up nobody, and what a row says is read once for all who want the same of it.
 */

/** Some rows that are told together. */
export interface Chunk {
  /** Grows from chunk to chunk. */
  readonly position: number
  readonly ids: readonly string[]
}

export interface Follower {
  /**
   * The next rows, in the order in which they came; null if there are none now.
   * @throws FeedGapError if rows were missed: there is nothing more to follow
   */
  next(): Chunk | null
  end(): void
}

export interface Feed {
  /**
   * Tells what comes from when this resolves on.
   * @param onNews called when `next` is worth asking
   */
  follow(onNews: () => void): Promise<Follower>
  /** The ids of a chunk that belong to one of the groups. */
  idsIn(chunk: Chunk, groups: ReadonlySet<string>): Promise<string[]>
  /**
   * Reads something about a chunk once for all followers that ask for it under the same name. While the database is
   * away it is tried again and again, as long as there are followers.
   * @throws what the read throws, if it does so again while the database is there
   */
  share<Result>(chunk: Chunk, name: string, read: () => Promise<Result>): Promise<Result>
}

export interface FeedOptions {
  database: Database
  log: Logger
  channel: string
  /**
   * Whether only the newest state of a row counts: changes that were not yet taken become one. Otherwise a row is told
   * once, when it is new.
   */
  isState: boolean
  readIds(payload: string): string[]
  /**
   * What came in the last so many seconds, by the clock of the database: asked when notifications may have been missed.
   * Oldest first.
   */
  readSince(seconds: number, limit: number): Promise<string[]>
  /** By what followers can choose rows; a row may be in several groups, or none. */
  readGroups(ids: readonly string[]): Promise<{ id: string; group: string }[]>
}

/** A follower cannot be told everything; the message says why. */
export class FeedGapError extends QuarryError {}

/** How far behind a follower may fall, in rows. */
export const keptRows = 10_000
/** Rows that are read at once: a slow follower has so many in memory. */
const chunkRows = 20
/** Reads of chunks that are kept for followers that are a little behind. */
const keptReads = 32
/** Rows that are known to have been told, for the time after a lost connection. */
const rememberedRows = 2 * keptRows
/** Rows appear when their transaction ends, and bear the time of its beginning. */
const longestTransactionMs = 60_000
const retryMs = 1_000
/** So often may a read fail while the database is there. */
const maxFailures = 3

export function createFeed(options: FeedOptions): Feed {
  const { log, channel, isState } = options
  const followers = new Set<{ position: number; gap: string | null; onNews(): void }>()
  const listener = listenOnDemand(options.database, [channel], onNotification)
  const reads = new LRUCache<string, Promise<unknown>>({ max: keptReads })
  /** When a row was told, by the clock of this process that only goes forward. */
  const told = new LRUCache<string, number>({ max: rememberedRows })
  /** Where the newest state of a row stands in the log. */
  const newest = new Map<string, number>()
  let entries: Chunk[] = []
  let rows = 0
  let lastPosition = 0
  /** Of the last entry that is gone from the log and would have had to be told. */
  let lostPosition = 0
  let heardAt = 0
  /** Since when notifications may have been missed; null if none have. */
  let deafSince: number | null = null
  let isCatchingUp = false
  let epoch = 0

  /** Nobody follows: what is in the log concerns nobody who comes. */
  function reset(): void {
    epoch++
    entries = []
    rows = 0
    lostPosition = 0
    deafSince = null
    heardAt = performance.now()
    newest.clear()
    told.clear()
    reads.clear()
  }

  function onNotification(payload: string | null): void {
    if (payload === null) {
      deafSince ??= heardAt
      void catchUp()
      return
    }
    heardAt = performance.now()
    append(options.readIds(payload))
  }

  const isSuperseded = ({ ids, position }: Chunk) => isState && ids.every((id) => newest.get(id) !== position)

  function append(ids: readonly string[]): void {
    const fresh = isState ? ids : ids.filter((id) => !told.has(id))
    if (fresh.length === 0) return
    const size = isState ? 1 : chunkRows
    for (let at = 0; at < fresh.length; at += size) {
      const chunk = { position: ++lastPosition, ids: fresh.slice(at, at + size) }
      entries.push(chunk)
      rows += chunk.ids.length
      for (const id of chunk.ids) {
        if (isState) newest.set(id, chunk.position)
        else told.set(id, performance.now())
      }
    }
    while (rows > keptRows) {
      const gone = entries.shift()
      if (!gone) break
      rows -= gone.ids.length
      if (isSuperseded(gone)) continue
      lostPosition = gone.position
      for (const id of gone.ids) newest.delete(id)
    }
    for (const { onNews } of followers) onNews()
  }

  /** What was missed is read; what was told before is not told again. */
  async function catchUp(): Promise<void> {
    if (isCatchingUp) return
    isCatchingUp = true
    try {
      while (deafSince !== null) {
        const since = deafSince
        const reading = epoch
        deafSince = null
        const windowMs = performance.now() - since + longestTransactionMs
        try {
          const ids = await options.readSince(windowMs / 1000, keptRows + 1)
          if (reading !== epoch) continue
          if (ids.length > keptRows || hasForgotten(windowMs))
            loseAll('The connection to the database was lost while much came in')
          else append(ids)
        } catch (error) {
          if (reading !== epoch) continue
          log.warn({ error: errorMessage(error), channel }, 'What was missed could not be read yet')
          deafSince = since
          await delay(retryMs, undefined, { ref: false })
        }
      }
    } finally {
      isCatchingUp = false
    }
  }

  /** Whether something that was told in that time is no longer known to have been. */
  function hasForgotten(windowMs: number): boolean {
    if (isState || told.size < rememberedRows) return false
    const [oldest = 0] = told.rvalues()
    return oldest > performance.now() - windowMs
  }

  function loseAll(reason: string): void {
    for (const follower of followers) {
      follower.gap = reason
      follower.onNews()
    }
  }

  async function share<Result>(chunk: Chunk, name: string, read: () => Promise<Result>): Promise<Result> {
    const key = `${chunk.position} ${name}`
    const known = reads.get(key)
    // Whatever is kept under a name was read by the function of that name.
    if (known) return known as Promise<Result>
    const reading = persist(read)
    reads.set(key, reading)
    reading.catch(() => {
      if (reads.peek(key) === reading) reads.delete(key)
    })
    return reading
  }

  async function persist<Result>(read: () => Promise<Result>): Promise<Result> {
    for (let failures = 0; ; ) {
      try {
        return await read()
      } catch (error) {
        // While the database answers to others, something is wrong with the read itself.
        if (await answers(options.database)) failures++
        if (failures === maxFailures || followers.size === 0) throw error
        log.warn({ error: errorMessage(error), channel }, 'What is new could not be read yet')
        await delay(retryMs, undefined, { ref: false })
      }
    }
  }

  return {
    share,
    async idsIn(chunk, groups) {
      const found = await share(chunk, 'groups', () => options.readGroups(chunk.ids))
      const ids = new Set(found.flatMap(({ id, group }) => (groups.has(group) ? [id] : [])))
      return chunk.ids.filter((id) => ids.has(id))
    },
    async follow(onNews) {
      if (followers.size === 0) reset()
      const follower = { position: lastPosition, gap: null as string | null, onNews }
      followers.add(follower)
      const forget = () => {
        if (followers.delete(follower) && followers.size === 0) reset()
      }
      const leave = await listener.join().catch((error) => {
        forget()
        throw error
      })
      return {
        next() {
          if (follower.gap !== null) throw new FeedGapError(follower.gap)
          if (follower.position < lostPosition)
            throw new FeedGapError(`More than ${keptRows} came before they could be sent`)
          const first = entries[0]?.position ?? 0
          for (let at = Math.max(0, follower.position + 1 - first); at < entries.length; at++) {
            const entry = entries[at]
            if (!entry) break
            follower.position = entry.position
            if (!isSuperseded(entry)) return entry
          }
          return null
        },
        end() {
          forget()
          leave()
        },
      }
    },
  }
}

function answers(database: Database): Promise<boolean> {
  return database.query('select 1').then(
    () => true,
    () => false,
  )
}
