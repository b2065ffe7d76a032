import type { Database } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import {
  type CoverageSnapshot,
  coverageChannel,
  type EmbeddingCoverage,
  readCoverage,
  readLastError,
} from './coverage.ts'
import { type EmbeddingSpace, type EntityKind, entityKinds } from './spaces.ts'

export interface EmbeddingProgress {
  seq: string
  isSettled: boolean
  at: Date
  coverage: EmbeddingCoverage[]
  /** Rows that became READY, a second, over the last ten seconds. */
  ratePerSecond: number
  /** Seconds until nothing is owed, at this rate; null while the rate is zero. 0 when nothing is owed. */
  etaSeconds: number | null
  lastError: string | null
}

interface Sample extends CoverageSnapshot {
  lastError: string | null
}

/** The coverage as it changes. However many subscribers there are, the database is read once for all of them. */
export interface ProgressFeed {
  /** The state now, read from the database. */
  read(kinds: readonly EntityKind[]): Promise<EmbeddingProgress>
  /**
   * Calls back when there is news until it is unsubscribed. A subscriber that is slow asks `latest` when it is ready,
   * and so never falls behind.
   */
  subscribe(onChange: () => void): Promise<() => void>
  latest(kinds: readonly EntityKind[]): EmbeddingProgress | null
}

const rateWindowMs = 10_000
/** Changes that come closer together are told as one. */
const leastIntervalMs = 250

export function createProgressFeed(database: Database, space: EmbeddingSpace, log: Logger): ProgressFeed {
  const subscribers = new Set<() => void>()
  let samples: Sample[] = []
  let unlisten: Promise<() => Promise<void>> | null = null
  let reading: Promise<Sample> | null = null
  let timer: NodeJS.Timeout | null = null
  let isDue = false

  async function sample(): Promise<Sample> {
    const snapshot = await readCoverage(database, space.id)
    const hasFailed = snapshot.coverage.some((kind) => kind.failed + kind.pending + kind.stale > 0)
    const lastError = hasFailed ? await readLastError(database, space.id, entityKinds) : null
    const fresh = { ...snapshot, lastError }
    samples = [...samples.filter((old) => fresh.at.getTime() - old.at.getTime() <= rateWindowMs), fresh]
    return fresh
  }

  /** One read at a time; whoever asks meanwhile gets the next one, which sees all that was committed before. */
  async function readOnce(): Promise<Sample> {
    while (reading) await reading.catch(() => {})
    reading = sample().finally(() => {
      reading = null
    })
    return reading
  }

  function onNotification(): void {
    if (timer) {
      isDue = true
      return
    }
    timer = setTimeout(() => {
      timer = null
      if (isDue) {
        isDue = false
        onNotification()
      }
    }, leastIntervalMs)
    readOnce().then(
      () => {
        for (const onChange of subscribers) onChange()
      },
      (error) => log.warn({ error: errorMessage(error) }, 'The embedding coverage could not be read'),
    )
  }

  return {
    async read(kinds) {
      return toProgress(await readOnce(), samples, kinds)
    },
    latest(kinds) {
      const newest = samples.at(-1)
      return newest ? toProgress(newest, samples, kinds) : null
    },
    async subscribe(onChange) {
      subscribers.add(onChange)
      unlisten ??= database.listen(coverageChannel, onNotification)
      await unlisten
      return () => {
        subscribers.delete(onChange)
        if (subscribers.size > 0 || !unlisten) return
        const ended = unlisten
        unlisten = null
        void ended.then((stop) => stop())
      }
    },
  }
}

/** Pure: what is told of a sample, given those of the last ten seconds. */
export function toProgress(
  newest: Sample,
  samples: readonly Sample[],
  kinds: readonly EntityKind[],
): EmbeddingProgress {
  const of = (snapshot: CoverageSnapshot) =>
    snapshot.coverage.filter((coverage) => kinds.includes(coverage.kind))
  const ready = (snapshot: CoverageSnapshot) =>
    of(snapshot).reduce((sum, coverage) => sum + coverage.ready, 0)
  const oldest = samples.find((old) => newest.at.getTime() - old.at.getTime() <= rateWindowMs) ?? newest
  const seconds = (newest.at.getTime() - oldest.at.getTime()) / 1000
  const ratePerSecond = seconds > 0 ? Math.max(0, ready(newest) - ready(oldest)) / seconds : 0
  const owed = of(newest).reduce((sum, coverage) => sum + coverage.pending + coverage.stale, 0)
  return {
    seq: newest.seq,
    isSettled: newest.isSettled,
    at: newest.at,
    coverage: of(newest),
    ratePerSecond,
    etaSeconds: owed === 0 ? 0 : ratePerSecond > 0 ? owed / ratePerSecond : null,
    lastError: newest.lastError,
  }
}
