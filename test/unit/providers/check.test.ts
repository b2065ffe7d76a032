import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkVectors, failureOfStatus, retryAfterMs } from '../../../src/providers/check.ts'
import { ProviderError } from '../../../src/providers/provider.ts'

const source = 'host (model)'

/** What was thrown, for the parts of it that matter. */
function failureOf(run: () => unknown): { failure: string; message: string } {
  try {
    run()
  } catch (error) {
    if (error instanceof ProviderError) return { failure: error.failure, message: error.message }
    throw error
  }
  throw new Error('Expected a ProviderError, nothing was thrown.')
}

describe('checkVectors', () => {
  const good = [
    [1, 0, 0],
    [0, 1, 0],
  ]

  it('gives 32-bit vectors in the order in which they came where there is no index', () => {
    const vectors = checkVectors(
      good.map((values) => ({ values })),
      { count: 2, dimensions: 3, source },
    )
    expect(vectors).toEqual([Float32Array.of(1, 0, 0), Float32Array.of(0, 1, 0)])
  })

  it('takes the dimensions of the first vector while they are unknown', () => {
    expect(checkVectors([{ values: [3, 4] }], { count: 1, dimensions: null, source })).toHaveLength(1)
  })

  it('puts vectors in the order of their index, whatever order they come in', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }).chain((count) =>
          fc.shuffledSubarray(
            Array.from({ length: count }, (_, index) => index),
            { minLength: count },
          ),
        ),
        (order) => {
          const vectors = checkVectors(
            order.map((index) => ({ index, values: [index + 1, 0] })),
            { count: order.length, dimensions: 2, source },
          )
          expect(vectors.map((vector) => vector[0])).toEqual(order.map((_, row) => row + 1))
        },
      ),
    )
  })

  it('lets no answer through that is not whole, of one length, finite and above zero', () => {
    const number = fc.oneof(fc.double(), fc.constantFrom<unknown>(0, 1e300, Number.NaN, null, '1', [3], true))
    const vector = fc.oneof(fc.array(number, { maxLength: 4 }), fc.constantFrom(null, 'text', {}, undefined))
    const index = fc.oneof(fc.constant(undefined), fc.integer({ min: -1, max: 4 }), fc.constantFrom('0', 0.5))
    fc.assert(
      fc.property(
        fc.array(fc.record({ index, values: vector }), { maxLength: 4 }),
        fc.integer({ min: 0, max: 4 }),
        fc.constantFrom(null, 1, 2, 3),
        (answer, count, dimensions) => {
          let vectors: Float32Array[]
          try {
            vectors = checkVectors(answer, { count, dimensions, source })
          } catch (error) {
            expect(error).toBeInstanceOf(ProviderError)
            expect((error as ProviderError).failure).toBe('BAD_ANSWER')
            return
          }
          expect(vectors).toHaveLength(count)
          const length = dimensions ?? vectors[0]?.length
          for (const each of vectors) {
            expect(each).toHaveLength(length ?? -1)
            expect(Math.hypot(...each)).toBeGreaterThan(1e-6)
            expect(each.every(Number.isFinite)).toBe(true)
          }
        },
      ),
      { numRuns: 500 },
    )
  })

  it.each([
    ['too few vectors', [{ values: [1, 2] }], 2, '1 vectors for 2 texts'],
    ['too many vectors', [{ values: [1, 2] }, { values: [1, 2] }], 1, '2 vectors for 1 texts'],
    ['a wrong dimension', [{ values: [1, 2, 3] }], 1, 'text 1 of 1 has 3 dimensions, expected 2'],
    ['NaN', [{ values: [1, Number.NaN] }], 1, 'text 1 of 1 has NaN at position 2'],
    ['null for a number', [{ values: [1, null] }], 1, 'text 1 of 1 has null at position 2'],
    ['a number as text', [{ values: ['1', 2] }], 1, 'text 1 of 1 has 1 at position 1'],
    ['more than a 32-bit float holds', [{ values: [1, 1e39] }], 1, 'text 1 of 1 has 1e+39 at position 2'],
    ['zero', [{ values: [0, 0] }], 1, 'text 1 of 1 is zero (norm 0)'],
    ['as good as zero', [{ values: [1e-7, 0] }], 1, 'text 1 of 1 is zero'],
    ['no list', [{ values: 'abc' }], 1, 'text 1 of 1 is string, expected a list'],
    [
      'one index twice',
      [
        { index: 0, values: [1, 2] },
        { index: 0, values: [1, 2] },
      ],
      2,
      'two vectors have the index 0',
    ],
    ['an index out of range', [{ index: 1, values: [1, 2] }], 1, 'vector 1 has the index 1, expected 0 to 0'],
    [
      'some without index',
      [{ index: 0, values: [1, 2] }, { values: [1, 2] }],
      2,
      'vector 2 has the index undefined',
    ],
  ])('refuses %s and says where', (_, answer, count, message) => {
    const thrown = failureOf(() => checkVectors(answer, { count, dimensions: 2, source }))
    expect(thrown.failure).toBe('BAD_ANSWER')
    expect(thrown.message).toContain(source)
    expect(thrown.message).toContain(message)
  })

  it('refuses vectors without numbers even while the dimensions are unknown', () => {
    const thrown = failureOf(() => checkVectors([{ values: [] }], { count: 1, dimensions: null, source }))
    expect(thrown.message).toContain('0 dimensions, expected at least 1')
  })
})

