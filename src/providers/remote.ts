import { errorMessage, SetupError } from '../errors.ts'
import { type AnsweredVector, checkVectors, failureOfStatus, isRedirect, retryAfterMs } from './check.ts'
import { type OnCall, ProviderError, type ProviderFailure } from './provider.ts'

/** An HTTP answer that is not 2xx. */
export interface HttpFailure {
  status: number
  headers: Pick<Headers, 'get'>
  /** What the server says about it: the `error.message` of a JSON body, else the start of the body. */
  message: string
}

/** Of one request. */
export interface Tokens {
  tokensIn: number
  tokensOut: number
}

/** What a provider knows better about a failure than its status says. */
export interface Advice {
  failure?: ProviderFailure
  /** What the operator can do, a sentence. */
  hint: string
}

export interface RemoteOptions {
  /** What is asked, as errors of the configuration name it, e.g. 'embedding provider'. */
  role: string
  baseUrl: string
  model: string
  /** From sending to the last byte of the answer, in milliseconds. */
  timeoutMs: number
  /** Strings that no error may contain. */
  secrets: readonly string[]
  /** The HTTP answer behind what `send` threw, null if there was none. */
  httpFailure(error: unknown): HttpFailure | null
  advice(answer: HttpFailure): Advice | null
}

/**
 * Whether a key can stand in a header. A line break in one that was copied would end in an error of the HTTP client, which
 * shows the whole header.
 */
export const isHeaderKey = (apiKey: string): boolean => /^[\x21-\x7e]*$/.test(apiKey)

/** @throws SetupError when the key cannot stand in a header. */
export function requireHeaderKey(apiKey: string): void {
  if (!isHeaderKey(apiKey)) {
    throw new SetupError('The API key contains white space or characters beyond ASCII: copy it again.')
  }
}

/** What everything that is asked over HTTP has in common: base URL, deadline, abort, and the mapping of failures. */
export class RemoteClient {
  /** For error messages, e.g. 'api.openai.com (text-embedding-3-small)'. */
  readonly source: string
  readonly #options: RemoteOptions
  readonly #closing = new AbortController()

  /** @throws SetupError when the base URL or the time-out cannot be used. */
  constructor(options: RemoteOptions) {
    this.#options = options
    const { role } = options
    const url = URL.canParse(options.baseUrl) ? new URL(options.baseUrl) : null
    if (url === null || !/^https?:$/.test(url.protocol)) {
      // The value itself may contain a password.
      throw new SetupError(`The base URL of the ${role} is not a URL that begins with http:// or https://.`)
    }
    if (url.username !== '' || url.password !== '') {
      // fetch refuses such a URL, with an error that shows it whole.
      throw new SetupError(
        `The base URL of the ${role} (${url.host}) contains a user name or a password: leave them out.`,
      )
    }
    if (!(options.timeoutMs > 0 && options.timeoutMs < 2 ** 31)) {
      throw new SetupError(
        `Time-out of the ${role}: found ${options.timeoutMs}, expected milliseconds above 0.`,
      )
    }
    this.source = `${url.host} (${options.model})`
  }

  /**
   * One request, ended by the deadline, by the caller's signal or by `close`, whichever comes first.
   * @param send does the request and reads the whole answer. Its signal is the one that ends it; what the answer says of
   * tokens it tells as soon as it has it, also where the answer is then refused.
   * @throws ProviderError; whatever reason the caller's signal was aborted with.
   */
  async request<T>(
    signal: AbortSignal | undefined,
    send: (signal: AbortSignal, count: (tokens: Tokens) => void) => Promise<T>,
    onCall?: OnCall,
  ): Promise<T> {
    signal?.throwIfAborted()
    // Not AbortSignal.any with AbortSignal.timeout: in Node 20 the combined signal can be garbage collected before it
    // fires, and the time-outs of the client libraries end with the headers: a body that stalls would hang for ever.
    const controller = new AbortController()
    const stop = () => controller.abort()
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      stop()
    }, this.#options.timeoutMs)
    signal?.addEventListener('abort', stop, { once: true })
    this.#closing.signal.addEventListener('abort', stop, { once: true })
    if (this.#closing.signal.aborted) stop()
    const begun = performance.now()
    let tokens: Tokens = { tokensIn: 0, tokensOut: 0 }
    const end = (isFailed: boolean) => onCall?.({ ...tokens, ms: performance.now() - begun, isFailed })
    try {
      controller.signal.throwIfAborted()
      const answer = await send(controller.signal, (counted) => {
        tokens = counted
      })
      end(false)
      return answer
    } catch (error) {
      end(true)
      signal?.throwIfAborted()
      if (this.#closing.signal.aborted) {
        throw new ProviderError(
          'UNAVAILABLE',
          `${this.source}: the provider is closed, the process is shutting down.`,
        )
      }
      if (isLate) {
        throw new ProviderError(
          'UNAVAILABLE',
          `${this.source} did not answer within ${this.#options.timeoutMs} ms.`,
        )
      }
      throw this.#failure(error)
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', stop)
      this.#closing.signal.removeEventListener('abort', stop)
    }
  }

