import fc from 'fast-check'
import { expect, test } from 'vitest'
import { bestThreshold, judgeThreshold, preciseThreshold } from '../../../eval/threshold-curve.ts'

const pairs = [
  { similarity: 0.95, isDuplicate: true },
  { similarity: 0.9, isDuplicate: true },
  { similarity: 0.85, isDuplicate: false },
  { similarity: 0.8, isDuplicate: true },
]

test.each([
  { threshold: 0.99, precision: 1, recall: 0, f1: 0, found: 0 },
  { threshold: 0.9, precision: 1, recall: 2 / 3, f1: 0.8, found: 2 },
  { threshold: 0.85, precision: 2 / 3, recall: 2 / 3, f1: 2 / 3, found: 3 },
  { threshold: 0.8, precision: 3 / 4, recall: 1, f1: 6 / 7, found: 4 },
])('at $threshold', (point) => {
  const judged = judgeThreshold(pairs, point.threshold)
  expect(judged.found).toBe(point.found)
  for (const name of ['precision', 'recall', 'f1'] as const) expect(judged[name]).toBeCloseTo(point[name], 9)
})

test('the best is the highest of those that find the same', () => {
  expect(bestThreshold(pairs)).toMatchObject({ threshold: 0.8, found: 4 })
})

test('precision is reached where it first is high enough, and never by finding nothing', () => {
  expect(preciseThreshold(pairs, 0.75)?.threshold).toBe(0.5)
  expect(preciseThreshold(pairs, 0.9)?.threshold).toBeCloseTo(0.851, 9)
  expect(preciseThreshold([{ similarity: 0.9, isDuplicate: false }, ...pairs.slice(2)], 0.9)).toBeNull()
})

test('no threshold has a better F1 than the best', () => {
  const scored = fc.array(
    fc.record({
      similarity: fc.integer({ min: 500, max: 1000 }).map((n) => n / 1000),
      isDuplicate: fc.boolean(),
    }),
  )
  fc.assert(
    fc.property(scored, fc.integer({ min: 500, max: 1000 }), (own, threshold) => {
      const all = [...own, { similarity: 0.7, isDuplicate: true }]
      expect(judgeThreshold(all, threshold / 1000).f1).toBeLessThanOrEqual(bestThreshold(all).f1 + 1e-9)
    }),
  )
})
