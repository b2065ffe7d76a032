import type { Database } from '../db/database.ts'
import { listenOnDemand } from '../db/listen-on-demand.ts'
import { oneAtATime } from '../db/one-at-a-time.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import { providerChannel } from '../providers/status.ts'
import {
  type CoverageSnapshot,
  coverageChannel,
  type EmbeddingCoverage,
  readCoverage,
  readLastError,
} from './coverage.ts'
import { type EmbeddingSpace, type EntityKind, entityKinds, spacesChannel } from './spaces.ts'

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
  /** Until when the provider is left alone; null if it is not. */
  waitingUntil: Date | null
}

interface Sample extends CoverageSnapshot {
  lastError: string | null
}

/** The coverage as it changes. However many subscribers there are, the database is read once for all of them. */
export interface ProgressFeed {
  /** The state now, read from the database. */
  read(kinds: readonly EntityKind[]): Promise<EmbeddingProgress>
  /**
   * Calls back when there may be news until it is unsubscribed. A subscriber that is slow asks `latest` when it is
   * ready, and so never falls behind.
   */
  subscribe(onChange: () => void): Promise<() => void>
  latest(kinds: readonly EntityKind[]): EmbeddingProgress | null
}

const rateWindowMs = 10_000
/** Changes that come closer together are told as one. */
const leastIntervalMs = 250
/**
 * How often it is looked while something is owed, whether there was news or not: the rate falls when nothing happens any
 * more, and a wait ends by itself.
 */
const lookAgainMs = 1_000

/**
 * @param active the space that searches use now
 * @returns the feed of a space; null: of whichever is active
 */
export function createProgressFeeds(
  database: Database,
  active: () => Pick<EmbeddingSpace, 'id'>,
  log: Logger,
): (spaceId: number | null) => ProgressFeed {
  const ofActive = createProgressFeed(database, active, log)
  // Spaces are few, and one that nobody follows costs nothing.
  const ofOthers = new Map<number, ProgressFeed>()
  return (spaceId) => {
    if (spaceId === null) return ofActive
    const feed = ofOthers.get(spaceId) ?? createProgressFeed(database, () => ({ id: spaceId }), log)
    ofOthers.set(spaceId, feed)
    return feed
  }
}

export function createProgressFeed(
  database: Database,
  spaceNow: () => Pick<EmbeddingSpace, 'id'>,
  log: Logger,
): ProgressFeed {
  const subscribers = new Set<() => void>()
  const listener = listenOnDemand(database, [coverageChannel, providerChannel, spacesChannel], look)
  /** All of one space. */
  let samples: Sample[] = []
  let spaceId: number | null = null
  /** Runs until the next look is allowed. */
  let pause: NodeJS.Timeout | null = null
  let isDue = false
  /** Runs until the next look without news. */
  let next: NodeJS.Timeout | null = null

  async function sample(): Promise<Sample> {
    const { id } = spaceNow()
    const snapshot = await readCoverage(database, id)
    const hasFailed = snapshot.coverage.some((kind) => kind.failed + kind.pending + kind.stale > 0)
    const lastError = hasFailed
      ? (snapshot.providerError ?? (await readLastError(database, id, entityKinds)))
      : null
    const fresh = { ...snapshot, lastError }
    // A rate over two spaces would be of neither.
    if (spaceId !== id) samples = []
    spaceId = id
    samples = [...samples.filter((old) => fresh.at.getTime() - old.at.getTime() <= rateWindowMs), fresh]
    return fresh
  }

  const readOnce = oneAtATime(() => sample().finally(lookLater))

  function lookLater(): void {
    if (next) clearTimeout(next)
    next = null
    const newest = samples.at(-1)
    if (subscribers.size > 0 && (!newest || isUnderWay(newest))) next = setTimeout(look, lookAgainMs).unref()
  }

  function look(): void {
    if (pause) {
      isDue = true
      return
    }
    pause = setTimeout(() => {
      pause = null
      if (!isDue) return
      isDue = false
      look()
    }, leastIntervalMs).unref()
    readOnce().then(
      () => {
        for (const onChange of subscribers) onChange()
      },
      (error) => {
        log.warn({ error: errorMessage(error) }, 'The embedding coverage could not be read')
        // What called for this look is not told yet.
        if (subscribers.size > 0) next ??= setTimeout(look, lookAgainMs).unref()
      },
    )
  }

  /** What is told of the newest sample, by kinds: the same for all who ask. */
  let told: { of: Sample; byKinds: Map<string, EmbeddingProgress> } | null = null

  function tell(newest: Sample, kinds: readonly EntityKind[]): EmbeddingProgress {
    if (told?.of !== newest) told = { of: newest, byKinds: new Map() }
    const key = kinds.join()
    const known = told.byKinds.get(key) ?? toProgress(newest, samples, kinds)
    told.byKinds.set(key, known)
    return known
  }

  return {
    async read(kinds) {
      return tell(await readOnce(), kinds)
    },
    latest(kinds) {
      const newest = samples.at(-1)
      return newest ? tell(newest, kinds) : null
    },
    async subscribe(onChange) {
      const leave = await listener.join()
      subscribers.add(onChange)
      return () => {
        if (!subscribers.delete(onChange)) return
        leave()
        lookLater()
      }
    },
  }
}

function isUnderWay({ coverage, waitingUntil }: Sample): boolean {
  return waitingUntil !== null || coverage.some(({ pending, stale }) => pending + stale > 0)
}

/** Pure: whether both say the same, at whatever moment they were counted. */
export function saysTheSame(one: EmbeddingProgress, other: EmbeddingProgress): boolean {
  return textOf(one) === textOf(other)
}

/** Many subscribers compare the same two. */
const texts = new WeakMap<EmbeddingProgress, string>()

function textOf(progress: EmbeddingProgress): string {
  const { coverage, ratePerSecond, lastError, waitingUntil } = progress
  const text = texts.get(progress) ?? JSON.stringify([coverage, ratePerSecond, lastError, waitingUntil])
  texts.set(progress, text)
  return text
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
    waitingUntil: newest.waitingUntil,
  }
}
