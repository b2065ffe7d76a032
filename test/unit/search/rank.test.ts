import fc from 'fast-check'
import { expect, test } from 'vitest'
import { byScore, rankHits, searchModes, similarityOf } from '../../../src/search/rank.ts'
import type { Candidate } from '../../../src/search/statements.ts'

function candidate(id: string, distance: number | null, wordScore: number | null = null): Candidate {
  return { kind: 'MESSAGE', id, distance, wordScore }
}

const rows = fc.uniqueArray(
  fc.record({
    id: fc.uuid(),
    distance: fc.option(fc.double({ min: 0, max: 2, noNaN: true })),
    wordScore: fc.double({ min: 0, max: 1, noNaN: true }),
    legs: fc.constantFrom('semantic', 'keyword', 'both'),
  }),
  { selector: (row) => row.id, maxLength: 40 },
)

/** The legs as the database gives them: nearest first, best words first. */
function legsOf(found: { id: string; distance: number | null; wordScore: number; legs: string }[]) {
  const near = (row: { distance: number | null }) => row.distance ?? 2
  return {
    semantic: found
      .filter((row) => row.legs !== 'keyword' && row.distance !== null)
      .sort((a, b) => near(a) - near(b))
      .map((row) => candidate(row.id, row.distance)),
    keyword: found
      .filter((row) => row.legs !== 'semantic')
      .sort((a, b) => b.wordScore - a.wordScore)
      .map((row) => candidate(row.id, row.distance, row.wordScore)),
  }
}

test('similarity goes from 1 (identical) over 0.5 (unrelated) to 0 (opposite)', () => {
  expect([0, 1, 2].map(similarityOf)).toEqual([1, 0.5, 0])
})

test('every found row is there once, with a score in 0..1, best first', () => {
  fc.assert(
    fc.property(rows, fc.constantFrom(...searchModes), (found, mode) => {
      const { semantic, keyword } = legsOf(found)
      const hits = rankHits(semantic, keyword, mode)
      expect(hits.map((hit) => hit.id).sort()).toEqual(
        [...new Set([...semantic, ...keyword].map((row) => row.id))].sort(),
      )
      for (const [index, hit] of hits.entries()) {
        expect(hit.score).toBeGreaterThanOrEqual(0)
        expect(hit.score).toBeLessThanOrEqual(1)
        const next = hits[index + 1]
        if (next) expect(byScore(hit, next)).toBeLessThan(0)
      }
    }),
  )
})

test('the order is the same whatever order equal rows come in', () => {
  fc.assert(
    fc.property(rows, fc.constantFrom(...searchModes), (found, mode) => {
      const tied = found.map((row) => ({ ...row, distance: 0.5, wordScore: 0.5 }))
      const forwards = legsOf(tied)
      const backwards = legsOf([...tied].reverse())
      expect(rankHits(forwards.semantic, forwards.keyword, mode).map((hit) => hit.id)).toEqual(
        rankHits(backwards.semantic, backwards.keyword, mode).map((hit) => hit.id),
      )
    }),
  )
})

test('byScore is a total order', () => {
  const hits = fc.record({
    score: fc.double({ min: 0, max: 1, noNaN: true }),
    id: fc.constantFrom('a', 'b', 'c'),
  })
  fc.assert(
    fc.property(hits, hits, hits, (a, b, c) => {
      expect(Math.sign(byScore(a, b)) + Math.sign(byScore(b, a))).toBe(0)
      if (byScore(a, b) <= 0 && byScore(b, c) <= 0) expect(byScore(a, c)).toBeLessThanOrEqual(0)
      if (byScore(a, b) === 0) expect(a).toEqual(b)
    }),
  )
})

test('a hybrid search puts what both legs praise first, and explains itself', () => {
  const semantic = [candidate('both', 0.2), candidate('meaning', 0.3), candidate('far', 1)]
  const keyword = [candidate('words', 0.9, 0.9), candidate('both', 0.2, 0.8), candidate('weak', 1, 0.1)]
  const hits = rankHits(semantic, keyword, 'HYBRID')
  expect(hits[0]).toEqual({
    kind: 'MESSAGE',
    id: 'both',
    row: null,
    score: expect.closeTo(0.9375),
    similarity: 0.9,
    semanticRank: 1,
    keywordRank: 2,
    keywordScore: 0.8,
  })
  expect(hits.map((hit) => hit.id)).toEqual(['both', 'words', 'meaning', 'far', 'weak'])
})

test('a row without a vector is found by words, without a similarity', () => {
  expect(rankHits([], [candidate('new', null, 0.4)], 'HYBRID')).toMatchObject([
    { id: 'new', similarity: null, semanticRank: null, keywordRank: 1 },
  ])
})
