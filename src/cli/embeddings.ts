import { QuarryError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import type { Session } from './connect.ts'
import { outageNote } from './follow.ts'
import { Interrupted } from './interrupt.ts'
import { startProgress } from './progress.ts'
import { noProgress, type Progress } from './progress-text.ts'
import { secondsLeft } from './rate.ts'

export interface Coverage {
  kind: string
  total: number
  ready: number
  pending: number
  stale: number
  failed: number
  skipped: number
  percentReady: number
}

/** A snapshot of the subscription `embeddingProgress`. */
export interface EmbeddingSnapshot {
  at: string
  coverage: Coverage[]
  ratePerSecond: number
  lastError: string | null
  waitingUntil: string | null
}

const coverageFields = 'kind total ready pending stale failed skipped percentReady'
export const embeddingProgressSubscription = `subscription Progress {
  embeddingProgress { at ratePerSecond lastError waitingUntil coverage { ${coverageFields} } }
}`

/** How far embedding is now. */
export async function firstSnapshot(client: ApiClient): Promise<EmbeddingSnapshot> {
  for await (const { embeddingProgress } of client.subscribe<{ embeddingProgress: EmbeddingSnapshot }>(
    embeddingProgressSubscription,
  )) {
    return embeddingProgress
  }
  throw new QuarryError('The server ended the progress without telling it')
}

/** How far embedding is. `ageMs`: how long ago the snapshot came. */
export function embeddingProgress(snapshot: EmbeddingSnapshot, ageMs: number): Progress {
  const { coverage, ratePerSecond, waitingUntil, lastError } = snapshot
  const sum = (count: (kind: Coverage) => number) => coverage.reduce((total, kind) => total + count(kind), 0)
  const owed = sum((kind) => kind.pending + kind.stale)
  const total = sum((kind) => kind.total - kind.skipped)
  // Zero also means that the server has only begun to count.
  const rate = ratePerSecond > 0 ? ratePerSecond : null
  const waitingMs = waitingUntil ? Date.parse(waitingUntil) : 0
  const isWaiting = owed > 0 && waitingMs > Date.parse(snapshot.at) + ageMs
  return {
    done: total - owed,
    total,
    isEstimate: false,
    failed: sum((kind) => kind.failed),
    ratePerSecond: rate,
    secondsLeft: secondsLeft(total - owed, total, rate),
    waitingUntil: isWaiting ? new Date(waitingMs) : null,
    trouble: owed > 0 ? (lastError ?? '') : '',
    tookSeconds: null,
  }
}

/**
 * Waits until nothing is owed any more, with a progress bar if anything is, through restarts of the server. Returns the
 * coverage then.
 * @throws QuarryError if the server stays away; Interrupted, which says what becomes of the work
 */
export async function waitForEmbeddings({ client, isServer }: Session): Promise<Coverage[]> {
  const startedMs = performance.now()
  let newest: EmbeddingSnapshot | null = null
  let receivedMs = 0
  let atFirst = 0
  let wasOwed = false
  const read = (): Progress | null => {
    const shown = newest && wasOwed ? embeddingProgress(newest, performance.now() - receivedMs) : null
    if (client.outage) return { ...(shown ?? noProgress), trouble: outageNote }
    if (!shown || shown.done !== shown.total) return shown
    const seconds = (receivedMs - startedMs) / 1000
    const embedded = shown.done - atFirst
    return {
      ...shown,
      tookSeconds: embedded > 0 ? seconds : 0,
      ratePerSecond: embedded > 0 && seconds >= 1 ? embedded / seconds : null,
    }
  }
  const progress = startProgress('Embedding', read)
  const unwatch = client.onOutage(progress.changed)
  try {
    const snapshots = client.subscribe<{ embeddingProgress: EmbeddingSnapshot }>(
      embeddingProgressSubscription,
      {},
      { isEndless: true },
    )
    for await (const { embeddingProgress: snapshot } of snapshots) {
      receivedMs = performance.now()
      const { done, total } = embeddingProgress(snapshot, 0)
      if (!newest) atFirst = done
      newest = snapshot
      wasOwed ||= done !== total
      progress.changed()
      if (done === total) return snapshot.coverage
    }
  } catch (error) {
    if (error instanceof Interrupted) {
      throw new Interrupted(
        error.signal,
        isServer
          ? 'The server goes on with what is not embedded yet: quarry status --watch shows how.'
          : 'No server runs, so this command did the work itself.\nWhat is not embedded yet stays queued: quarry serve, or the next command, goes on with it.',
      )
    }
    throw error
  } finally {
    unwatch()
    progress.stop()
  }
  throw new QuarryError('The server ended the progress before everything was embedded')
}
