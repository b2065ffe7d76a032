import { ProviderError, type ProviderFailure } from './provider.ts'

/** One vector as it came from outside: nothing about it is certain. */
export interface AnsweredVector {
  /** Position of the text that it belongs to, where the protocol says it; otherwise undefined. */
  index?: unknown
  values: unknown
}

export interface ExpectedVectors {
  /** Texts in the request. */
  count: number
  /** Numbers in each vector; null while unknown, then all must be of the same length as the first. */
  dimensions: number | null
  /** Who answered, as errors shall name it, e.g. 'api.openai.com (text-embedding-3-small)'. */
  source: string
}

/** Shorter vectors are rounding noise: their direction, which is all that cosine similarity sees, means nothing. */
const minNorm = 1e-6

/**
 * Puts vectors in the order of the texts and makes sure that they can be stored: one per text, of the expected length,
 * all numbers finite as 32-bit floats, norm above 1e-6. A vector of the wrong text or a NaN would not fail later, it
 * would quietly spoil every search.
 * @param answer in any order where all have an index, otherwise in the order of the texts.
 * @throws ProviderError BAD_ANSWER naming the text (counted from 1) and what was found.
 */
export function checkVectors(answer: readonly AnsweredVector[], expected: ExpectedVectors): Float32Array[] {
  const { count, source } = expected
  const bad = (what: string) => new ProviderError('BAD_ANSWER', `Answer of ${source}: ${what}`)
  if (answer.length !== count) throw bad(`${answer.length} vectors for ${count} texts.`)
  const hasIndex = answer.some(({ index }) => index !== undefined)
  const vectors = new Array<Float32Array | undefined>(count).fill(undefined)
  let dimensions = expected.dimensions
  for (const [position, { index, values }] of answer.entries()) {
    const row = hasIndex ? index : position
    if (typeof row !== 'number' || !Number.isInteger(row) || row < 0 || row >= count) {
      throw bad(`vector ${position + 1} has the index ${JSON.stringify(row)}, expected 0 to ${count - 1}.`)
    }
    if (vectors[row] !== undefined) throw bad(`two vectors have the index ${row}.`)
    const text = `the vector of text ${row + 1} of ${count}`
    if (!Array.isArray(values) && !(values instanceof Float32Array)) {
      throw bad(`${text} is ${values === null ? 'null' : typeof values}, expected a list of numbers.`)
    }
    dimensions ??= values.length
    if (values.length !== dimensions || values.length === 0) {
      throw bad(
        `${text} has ${values.length} dimensions, expected ${dimensions || 'at least 1'}. ` +
          'If the model was changed, its vectors do not fit to those that are stored.',
      )
    }
    const vector = values instanceof Float32Array ? values : new Float32Array(values.length)
    let squares = 0
    for (let at = 0; at < values.length; at++) {
      const value: unknown = values[at]
      // Assigning coerces (null and '' become 0, [3] becomes 3), hence the test of the type before it; and 1e300 is
      // finite in JSON but infinite as a 32-bit float, hence the test of the value after it.
      if (typeof value === 'number') vector[at] = value
      const stored = vector[at] ?? Number.NaN
      if (typeof value !== 'number' || !Number.isFinite(stored)) {
        throw bad(`${text} has ${String(value)} at position ${at + 1}, expected a finite 32-bit number.`)
      }
      squares += stored * stored
    }
    const norm = Math.sqrt(squares)
    if (norm <= minNorm) throw bad(`${text} is zero (norm ${norm}).`)
    vectors[row] = vector
  }
  // As many rows as vectors and none twice: all are there.
  return vectors.filter((vector) => vector !== undefined)
}

/**
 * What an HTTP status that is not 2xx says about the request (RFC 9110, and 402 and 429 as the hosted services use
 * them).
 */
export function failureOfStatus(status: number): ProviderFailure {
  if (status === 401 || status === 402 || status === 403) return 'UNAUTHORIZED'
  // The address or the model does not exist. REFUSED would give up on every text for good, though nothing is wrong
  // with them; UNAUTHORIZED would send the reader to look at the key.
  if (status === 404 || status === 405 || status === 410) return 'MISCONFIGURED'
  // A redirect that is not followed: the server is elsewhere.
  if (isRedirect(status)) return 'MISCONFIGURED'
  if (status === 429) return 'RATE_LIMITED'
  // 408 Request Timeout, 409 Conflict (a lock at the provider), 425 Too Early.
  if (status === 408 || status === 409 || status === 425 || status >= 500) return 'UNAVAILABLE'
  return status >= 400 ? 'REFUSED' : 'BAD_ANSWER'
}

/** RFC 9110, 15.4: those that name another place in `Location`. */
export const isRedirect = (status: number): boolean => [301, 302, 303, 307, 308].includes(status)

/** One day: a longer wait is an error of the server, and above 2^31 ms a timer would fire at once. */
const maxRetryAfterMs = 24 * 60 * 60 * 1000

/**
 * How long the server asks to wait: `retry-after-ms` (Azure and OpenAI), else `Retry-After` in seconds or as HTTP date
 * (RFC 9110, 10.2.3). A date is held against the server's own clock, its `Date` header: this machine's may be wrong.
 * @param now milliseconds since 1970, for an answer without that header.
 * @returns 0 to 86,400,000 ms, or null where neither header is there and legible.
 */
export function retryAfterMs(headers: Pick<Headers, 'get'>, now: number = Date.now()): number | null {
  const seconds = headers.get('retry-after')?.trim() ?? ''
  const sentAt = headers.get('date')?.trim() ?? ''
  const wait =
    plainNumber(headers.get('retry-after-ms')?.trim() ?? '') ??
    thousandfold(plainNumber(seconds)) ??
    (isDate(seconds) ? Date.parse(seconds) - (isDate(sentAt) ? Date.parse(sentAt) : now) : Number.NaN)
  return Number.isNaN(wait) ? null : Math.min(Math.max(wait, 0), maxRetryAfterMs)
}

/** Date.parse alone reads a year out of almost anything ('soon 1'); HTTP dates have a time of day. */
const isDate = (text: string) => /\d\d:\d\d:\d\d/.test(text) && !Number.isNaN(Date.parse(text))

function plainNumber(text: string): number | null {
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : null
}

function thousandfold(value: number | null): number | null {
  return value === null ? null : value * 1000
}
