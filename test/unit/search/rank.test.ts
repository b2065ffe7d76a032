import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defaultCalibration } from '../../../src/providers/provider.ts'
import {
  addRelated,
  blend,
  blendDepth,
  byScore,
  rankLeg,
  sharesOf,
  similarityOf,
} from '../../../src/search/rank.ts'
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

const shares = { meaning: 0.25, words: 0.5, related: 0.25 }

const ways = {
  meaning: ({ semantic }: ReturnType<typeof legsOf>) => rankLeg(semantic, 'SEMANTIC'),
  words: ({ keyword }: ReturnType<typeof legsOf>) => rankLeg(keyword, 'KEYWORD'),
  both: ({ semantic, keyword }: ReturnType<typeof legsOf>) => blend(semantic, keyword, shares),
  related: (legs: ReturnType<typeof legsOf>) => {
    const hits = ways.both(legs)
    const related = hits.slice(0, 5).map(({ id }) => [id, Number.parseInt(id.slice(0, 2), 16)] as const)
    return addRelated(hits, new Map(related), shares)
  },
}
const way = fc.constantFrom(...Object.keys(ways)) as fc.Arbitrary<keyof typeof ways>

test('every found row is there once, with a score in 0..1, best first', () => {
  fc.assert(
    fc.property(rows, way, (found, name) => {
      const legs = legsOf(found)
      const hits = ways[name](legs)
      const expected = { meaning: legs.semantic, words: legs.keyword }[name as 'meaning' | 'words']
      expect(hits.map((hit) => hit.id).sort()).toEqual(
        [...new Set((expected ?? [...legs.semantic, ...legs.keyword]).map((row) => row.id))].sort(),
      )
      for (const [index, hit] of hits.entries()) {
        expect(hit.score).toBeGreaterThanOrEqual(0)
        expect(hit.score).toBeLessThanOrEqual(1 + 1e-12)
        const next = hits[index + 1]
        if (next) expect(byScore(hit, next)).toBeLessThan(0)
      }
    }),
  )
})

test('the order is the same whatever order equal rows come in', () => {
  fc.assert(
    fc.property(rows, way, (found, name) => {
      const tied = found.map((row) => ({ ...row, distance: 0.5, wordScore: 0.5 }))
      const ids = (rows: typeof tied) => ways[name](legsOf(rows)).map((hit) => hit.id)
      expect(ids(tied)).toEqual(ids([...tied].reverse()))
    }),
  )
})

test('a deeper look changes nothing of what stands before', () => {
  const kinds = ['MESSAGE', 'TOPIC'] as const
  const leg = fc
    .array(
      fc.record({ kind: fc.constantFrom(...kinds), score: fc.double({ min: 0, max: 1, noNaN: true }) }),
      {
        minLength: 3 * blendDepth,
        maxLength: 4 * blendDepth,
      },
    )
    .map((scored) => scored.sort((a, b) => b.score - a.score))
  fc.assert(
    fc.property(leg, leg, (byMeaning, byWords) => {
      const semantic = byMeaning.map(({ kind, score }, index) => ({
        ...candidate(`${kind} ${index}`, 2 - 2 * score),
        kind,
      }))
      // Every other row that the words found was found by meaning, too.
      const keyword = byWords.map(({ kind, score }, index) => {
        const near = semantic[2 * index]
        const id = near?.kind === kind ? near.id : `${kind} word ${index}`
        return { ...candidate(id, near?.kind === kind ? near.distance : null, score), kind }
      })
      const ordered = (found: typeof semantic) => {
        const first = kinds.flatMap((kind) => found.filter((row) => row.kind === kind).slice(0, blendDepth))
        return found.filter((row) => first.includes(row))
      }
      const short = blend(ordered(semantic), ordered(keyword), shares)
      const long = blend(semantic, keyword, shares)
      expect(JSON.stringify(long.slice(0, short.length))).toBe(JSON.stringify(short))
      expect(new Set(long.map(({ id }) => id)).size).toBe(long.length)
    }),
    { numRuns: 10 },
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
  const keyword = [candidate('words', 0.9, 0.9), candidate('both', 0.2, 0.6), candidate('weak', 1, 0.1)]
  const hits = blend(semantic, keyword, { meaning: 0.5, words: 0.5, related: 0 })
  expect(hits[0]).toEqual({
    kind: 'MESSAGE',
    id: 'both',
    row: null,
    score: expect.closeTo(0.5 + 0.5 * (0.6 / 0.9)),
    similarity: 0.9,
    semanticRank: 1,
    keywordRank: 2,
    keywordScore: 0.6,
    relatedScore: null,
  })
  expect(hits.map((hit) => hit.id)).toEqual(['both', 'words', 'meaning', 'weak', 'far'])
})

test('words of the best hits lift those that have them', () => {
  const hits = blend(
    [],
    ['a', 'b', 'c', 'd'].map((id, index) => candidate(id, null, 1 - index / 10)),
    shares,
  )
  const related = new Map([
    ['a', 5],
    ['b', 1],
    ['c', 5],
  ])
  expect(addRelated(hits, related, shares)).toMatchObject([
    { id: 'a', relatedScore: 1 },
    { id: 'c', relatedScore: 1 },
    { id: 'b', relatedScore: 0 },
    { id: 'd', relatedScore: null },
  ])
  expect(addRelated(hits, new Map(), shares)).toEqual(hits)
})

test.each([
  ['nothing is near', null, 15, 0.5],
  ['nothing says the same', 0.8, 15, 0.5],
  ['something may say the same', 0.95, 15, 0.7],
  ['something says the same', 0.99, 15, 0.9],
  ['texts are long', 0.8, 60, 0.4],
  ['texts are neither long nor short', 0.8, 35, 0.45],
])(
  'meaning counts more the nearer something is, less in long texts: %s',
  (_name, nearest, length, meaning) => {
    const { meaning: share, words, related } = sharesOf(defaultCalibration, nearest, length)
    expect(share + words + related).toBeCloseTo(1)
    expect(share / (share + words)).toBeCloseTo(meaning)
  },
)

test('a row without a vector is found by words, without a similarity', () => {
  expect(blend([], [candidate('new', null, 0.4)], shares)).toMatchObject([
    { id: 'new', similarity: null, semanticRank: null, keywordRank: 1 },
  ])
})
