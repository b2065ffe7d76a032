import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  bloatOf,
  buildMemoryBytes,
  buildResources,
  type CareDecision,
  careRules,
  decideCare,
  expectedIndexBytes,
  type IndexFacts,
  parametersFor,
  recallOf,
  sizeClasses,
  upkeepOf,
} from '../../../src/embedding/index-plan.ts'

const [small, medium, large] = [
  { m: 16, efConstruction: 64 },
  { m: 32, efConstruction: 128 },
  { m: 48, efConstruction: 200 },
]
const MIB = 1024 ** 2

describe('the parameters of an index', () => {
  test.each([
    [0, null, small],
    [999, null, small],
    [1_000, null, medium],
    [100_000, null, medium],
    [100_001, null, large],
    // It grows at once, and shrinks when its rows are half of what its class begins with.
    [1_000, small, medium],
    [999, medium, medium],
    [500, medium, medium],
    [499, medium, small],
    [60_000, large, large],
    [50_000, large, medium],
    [10, large, small],
    // One that somebody else has made is of no class.
    [999, { m: 8, efConstruction: 64 }, small],
  ])('for %i rows, where %j is there, are %j', (rows, present, expected) => {
    expect(parametersFor(rows, present)).toEqual(expected)
  })

  const classOf = fc.constantFrom(...sizeClasses)
  const rowCount = fc.oneof(fc.nat(3_000), fc.nat(300_000))

  test('once chosen stay', () => {
    fc.assert(
      fc.property(rowCount, classOf, (rows, present) => {
        const chosen = parametersFor(rows, present)
        expect(parametersFor(rows, chosen)).toEqual(chosen)
      }),
    )
  })

  test('are never of a class that is too small, and change once at most while rows wander by less than half', () => {
    fc.assert(
      fc.property(
        rowCount,
        fc.array(fc.double({ min: 0.75, max: 1.25, noNaN: true }), { maxLength: 20 }),
        (rows, steps) => {
          let present = parametersFor(rows, null)
          let changes = 0
          for (const step of steps) {
            const now = Math.round(rows * step)
            const chosen = parametersFor(now, present)
            const needed = sizeClasses.find(({ maxRows }) => now <= maxRows)
            expect(chosen.m).toBeGreaterThanOrEqual(needed?.m ?? 0)
            if (chosen.m !== present.m) changes++
            present = chosen
          }
          expect(changes).toBeLessThanOrEqual(1)
        },
      ),
    )
  })
})

const facts: IndexFacts = {
  rows: 2_000,
  owed: 0,
  isStalled: false,
  dimensions: 512,
  precision: 'FULL',
  present: { ...medium, precision: 'FULL', bytes: 6 * MIB },
  isRequested: false,
  freezes: false,
}

describe('an index', () => {
  const cases: [string, Partial<IndexFacts>, Partial<CareDecision>][] = [
    ['that is as it should be is left alone', {}, { action: 'none' }],
    ['that is missing is built', { present: null }, { action: 'build', parameters: medium } as CareDecision],
    ['waits for its rows', { present: null, rows: 0, owed: 10_000 }, { action: 'defer' }],
    ['waits until nearly all are there', { present: null, rows: 89_000, owed: 11_000 }, { action: 'defer' }],
    [
      'is built when nearly all are there',
      { present: null, rows: 90_000, owed: 10_000 },
      { action: 'build' },
    ],
    ['does not wait for few rows', { present: null, rows: 0, owed: 9_999 }, { action: 'build' }],
    [
      'does not wait for rows that do not come',
      { present: null, owed: 50_000, isStalled: true },
      { action: 'build' },
    ],
    [
      'does not wait where a build afterwards would hold up everything',
      { present: null, rows: 0, owed: 50_000, freezes: true },
      { action: 'build' },
    ],
    [
      'that has grown is built anew',
      { present: { ...small, precision: 'FULL', bytes: MIB } },
      { action: 'build' },
    ],
    [
      'that grows in bulk is built anew afterwards',
      { present: { ...small, precision: 'FULL', bytes: MIB }, owed: 5_000 },
      { action: 'none' },
    ],
    ['of another precision is built anew', { precision: 'HALF' }, { action: 'build' }],
    [
      'that is mostly dead is built anew',
      { present: { ...medium, precision: 'FULL', bytes: 30 * MIB } },
      { action: 'build' },
    ],
    [
      'that is small is not worth it, however dead',
      { rows: 10, present: { ...small, precision: 'FULL', bytes: 7 * MIB } },
      { action: 'none' },
    ],
    [
      'is built anew when somebody asks',
      { isRequested: true },
      { action: 'build', reason: 'it was asked for' },
    ],
    [
      'that would hold up everything waits until somebody asks',
      { rows: 150_000, freezes: true },
      { action: 'wait' },
    ],
    [
      'that somebody asks for holds up everything',
      { rows: 150_000, freezes: true, isRequested: true },
      { action: 'build' },
    ],
  ]
  test.each(cases)('%s', (_name, given, expected) => {
    expect(decideCare({ ...facts, ...given })).toMatchObject(expected)
  })

  test('is built once, whatever there is: the next look finds nothing to do', () => {
    fc.assert(
      fc.property(
        fc.record({
          rows: fc.nat(300_000),
          owed: fc.nat(50_000),
          isStalled: fc.boolean(),
          dimensions: fc.integer({ min: 1, max: 2_000 }),
          precision: fc.constantFrom('FULL' as const, 'HALF' as const),
          present: fc.option(
            fc.record({
              m: fc.integer({ min: 2, max: 100 }),
              efConstruction: fc.constantFrom(64, 128, 200),
              precision: fc.constantFrom('FULL' as const, 'HALF' as const),
              bytes: fc.nat(1_000 * MIB),
            }),
          ),
          isRequested: fc.boolean(),
          freezes: fc.boolean(),
        }),
        (given) => {
          const decision = decideCare(given)
          if (decision.action !== 'build') return
          const { rows, dimensions, precision } = given
          const bytes = expectedIndexBytes(rows, dimensions, precision, decision.parameters)
          const present = { ...decision.parameters, precision, bytes }
          expect(decideCare({ ...given, present, isRequested: false })).toEqual({ action: 'none' })
        },
      ),
    )
  })
})

