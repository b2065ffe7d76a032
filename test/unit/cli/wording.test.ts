import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { age, clock, cut, duration, percent, rate, timeLeft } from '../../../src/cli/wording.ts'

const hour = 3600
const day = 24 * hour

describe('a duration', () => {
  test.each([
    [0, '0 s'],
    [-3, '0 s'],
    [0.04, '0 s'],
    [0.44, '0.4 s'],
    [9.94, '9.9 s'],
    [9.96, '10 s'],
    [45.4, '45 s'],
    [59.6, '1 min'],
    [60, '1 min'],
    [192, '3 min 12 s'],
    [3599.7, '1 h'],
    [hour + 59, '1 h'],
    [2 * hour + 300, '2 h 5 min'],
    [3 * day + 4 * hour + 59 * 60, '3 d 4 h'],
    [400 * day, '400 d'],
  ])('of %d seconds is %s', (seconds, text) => {
    expect(duration(seconds)).toBe(text)
  })

  test('says its seconds as exactly as its smaller unit, and never 60 of one', () => {
    const sizes = { d: day, h: hour, min: 60, s: 1 }
    fc.assert(
      fc.property(fc.double({ min: 0, max: 40 * day, noNaN: true }), (seconds) => {
        const parts = [...duration(seconds).matchAll(/(\d+(?:\.\d)?) (d|h|min|s)\b/g)]
        const said = parts.map(([, n, unit]) => ({ n: Number(n), size: sizes[unit as keyof typeof sizes] }))
        const sum = said.reduce((all, { n, size }) => all + n * size, 0)
        const [first] = said
        const exactness = (first?.size ?? 1) === 1 ? 1 : (first?.size ?? 1) / (first?.size === day ? 24 : 60)
        expect(Math.abs(sum - seconds)).toBeLessThanOrEqual(exactness)
        for (const { n, size } of said) expect(n).toBeLessThan(size === day ? 41 : size === hour ? 24 : 60)
      }),
    )
  })
})

test.each([
  [0, '0 s', '0 s'],
  [0.2, '1 s', '0 s'],
  [119.2, '120 s', '119 s'],
  [121, '3 min', '2 min'],
  [7199, '120 min', '119 min'],
  [3 * hour + 1, '4 h', '3 h'],
  [49 * hour, '3 d', '2 d'],
])('%d seconds are %s to go and %s ago', (seconds, left, ago) => {
  expect(timeLeft(seconds)).toBe(left)
  expect(age(seconds)).toBe(ago)
})

test('what is ahead is never told too short, what is past never too long', () => {
  const sizes: Record<string, number> = { d: day, h: hour, min: 60, s: 1 }
  const secondsOf = (text: string) => {
    const [n, unit] = text.split(' ')
    return Number(n) * (sizes[unit ?? ''] ?? Number.NaN)
  }
  fc.assert(
    fc.property(fc.double({ min: 0, max: 40 * day, noNaN: true }), (seconds) => {
      expect(secondsOf(timeLeft(seconds))).toBeGreaterThanOrEqual(seconds)
      expect(secondsOf(timeLeft(seconds))).toBeLessThanOrEqual(1 + seconds * 1.5)
      expect(secondsOf(age(seconds))).toBeLessThanOrEqual(seconds)
    }),
  )
})

test('something in the future, by a clock that is wrong, is of now', () => {
  expect(age(-30)).toBe('0 s')
})

test.each([
  [0, '0/s'],
  [312.4, '312/s'],
  [9.96, '10/s'],
  [4.25, '4.3/s'],
  [1, '1.0/s'],
  [0.5, '30/min'],
  [0.05, '3/min'],
  [0.001, '0.1/min'],
])('a rate of %d is %s', (perSecond, text) => {
  expect(rate(perSecond)).toBe(text)
})

test('a moment of another day is told with its date', () => {
  const now = new Date(2026, 10, 22, 14, 0, 0)
  expect(clock(new Date(2026, 10, 22, 14, 3, 9), now)).toBe('14:03:09')
  expect(clock(new Date(2026, 10, 23, 0, 3, 9), now)).toBe('2026-11-23 00:03:09')
})

test('100 per cent are reached only when all is done', () => {
  expect(percent(0, 0)).toBe(100)
  expect(percent(0, 3)).toBe(0)
  expect(percent(5, 3)).toBe(100)
  fc.assert(
    fc.property(fc.nat(2_000_000), fc.nat(2_000_000), (a, b) => {
      const [done, total] = a < b ? [a, b] : [b, a]
      expect(percent(done, total) === 100).toBe(done === total)
    }),
  )
})

test('a text is cut where it does not fit, and between characters', () => {
  expect(cut('backup', 6)).toBe('backup')
  expect(cut('backups', 6)).toBe('backu…')
  expect(cut('🙂🙂🙂', 2)).toBe('🙂…')
  expect(cut('backups', 0)).toBe('…')
})
