import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { judgeClock, readingOf } from '../../../src/doctor/clock.ts'
import { judgeDataDisk, judgeUploadDisk } from '../../../src/doctor/disk.ts'
import { findingStates, isWell } from '../../../src/doctor/finding.ts'
import {
  judgeCoverage,
  judgeIndex,
  judgeKeys,
  judgeMigrations,
  judgeNode,
  judgeOutcome,
  judgeQueue,
  judgeRows,
  judgeSpace,
  judgeTriggers,
  judgeVector,
  type SpaceReading,
} from '../../../src/doctor/judge.ts'
import { judgeReadiness, judgeStanding, type ServedStanding } from '../../../src/doctor/served.ts'
import { triggerGroups } from '../../../src/doctor/triggers.ts'
import { findUnknownVariables } from '../../../src/doctor/variables.ts'
import type { SpaceRecord } from '../../../src/embedding/spaces.ts'
import type { VectorIndex } from '../../../src/embedding/vector-index.ts'

const GIB = 1024 ** 3
const MIB = 1024 ** 2

test('the whole is well unless something is wrong: warnings and what is unknown leave it so', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...findingStates)), (states) => {
      expect(isWell(states.map((state) => ({ state })))).toBe(!states.includes('wrong'))
    }),
  )
})

describe('unknown variables', () => {
  test.each([
    ['QUARRY_DATADIR', 'QUARRY_DATA_DIR'],
    ['QUARRY_ENCRYPTION_KEYS', 'QUARRY_ENCRYPTION_KEY'],
    ['QUARRY_EMBEDING_PROVIDER', 'QUARRY_EMBEDDING_PROVIDER'],
    ['QUARRY_WHATEVER_ELSE', null],
  ])('%s is most like %s', (name, nearest) => {
    expect(findUnknownVariables({ [name]: 'x' })).toEqual([{ name, nearest }])
  })

  test('are neither known ones, nor empty ones, nor those of developers and of others', () => {
    expect(
      findUnknownVariables({
        QUARRY_URL: 'x',
        QUARRY_UR: ' ',
        QUARRY_TEST_DATABASE_URL: 'x',
        OPENAI_TYPO: 'x',
        PATH: 'x',
      }),
    ).toEqual([])
  })
})

test.each([
  ['v20.19.0', '>=20.19', 'ok'],
  ['v24.1.0', '>=20.19', 'ok'],
  ['v20.9.0', '>=20.19', 'wrong'],
  ['v18.20.4', '>=20.19', 'wrong'],
])('Node.js %s where %s is needed is %s', (version, range, state) => {
  expect(judgeNode(version, range)).toMatchObject({ state, message: expect.stringContaining(version) })
})

describe('migrations', () => {
  const none = { pending: [], applied: 3, unfinished: [], changed: [], unknown: [] }
  const pending = [{ name: '1_a', sql: '', checksum: 'x' }]
  test.each([
    ['all applied', none, 'ok', 'all 3 are applied'],
    ['none yet', { ...none, applied: 0, pending }, 'ok', 'none yet'],
    ['some to come', { ...none, pending }, 'warning', '1_a'],
    ['changed', { ...none, changed: [{ name: '1_a', found: 'f', expected: 'e' }] }, 'wrong', 'was changed'],
    ['not finished', { ...none, unfinished: ['1_a'] }, 'wrong', 'not finished'],
    ['newer', { ...none, unknown: ['9_z'] }, 'wrong', 'newer than this code'],
  ])('%s', (_, state, expected, message) => {
    expect(judgeMigrations(state)).toMatchObject({
      state: expected,
      message: expect.stringContaining(message),
    })
  })
})

test.each([
  ['0.8.0', '0.8.0', 'ok'],
  ['0.8.1', null, 'ok'],
  ['0.8.1', '0.8.0', 'warning'],
  [null, '0.8.0', 'warning'],
  ['0.7.4', '0.7.4', 'wrong'],
  ['0.8.1', '0.7.4', 'wrong'],
  [null, null, 'wrong'],
])('pgvector offered %s, installed %s is %s', (offered, installed, state) => {
  expect(judgeVector({ number: 170000, version: '17', offered, installed }).state).toBe(state)
})

describe('triggers', () => {
  const all = triggerGroups.flatMap(({ names }) =>
    names.map((name) => ({ name, table: 'message', isEnabled: true })),
  )
  test('are well where all are there', () => {
    expect(judgeTriggers(all).state).toBe('ok')
  })
  test('that are missing or disabled are named, with what does not happen without them', () => {
    fc.assert(
      fc.property(fc.nat(all.length - 1), fc.boolean(), (at, isThere) => {
        const found = all.flatMap((trigger, n) =>
          n !== at ? trigger : isThere ? { ...trigger, isEnabled: false } : [],
        )
        const { state, message } = judgeTriggers(found)
        expect(state).toBe('wrong')
        expect(message).toContain(`${all[at]?.name} (${isThere ? 'disabled' : 'missing'}): `)
      }),
    )
  })
})