  /** An error about an answer that came: names who gave it, hides the secrets, shows at most 500 characters. */
  answerError(failure: ProviderFailure, what: string): ProviderError {
    return new ProviderError(failure, `Answer of ${this.source}: ${this.#excerpt(what, 500)}`)
  }

  /** A BAD_ANSWER for something whose very shape is wrong. */
  badShape(answer: unknown, expected: string): ProviderError {
    const found = typeof answer === 'string' ? answer : (JSON.stringify(answer) ?? String(answer))
    return new ProviderError(
      'BAD_ANSWER',
      `Answer of ${this.source}: found ${this.#excerpt(found)}, expected ${expected}. Is the base URL right?`,
    )
  }

  /** Ends the requests under way; later ones fail. */
  close(): void {
    this.#closing.abort()
  }

  #failure(error: unknown): ProviderError {
    const known = providerErrorIn(error)
    if (known !== null) return known
    const answer = this.#options.httpFailure(error)
    if (answer !== null) {
      const advice = redirectAdvice(answer) ?? this.#options.advice(answer)
      const failure = advice?.failure ?? failureOfStatus(answer.status)
      const hint = advice?.hint ?? hints[failure] ?? ''
      return new ProviderError(
        failure,
        `${this.source} answered ${answer.status}: ${this.#excerpt(answer.message)}${hint && ` ${hint}`}`,
        // Not the error as cause: it holds the whole answer, in which servers repeat the key that they refuse.
        { retryAfterMs: retryAfterMs(answer.headers) },
      )
    }
    if (error instanceof SyntaxError) {
      return new ProviderError(
        'BAD_ANSWER',
        `Answer of ${this.source} is no JSON: ${this.#excerpt(error.message)}`,
      )
    }
    return new ProviderError(
      'UNAVAILABLE',
      `${this.source} cannot be reached: ${this.#excerpt(rootMessage(error))}`,
      {
        cause: error,
      },
    )
  }

  #excerpt(text: string, length = 200): string {
    let shown = text
    for (const secret of this.#options.secrets) {
      if (secret === '') continue
      // Servers repeat a key in JSON or in a URL, too, where it may be spelt otherwise.
      for (const form of [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret)])
        shown = shown.replaceAll(form, '[key]')
    }
    shown = shown.replace(/\s+/g, ' ').trim()
    return shown.length <= length ? shown : `${shown.slice(0, length)}…`
  }
}

/** What the embedding providers over HTTP have in common: which texts are sent, and what must come back. */
export class RemoteEmbeddings extends RemoteClient {
  /**
   * One request for all texts that are not blank; null for those that are, because providers refuse the whole request
   * for an empty text.
   * @param send does the request and gives the vectors as they came. Its signal ends when the caller's does, when the
   * time is over, or at `close`.
   * @param dimensions expected, null if unknown.
   * @throws ProviderError; whatever reason the caller's signal was aborted with.
   */
  async embed(
    texts: readonly string[],
    dimensions: number | null,
    signal: AbortSignal | undefined,
    send: (
      texts: string[],
      signal: AbortSignal,
      /** Tokens as the server counts them; null or 0 where it does not. */
      count: (tokensIn: number | null | undefined) => void,
    ) => Promise<readonly AnsweredVector[]>,
    onCall?: OnCall,
  ): Promise<(Float32Array | null)[]> {
    const sent: string[] = []
    const rows = texts.map((text) => {
      if (text.trim() === '') return null
      // Half of a surrogate pair: some servers cannot decode the request then, and refuse all of its texts.
      return sent.push(text.replace(/\p{Surrogate}/gu, '\uFFFD')) - 1
    })
    signal?.throwIfAborted()
    if (sent.length === 0) return rows.map(() => null)
    const vectors = await this.request(
      signal,
      async (inner, count) => {
        const answer = await send(sent, inner, (tokensIn) =>
          count({ tokensIn: tokensIn || estimateAll(sent), tokensOut: 0 }),
        )
        return checkVectors(answer, { count: sent.length, dimensions, source: this.source })
      },
      onCall,
    )
    return rows.map((row) => (row === null ? null : (vectors[row] ?? null)))
  }
}

