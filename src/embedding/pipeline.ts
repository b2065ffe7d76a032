import { setTimeout as delay } from 'node:timers/promises'
import { createBell } from '../bell.ts'
import type { Database } from '../db/database.ts'
import type { ProcessRecord } from '../jobs/processes.ts'
import type { Logger } from '../log.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'
import { splitText, type TextPart } from './parts.ts'
import {
  claimOwed,
  copyTwins,
  type EmbeddingResult,
  type OwedRow,
  owedChannel,
  releaseLost,
  releaseRows,
  storeResults,
} from './queue.ts'
import type { EmbeddingSpace } from './spaces.ts'
import { embedParts, packBy } from './texts.ts'
import { readVectorType } from './vectors.ts'

/** Embeds whatever is owed in one space, for as long as it runs. */
export interface EmbeddingPipeline {
  /** Ends within the request in hand; rows that were not finished are free for others at once. */
  stop(): Promise<void>
}

/** A notification can be lost; the rows cannot. So the queue is looked at this often all the same. */
const lookAgainMs = 5_000
/** Text that one claim may load: bounds memory when texts are long. */
const maxClaimBytes = 4 * 1024 * 1024
/** 6 retries over about an hour: 10 s, 30 s, 90 s, 4.5 min, 13.5 min, 40 min. */
export const maxRetries = 6
export const retryDelayMs = (attempts: number): number => 10_000 * 3 ** attempts
/** While the provider does not answer at all, it is asked again after 1 s, 2 s, 4 s ... one minute. */
const pauseMinMs = 1_000
const pauseMaxMs = 60_000

export async function startEmbeddingPipeline(options: {
  database: Database
  provider: EmbeddingProvider
  space: EmbeddingSpace
  process: ProcessRecord
  log: Logger
}): Promise<EmbeddingPipeline> {
  const { database, log } = options
  const stopping = new AbortController()
  const bell = createBell()
  const vectorType = await readVectorType(database)
  const worker = createBatchWorker({ ...options, vectorType, signal: stopping.signal })

  async function lane(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await worker.waitWhilePaused()
        if (await worker.runBatch()) continue
        await bell.wait({ limitMs: lookAgainMs, signal: stopping.signal })
      } catch (error) {
        if (stopping.signal.aborted) return
        log.error({ err: error }, 'Embedding was interrupted; it goes on in a few seconds')
        await delay(lookAgainMs, undefined, { signal: stopping.signal }).catch(() => {})
      }
    }
  }

  const unlisten = await database.listen(owedChannel, bell.ring)
  const lanes = Array.from({ length: options.provider.limits.maxParallelRequests }, lane)
  return {
    async stop() {
      stopping.abort(new Error('This process is stopping'))
      await unlisten()
      await Promise.all(lanes)
    },
  }
}

/** One text of a batch: all rows that have it, and the parts that the model can read whole. */
interface BatchText {
  hash: string
  rows: OwedRow[]
  parts: TextPart[]
}