test.each([
  [0, 0, 0, null],
  [1_000, 250, 0, null],
  [1_000, 251, 0, 'vacuum'],
  [1_000, 0, 150, null],
  [1_000, 0, 151, 'analyze'],
  [1_000, 251, 1_000, 'vacuum'],
])('a table of %i rows with %i dead and %i changed ones needs %s', (live, dead, changed, need) => {
  expect(upkeepOf({ live, dead, changed }, 1)).toBe(need)
})

describe('recall', () => {
  test.each([
    [[], [], 1],
    [[0.1, 0.2], [0.1, 0.2], 1],
    [[0.1, 0.2], [0.1, 0.3], 0.5],
    [[0.1, 0.2], [], 0],
    // Which of equal rows comes is chance.
    [[0.1, 0.2, 0.2], [0.1, 0.2, 0.2000001], 1],
  ])('of %j, of which %j was found, is %d', (exact, found, recall) => {
    expect(recallOf(exact, found)).toBe(recall)
  })

  test('is a share, and grows with what is found', () => {
    const distances = fc.array(fc.double({ min: 0, max: 2, noNaN: true }), { maxLength: 20 })
    fc.assert(
      fc.property(distances, distances, distances, (all, found, more) => {
        const exact = [...all].sort((a, b) => a - b)
        const recall = recallOf(exact, found)
        expect(recall).toBeGreaterThanOrEqual(0)
        expect(recallOf(exact, [...found, ...more])).toBeGreaterThanOrEqual(recall)
        expect(recallOf(exact, [...found, ...exact])).toBe(1)
      }),
    )
  })
})

describe('what a build is given', () => {
  const limits = { memoryBytes: 1024 * MIB, workers: 2 }

  test('is memory for the whole graph, within the limit, and no process for few rows', () => {
    expect(buildResources(100, 1 * MIB, limits)).toEqual({ memoryBytes: 32 * MIB, workers: 0 })
    expect(buildResources(50_000, 300 * MIB, limits)).toEqual({ memoryBytes: 300 * MIB, workers: 2 })
    expect(buildResources(10_000, 10 * MIB, limits)).toEqual({ memoryBytes: 96 * MIB, workers: 2 })
    expect(buildResources(1e6, 5_000 * MIB, limits)).toEqual({ memoryBytes: 1024 * MIB, workers: 2 })
    expect(buildResources(1e6, 5_000 * MIB, { memoryBytes: 64 * MIB, workers: 8 })).toEqual({
      memoryBytes: 64 * MIB,
      workers: 1,
    })
  })

  test('grows with rows, dimensions, links and precision, and so does the size on disk', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1_000, max: 1e6 }),
        fc.integer({ min: 1, max: 1_500 }),
        (rows, dimensions) => {
          for (const of of [buildMemoryBytes, expectedIndexBytes]) {
            const usual = of(rows, dimensions, 'FULL', medium)
            expect(of(rows * 2, dimensions, 'FULL', medium)).toBeGreaterThan(usual)
            expect(of(rows, dimensions, 'FULL', large)).toBeGreaterThanOrEqual(usual)
            expect(of(rows, dimensions, 'HALF', medium)).toBeLessThanOrEqual(usual)
          }
        },
      ),
    )
  })
})

test.each([
  [20_000, 512, 'FULL', medium, 54_624_256],
  [3_000, 512, 'HALF', medium, 4_923_392],
  [2_000, 1_536, 'FULL', medium, 16_392_192],
  // Vector and links do not fit on a page together.
  [1_500, 2_000, 'FULL', medium, 24_584_192],
  [1_500, 3_072, 'HALF', large, 12_296_192],
] as const)(
  'a new index of %i vectors of %i dimensions, %s, %j, has as many bytes as in Postgres',
  (rows, dimensions, precision, parameters, bytes) => {
    expect(expectedIndexBytes(rows, dimensions, precision, parameters)).toBe(bytes)
  },
)

test('bloat is what an index takes beyond what its rows need', () => {
  const bytes = expectedIndexBytes(10_000, 512, 'FULL', medium)
  const of = (factor: number) =>
    bloatOf({
      rows: 10_000,
      dimensions: 512,
      present: { ...medium, precision: 'FULL', bytes: bytes * factor },
    })
  expect(of(1)).toBe(0)
  expect(of(0.5)).toBe(0)
  expect(of(4)).toBeCloseTo(0.75)
  expect(bloatOf({ rows: 10, dimensions: 512, present: null })).toBe(0)
  expect(careRules.maxBloat).toBeGreaterThan(of(1.5))
})
