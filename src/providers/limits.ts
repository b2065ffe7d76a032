import { Semaphore } from 'async-mutex'
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import type { ChatModel } from './chat/chat.ts'
import { type EmbeddingProvider, ProviderError } from './provider.ts'
import { estimateAll } from './remote.ts'

/** What may be asked of a provider; null: as much as one likes. */
export interface ProviderLimits {
  /** Requests in any minute that begins with one; 1 or more. */
  requestsPerMinute: number | null
  /** Tokens sent in such a minute, as estimated before; 1 or more. */
  tokensPerMinute: number | null
  /** Requests under way at once; 1 or more. */
  maxParallelRequests: number | null
}

/**
 * Keeps all that one process asks of one provider, for whatever purpose, within its limits. Each process counts for
 * itself: with several of them the server's own 429 is what ends an excess, and is waited for like these.
 */
export interface ProviderLimiter {
  /**
   * Does one request when it is its turn.
   * @param tokens estimated; more than the limit of a minute counts as a whole minute, as it could never be sent else.
   * @throws ProviderError RATE_LIMITED with the wait, before anything was sent: whoever asks knows best what else there is
   * to do meanwhile, and says so; waiting here would be seen by nobody.
   */
  run<T>(tokens: number, signal: AbortSignal | undefined, request: () => Promise<T>): Promise<T>
}

const minuteSeconds = 60

/** @param name of the provider, for errors */
export function createProviderLimiter(name: string, limits: ProviderLimits): ProviderLimiter {
  const requests = perMinute(limits.requestsPerMinute)
  const tokens = perMinute(limits.tokensPerMinute)
  const turns = limits.maxParallelRequests === null ? null : new Semaphore(limits.maxParallelRequests)

  async function take(estimated: number): Promise<void> {
    await requests?.take(1, (waitMs) => exceeded(name, `${limits.requestsPerMinute} requests`, waitMs))
    try {
      await tokens?.take(estimated, (waitMs) => exceeded(name, `${limits.tokensPerMinute} tokens`, waitMs))
    } catch (error) {
      // It is not sent, so it does not count as a request.
      await requests?.giveBack(1)
      throw error
    }
  }

  return {
    async run(estimated, signal, request) {
      signal?.throwIfAborted()
      const release = turns && (await turn(turns, signal))
      try {
        await take(estimated)
        return await request()
      } finally {
        release?.()
      }
    },
  }
}

function perMinute(limit: number | null) {
  if (limit === null) return null
  const limiter = new RateLimiterMemory({ points: limit, duration: minuteSeconds })
  const key = 'all'
  return {
    async take(points: number, failure: (waitMs: number) => ProviderError): Promise<void> {
      const taken = Math.min(points, limit)
      try {
        await limiter.consume(key, taken)
      } catch (error) {
        if (!(error instanceof RateLimiterRes)) throw error
        // The limiter counts what it refuses, too: whoever tried again soon enough would never be let through.
        await limiter.reward(key, taken)
        throw failure(error.msBeforeNext)
      }
    },
    giveBack: (points: number) => limiter.reward(key, points),
  }
}

/** The turn of a request, to be given back; one that is aborted while it waits passes its turn on. */
async function turn(turns: Semaphore, signal: AbortSignal | undefined): Promise<() => void> {
  const taking = turns.acquire().then(([, release]) => release)
  if (!signal) return taking
  let stop = () => {}
  const aborted = new Promise<null>((resolve) => {
    stop = () => resolve(null)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    const release = await Promise.race([taking, aborted])
    if (release && !signal.aborted) return release
    taking.then((late) => late())
    throw signal.reason
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

function exceeded(name: string, limit: string, waitMs: number): ProviderError {
  return new ProviderError('RATE_LIMITED', `${name} is used up to its limit of ${limit} per minute.`, {
    retryAfterMs: waitMs,
  })
}

/**
 * The provider within the limits; what it embeds for search and for the pipeline counts together.
 * @param accountId of its row
 */
export function limitEmbeddings(
  provider: EmbeddingProvider,
  limiter: ProviderLimiter,
  accountId: string,
): EmbeddingProvider {
  const embed: EmbeddingProvider['embed'] = (texts, signal, onCall) => {
    const tokens = texts.reduce((sum, text) => sum + provider.countTokens(text), 0)
    return limiter.run(tokens, signal, () => provider.embed(texts, signal, onCall))
  }
  return {
    type: provider.type,
    accountId,
    model: provider.model,
    limits: provider.limits,
    calibration: provider.calibration,
    get knownDimensions() {
      return provider.knownDimensions
    },
    // One word; and where it is known already, no request at all.
    dimensions: (signal, onCall) =>
      provider.knownDimensions === null
        ? limiter.run(1, signal, () => provider.dimensions(signal, onCall))
        : provider.dimensions(signal, onCall),
    countTokens: (text) => provider.countTokens(text),
    embed,
    close: () => provider.close(),
  }
}

/** The chat model within the limits; the tokens of its answers are not known before, and do not count. */
export function limitChat(chat: ChatModel, limiter: ProviderLimiter, accountId: string): ChatModel {
  return {
    ...chat,
    accountId,
    ask(request, signal, onCall) {
      const tokens = estimateAll(request.messages.map(({ content }) => content))
      return limiter.run(tokens, signal, () => chat.ask(request, signal, onCall))
    },
  }
}