function createBatchWorker(options: {
  database: Database
  provider: EmbeddingProvider
  space: EmbeddingSpace
  process: ProcessRecord
  vectorType: number
  signal: AbortSignal
  log: Logger
}) {
  const { database, provider, space, process, vectorType, signal, log } = options
  const { limits } = provider
  const store = (results: readonly EmbeddingResult[]) =>
    storeResults(database, space.id, process.id, results, vectorType)
  /** Texts that another lane is asking for right now: nobody asks twice, the second waits and copies. */
  const underWay = new Set<string>()
  /** For each claim in flight, the texts that were under way at any time since it began: what it read may be older. */
  const watches = new Set<Set<string>>()
  let pausedUntil = 0
  let failuresInARow = 0

  function pause(error: ProviderError): void {
    const backoff = Math.min(pauseMinMs * 2 ** failuresInARow, pauseMaxMs)
    failuresInARow++
    const needsPerson = error.failure === 'UNAUTHORIZED' || error.failure === 'MISCONFIGURED'
    const ms = needsPerson ? pauseMaxMs : Math.max(error.retryAfterMs ?? 0, backoff)
    pausedUntil = Math.max(pausedUntil, Date.now() + ms)
    log.warn({ error: error.message, failure: error.failure, ms }, 'Waiting for the embedding provider')
  }

  /** Rows that lanes of this process are working on, by owner. */
  const inHand = new Set<string>()
  let hasLostLeases = false
  let releasing: Promise<void> | null = null

  /** Leases a batch and brings every row of it to an end or back to the queue. False if nothing was due. */
  async function runBatch(): Promise<boolean> {
    // Not while another lane claims: what it is getting would look lost, and be asked for twice.
    if (hasLostLeases && !releasing && watches.size === 0) {
      releasing = releaseLost(database, space.id, process.id, [...inHand]).finally(() => {
        releasing = null
      })
      await releasing
      hasLostLeases = false
    }
    await releasing
    const asked = new Set(underWay)
    watches.add(asked)
    const rows = await claimOwed(
      database,
      space.id,
      process.id,
      limits.maxTextsPerRequest,
      maxClaimBytes,
    ).finally(() => watches.delete(asked))
    if (rows.length === 0) return false
    const batch = rows.map((row) => row.ownerId)
    for (const id of batch) inHand.add(id)
    try {
      await settleBatch(rows, asked)
    } finally {
      for (const id of batch) inHand.delete(id)
    }
    return true
  }

  async function settleBatch(rows: readonly OwedRow[], asked: ReadonlySet<string>): Promise<void> {
    const twins = rows.filter((row) => row.hasTwin || asked.has(row.hash))
    const own = rows.filter((row) => !twins.includes(row))
    const mine = new Set(own.map((row) => row.hash))
    for (const hash of mine) {
      underWay.add(hash)
      for (const watch of watches) watch.add(hash)
    }
    try {
      if (own.length > 0) await embedRows(own)
      if (twins.length > 0) await settleTwins(twins)
    } catch (error) {
      // Without a database the leases cannot be given back now; they are as soon as it answers again.
      hasLostLeases = true
      throw error
    } finally {
      for (const hash of mine) underWay.delete(hash)
    }
  }

  async function settleTwins(twins: OwedRow[]): Promise<void> {
    const ready = twins.filter((row) => row.hasTwin)
    const waiting = twins.filter((row) => !row.hasTwin)
    if (ready.length > 0) {
      await copyTwins(database, space.id, process.id, ready)
      // A twin can go between the claim and the copy: what it leaves behind is owed as before.
      await releaseRows(database, space.id, process.id, ready, null)
    }
    // Their text is with another lane: back to the queue, to find its vector at the next claim.
    if (waiting.length > 0) {
      await releaseRows(database, space.id, process.id, waiting, null)
      if (ready.length === 0) await delay(50, undefined, { signal }).catch(() => {})
    }
  }

  async function embedRows(rows: readonly OwedRow[]): Promise<void> {
    const texts = new Map<string, BatchText>()
    for (const row of rows) {
      const text = texts.get(row.hash)
      if (text) text.rows.push(row)
      else {
        const parts = splitText(row.text, limits.maxTokensPerText, (part) => provider.countTokens(part))
        texts.set(row.hash, { hash: row.hash, rows: [row], parts })
      }
    }
    for (const pack of packRequests([...texts.values()], limits)) await embedPack(pack)
  }

  /** Asks for the texts in one request (or several, for a text of very many parts) and stores what comes back. */
  async function embedPack(texts: BatchText[]): Promise<void> {
    let vectors: (Float32Array | null)[]
    try {
      vectors = await embedParts(provider, space.dimensions, texts, signal)
      failuresInARow = 0
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error
      await settleFailure(texts, error)
      return
    }
    await store(texts.flatMap((text, index) => text.rows.map((row) => toResult(row, vectors[index] ?? null))))
  }

  /** One text that the provider refuses must not hold up the others: halves the pack until it stands alone. */
  async function settleFailure(texts: BatchText[], error: ProviderError): Promise<void> {
    const rows = texts.flatMap((text) => text.rows)
    switch (error.failure) {
      case 'RATE_LIMITED':
      case 'UNAUTHORIZED':
      case 'MISCONFIGURED':
        pause(error)
        await releaseRows(database, space.id, process.id, rows, { error: error.message, delaysMs: null })
        return
      case 'UNAVAILABLE':
        pause(error)
        await retryLater(rows, error)
        return
      case 'REFUSED':
      case 'BAD_ANSWER':
        if (texts.length > 1) {
          const middle = texts.length >> 1
          await embedPack(texts.slice(0, middle))
          await embedPack(texts.slice(middle))
        } else if (error.failure === 'REFUSED') {
          await store(rows.map((row) => toFailure(row, error.message)))
        } else {
          await retryLater(rows, error)
        }
    }
  }

  async function retryLater(rows: readonly OwedRow[], error: ProviderError): Promise<void> {
    const spent = rows.filter((row) => row.attempts >= maxRetries)
    const others = rows.filter((row) => row.attempts < maxRetries)
    if (spent.length > 0) {
      await store(spent.map((row) => toFailure(row, `${error.message} (after ${row.attempts + 1} attempts)`)))
    }
    if (others.length > 0) {
      const delaysMs = others.map((row) => retryDelayMs(row.attempts) * (0.8 + Math.random() * 0.4))
      await releaseRows(database, space.id, process.id, others, { error: error.message, delaysMs })
    }
  }

  return {
    runBatch,
    async waitWhilePaused() {
      while (pausedUntil > Date.now() && !signal.aborted) {
        await delay(pausedUntil - Date.now(), undefined, { signal }).catch(() => {})
      }
    },
  }
}

function toResult(row: OwedRow, vector: Float32Array | null): EmbeddingResult {
  return vector
    ? { row, status: 'READY', vector, error: null }
    : {
        row,
        status: 'SKIPPED',
        vector: null,
        error: 'The model knows no word of this text: there is nothing to embed',
      }
}

const toFailure = (row: OwedRow, error: string): EmbeddingResult => ({
  row,
  status: 'FAILED',
  vector: null,
  error,
})

function packRequests(texts: readonly BatchText[], limits: EmbeddingProvider['limits']): BatchText[][] {
  const size = (text: BatchText) => ({
    texts: text.parts.length,
    tokens: text.parts.reduce((sum, part) => sum + part.tokens, 0),
  })
  return packBy(texts, size, limits)
}
