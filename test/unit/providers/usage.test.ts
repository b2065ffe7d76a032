import fc from 'fast-check'
import { expect, it } from 'vitest'
import { shareOut } from '../../../src/providers/usage.ts'

const call = { tokensIn: 100, tokensOut: 10, ms: 50, isFailed: false }

it('a request for one job is its own', () => {
  expect([...shareOut(call, new Map([['a', 3]]))]).toEqual([
    ['a', { requests: 1, failedRequests: 0, tokensIn: 100, tokensOut: 10, ms: 50 }],
  ])
})

it('a request for several jobs is the largest one’s, and its tokens go by shares', () => {
  const shares = new Map<string | null, number>([
    ['a', 1],
    [null, 2],
    ['b', 1],
  ])
  expect([...shareOut({ ...call, isFailed: true }, shares)]).toEqual([
    ['a', { requests: 0, failedRequests: 0, tokensIn: 25, tokensOut: 2, ms: 0 }],
    ['b', { requests: 0, failedRequests: 0, tokensIn: 25, tokensOut: 2, ms: 0 }],
    [null, { requests: 1, failedRequests: 1, tokensIn: 50, tokensOut: 6, ms: 50 }],
  ])
})

it('nothing is lost or counted twice, whatever the shares are', () => {
  fc.assert(
    fc.property(
      fc.record({ tokensIn: fc.nat(), tokensOut: fc.nat(), ms: fc.nat(), isFailed: fc.boolean() }),
      fc.dictionary(fc.string(), fc.integer({ min: 1, max: 1_000_000 }), { minKeys: 1 }),
      (request, shares) => {
        const parts = [...shareOut(request, new Map(Object.entries(shares))).values()]
        const sum = (field: 'requests' | 'failedRequests' | 'tokensIn' | 'tokensOut' | 'ms') =>
          parts.reduce((total, part) => total + part[field], 0)
        expect(sum('requests')).toBe(1)
        expect(sum('failedRequests')).toBe(request.isFailed ? 1 : 0)
        expect(sum('tokensIn')).toBe(request.tokensIn)
        expect(sum('tokensOut')).toBe(request.tokensOut)
        expect(sum('ms')).toBe(request.ms)
        for (const part of parts) expect(Math.min(part.tokensIn, part.tokensOut)).toBeGreaterThanOrEqual(0)
      },
    ),
  )
})
