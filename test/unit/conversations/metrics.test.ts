import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  adjustedRandIndex,
  exactMatches,
  exactMatchF1,
  oneToOneOverlap,
  scaledVariation,
} from '../../../eval/conversation-metrics.ts'

/** One letter for each item: its cluster. */
const clusters = (letters: string) => [...letters]

describe('against figures worked out by hand', () => {
  test.each([
    // Nothing in common: each found cluster is half of each true one.
    { truth: 'aabb', found: 'xyxy', variation: 0, overlap: 0.5, f1: 0, rand: -0.5 },
    // Joint entropy 1.37095 bits, of the truth 0.97095, of what was found 0.72193.
    { truth: 'aaabb', found: 'xxxxy', variation: 0.548212, overlap: 0.8, f1: 0, rand: 3 / 13 },
    // The singles c, z and w do not count for F1: 2 true, 1 found, 1 the same.
    {
      truth: 'aabbc',
      found: 'xxyzw',
      variation: 1 - 0.4 / Math.log2(5),
      overlap: 0.8,
      f1: 2 / 3,
      rand: 0.8 / 1.3,
    },
    // All in one: VI is the entropy of the truth, 2 bits of 2.
    { truth: 'abcd', found: 'xxxx', variation: 0, overlap: 0.25, f1: 0, rand: 0 },
    { truth: 'abcd', found: 'wxyz', variation: 1, overlap: 1, f1: 0, rand: 1 },
    // Greedy pairing (a with x: 3) would leave b nothing and get 3 of 7; a with y and b with x get 4.
    { truth: 'aaaaabb', found: 'xxxyyxx', overlap: 4 / 7 },
  ])('$truth, found $found', ({ truth, found, variation, overlap, f1, rand }) => {
    expect(oneToOneOverlap(clusters(truth), clusters(found))).toBeCloseTo(overlap, 9)
    if (variation !== undefined)
      expect(scaledVariation(clusters(truth), clusters(found))).toBeCloseTo(variation, 5)
    if (f1 !== undefined) expect(exactMatchF1(clusters(truth), clusters(found))).toBeCloseTo(f1, 9)
    if (rand !== undefined) expect(adjustedRandIndex(clusters(truth), clusters(found))).toBeCloseTo(rand, 9)
  })

  test('exact matches are counted for a figure over several channels', () => {
    expect(exactMatches(clusters('aabbccd'), clusters('xxyyzwv'))).toEqual({
      expected: 3,
      proposed: 2,
      matched: 2,
    })
  })
})

test('clusterings of different items are refused', () => {
  expect(() => scaledVariation(['a'], ['a', 'b'])).toThrow(RangeError)
})

const pair = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 4 })), {
    minLength: 2,
    maxLength: 30,
  })
  .map((items) => ({
    truth: items.map(([label]) => `t${label}`),
    found: items.map(([, label]) => `f${label}`),
  }))
const measures = { scaledVariation, oneToOneOverlap, exactMatchF1, adjustedRandIndex }

describe.each(Object.entries(measures))('%s', (_, measure) => {
  test('does not depend on which side is the truth, nor on the names and the order', () => {
    fc.assert(
      fc.property(pair, ({ truth, found }) => {
        const value = measure(truth, found)
        expect(measure(found, truth)).toBeCloseTo(value, 9)
        expect(measure([...truth].reverse(), found.map((label) => `other ${label}`).reverse())).toBeCloseTo(
          value,
          9,
        )
        expect(value).toBeLessThanOrEqual(1 + 1e-9)
      }),
    )
  })

  test('is 1 for the same clusters', () => {
    fc.assert(
      fc.property(pair, ({ truth }) => {
        const several = new Set(truth).size < truth.length
        expect(measure(truth, truth)).toBeCloseTo(measure === exactMatchF1 && !several ? 0 : 1, 9)
      }),
    )
  })
})

test('the one-to-one overlap is that of the best of all pairings', () => {
  fc.assert(
    fc.property(pair, ({ truth, found }) => {
      const [rows, columns] = [[...new Set(truth)], [...new Set(found)]]
      const best = (row: number, taken: ReadonlySet<string>): number => {
        const label = rows[row]
        if (label === undefined) return 0
        const pairings = columns
          .filter((column) => !taken.has(column))
          .map((column) => {
            const both = truth.filter((own, index) => own === label && found[index] === column).length
            return both + best(row + 1, new Set([...taken, column]))
          })
        return Math.max(best(row + 1, taken), ...pairings)
      }
      expect(oneToOneOverlap(truth, found)).toBeCloseTo(best(0, new Set()) / truth.length, 9)
    }),
    { numRuns: 50 },
  )
})
