import { QuarryError } from '../errors.ts'

/** The account of whoever embeds as the environment configures, and of whoever extracts so. */
export const environmentAccount = 'environment'
export const extractionAccount = 'extraction'

export const providerTypes = ['local', 'openai', 'ollama'] as const
export type ProviderType = (typeof providerTypes)[number]

/** What one request may carry, and how many may be under way at once. */
export interface EmbeddingLimits {
  /** Texts in one request. */
  maxTextsPerRequest: number
  /** Estimated tokens in one request, all texts together. */
  maxTokensPerRequest: number
  /** Estimated tokens in one text; a longer text is embedded in parts whose vectors are averaged (embedding/parts.ts). */
  maxTokensPerText: number
  /** Requests under way at once in this process. */
  maxParallelRequests: number
}

/** How far similarities of a model (1 - cosineDistance / 2) can be trusted: a space keeps it from its making on. */
export interface Calibration {
  /**
   * Share of meaning in a hybrid score, 0..1: the better the model finds texts beside their words, the more. Among short
   * texts, of 20 words and less on average.
   */
  meaningShare: number
  /** The same among long texts, of 50 words and more. */
  meaningShareLong: number
  /** From this similarity on, two texts say the same. */
  duplicate: number
}

/** Between what models do for which it was measured. */
export const defaultCalibration: Calibration = { meaningShare: 0.5, meaningShareLong: 0.4, duplicate: 0.95 }

/** One request to a provider, as it went. */
export interface ProviderCall {
  /** As the server counts them, else as estimated; 0 where it was not done. */
  tokensIn: number
  tokensOut: number
  /** From sending to the end of the answer. */
  ms: number
  isFailed: boolean
}

/** Told of each request that was sent, when it has ended. Must not throw. */
export type OnCall = (call: ProviderCall) => void

/** Something that turns texts into vectors. One per process and model; owns its threads and connections. */
export interface EmbeddingProvider {
  readonly type: ProviderType
  /** To whose account its requests go: the id of its row, or `environment`. */
  readonly accountId: string
  readonly model: string
  readonly limits: EmbeddingLimits
  /** Length of the vectors, where configuration or the model's name says it; else null until a first answer. */
  readonly knownDimensions: number | null
  readonly calibration: Calibration
  /** Length of the vectors. Asks the provider (by embedding one word) only where configuration does not say. */
  dimensions(signal?: AbortSignal, onCall?: OnCall): Promise<number>
  /** Tokens of a text in this model: exact for `local`, an estimate that errs on the high side elsewhere. */
  countTokens(text: string): number
  /**
   * One vector per text, in order; null where the model sees nothing to embed in the text (no known token).
   * Sends exactly one request. Never retries by itself: the pipeline decides.
   * @throws ProviderError
   */
  embed(texts: readonly string[], signal?: AbortSignal, onCall?: OnCall): Promise<(Float32Array | null)[]>
  close(): Promise<void>
}

/**
 * - RATE_LIMITED: the provider asks to wait; not a failure of the texts.
 * - UNAUTHORIZED: key missing, wrong or without permission, or nothing left to pay with: no text can succeed.
 * - MISCONFIGURED: the address or the model does not exist there (404): no text can succeed until someone acts.
 * - REFUSED: the provider rejects this request for its content; the same request will never succeed.
 * - UNAVAILABLE: time-out, 5xx, connection refused or reset: may succeed later.
 * - BAD_ANSWER: it answered, but not with what was asked for (count, dimension, NaN, zero, no JSON).
 */
export type ProviderFailure =
  | 'RATE_LIMITED'
  | 'UNAUTHORIZED'
  | 'MISCONFIGURED'
  | 'REFUSED'
  | 'UNAVAILABLE'
  | 'BAD_ANSWER'

export class ProviderError extends QuarryError {
  readonly failure: ProviderFailure
  /** Milliseconds that the provider asked to wait (Retry-After), if it did. */
  readonly retryAfterMs: number | null
  /** RATE_LIMITED by a budget of ours: nothing was sent, and the wait ends when somebody raises it. */
  readonly isOverBudget: boolean
  constructor(
    failure: ProviderFailure,
    message: string,
    options: { retryAfterMs?: number | null; isOverBudget?: boolean; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause })
    this.failure = failure
    this.retryAfterMs = options.retryAfterMs ?? null
    this.isOverBudget = options.isOverBudget ?? false
  }
  /** Whether the same request may succeed later. */
  get isRetryable(): boolean {
    return this.failure === 'RATE_LIMITED' || this.failure === 'UNAVAILABLE' || this.failure === 'BAD_ANSWER'
  }
}
