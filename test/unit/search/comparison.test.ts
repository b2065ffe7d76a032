import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compareAnswers } from '../../../src/search/compare.ts'
import { meanOf, ndcg, overlapOf, rankCorrelation } from '../../../src/search/comparison.ts'

const list = fc.uniqueArray(fc.constantFrom(...'abcdefghijkl'), { maxLength: 12 })

describe('the overlap of the first ten', () => {
  test.each([
    [['a', 'b'], ['b', 'a'], 1],
    [['a', 'b', 'c', 'd'], ['a'], 0.25],
    [['a'], [], 0],
    [[], [], null],
  ])('of %j and %j is %j', (one, other, expected) => {
    expect(overlapOf(one, other, 10)).toBe(expected)
  })

  test('is the same from both sides, 1 with itself, and looks no further than its depth', () => {
    fc.assert(
      fc.property(list, list, (one, other) => {
        expect(overlapOf(one, other, 5)).toBe(overlapOf(other, one, 5))
        if (one.length > 0) expect(overlapOf(one, [...one].reverse(), 20)).toBe(1)
        expect(overlapOf(one, [...one.slice(0, 5), 'z'], 5)).toBe(
          one.length === 0 ? 0 : one.length < 5 ? one.length / (one.length + 1) : 1,
        )
      }),
    )
  })
})

describe('the correlation of ranks', () => {
  test.each([
    [['a', 'b', 'c'], ['a', 'b', 'c'], 1],
    [['a', 'b', 'c'], ['c', 'b', 'a'], -1],
    // Of a, b and d, ranked anew: 1 2 3 beside 2 1 3.
    [['a', 'b', 'c', 'd'], ['b', 'x', 'a', 'd'], 0.5],
    [['a', 'b'], ['b', 'c'], null],
  ])('of %j and %j is %j', (one, other, expected) => {
    expect(rankCorrelation(one, other)).toBe(expected)
  })

  test('lies between -1 and 1, and is the same from both sides', () => {
    fc.assert(
      fc.property(list, list, (one, other) => {
        const value = rankCorrelation(one, other)
        if (value === null) return
        expect(Math.abs(value)).toBeLessThanOrEqual(1)
        expect(rankCorrelation(other, one)).toBeCloseTo(value, 10)
      }),
    )
  })
})

test('nDCG is 1 for the best order and 0 for none of the right answers', () => {
  const grades = new Map([
    ['a', 3],
    ['b', 1],
  ])
  expect(ndcg(['a', 'b', 'x'], grades, 10)).toBe(1)
  expect(ndcg(['x', 'y'], grades, 10)).toBe(0)
  // (1 + 3 / log2 3) / (3 + 1 / log2 3)
  expect(ndcg(['b', 'a'], grades, 10)).toBeCloseTo((1 + 3 / Math.log2(3)) / (3 + 1 / Math.log2(3)), 12)
  fc.assert(
    fc.property(list, (ranking) => {
      expect(ndcg(ranking, grades, 10)).toBeGreaterThanOrEqual(0)
      expect(ndcg(ranking, grades, 10)).toBeLessThanOrEqual(1)
    }),
  )
})

test('means leave out what is not known', () => {
  expect(meanOf([1, null, 0])).toBe(0.5)
  expect(meanOf([null])).toBeNull()
})

test('answers are compared query by query', () => {
  const judgements = [{ kind: 'MESSAGE' as const, ownerId: 'a', grade: 1 }]
  const queries = [{ judgements }, { judgements: [] }, { judgements: [] }]
  expect(compareAnswers(queries, [['a', 'b'], ['c'], []], [['b', 'a'], [], []])).toEqual({
    queries: 3,
    judgedQueries: 1,
    // 1 of the first, 0 of the second; the third has no answer in either.
    overlap: 0.5,
    rankCorrelation: -1,
    emptyActive: 1 / 3,
    emptyCompared: 2 / 3,
    ndcgActive: 1,
    ndcgCompared: 1 / Math.log2(3),
  })
  expect(compareAnswers([], [], [])).toMatchObject({
    queries: 0,
    overlap: null,
    emptyActive: 0,
    ndcgActive: null,
  })
})
