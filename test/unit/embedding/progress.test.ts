import { expect, test } from 'vitest'
import { percentReady } from '../../../src/embedding/coverage.ts'
import { saysTheSame, toProgress } from '../../../src/embedding/progress.ts'

const nothing = { total: 0, ready: 0, pending: 0, stale: 0, failed: 0, skipped: 0 }

/** What was counted so many seconds after the first moment. */
function sample(seconds: number, messages: Partial<typeof nothing>, atoms: Partial<typeof nothing> = {}) {
  return {
    seq: String(1000 + seconds),
    isSettled: true,
    at: new Date(seconds * 1000),
    lastError: null,
    waitingUntil: null,
    providerError: null,
    coverage: [
      { kind: 'MESSAGE' as const, ...nothing, ...messages },
      { kind: 'ATOM' as const, ...nothing, ...atoms },
    ],
  }
}

const all = ['MESSAGE', 'ATOM', 'TOPIC'] as const

test('the rate is what became READY since the oldest sample of the last ten seconds', () => {
  const samples = [
    sample(0, { ready: 0, pending: 500 }),
    sample(6, { ready: 100, pending: 400 }),
    sample(14, { ready: 500 }),
  ]
  const [, , newest] = samples
  if (!newest) throw new Error('no newest sample')
  expect(toProgress(newest, samples, all)).toMatchObject({ ratePerSecond: 50, etaSeconds: 0, seq: '1014' })
})

test('the time left follows from the rate, for the kinds that were asked for', () => {
  const first = sample(0, { ready: 0, pending: 90, stale: 10 }, { pending: 5 })
  const newest = sample(2, { ready: 20, pending: 70, stale: 10 }, { pending: 5 })
  expect(toProgress(newest, [first, newest], ['MESSAGE'])).toMatchObject({ ratePerSecond: 10, etaSeconds: 8 })
  expect(toProgress(newest, [first, newest], all)).toMatchObject({ ratePerSecond: 10, etaSeconds: 8.5 })
  expect(toProgress(newest, [first, newest], ['ATOM'])).toMatchObject({ ratePerSecond: 0, etaSeconds: null })
})

test('the time left is unknown with one sample, and zero when nothing is owed', () => {
  const waiting = sample(1, { pending: 3 })
  expect(toProgress(waiting, [waiting], all)).toMatchObject({ ratePerSecond: 0, etaSeconds: null })
  const done = sample(1, { ready: 3 })
  expect(toProgress(done, [done], all)).toMatchObject({ ratePerSecond: 0, etaSeconds: 0 })
})

test('rows that stop being READY make no negative rate', () => {
  const first = sample(0, { ready: 10 })
  const newest = sample(1, { ready: 4, stale: 6 })
  expect(toProgress(newest, [first, newest], all)).toMatchObject({ ratePerSecond: 0, etaSeconds: null })
})

test('only the kinds that were asked for are counted', () => {
  const newest = sample(0, { ready: 1 }, { ready: 2 })
  expect(toProgress(newest, [newest], ['ATOM']).coverage).toEqual([{ kind: 'ATOM', ...nothing, ready: 2 }])
})

test('two say the same unless a count, the rate, the error or the wait differs', () => {
  const told = (seconds: number, fields: object = {}) => {
    const newest = { ...sample(seconds, { ready: 1, pending: 2 }), ...fields }
    return toProgress(newest, [newest], all)
  }
  expect(saysTheSame(told(1), told(5))).toBe(true)
  expect(saysTheSame(told(1), { ...told(5), ratePerSecond: 1 })).toBe(false)
  expect(saysTheSame(told(1), told(5, { lastError: 'why' }))).toBe(false)
  expect(saysTheSame(told(1), told(5, { waitingUntil: new Date(9_000) }))).toBe(false)
  const other = sample(5, { ready: 2, pending: 1 })
  expect(saysTheSame(told(1), toProgress(other, [other], all))).toBe(false)
})

test('the share that is READY leaves out what cannot be embedded', () => {
  expect(percentReady({ kind: 'MESSAGE', ...nothing, total: 10, ready: 4, pending: 4, skipped: 2 })).toBe(50)
  expect(percentReady({ kind: 'MESSAGE', ...nothing })).toBe(100)
  expect(percentReady({ kind: 'MESSAGE', ...nothing, total: 2, skipped: 2 })).toBe(100)
})
