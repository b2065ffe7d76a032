import { SetupError } from '../../errors.ts'
import type { OnCall, ProviderError, ProviderFailure, ProviderType } from '../provider.ts'

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
}

export interface ChatRequest {
  messages: readonly ChatMessage[]
  /**
   * The answer is to be one JSON value of this JSON Schema. Only what OpenAI's strict mode takes is sent without being
   * refused: every property required, `additionalProperties: false`, no limits of lengths and numbers.
   */
  schema: { name: string; json: Readonly<Record<string, unknown>> }
  /** 0..2. Left out: the model's own. Reasoning models of OpenAI refuse every other. */
  temperature?: number | undefined
  /** Tokens of the answer, thinking included; 1 or more. Left out: up to the provider. */
  maxOutputTokens?: number | undefined
}

export interface ChatAnswer {
  /** As it came. That it is JSON of the schema is likely, not certain. */
  text: string
  /** The limit of tokens ended it. */
  isTruncated: boolean
  /** Zero where the server does not count. */
  usage: { tokensIn: number; tokensOut: number }
}

/** A language model that answers in JSON. One per process and model; owns its connections. */
export interface ChatModel {
  readonly type: Exclude<ProviderType, 'local'>
  /** To whose account its requests go: the id of its row, or `extraction`. */
  readonly accountId: string
  readonly model: string
  /**
   * Sends exactly one request. Never retries by itself: jobs do.
   * @throws ProviderError (REFUSED also where the model or a filter of the provider refuses to answer); whatever reason
   * the signal was aborted with.
   */
  ask(request: ChatRequest, signal?: AbortSignal, onCall?: OnCall): Promise<ChatAnswer>
  /** For whoever reads the answers: an error that names the model and shows no secret. */
  answerError(failure: ProviderFailure, what: string): ProviderError
  /** Ends the requests under way; later ones fail. */
  close(): Promise<void>
}

const defaultTimeoutMs = 120_000

/**
 * Node's fetch gives up when no header has come for 300 s (undici's `headersTimeout`, which only a package of its own
 * could change), and an answer that is not streamed has its headers when the model is done.
 */
const maxTimeoutMs = 300_000

/**
 * The time-out of a chat model in milliseconds, 120,000 by default.
 * @throws SetupError above 300,000: it would not be kept.
 */
export function chatTimeoutMs(timeoutMs: number = defaultTimeoutMs): number {
  if (timeoutMs > maxTimeoutMs) {
    throw new SetupError(
      `Time-out of the chat model: found ${timeoutMs} ms, expected at most ${maxTimeoutMs}. ` +
        'Take a faster model, or give it fewer messages at once.',
    )
  }
  return timeoutMs
}
