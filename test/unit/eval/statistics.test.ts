import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bootstrapRatio, spearman } from '../../../eval/statistics.ts'

describe('rank correlation', () => {
  test.each([
    { a: [1, 2, 3], b: [10, 20, 90], rho: 1 },
    { a: [1, 2, 3], b: [3, 2, 1], rho: -1 },
    // Without ties 1 - 6 * sum(d^2) / (n (n^2 - 1)): 1 - 6 * 4 / 60.
    { a: [1, 2, 3, 4], b: [2, 1, 4, 3], rho: 0.6 },
    // Ranks 1.5, 1.5, 3, 4 and 1, 2, 3, 4: covariance 4.5, squares 4.5 and 5.
    { a: [5, 5, 6, 7], b: [1, 2, 3, 4], rho: 4.5 / Math.sqrt(4.5 * 5) },
  ])('of $a and $b', ({ a, b, rho }) => {
    expect(spearman(a, b)).toBeCloseTo(rho, 9)
  })

  test('does not change with the scale of a side or the order of the pairs', () => {
    const pairs = fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 9 })), {
      minLength: 2,
    })
    fc.assert(
      fc.property(pairs, (own) => {
        const [a, b] = [own.map(([value]) => value), own.map(([, value]) => value)]
        const rho = spearman(a, b)
        if (Number.isNaN(rho)) return
        expect(
          spearman(
            a.map((value) => Math.exp(value / 3)),
            b,
          ),
        ).toBeCloseTo(rho, 9)
        expect(spearman(a.toReversed(), b.toReversed())).toBeCloseTo(rho, 9)
        expect(spearman(b, a)).toBeCloseTo(rho, 9)
      }),
    )
  })
})

describe('bootstrap of a ratio', () => {
  const samples = { samples: 2000, seed: 7 }

  test('has no width where every query has the same ratio', () => {
    const theirs = [0.1, 0.4, 0.8]
    const { low, high } = bootstrapRatio([{ ours: theirs.map((value) => 1.5 * value), theirs }], samples)
    expect(low).toBeCloseTo(1.5, 9)
    expect(high).toBeCloseTo(1.5, 9)
  })

  test('is the same for the same seed, holds the ratio, and is narrower with more queries', () => {
    const pair = (count: number) => ({
      ours: Array.from({ length: count }, (_, index) => 0.5 + (index % 5) / 10),
      theirs: Array.from({ length: count }, (_, index) => 0.5 + (index % 3) / 10),
    })
    const few = bootstrapRatio([pair(15)], samples)
    expect(bootstrapRatio([pair(15)], samples)).toEqual(few)
    expect(bootstrapRatio([pair(15)], { ...samples, seed: 8 })).not.toEqual(few)
    const many = bootstrapRatio([pair(600)], samples)
    // Means 0.7 and 0.6.
    for (const { low, high } of [few, many]) {
      expect(low).toBeLessThan(0.7 / 0.6)
      expect(high).toBeGreaterThan(0.7 / 0.6)
    }
    expect(many.high - many.low).toBeLessThan((few.high - few.low) / 3)
  })
})
