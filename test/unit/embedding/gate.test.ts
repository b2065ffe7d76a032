import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  type GateFacts,
  judgeGate,
  leastReady,
  mostNdcgLoss,
  readyShare,
  type SpaceComparison,
} from '../../../src/embedding/gate.ts'

const comparison: SpaceComparison = {
  comparedAt: '2026-11-23T10:00:00.000Z',
  activeSpaceId: 1,
  ready: 1,
  queries: 20,
  judgedQueries: 5,
  overlap: 0.1,
  rankCorrelation: -1,
  emptyActive: 0.1,
  emptyCompared: 0.1,
  ndcgActive: 0.8,
  ndcgCompared: 0.8,
}
const good: GateFacts = {
  coverage: [{ total: 2000, skipped: 1000, ready: 1000 }],
  arriving: 0,
  indexes: [{ kind: 'MESSAGE', isUsable: true }],
  comparison,
  wasActive: false,
}
const unmet = (facts: Partial<GateFacts>) =>
  judgeGate({ ...good, ...facts })
    .filter(({ isMet }) => !isMet)
    .map(({ name }) => name)
const compared = (change: Partial<SpaceComparison>) => unmet({ comparison: { ...comparison, ...change } })

describe('the gate', () => {
  test('is open where all is well, however little the answers have in common', () => {
    expect(unmet({})).toEqual([])
    expect(judgeGate(good).map(({ name }) => name)).toEqual([
      'READY',
      'INDEXED',
      'COMPARED',
      'EMPTY_ANSWERS',
      'NDCG',
    ])
  })

  test.each<[string, Partial<GateFacts>, string[]]>([
    ['1 of 1,000 that failed', { coverage: [{ total: 1000, skipped: 0, ready: 999 }] }, []],
    ['2 of 1,000 that failed', { coverage: [{ total: 1000, skipped: 0, ready: 998 }] }, ['READY']],
    [
      'kinds taken together',
      {
        coverage: [
          { total: 1000, skipped: 0, ready: 1000 },
          { total: 1, skipped: 0, ready: 0 },
        ],
      },
      [],
    ],
    ['2 of 100 that are arriving', { coverage: [{ total: 100, skipped: 0, ready: 98 }], arriving: 2 }, []],
    [
      'one more than is arriving',
      { coverage: [{ total: 100, skipped: 0, ready: 97 }], arriving: 2 },
      ['READY'],
    ],
    ['nothing to embed', { coverage: [{ total: 5, skipped: 5, ready: 0 }] }, []],
    ['an index that is not there', { indexes: [{ kind: 'ATOM', isUsable: false }] }, ['INDEXED']],
    ['no comparison', { comparison: null }, ['COMPARED']],
    ['no comparison with one that was active before', { comparison: null, wasActive: true }, []],
  ])('with %s', (_name, facts, names) => {
    expect(unmet(facts)).toEqual(names)
  })

  test('asks for no more empty answers, and for nDCG only where queries are judged', () => {
    expect(compared({ emptyCompared: 0.11 })).toEqual(['EMPTY_ANSWERS'])
    expect(compared({ emptyCompared: 0 })).toEqual([])
    expect(compared({ ndcgCompared: 0.8 - mostNdcgLoss - 0.001 })).toEqual(['NDCG'])
    expect(compared({ ndcgActive: null, ndcgCompared: null, judgedQueries: 0 })).toEqual([])
    expect(compared({ queries: 0, emptyActive: 0, emptyCompared: 0 })).toEqual([])
  })

  test('says what was found and what is expected', () => {
    const [ready, indexed] = judgeGate({
      ...good,
      coverage: [{ total: 100_000, skipped: 0, ready: 99_899 }],
      indexes: [
        { kind: 'MESSAGE', isUsable: false },
        { kind: 'ATOM', isUsable: false },
      ],
    })
    expect(ready?.text).toBe('99.899 % of what can be embedded is READY; at least 99.9 % is expected')
    expect(judgeGate({ ...good, coverage: [{ total: 9, skipped: 0, ready: 7 }], arriving: 2 })[0]?.text).toBe(
      '100 % of what can be embedded, apart from 2 of the last seconds, is READY; at least 99.9 % is expected',
    )
    expect(indexed?.text).toMatch(/^The vector index of MESSAGE and of ATOM is not there yet/)
  })
})

test('the share of what is READY lies between 0 and 1, and opens the gate only from its limit on', () => {
  const counts = fc
    .tuple(fc.nat(10_000), fc.nat(10_000), fc.nat(10_000))
    .map(([ready, skipped, others]) => ({ total: ready + skipped + others, skipped, ready }))
  fc.assert(
    fc.property(fc.array(counts, { maxLength: 3 }), fc.nat(100), (coverage, arriving) => {
      const share = readyShare({ coverage, arriving })
      expect(share).toBeGreaterThanOrEqual(0)
      expect(share).toBeLessThanOrEqual(1)
      expect(unmet({ coverage, arriving }).includes('READY')).toBe(share < leastReady)
    }),
  )
})
