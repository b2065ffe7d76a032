import { setTimeout as delay } from 'node:timers/promises'
import { Semaphore } from 'async-mutex'
import { createBell } from '../bell.ts'
import type { Database } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import { maxRetries, retryDelayMs } from '../jobs/backoff.ts'
import { cancelledChannel } from '../jobs/control.ts'
import type { ProcessRecord } from '../jobs/processes.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'
import type { ProviderStatus } from '../providers/status.ts'
import { accountEmbeddings, type UsageLedger } from '../providers/usage.ts'
import { splitText, type TextPart } from './parts.ts'
import {
  claimOwed,
  copyTwins,
  countLeased,
  type EmbeddingResult,
  type OwedRow,
  owedChannel,
  releaseLost,
  releaseRows,
  storeResults,
} from './queue.ts'
import { tellWaitingJobs } from './requests.ts'
import type { EmbeddingSpace } from './spaces.ts'
import { embedParts, packBy } from './texts.ts'
import { readVectorType } from './vectors.ts'

/** Embeds whatever is owed in one space, for as long as it runs. */
export interface EmbeddingPipeline {
  /** Why it does not work any more, null if it does. */
  problem(): string | null
  /** Ends within the request in hand; rows that were not finished are free for others at once. */
  stop(): Promise<void>
}

/** A notification can be lost; the rows cannot. So the queue is looked at this often all the same. */
const lookAgainMs = 5_000
/** Text that one claim may load: bounds memory when texts are long. */
const maxClaimBytes = 4 * 1024 * 1024
/** While the provider does not answer at all, it is asked again after 1 s, 2 s, 4 s ... one minute. */
const pauseMinMs = 1_000
const pauseMaxMs = 60_000
/** So many texts in a row, each alone, that were answered wrongly: the provider is the cause, not the texts. */
const badAnswersAlone = 3

/** More lanes than requests: while one stores what it was answered, another one asks. More of them write no faster. */
const lanesThatStore = 1

export interface EmbeddingPipelineOptions {
  database: Database
  provider: EmbeddingProvider
  space: EmbeddingSpace
  /** Told how the provider does. */
  status: ProviderStatus
  process: ProcessRecord
  usage: UsageLedger
  metrics: Metrics
  log: Logger
}

export async function startEmbeddingPipeline(options: EmbeddingPipelineOptions): Promise<EmbeddingPipeline> {
  const { database, log } = options
  const stopping = new AbortController()
  const bell = createBell()
  const vectorType = await readVectorType(database)
  const worker = createBatchWorker({
    ...options,
    vectorType,
    onReleased: bell.ring,
    signal: stopping.signal,
  })

  async function lane(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        const endTurn = await worker.takeTurn()
        // What is claimed now would only be given back.
        if (stopping.signal.aborted) return endTurn()
        const hasWorked = await worker.runBatch().finally(endTurn)
        if (hasWorked) continue
        await bell.wait({ limitMs: lookAgainMs, signal: stopping.signal })
      } catch (error) {
        if (stopping.signal.aborted) return
        log.error({ err: error }, 'Embedding was interrupted; it goes on in a few seconds')
        await delay(lookAgainMs, undefined, { signal: stopping.signal }).catch(() => {})
      }
    }
  }

  const unlistens = await Promise.all([
    database.listen(owedChannel, bell.ring),
    database.listen(cancelledChannel, () => {
      worker
        .dropWithdrawn()
        .catch((error) => log.warn({ err: error }, 'Could not see which requests nobody needs any more'))
    }),
  ])
  let atWork = 0
  const laneCount = options.provider.limits.maxParallelRequests + lanesThatStore
  const lanes = Array.from({ length: laneCount }, async () => {
    atWork++
    await lane().finally(() => atWork--)
  })
  return {
    problem: () =>
      atWork === lanes.length ? null : `${lanes.length - atWork} of ${lanes.length} lanes have ended`,
    async stop() {
      stopping.abort(new Error('This process is stopping'))
      await Promise.all(unlistens.map((unlisten) => unlisten()))
      await Promise.all(lanes)
      // The process may go on, and another pipeline of it in this space: what was broken off would stay leased to it.
      await releaseLost(database, options.space.id, options.process.id, []).catch((error) =>
        log.warn(
          { error: errorMessage(error) },
          'Leases could not be given back; they fall with this process',
        ),
      )
    },
  }
}

