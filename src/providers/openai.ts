import type { OpenAI } from 'openai'
import { z } from 'zod'
import { SetupError } from '../errors.ts'
import {
  defaultCalibration,
  type EmbeddingLimits,
  type EmbeddingProvider,
  environmentAccount,
  type OnCall,
  ProviderError,
} from './provider.ts'
import {
  type Advice,
  estimateTokens,
  type HttpFailure,
  RemoteEmbeddings,
  requireHeaderKey,
} from './remote.ts'

export interface OpenAiProviderOptions {
  apiKey: string
  /** Up to and with `/v1`; null for OpenAI itself. */
  baseUrl?: string | null
  model: string
  /**
   * Length of the vectors where it is a choice (text-embedding-3-small and -large shorten theirs). Sent to models that
   * are not OpenAI's as well: one whose length is fixed may refuse it, then leave it out.
   */
  dimensions?: number | null
  /** Milliseconds for a whole request, above 0. */
  timeoutMs?: number
  limits?: Partial<EmbeddingLimits>
  /** Makes the requests; the platform's unless given. */
  fetch?: typeof fetch | undefined
}

export const officialUrl = 'https://api.openai.com/v1'

/** https://platform.openai.com/docs/guides/embeddings */
const officialModels: Record<string, { dimensions: number; canShorten: boolean }> = {
  'text-embedding-3-small': { dimensions: 1536, canShorten: true },
  'text-embedding-3-large': { dimensions: 3072, canShorten: true },
  'text-embedding-ada-002': { dimensions: 1536, canShorten: false },
}

/**
 * The API takes 2,048 texts and 300,000 tokens in a request and 8,191 tokens in a text. Requests are smaller because
 * one that fails is repeated whole, and its answer (2 MB for 256 vectors of 1,536 numbers in base64) is parsed on the
 * thread that answers requests. The limit of a text leaves a quarter for what `estimateTokens` may miss.
 */
const defaultLimits: EmbeddingLimits = {
  maxTextsPerRequest: 256,
  maxTokensPerRequest: 100_000,
  maxTokensPerText: 6000,
  maxParallelRequests: 4,
}

const answerShape = z.object({
  data: z.array(z.object({ index: z.unknown().optional(), embedding: z.unknown() })),
  usage: z.object({ prompt_tokens: z.int().nonnegative() }).nullish().catch(null),
})
const expectedShape = '{ data: [{ index, embedding }] }'

/** OpenAI and everything that speaks its protocol: `POST {baseUrl}/embeddings`. */
export class OpenAiProvider implements EmbeddingProvider {
  readonly type = 'openai'
  readonly accountId = environmentAccount
  readonly model: string
  readonly limits: EmbeddingLimits
  readonly #remote: RemoteEmbeddings
  readonly #client: () => Promise<OpenAI>
  #dimensions: number | null
  readonly #sentDimensions: number | null
  #asksForBase64 = true

  /** @throws SetupError when the base URL is none, or the model does not have the dimensions. */
  constructor(options: OpenAiProviderOptions) {
    const { model, dimensions = null } = options
    const known = officialModels[model]
    if (dimensions !== null && (!Number.isSafeInteger(dimensions) || dimensions < 1)) {
      throw new SetupError(`Dimensions of ${model}: found ${dimensions}, expected an integer from 1.`)
    }
    if (dimensions !== null && known !== undefined) {
      if (!known.canShorten && dimensions !== known.dimensions) {
        throw new SetupError(
          `Dimensions of ${model}: found ${dimensions}, but this model always gives ${known.dimensions}. ` +
            'Leave the dimensions out or take text-embedding-3-small.',
        )
      }
      if (dimensions > known.dimensions) {
        throw new SetupError(
          `Dimensions of ${model}: found ${dimensions}, expected at most ${known.dimensions}.`,
        )
      }
    }
    this.model = model
    this.limits = { ...defaultLimits, ...options.limits }
    const { apiKey } = options
    const baseUrl = options.baseUrl ?? officialUrl
    const timeoutMs = options.timeoutMs ?? 60_000
    this.#client = openAiClient({ apiKey, baseUrl, timeoutMs, fetch: options.fetch })
    this.#dimensions = dimensions ?? known?.dimensions ?? null
    this.#sentDimensions = known?.canShorten === false ? null : dimensions
    this.#remote = new RemoteEmbeddings({
      role: 'embedding provider',
      baseUrl,
      model,
      timeoutMs,
      secrets: [apiKey],
      httpFailure: openAiFailure,
      advice: (answer) => this.#advice(answer),
    })
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
        const client = await this.#client()
        const asksForBase64 = this.#asksForBase64
        // Not client.embeddings.create: left alone it decodes as base64 whatever comes, and makes zeros of the plain
        // numbers that many compatible servers send, at a quarter of the length.
        const request = client.post<unknown>('/embeddings', {
          body: {
            input,
            model: this.model,
            // 256 vectors of 1,536 numbers are 2 MB and 2 ms to parse in base64, 8 MB and 35 to 70 ms as decimals, in
            // which the process answers nobody.
            ...(asksForBase64 ? { encoding_format: 'base64' } : {}),
            ...(this.#sentDimensions === null ? {} : { dimensions: this.#sentDimensions }),
          },
          signal: inner,
        })
        const answer = await request.catch((error: unknown) => {
          // Asked of this request, not of the provider: others that asked too are answered after this one.
          throw asksForBase64 && refusesBase64(error) ? this.#withoutBase64() : error
        })
        const shape = answerShape.safeParse(answer)
        if (!shape.success) throw this.#remote.badShape(answer, expectedShape)
        count(shape.data.usage?.prompt_tokens)
        return shape.data.data.map(({ index, embedding }) => ({ index, values: decoded(embedding) }))
      },
      onCall,
    )
    this.#dimensions ??= vectors.find((vector) => vector !== null)?.length ?? null
    return vectors
  }

  async close(): Promise<void> {
    this.#remote.close()
  }

  #advice({ status, message }: HttpFailure): Advice | null {
    if (isRefusal(status) && this.#sentDimensions !== null && /dimension|matryoshka/i.test(message)) {
      const hint = `Leave the dimensions (${this.#sentDimensions}) out: this model may have only its own.`
      return { failure: 'MISCONFIGURED', hint }
    }
    return null
  }

  /** One call is one request, so it is not repeated here: UNAVAILABLE makes the pipeline do that. */
  #withoutBase64(): ProviderError {
    this.#asksForBase64 = false
    return new ProviderError(
      'UNAVAILABLE',
      `${this.#remote.source} refuses encoding_format base64: the next request does without.`,
    )
  }
}