const space: SpaceRecord = {
  id: 3,
  provider: 'OPENAI',
  model: 'm',
  dimensions: 64,
  providerId: null,
  state: 'ACTIVE',
  precision: 'FULL',
  meaningShare: 0.5,
  meaningShareLong: 0.5,
  duplicate: 0.9,
  hasChosenDimensions: false,
  isFilled: true,
  createdAt: new Date(0),
  activatedAt: new Date(0),
  retiredAt: null,
  droppedAt: null,
  jobId: null,
  providerVersion: null,
  connectionVersion: null,
}

const reading = { isPartitionThere: true, providerName: null, difference: null }
const moving = { ...space, state: 'BUILDING', activatedAt: null } as const

test.each<[string, SpaceRecord, Partial<SpaceReading>, string, RegExp]>([
  ['as configured', space, {}, 'ok', /as configured$/],
  ['not there', space, { isPartitionThere: false }, 'wrong', /embedding_3 with its vectors is gone/],
  ['of another model', space, { difference: 'another model' }, 'wrong', /another model/],
  ['not to be compared', space, { difference: undefined }, 'ok', /not compared/],
  [
    'of a provider that was added',
    { ...space, providerId: 'p' },
    { providerName: 'Acme', difference: 'another model' },
    'ok',
    /embedded by Acme$/,
  ],
  ['being moved to', moving, {}, 'ok', /being moved to/],
  ['being moved to no more', { ...moving, isFilled: false }, {}, 'warning', /nobody fills it/],
  ['kept to go back to', { ...space, state: 'BUILDING' }, {}, 'ok', /in step to go back to/],
])('a space %s', (_, found, change, state, message) => {
  expect(judgeSpace(found, { ...reading, ...change })).toMatchObject({
    state,
    message: expect.stringMatching(message),
  })
})

describe('a vector index', () => {
  const present = { m: 16, efConstruction: 64, precision: 'FULL', bytes: 64 * 1024, isValid: true } as const
  const index: VectorIndex = {
    space: { ...space, nextPrecision: null },
    kind: 'ATOM',
    name: 'embedding_3_atom_vector',
    present,
    next: null,
    isOldThere: false,
    rows: 50,
    owed: 0,
    progress: null,
    deadRows: 0,
    rebuildRequestedAt: null,
    measureRequestedAt: null,
    builtAt: null,
    secondsSinceBuilt: null,
    buildSeconds: null,
    buildReason: null,
    recall: null,
    recallQueries: 0,
    recallSource: null,
    measuredAt: null,
    secondsSinceMeasured: null,
    measuredRows: null,
    lastError: null,
  }
  test.each<[string, Partial<VectorIndex>, string, string]>([
    ['is there', {}, 'ok', 'recall not measured'],
    ['finds enough', { recall: 0.951 }, 'ok', 'recall 95.1 %'],
    ['finds too little', { recall: 0.9499 }, 'wrong', '94.9 %'],
    [
      'is large, and partly dead',
      { rows: 10_000, present: { ...present, m: 32, efConstruction: 128, bytes: 12 * MIB } },
      'ok',
      '% dead',
    ],
    ['is missing', { present: null }, 'wrong', 'is missing'],
    ['is invalid', { present: { ...present, isValid: false } }, 'wrong', 'is invalid'],
    ['cannot be built', { present: null, lastError: 'no memory' }, 'wrong', 'last build failed: no memory'],
    ['is being built', { present: null, progress: 0.339 }, 'warning', '33 %'],
    ['waits for its rows', { present: null, owed: 20_000 }, 'warning', '20000 texts'],
    ['is left by the planner', { lastError: 'The planner does not use it' }, 'wrong', 'planner'],
    ['is mostly dead', { present: { ...present, bytes: 64 * MIB } }, 'warning', '% of it is dead'],
    ['has too many rows for it', { rows: 5000 }, 'warning', '5000 rows'],
  ])('%s', (_, change, state, message) => {
    expect(judgeIndex({ engine: 'postgres' }, { ...index, ...change }, true)).toMatchObject({
      state,
      message: expect.stringContaining(message),
    })
  })

  test('that is missing is left to whoever works, and where nobody does, a start is asked for', () => {
    const missing = { ...index, present: null }
    expect(judgeIndex({ engine: 'postgres' }, missing, true).remedy).toContain('A process that works')
    expect(judgeIndex({ engine: 'postgres' }, missing, false).remedy).toContain('Start Quarry')
  })
})

