import { z } from 'zod'
import {
  defaultCalibration,
  type EmbeddingLimits,
  type EmbeddingProvider,
  environmentAccount,
  type OnCall,
} from './provider.ts'
import {
  type Advice,
  estimateTokens,
  type HttpFailure,
  RemoteEmbeddings,
  requireHeaderKey,
} from './remote.ts'

export interface OllamaProviderOptions {
  /** Without `/api`, e.g. `http://127.0.0.1:11434`. */
  baseUrl: string
  /** As in `ollama list`. */
  model: string
  /** Milliseconds for a whole request, above 0. By default 120,000: the first one loads the model. */
  timeoutMs?: number
  limits?: Partial<EmbeddingLimits>
  /** Sent as a bearer token, for Ollama's own cloud or a proxy that asks for one; Ollama itself knows none. */
  apiKey?: string | undefined
  /** Makes the requests; the platform's unless given. */
  fetch?: typeof fetch | undefined
}

/**
 * What a model takes depends on the model, its Modelfile and the batch size of the server, and is not to be had before
 * the first refusal. Most embedding models in Ollama are BERT models with 512 positions, two of them for marks, and
 * nomic-embed-text, which could take more, has been seen to fail above 510; all-minilm is served with 256. A limit that
 * is too low costs little (longer texts are embedded in parts), one that is too high costs the text.
 */
const maxTokensPerText = 500
const knownLimits: Record<string, number> = { 'all-minilm': 250 }

/** Ollama computes the texts of a request one after another or in its own parallel slots; more requests only wait. */
const defaultLimits = { maxTextsPerRequest: 64, maxTokensPerRequest: 16_000, maxParallelRequests: 2 }

const answerShape = z.object({
  embeddings: z.array(z.unknown()),
  prompt_eval_count: z.int().nonnegative().nullish().catch(null),
})
const errorShape = z.object({ error: z.union([z.string(), z.object({ message: z.string() })]) })

/**
 * A model on an Ollama server: `POST {baseUrl}/api/embed`. Not through the `ollama` package: its `embed` cannot be
 * aborted, loses the Retry-After header, and writes to the console when an answer is not JSON.
 */
export class OllamaProvider implements EmbeddingProvider {
  readonly type = 'ollama'
  readonly accountId = environmentAccount
  readonly model: string
  readonly limits: EmbeddingLimits
  readonly #post: OllamaCall
  readonly #remote: RemoteEmbeddings
  #dimensions: number | null = null

  /** @throws SetupError when the base URL is none. */
  constructor(options: OllamaProviderOptions) {
    const { baseUrl, model } = options
    this.model = model
    this.limits = {
      ...defaultLimits,
      maxTokensPerText: knownLimits[model.replace(/:.*/, '')] ?? maxTokensPerText,
      ...options.limits,
    }
    this.#remote = new RemoteEmbeddings({
      role: 'embedding provider',
      baseUrl,
      model,
      timeoutMs: options.timeoutMs ?? 120_000,
      secrets: [options.apiKey ?? ''],
      httpFailure: ollamaFailure,
      advice: (answer) => this.#advice(answer),
    })
    this.#post = ollamaCall('embed', options)
  }

  readonly calibration = defaultCalibration

  get knownDimensions(): number | null {
    return this.#dimensions
  }

  async dimensions(signal?: AbortSignal, onCall?: OnCall): Promise<number> {
    if (this.#dimensions === null) await this.embed(['word'], signal, onCall)
    if (this.#dimensions === null) throw this.#remote.badShape('nothing', 'a vector')
    return this.#dimensions
  }

  countTokens(text: string): number {
    return estimateTokens(text)
  }

  async embed(
    texts: readonly string[],
    signal?: AbortSignal,
    onCall?: OnCall,
  ): Promise<(Float32Array | null)[]> {
    const vectors = await this.#remote.embed(
      texts,
      this.#dimensions,
      signal,
      async (input, inner, count) => {
        // By default Ollama cuts a text that is too long and says nothing.
        const answer = await this.#post({ model: this.model, input, truncate: false }, inner)
        const shape = answerShape.safeParse(answer)
        if (!shape.success) throw this.#remote.badShape(answer, '{ embeddings: [[…]] }')
        count(shape.data.prompt_eval_count)
        return shape.data.embeddings.map((values) => ({ values }))
      },
      onCall,
    )
    this.#dimensions ??= vectors.find((vector) => vector !== null)?.length ?? null
    return vectors
  }

  async close(): Promise<void> {
    this.#remote.close()
  }

  #advice(answer: HttpFailure): Advice | null {
    const hint = `Texts of this model may have fewer than ${this.limits.maxTokensPerText} (estimated) tokens.`
    return ollamaAdvice(answer, this.model, hint)
  }
}

/** Does one call with a body. */
export type OllamaCall = (body: unknown, signal: AbortSignal) => Promise<unknown>

/**
 * One of Ollama's calls, e.g. `chat`. What is made of it gives the answer, a text where it is no JSON at all (a page of a
 * proxy); it throws what `ollamaFailure` knows, SyntaxError for JSON that was cut off, and whatever fetch throws.
 * @throws SetupError when the key cannot stand in a header.
 */
export function ollamaCall(
  call: string,
  options: Pick<OllamaProviderOptions, 'baseUrl' | 'apiKey' | 'fetch'>,
): OllamaCall {
  const { baseUrl, apiKey = '', fetch = globalThis.fetch } = options
  requireHeaderKey(apiKey)
  const url = `${baseUrl.replace(/\/+$/, '')}/api/${call}`
  const headers = {
    'content-type': 'application/json',
    ...(apiKey === '' ? {} : { authorization: `Bearer ${apiKey}` }),
  }
  return async (body, signal) => {
    const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body), signal })
    const text = await response.text()
    if (!response.ok) throw new HttpError(response, text)
    return parsed(text)
  }
}

/** The HTTP answer behind what a call threw, null if there was none. */
export function ollamaFailure(error: unknown): HttpFailure | null {
  return error instanceof HttpError ? error.answer : null
}

/**
 * What the messages of an Ollama server say beyond their status, for every call.
 * @param tooLong what to do about a text that is too long for the model, a sentence.
 */
export function ollamaAdvice(answer: HttpFailure, model: string, tooLong: string): Advice | null {
  const { status, message } = answer
  if (status === 404 && /model/i.test(message)) return { hint: `Run \`ollama pull ${model}\` on the server.` }
  // A 400 in current versions, a 500 in some older ones, where it would be repeated for ever.
  if (/context length|input length|context size/i.test(message)) return { failure: 'REFUSED', hint: tooLong }
  return null
}

class HttpError extends Error {
  readonly answer: HttpFailure
  constructor(response: Response, body: string) {
    super(`HTTP ${response.status}`)
    this.answer = { status: response.status, headers: response.headers, message: errorText(body) }
  }
}

/** Ollama answers { error: 'why' }, servers that imitate it { error: { message: 'why' } }, proxies a page. */
function errorText(body: string): string {
  try {
    const { error } = errorShape.parse(JSON.parse(body))
    return typeof error === 'string' ? error : error.message
  } catch {
    return body
  }
}

/** The body itself where it is no JSON at all (a page of a proxy); JSON that was cut off throws a SyntaxError. */
function parsed(body: string): unknown {
  return /^\s*[[{]/.test(body) ? JSON.parse(body) : body
}