/**
 * The package's client, loaded and made at the first call.
 * @param options `timeoutMs`: the deadline that the caller keeps for itself, in milliseconds.
 * @throws SetupError when the key cannot stand in a header.
 */
export function openAiClient(options: {
  apiKey: string
  baseUrl: string
  timeoutMs: number
  fetch?: typeof fetch | undefined
}): () => Promise<OpenAI> {
  const { apiKey, baseUrl, timeoutMs, fetch } = options
  requireHeaderKey(apiKey)
  let client: Promise<OpenAI> | null = null
  // Loading the package takes 60 to 100 ms: not at the start of a process that may never ask.
  return () => {
    client ??= import('openai').then(
      ({ OpenAI }) =>
        new OpenAI({
          // The package refuses to be without a key; without one, the header that would carry it is left out.
          apiKey: apiKey === '' ? 'none' : apiKey,
          ...(apiKey === '' ? { defaultHeaders: { Authorization: null } } : {}),
          // Otherwise OPENAI_ADMIN_KEY of the environment.
          adminAPIKey: null,
          baseURL: baseUrl,
          // The callers repeat: they know about all requests under way and about Retry-After.
          maxRetries: 0,
          // Later than our own deadline, which unlike this one covers the body of the answer.
          timeout: timeoutMs + 1000,
          logLevel: 'off',
          ...(fetch ? { fetch } : {}),
          // Otherwise the variables OPENAI_ORG_ID and OPENAI_PROJECT_ID would be sent to whoever runs the base URL.
          ...(baseUrl === officialUrl ? {} : { organization: null, project: null }),
        }),
    )
    return client
  }
}

/** Base64 of little-endian 32-bit floats becomes numbers; everything else is left for checkVectors to judge. */
function decoded(embedding: unknown): unknown {
  if (typeof embedding !== 'string') return embedding
  const bytes = Buffer.from(embedding, 'base64')
  if (bytes.length % Float32Array.BYTES_PER_ELEMENT !== 0) return embedding
  // Copied, because a Float32Array needs an aligned start and Buffer takes small pieces of a shared pool.
  return new Float32Array(Uint8Array.from(bytes).buffer)
}

/** Whether it is the request that the server objects to. */
export function isRefusal(status: number): boolean {
  return status === 400 || status === 422
}

function refusesBase64(error: unknown): boolean {
  const answer = openAiFailure(error)
  return answer !== null && isRefusal(answer.status) && /encoding.?format|base64/i.test(answer.message)
}

/** By their method: another implementation of `fetch` has a class of its own. */
function isHeaders(value: unknown): value is Pick<Headers, 'get'> {
  return typeof value === 'object' && value !== null && 'get' in value && typeof value.get === 'function'
}

/** An APIError of the package, told by its shape so that the package need not be loaded to see none. */
export function openAiFailure(error: unknown): HttpFailure | null {
  if (!(error instanceof Error) || !('status' in error) || !('headers' in error)) return null
  const { status, headers, message } = error
  if (typeof status !== 'number' || !isHeaders(headers)) return null
  // The package puts the status in front.
  return { status, headers, message: message.replace(/^\d{3} /, '') }
}