describe('embeddings', () => {
  const counts = (owed: number, failed: number) => [{ ready: 5, pending: owed, stale: 0, failed }]
  test.each([
    ['nothing owed', counts(0, 0), null, 0, false, null, 'ok'],
    ['nothing owed, while the provider is away', counts(0, 0), null, 0, true, 'away', 'ok'],
    ['owed, in work', counts(3, 0), null, 900, true, null, 'ok'],
    ['owed, while the provider is away', counts(3, 0), null, 1, true, 'away', 'warning'],
    ['owed for long', counts(3, 0), null, 901, true, null, 'warning'],
    ['owed, and nobody works', counts(3, 0), null, 1, false, null, 'warning'],
    ['failed', counts(0, 2), { error: 'too odd', n: 2 }, 0, true, null, 'warning'],
  ] as const)('%s', (_, coverage, commonest, seconds, isWorking, providerError, state) => {
    const judged = judgeCoverage(coverage, commonest, seconds, isWorking, providerError)
    expect(judged.state).toBe(state)
    if (commonest) expect(judged.message).toContain('(2): too odd')
  })
})

test.each([
  [{ missing: 0, outdated: 0, orphaned: 0 }, 'ok', []],
  [{ missing: 1, outdated: 0, orphaned: 0 }, 'wrong', ['1 text has none']],
  [{ missing: 0, outdated: 2, orphaned: 3 }, 'wrong', ['2 are of an earlier text', '3 are of something']],
])('embedding rows %o are %s', (counts, state, messages) => {
  const judged = judgeRows(counts)
  expect(judged.state).toBe(state)
  for (const message of messages) expect(judged.message).toContain(message)
})

describe('the job queue', () => {
  const empty = { ready: 0, scheduled: 0, locked: 0, exhausted: 0, oldestReadySeconds: 0 }
  const server = [{ role: 'server', n: 1 }] as const
  test.each([
    ['embedded', empty, [], 'ok'],
    ['postgres', empty, [], 'ok'],
    ['postgres', { ...empty, ready: 1 }, server, 'ok'],
    ['postgres', { ...empty, ready: 1 }, [], 'wrong'],
    ['postgres', { ...empty, locked: 1 }, [], 'wrong'],
    ['embedded', { ...empty, ready: 1 }, [], 'warning'],
    ['postgres', { ...empty, ready: 1, oldestReadySeconds: 121 }, server, 'warning'],
    ['postgres', { ...empty, exhausted: 1 }, server, 'warning'],
  ] as const)('%s %o with %o is %s', (engine, depth, living, state) => {
    expect(judgeQueue(engine, depth, living).state).toBe(state)
  })
})

describe('encryption keys', () => {
  const key = (problem: string | null, isUnderFirst: boolean) => ({ name: 'Acme', problem, isUnderFirst })
  test.each([
    [0, [], 'ok'],
    [1, [], 'ok'],
    [2, [key(null, true)], 'ok'],
    [2, [key(null, true), key(null, false)], 'warning'],
    [1, [key('lost', false)], 'wrong'],
    [0, [key('lost', false)], 'wrong'],
  ])('%i in the list, stored %o: %s', (count, stored, state) => {
    expect(judgeKeys(count, stored).state).toBe(state)
  })
})

test.each([
  [null, null, 'ok'],
  ['wrong key', null, 'wrong'],
  ['slow down', 30_000, 'warning'],
])('a provider that answers %s and asks to wait %s ms is %s', (error, waitMs, state) => {
  const outcome = { error, embeddingDimensions: 64, waitMs }
  expect(judgeOutcome(outcome, 'embeds by m', 100, 'mend it').state).toBe(state)
})

describe('disks', () => {
  test.each([
    [255 * MIB, null, 'wrong'],
    [256 * MIB, null, 'warning'],
    [GIB, null, 'ok'],
    [GIB, 2 * GIB, 'warning'],
    [2 * GIB, 2 * GIB, 'ok'],
  ])('%i bytes beside a database of %s are %s', (free, size, state) => {
    expect(judgeDataDisk('/data', free, size).state).toBe(state)
  })
  test.each([
    [2 * GIB, 2 * GIB, 'ok'],
    [GIB, 2 * GIB, 'warning'],
    [MIB, 2 * GIB, 'wrong'],
    [MIB, MIB, 'ok'],
  ])('%i bytes for an upload of %i are %s', (free, largest, state) => {
    expect(judgeUploadDisk('/tmp', free, largest).state).toBe(state)
  })
})