const hints: { [failure in ProviderFailure]?: string } = {
  UNAUTHORIZED: 'Check the API key and what it may use.',
  MISCONFIGURED: 'Check the base URL and the name of the model.',
}

function redirectAdvice({ status, headers }: HttpFailure): Advice | null {
  const location = headers.get('location')
  if (!isRedirect(status)) return null
  const host = location !== null && URL.canParse(location) ? ` to ${new URL(location).host}` : ''
  return { hint: `It redirects${host}, which is not followed: give the address where it ends as base URL.` }
}

/** What was thrown below `fetch` or a client library, which wrap it. */
function providerErrorIn(error: unknown): ProviderError | null {
  let inner = error
  while (inner instanceof Error && !(inner instanceof ProviderError)) inner = inner.cause
  return inner instanceof ProviderError ? inner : null
}

/** `fetch` says only 'fetch failed'; that the connection was refused is in the cause. */
function rootMessage(error: unknown): string {
  let root = error
  while (root instanceof Error && root.cause !== undefined) root = root.cause
  const code = root instanceof Error && 'code' in root ? String(root.code) : ''
  const message = errorMessage(root)
  // A refused connection to a name with two addresses is an AggregateError without a message.
  return message === '' ? code : message
}

/**
 * Tokens of a text for models whose tokenizer is not at hand; rather too many than too few.
 *
 * The weights were fitted by measurement against cl100k_base, the tokenizer of OpenAI's embedding models: English chat
 * is overestimated 1.8 times, code 2.3, Russian 2.5, Chinese 2; base64, hex, logs, Greek, Georgian 1.0 to 1.3. Below
 * the truth only for words of random letters (0.87), some base64 (0.9) and random Chinese (0.85) or Korean (0.77):
 * providers leave that margin in `maxTokensPerText`. Signs count one each, which is what WordPiece (the BERT models
 * behind Ollama) makes of them, though cl100k_base has one token for a row of them.
 * @returns 0 or more, an integer. Takes time in proportion to the length of the text.
 */
export function estimateTokens(text: string): number {
  let tenths = 0
  let before: 'space' | 'lower' | 'upper' | 'digit' | 'sign' | 'other' = 'space'
  /** Characters of the same kind so far. 'Word' is one run, 'camelCase' two, 'XMLHttp' three. */
  let run = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code >= 0x61 && code <= 0x7a) {
      run = before === 'lower' || (before === 'upper' && run === 1) ? run + 1 : 1
      before = 'lower'
      tenths += letterTenths(run)
    } else if (code >= 0x41 && code <= 0x5a) {
      run = before === 'upper' ? run + 1 : 1
      before = 'upper'
      tenths += letterTenths(run)
    } else if (code >= 0x30 && code <= 0x39) {
      run = before === 'digit' ? run + 1 : 1
      // Space and number are two tokens, space and word one.
      tenths += run > 1 ? 5 : before === 'space' ? 15 : 10
      before = 'digit'
    } else if (code <= 0x20) {
      run = before === 'space' ? run + 1 : 1
      tenths += code === 0x20 && run === 1 ? (before === 'other' ? 10 : 0) : 4
      before = 'space'
    } else if (code < 0x80) {
      before = 'sign'
      tenths += 10
    } else {
      before = 'other'
      tenths += letterTenthsBeyondAscii(code)
    }
  }
  return Math.ceil(tenths / 10)
}

/** Of several texts together. */
export function estimateAll(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + estimateTokens(text), 0)
}

/** Up to twelve letters may be a word of some language, longer runs are taken for random letters. */
function letterTenths(run: number): number {
  if (run === 1) return 10
  return run <= 12 ? 4 : 6
}

function letterTenthsBeyondAscii(code: number): number {
  const isLatinOrCyrillic = code < 0x250 || (code >= 0x400 && code < 0x530)
  if (isLatinOrCyrillic) return 10
  const isGreekHebrewOrArabic = (code >= 0x370 && code < 0x400) || (code >= 0x590 && code < 0x700)
  // The rest: CJK, scripts with few merges (Armenian, Georgian, Khmer), and each half of an emoji.
  return isGreekHebrewOrArabic ? 12 : 20
}
