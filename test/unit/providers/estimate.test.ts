import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { costOf, estimateEmbedding, estimateWork, requestsFor } from '../../../src/providers/estimate.ts'

const limits = {
  maxTextsPerRequest: 100,
  maxTokensPerRequest: 10_000,
  maxTokensPerText: 1000,
  maxParallelRequests: 4,
}
const free = {
  requestsPerMinute: null,
  tokensPerMinute: null,
  pricePerMillionTokensIn: null,
  pricePerMillionTokensOut: null,
  msPerRequest: null,
}

describe('requests', () => {
  it.each([
    [{ texts: 0, tokens: 0 }, 0],
    [{ texts: 1, tokens: 5 }, 1],
    [{ texts: 101, tokens: 5000 }, 2],
    [{ texts: 100, tokens: 10_001 }, 2],
    [{ texts: 20_000, tokens: 400_000 }, 200],
  ])('for %o are %i', (work, requests) => {
    expect(requestsFor(work, limits)).toBe(requests)
  })
})

describe('cost', () => {
  it.each([
    [{ tokensIn: 1_000_000, tokensOut: 0 }, 0.02, null, 0.02],
    [{ tokensIn: 500_000, tokensOut: 100_000 }, 0.4, 1.6, 0.36],
    [{ tokensIn: 500_000, tokensOut: 100_000 }, 0.4, null, null],
    [{ tokensIn: 500_000, tokensOut: null }, 0.4, 1.6, 0.2],
    [{ tokensIn: 1, tokensOut: 0 }, null, 1.6, null],
    [{ tokensIn: 0, tokensOut: 0 }, null, null, 0],
  ])('of %o at %o and %o is %o', (tokens, pricePerMillionTokensIn, pricePerMillionTokensOut, cost) => {
    const found = costOf(tokens, { pricePerMillionTokensIn, pricePerMillionTokensOut })
    if (cost === null) expect(found).toBeNull()
    else expect(found).toBeCloseTo(cost, 12)
  })
})

describe('an embedding', () => {
  const work = { texts: 20_000, tokens: 400_000 }

  it.each([
    ['nothing is known', {}, null],
    ['it goes at the pace of the requests', { msPerRequest: 50 }, 2.5],
    ['requests of a minute hold it up', { msPerRequest: 50, requestsPerMinute: 60 }, 180],
    ['all fits into one minute', { requestsPerMinute: 200 }, 0],
    ['tokens of a minute hold it up', { msPerRequest: 50, tokensPerMinute: 100_000 }, 180],
  ])('takes so long where %s', (_, terms, seconds) => {
    expect(estimateEmbedding(work, limits, { ...free, ...terms })).toEqual({
      requests: 200,
      tokensIn: 400_000,
      tokensOut: 0,
      cost: null,
      seconds,
    })
  })

  it('of nothing takes nothing', () => {
    expect(estimateEmbedding({ texts: 0, tokens: 0 }, limits, free)).toEqual({
      requests: 0,
      tokensIn: 0,
      tokensOut: 0,
      cost: 0,
      seconds: 0,
    })
  })
})

it('more work never costs less, nor ends sooner', () => {
  const amount = fc.nat(10_000_000)
  const perMinute = fc.option(fc.integer({ min: 1, max: 1_000_000 }), { nil: null })
  const price = fc.option(fc.float({ min: 0, max: 100, noNaN: true }), { nil: null })
  fc.assert(
    fc.property(
      fc.tuple(amount, amount, amount),
      fc.tuple(amount, amount, amount),
      fc.record({
        requestsPerMinute: perMinute,
        tokensPerMinute: perMinute,
        parallelRequests: fc.integer({ min: 1, max: 100 }),
        pricePerMillionTokensIn: price,
        pricePerMillionTokensOut: price,
        msPerRequest: fc.option(fc.nat(100_000), { nil: null }),
      }),
      ([requests, tokensIn, tokensOut], [moreRequests, moreIn, moreOut], terms) => {
        const less = estimateWork(
          { requests: requests + 1, tokensIn: tokensIn + 1, tokensOut: tokensOut + 1 },
          terms,
        )
        const more = estimateWork(
          {
            requests: requests + moreRequests + 1,
            tokensIn: tokensIn + moreIn + 1,
            tokensOut: tokensOut + moreOut + 1,
          },
          terms,
        )
        expect(more.cost === null).toBe(less.cost === null)
        expect(more.seconds === null).toBe(less.seconds === null)
        expect(more.cost ?? 0).toBeGreaterThanOrEqual(less.cost ?? 0)
        expect(more.seconds ?? 0).toBeGreaterThanOrEqual(less.seconds ?? 0)
      },
    ),
  )
})