describe('failureOfStatus', () => {
  it.each([
    [401, 'UNAUTHORIZED'],
    [402, 'UNAUTHORIZED'],
    [403, 'UNAUTHORIZED'],
    [404, 'MISCONFIGURED'],
    [405, 'MISCONFIGURED'],
    [400, 'REFUSED'],
    [413, 'REFUSED'],
    [422, 'REFUSED'],
    [408, 'UNAVAILABLE'],
    [409, 'UNAVAILABLE'],
    [429, 'RATE_LIMITED'],
    [500, 'UNAVAILABLE'],
    [503, 'UNAVAILABLE'],
    [529, 'UNAVAILABLE'],
    [301, 'MISCONFIGURED'],
    [304, 'BAD_ANSWER'],
    [308, 'MISCONFIGURED'],
  ])('%i means %s', (status, failure) => {
    expect(failureOfStatus(status)).toBe(failure)
  })
})

describe('retryAfterMs', () => {
  const now = Date.UTC(2024, 4, 1, 12, 0, 0)
  const day = 24 * 60 * 60 * 1000

  it.each<[string, Record<string, string>, number | null]>([
    ['no header', {}, null],
    ['seconds', { 'retry-after': '7' }, 7000],
    ['part of a second', { 'retry-after': '0.5' }, 500],
    ['milliseconds, which are more exact', { 'retry-after-ms': '120', 'retry-after': '1' }, 120],
    ['milliseconds that are illegible', { 'retry-after-ms': 'soon', 'retry-after': '1' }, 1000],
    ['a date', { 'retry-after': 'Wed, 01 May 2024 12:00:30 GMT' }, 30_000],
    [
      'a date, by the clock of the server',
      { 'retry-after': 'Wed, 01 May 2024 13:00:30 GMT', date: 'Wed, 01 May 2024 13:00:00 GMT' },
      30_000,
    ],
    ['a date that is over', { 'retry-after': 'Wed, 01 May 2024 11:00:00 GMT' }, 0],
    ['less than nothing', { 'retry-after': '-5' }, 0],
    ['more than a day', { 'retry-after': '99999999999' }, day],
    ['a word that Date.parse takes for a year', { 'retry-after': 'soon 1' }, null],
    ['nothing in it', { 'retry-after': '' }, null],
  ])('%s', (_, headers, wait) => {
    expect(retryAfterMs(new Headers(headers), now)).toBe(wait)
  })

  it('reads back every HTTP date, and never leaves the range of a timer', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 * day }), (wait) => {
        const date = new Date(now + Math.floor(wait / 1000) * 1000).toUTCString()
        const expected = Math.min(Math.floor(wait / 1000) * 1000, day)
        expect(retryAfterMs(new Headers({ 'retry-after': date }), now)).toBe(expected)
      }),
    )
    fc.assert(
      fc.property(fc.stringMatching(/^[ -~]*$/), (header) => {
        const wait = retryAfterMs(new Headers({ 'retry-after': header }), now)
        expect(wait === null || (wait >= 0 && wait <= day)).toBe(true)
      }),
    )
  })
})
