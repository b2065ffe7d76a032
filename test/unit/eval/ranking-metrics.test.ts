import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { averagePrecision, ndcg, recall, reciprocalRank } from '../../../eval/ranking-metrics.ts'

/** One letter for each row. */
const rows = (letters: string) => [...letters]
const graded = (grades: Record<string, number>) => new Map(Object.entries(grades))

interface Case {
  ranking: string
  grades: Record<string, number>
  gain: number
  precision: number
  first: number
}

describe('against figures worked out by hand', () => {
  test.each<Case>([
    // Gains 1 at rank 1 and 1 / log2(4) at rank 3, of 1 + 1 / log2(3) at the best.
    {
      ranking: 'axb',
      grades: { a: 1, b: 1 },
      gain: 1.5 / (1 + 1 / Math.log2(3)),
      precision: 5 / 6,
      first: 1,
    },
    // Grades are gains: 1 + 3 / log2(3), of 3 + 1 / log2(3).
    {
      ranking: 'ab',
      grades: { a: 1, b: 3 },
      gain: (1 + 3 / Math.log2(3)) / (3 + 1 / Math.log2(3)),
      precision: 1,
      first: 1,
    },
    // What is not in the list counts for the best, and as precision 0.
    { ranking: 'xa', grades: { a: 1, b: 1 }, gain: 1 / (Math.log2(3) + 1), precision: 1 / 4, first: 1 / 2 },
    { ranking: '', grades: { a: 1 }, gain: 0, precision: 0, first: 0 },
  ])('$ranking with $grades', ({ ranking, grades, gain, precision, first }) => {
    expect(ndcg(rows(ranking), graded(grades), 10)).toBeCloseTo(gain, 9)
    expect(averagePrecision(rows(ranking), graded(grades))).toBeCloseTo(precision, 9)
    expect(reciprocalRank(rows(ranking), graded(grades))).toBeCloseTo(first, 9)
  })

  test('nothing below the depth counts, and no ideal list is longer', () => {
    expect(ndcg(rows('xab'), graded({ a: 1, b: 1 }), 1)).toBe(0)
    expect(ndcg(rows('abc'), graded({ a: 1, b: 1, c: 1, d: 1 }), 2)).toBe(1)
    expect(recall(rows('axb'), graded({ a: 1, b: 1, c: 1 }), 2)).toBeCloseTo(1 / 3, 9)
  })
})

const ranked = fc.record({
  ranking: fc.uniqueArray(fc.constantFrom(...'abcdefgh')),
  grades: fc
    .dictionary(fc.constantFrom(...'abcdefgh'), fc.integer({ min: 1, max: 4 }), { minKeys: 1 })
    .map((own) => graded({ ...own })),
})

test('all are 0..1, and 1 for the best list', () => {
  fc.assert(
    fc.property(ranked, ({ ranking, grades }) => {
      const best = [...grades].sort((a, b) => b[1] - a[1]).map(([id]) => id)
      for (const of of [
        (list: string[]) => ndcg(list, grades, 10),
        (list: string[]) => recall(list, grades, 10),
        (list: string[]) => averagePrecision(list, grades),
        (list: string[]) => reciprocalRank(list, grades),
      ]) {
        expect(of(ranking)).toBeGreaterThanOrEqual(0)
        expect(of(ranking)).toBeLessThanOrEqual(1 + 1e-9)
        expect(of(best)).toBeCloseTo(1, 9)
      }
    }),
  )
})

test('a relevant row that moves up never makes it worse', () => {
  fc.assert(
    fc.property(ranked, fc.nat(), ({ ranking, grades }, place) => {
      const places = ranking.flatMap((id, index) => (index > 0 && grades.has(id) ? [index] : []))
      const from = places[place % Math.max(1, places.length)]
      if (from === undefined) return
      const moved = ranking.with(from - 1, ranking[from] ?? '').with(from, ranking[from - 1] ?? '')
      // Past a row that is not relevant, or less so.
      if ((grades.get(ranking[from - 1] ?? '') ?? 0) > (grades.get(ranking[from] ?? '') ?? 0)) return
      expect(ndcg(moved, grades, 10)).toBeGreaterThanOrEqual(ndcg(ranking, grades, 10) - 1e-9)
      expect(averagePrecision(moved, grades)).toBeGreaterThanOrEqual(averagePrecision(ranking, grades) - 1e-9)
    }),
  )
})