/** One text of a batch: all rows that have it, and the parts that the model can read whole. */
interface BatchText {
  hash: string
  rows: OwedRow[]
  parts: TextPart[]
}

/** Ends a batch: the provider wants not to be asked for so long. */
class LimitError extends Error {
  override readonly cause: ProviderError
  readonly waitMs: number
  /** To be called when that is over: until then the request counts as one that is under way. */
  readonly endRequest: () => void
  constructor(cause: ProviderError, waitMs: number, endRequest: () => void) {
    super(cause.message)
    this.cause = cause
    this.waitMs = waitMs
    this.endRequest = endRequest
  }
}

/** A request that is under way. */
interface Flight {
  rows: OwedRow[]
  controller: AbortController
}

function createBatchWorker(
  options: EmbeddingPipelineOptions & { vectorType: number; signal: AbortSignal; onReleased(): void },
) {
  const { database, provider, space, status, process, usage, vectorType, signal, metrics, log } = options
  const { limits } = provider
  async function store(results: readonly EmbeddingResult[]): Promise<void> {
    await storeResults(database, space.id, process.id, results, vectorType)
    for (const result of results) metrics.embeddedTexts.inc({ result: result.status.toLowerCase() })
  }
  /** Texts that another lane is asking for right now: nobody asks twice, the second waits and copies. */
  const underWay = new Set<string>()
  /** For each claim in flight, the texts that were under way at any time since it began: what it read may be older. */
  const watches = new Set<Set<string>>()
  const flights = new Set<Flight>()
  /** Those that may be under way at once. */
  const requests = new Semaphore(limits.maxParallelRequests)
  signal.addEventListener('abort', () => {
    for (const { controller } of flights) controller.abort(signal.reason)
  })
  let pausedUntil = 0
  let failuresInARow = 0
  let limitsInARow = 0
  let badAlone = 0
  /** While the provider fails, one lane at a time asks whether it is back; the others wait for its answer. */
  let probe: Promise<void> | null = null

  /** Leaves the provider alone: all lanes of this process. */
  async function pause(error: ProviderError, rows: readonly OwedRow[]): Promise<void> {
    const needsPerson = error.failure === 'UNAUTHORIZED' || error.failure === 'MISCONFIGURED'
    const backoff = Math.min(pauseMinMs * 2 ** failuresInARow, pauseMaxMs)
    const ms = needsPerson ? pauseMaxMs : Math.max(error.retryAfterMs ?? 0, backoff)
    failuresInARow++
    pausedUntil = Math.max(pausedUntil, performance.now() + ms)
    log.warn({ error: error.message, failure: error.failure, ms }, 'Waiting for the embedding provider')
    await tellWaiting(error, rows, ms)
  }

  async function tellWaiting(error: ProviderError, rows: readonly OwedRow[], ms: number): Promise<void> {
    await status.failed(error, ms)
    await tellWaitingJobs(database, space.id, rows, ms, error.message)
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
    const { maxTextsPerRequest } = limits
    const held = usage.jobsOverBudget()
    const rows = await claimOwed(database, space.id, process.id, maxTextsPerRequest, maxClaimBytes, held)
      .catch((error) => {
        // The claim may have been made, and only its answer lost.
        hasLostLeases = true
        throw error
      })
      .finally(() => watches.delete(asked))
    if (rows.length === 0) return false
    const batch = rows.map((row) => row.ownerId)
    for (const id of batch) inHand.add(id)
    let limit: LimitError | null = null
    try {
      await settleBatch(rows, asked)
    } catch (error) {
      if (!(error instanceof LimitError)) throw error
      limit = error
      const because = { error: limit.message, delaysMs: null }
      await releaseRows(database, space.id, process.id, rows, because).catch((lost) => {
        hasLostLeases = true
        error.endRequest()
        throw lost
      })
    } finally {
      for (const id of batch) inHand.delete(id)
    }
    if (limit) await waitForLimit(limit, rows).finally(limit.endRequest)
    return true
  }

  /**
   * One request less at once, for as long as asked; the answer to another one says whether that one has to wait, too. Only
   * now, with nothing in hand: what a lane has in hand the others leave alone, and the texts of this one are the first
   * that they find.
   */
  async function waitForLimit(limit: LimitError, rows: readonly OwedRow[]): Promise<void> {
    // A lane that has nothing to do can ask for them: it was not told to wait.
    options.onReleased()
    const { cause, waitMs } = limit
    if (!cause.isOverBudget) {
      await tellWaiting(cause, rows, waitMs)
      await delay(waitMs, undefined, { signal }).catch(() => {})
      return
    }
    const held = usage.jobsOverBudget()
    const ofHeld = rows.filter(({ jobId }) => jobId !== null && held.includes(jobId))
    // A job's own budget holds up nobody else: from here on, what it asked for is left where it is.
    if (ofHeld.length > 0) return tellWaiting(cause, ofHeld, waitMs)
    await tellWaiting(cause, rows, waitMs)
    await usage.budgetChange({ signal, limitMs: waitMs })
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
      if (!(error instanceof LimitError)) hasLostLeases = true
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
      metrics.embeddedTexts.inc({ result: 'copied' }, ready.length)
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
    const rows = texts.flatMap((text) => text.rows)
    const flight = { rows, controller: new AbortController() }
    if (signal.aborted) flight.controller.abort(signal.reason)
    flights.add(flight)
    let answer: (Float32Array | null)[] | ProviderError
    let limit: LimitError | null = null
    const [, endRequest] = await requests.acquire()
    const endTimer = metrics.embeddingRequests.startTimer()
    try {
      const accounted = accountEmbeddings(provider, usage.account(provider, 'EMBEDDING', sharesOf(texts)))
      answer = await embedParts(accounted, space.dimensions, texts, flight.controller.signal)
    } catch (error) {
      if (!(error instanceof ProviderError)) {
        // Nobody needs it any more: what is still owed goes back, the rest is not this process's.
        if (flight.controller.signal.aborted && !signal.aborted)
          return releaseRows(database, space.id, process.id, rows, null)
        throw error
      }
      answer = error
      if (error.failure === 'RATE_LIMITED') limit = toLimit(error, endRequest)
    } finally {
      flights.delete(flight)
      if (!limit) endRequest()
    }
    if (answer instanceof ProviderError) {
      endTimer({ outcome: answer.failure.toLowerCase() })
      if (limit) throw limit
      return settleFailure(texts, answer)
    }
    endTimer({ outcome: 'ok' })
    failuresInARow = 0
    limitsInARow = 0
    badAlone = 0
    await status.succeeded()
    const vectors = answer
    await store(texts.flatMap((text, index) => text.rows.map((row) => toResult(row, vectors[index] ?? null))))
  }

  function toLimit(error: ProviderError, endRequest: () => void): LimitError {
    const waitMs = error.retryAfterMs ?? Math.min(pauseMinMs * 2 ** limitsInARow, pauseMaxMs)
    limitsInARow++
    return new LimitError(error, waitMs, endRequest)
  }

  /** @param error any but RATE_LIMITED */
  async function settleFailure(texts: BatchText[], error: ProviderError): Promise<void> {
    const rows = texts.flatMap((text) => text.rows)
    switch (error.failure) {
      case 'UNAUTHORIZED':
      case 'MISCONFIGURED':
        await releaseRows(database, space.id, process.id, rows, { error: error.message, delaysMs: null })
        return pause(error, rows)
      case 'UNAVAILABLE':
        await retryLater(rows, error)
        return pause(error, rows)
      case 'REFUSED':
        if (texts.length > 1) return embedHalves(texts)
        return store(rows.map((row) => toFailure(row, error.message)))
      case 'BAD_ANSWER':
        if (badAlone >= badAnswersAlone)
          return releaseRows(database, space.id, process.id, rows, { error: error.message, delaysMs: null })
        if (texts.length > 1) return embedHalves(texts)
        badAlone++
        await retryLater(rows, error)
        if (badAlone >= badAnswersAlone) await pause(error, rows)
    }
  }

  /** One text that the provider refuses must not hold up the others: halved until it stands alone. */
  async function embedHalves(texts: BatchText[]): Promise<void> {
    const middle = texts.length >> 1
    await embedPack(texts.slice(0, middle))
    await embedPack(texts.slice(middle))
  }

  async function retryLater(rows: readonly OwedRow[], error: ProviderError): Promise<void> {
    const spent = rows.filter((row) => row.attempts >= maxRetries)
    const others = rows.filter((row) => row.attempts < maxRetries)
    if (spent.length > 0) {
      await store(spent.map((row) => toFailure(row, `${error.message} (after ${row.attempts + 1} attempts)`)))
    }
    if (others.length > 0) {
      const delaysMs = others.map((row) => retryDelayMs(row.attempts))
      metrics.embeddingRetries.inc(others.length)
      await releaseRows(database, space.id, process.id, others, { error: error.message, delaysMs })
    }
  }

  return {
    runBatch,
    /** Waits until the provider may be asked. @returns what ends the turn */
    async takeTurn(): Promise<() => void> {
      for (;;) {
        while (pausedUntil > performance.now() && !signal.aborted) {
          await delay(pausedUntil - performance.now(), undefined, { signal }).catch(() => {})
        }
        if (failuresInARow === 0 || signal.aborted) return () => {}
        if (!probe) {
          // Enough for one more text alone: without that, a batch with a bad text in it would never be halved again.
          badAlone = Math.min(badAlone, badAnswersAlone - 1)
          let end = () => {}
          probe = new Promise((resolve) => {
            end = resolve
          })
          return () => {
            probe = null
            end()
          }
        }
        await probe
      }
    },
    /** Breaks off the requests of which no row is this process's any more. */
    async dropWithdrawn(): Promise<void> {
      for (const { rows, controller } of flights) {
        if ((await countLeased(database, space.id, process.id, rows)) === 0)
          controller.abort(new Error('Nobody needs the answer any more'))
      }
    },
  }
}