describe('clocks', () => {
  const reading = (offsetMs: number, uncertaintyMs = 0) => ({ of: 'X', offsetMs, uncertaintyMs })
  test.each([
    [[], 'skipped'],
    [[reading(5_000)], 'ok'],
    [[reading(-5_001)], 'warning'],
    [[reading(60_000)], 'warning'],
    [[reading(60_001)], 'wrong'],
    [[reading(60_001, 60_000)], 'ok'],
    [[reading(10), reading(-70_000), reading(6_000)], 'wrong'],
  ])('%o are %s', (readings, state) => {
    expect(judgeClock(readings).state).toBe(state)
  })

  test('that agree are never told apart, however long the answer took and whatever is rounded', () => {
    fc.assert(
      fc.property(
        fc.nat(2 ** 40),
        fc.nat(100_000),
        fc.nat(100_000),
        fc.constantFrom(0, 1000),
        (sentMs, thereMs, backMs, roundedMs) => {
          const trueMs = sentMs + thereMs
          const saidMs = roundedMs ? Math.floor(trueMs / roundedMs) * roundedMs : trueMs
          const found = readingOf('X', saidMs, sentMs, trueMs + backMs, roundedMs)
          expect(Math.abs(found.offsetMs)).toBeLessThanOrEqual(found.uncertaintyMs)
        },
      ),
    )
  })
})

describe('what a server says', () => {
  const healthy: ServedStanding = {
    embeddingSpaces: [
      {
        model: 'm',
        dimensions: 64,
        state: 'ACTIVE',
        provider: { name: 'P' },
        coverage: [{ ready: 1, pending: 0, stale: 0, failed: 0 }],
      },
    ],
    vectorIndexes: [
      {
        name: 'i',
        kind: 'ATOM',
        state: 'READY',
        reason: null,
        rows: 1,
        recall: null,
        lastError: null,
        space: { model: 'm', state: 'ACTIVE' },
      },
    ],
    alerts: [],
    providers: [
      { name: 'P', isActive: true, state: 'CONNECTED', error: null, validatedAt: '2026-05-04T09:00:00Z' },
    ],
  }
  const judged = (standing: ServedStanding) =>
    Object.fromEntries(judgeStanding(standing, 'Stop it').map((finding) => [finding.name, finding]))

  test('is told as it is, and of what it cannot tell how to see it', () => {
    const findings = judged(healthy)
    for (const name of ['embedding space', 'vector index atom', 'embeddings', 'jobs', 'provider P'])
      expect(findings[name]).toMatchObject({ name, state: 'ok' })
    for (const name of ['migrations', 'pgvector', 'triggers', 'embedding rows', 'words', 'encryption keys'])
      expect(findings[name]).toMatchObject({ name, state: 'unknown', remedy: 'Stop it' })
  })

  const [index] = healthy.vectorIndexes
  const [provider] = healthy.providers
  if (!index || !provider) throw new Error('there is one of each')
  test.each<[string, Partial<ServedStanding>, string, string]>([
    ['no space', { embeddingSpaces: [] }, 'embedding space', 'wrong'],
    ['a missing index', { vectorIndexes: [{ ...index, state: 'MISSING' }] }, 'vector index atom', 'wrong'],
    ['low recall', { vectorIndexes: [{ ...index, recall: 0.9 }] }, 'vector index atom', 'wrong'],
    ['one that is due', { vectorIndexes: [{ ...index, state: 'DUE' }] }, 'vector index atom', 'warning'],
    [
      'an alert',
      { alerts: [{ type: 'JOBS_FAILING', kind: 'EMBED', failures: 3, error: null }] },
      'jobs',
      'wrong',
    ],
    ['an error', { providers: [{ ...provider, state: 'ERROR', error: 'x' }] }, 'provider P', 'wrong'],
    ['one not asked yet', { providers: [{ ...provider, state: 'PENDING' }] }, 'provider P', 'unknown'],
    ['one not active', { providers: [{ ...provider, isActive: false }] }, 'provider P', 'skipped'],
  ])('%s', (_, change, name, state) => {
    expect(judged({ ...healthy, ...change })[name]).toMatchObject({ state })
  })

  test('about its readiness counts, with the reason', () => {
    expect(judgeReadiness({ status: 'ready', checks: { database: 'ok' } }, 'u').state).toBe('ok')
    expect(
      judgeReadiness({ status: 'unready', checks: { database: 'gone', jobs: 'ok' } }, 'u'),
    ).toMatchObject({
      state: 'wrong',
      message: 'u is not ready: database: gone',
    })
  })
})
