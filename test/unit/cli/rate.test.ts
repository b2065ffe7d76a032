import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { addSample, ratePerSecond, type Sample, secondsLeft } from '../../../src/cli/rate.ts'

const steady = (steps: number, everyMs: number, perStep: number): Sample[] => {
  let samples: Sample[] = []
  for (let step = 0; step <= steps; step++) {
    samples = addSample(samples, { atMs: step * everyMs, done: step * perStep })
  }
  return samples
}

describe('the rate', () => {
  test('is not known from one moment, or from less than a second', () => {
    expect(ratePerSecond([], 5_000)).toBeNull()
    expect(ratePerSecond([{ atMs: 0, done: 0 }], 900)).toBeNull()
    expect(ratePerSecond(steady(3, 300, 10), 900)).toBeNull()
    expect(ratePerSecond(steady(4, 300, 10), 1_200)).toBeCloseTo(40 / 1.2)
  })

  test('is that of the last ten seconds, not of all the time before', () => {
    let samples = steady(600, 100, 1)
    for (let step = 1; step <= 110; step++) {
      samples = addSample(samples, { atMs: 60_000 + step * 100, done: 600 + step * 20 })
    }
    expect(ratePerSecond(samples, 71_000)).toBeCloseTo(200, 0)
  })

  test('of work that tells of itself every 30 seconds is that of its last three steps', () => {
    const samples = steady(10, 30_000, 60)
    expect(ratePerSecond(samples, 300_000)).toBeCloseTo(2)
    expect(ratePerSecond(samples, 315_000)).toBeGreaterThan(1.5)
  })

  test('falls to nothing while nothing comes', () => {
    const samples = steady(200, 100, 10)
    const rates = [20, 25, 30, 60, 600].map((seconds) => ratePerSecond(samples, seconds * 1000) ?? 0)
    expect(rates[0]).toBeCloseTo(100)
    expect([...rates].sort((a, b) => b - a)).toEqual(rates)
    expect(rates.at(-1)).toBeLessThan(1)
  })

  test('begins anew when the work has gone back', () => {
    const samples = addSample(steady(100, 100, 10), { atMs: 10_100, done: 0 })
    expect(samples).toEqual([{ atMs: 10_100, done: 0 }])
  })

  test('of steady work is its speed, whatever its steps and however long it has gone on, from few samples', () => {
    const speeds = fc.record({
      steps: fc.integer({ min: 4, max: 400 }),
      everyMs: fc.integer({ min: 150, max: 60_000 }),
      perStep: fc.integer({ min: 1, max: 1000 }),
    })
    fc.assert(
      fc.property(speeds, ({ steps, everyMs, perStep }) => {
        fc.pre(steps * everyMs >= 1_000)
        const samples = steady(steps, everyMs, perStep)
        const speed = (1000 * perStep) / everyMs
        expect(ratePerSecond(samples, steps * everyMs)).toBeCloseTo(speed, 6)
        // Ten seconds of the closest events there are, and the steps behind them.
        expect(samples.length).toBeLessThanOrEqual(10_000 / Math.min(everyMs, 10_000) + 4)
      }),
    )
  })

  test('is never below zero or without end', () => {
    const sample = fc.record({ atMs: fc.nat(100_000), done: fc.nat(10_000) })
    fc.assert(
      fc.property(fc.array(sample), fc.nat(200_000), (all, nowMs) => {
        const samples = all.reduce<Sample[]>(addSample, [])
        const rate = ratePerSecond(samples, nowMs)
        expect(rate === null || (rate >= 0 && Number.isFinite(rate))).toBe(true)
      }),
    )
  })
})

test.each([
  { done: 10, total: 10, rate: 0, left: 0 },
  { done: 0, total: 0, rate: null, left: 0 },
  { done: 12, total: 10, rate: 1, left: 0 },
  { done: 10, total: null, rate: 5, left: null },
  { done: 10, total: 110, rate: 5, left: 20 },
  { done: 10, total: 110, rate: 0, left: null },
  { done: 10, total: 110, rate: null, left: null },
])('$done of $total at $rate/s take $left s', ({ done, total, rate, left }) => {
  expect(secondsLeft(done, total, rate)).toBe(left)
})