/** Tokens of the texts by the job that they are embedded for. */
function sharesOf(texts: readonly BatchText[]): Map<string | null, number> {
  const shares = new Map<string | null, number>()
  for (const { rows, parts } of texts) {
    const jobId = rows.find((row) => row.jobId !== null)?.jobId ?? null
    const tokens = parts.reduce((sum, part) => sum + part.tokens, 0)
    shares.set(jobId, (shares.get(jobId) ?? 0) + Math.max(1, tokens))
  }
  return shares
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

/**
 * Packs texts into requests. What has failed before is asked for with ever fewer others (an eighth at each attempt), so
 * that one that a provider breaks down over does not take the others with it for good.
 */
function packRequests(texts: readonly BatchText[], limits: EmbeddingProvider['limits']): BatchText[][] {
  const size = (text: BatchText) => ({
    texts: text.parts.length,
    tokens: text.parts.reduce((sum, part) => sum + part.tokens, 0),
  })
  const byAttempts = new Map<number, BatchText[]>()
  for (const text of texts) {
    const attempts = Math.max(...text.rows.map((row) => row.attempts))
    byAttempts.set(attempts, [...(byAttempts.get(attempts) ?? []), text])
  }
  return [...byAttempts].flatMap(([attempts, group]) => {
    const maxTextsPerRequest = Math.max(1, Math.floor(limits.maxTextsPerRequest / 8 ** attempts))
    return packBy(group, size, { ...limits, maxTextsPerRequest })
  })
}
