import { stripVTControlCharacters } from 'node:util'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { plainProgress } from '../../../src/cli/progress.ts'
import { bar, barLine, noProgress, type Progress, plainLine } from '../../../src/cli/progress-text.ts'

const now = new Date(2026, 10, 22, 14, 0, 0)
const underWay: Progress = {
  ...noProgress,
  done: 1234,
  total: 2400,
  ratePerSecond: 312.2,
  secondsLeft: 3.7,
}

describe('a line of progress', () => {
  test.each<[string, Partial<Progress>, string]>([
    ['under way', {}, 'Embedding 1234/2400 (51 %), 312/s, 4 s left'],
    ['with an estimated total', { isEstimate: true }, 'Embedding 1234/~2400 (51 %), 312/s, 4 s left'],
    ['with an unknown total', { total: null, secondsLeft: null }, 'Embedding 1234, 312/s'],
    ['whose speed is not known', { ratePerSecond: null, secondsLeft: null }, 'Embedding 1234/2400 (51 %)'],
    ['that stands', { ratePerSecond: 0, secondsLeft: null }, 'Embedding 1234/2400 (51 %)'],
    ['with failures', { failed: 3 }, 'Embedding 1234/2400 (51 %), 312/s, 4 s left, 3 failed'],
    [
      'that waits: its speed says nothing then',
      { waitingUntil: new Date(2026, 10, 22, 14, 3, 10) },
      'Embedding 1234/2400 (51 %), waiting for the provider until 14:03:10',
    ],
    [
      'in trouble',
      { trouble: 'no connection' },
      'Embedding 1234/2400 (51 %), 312/s, 4 s left, no connection',
    ],
    ['one before the end', { done: 2399 }, 'Embedding 2399/2400 (99 %), 312/s, 4 s left'],
    ['all done', { done: 2400, secondsLeft: 0 }, 'Embedding 2400/2400 (100 %)'],
    ['at its end', { done: 2400, tookSeconds: 7.71 }, 'Embedding 2400/2400, 7.7 s, 312/s'],
    ['over at once', { done: 0, total: 0, tookSeconds: 0.02, ratePerSecond: null }, 'Embedding 0/0'],
  ])('%s', (_name, changes, line) => {
    expect(plainLine('Embedding', { ...underWay, ...changes }, now)).toBe(line)
  })

  test('has a bar on a terminal, which gives way to the text', () => {
    expect(barLine('Embedding', underWay, now, 100)).toBe(
      'Embedding ███████████████░░░░░░░░░░░░░░░  51% 1234/2400, 312/s, 4 s left',
    )
    expect(barLine('Embedding', underWay, now, 60)).toBe(
      'Embedding ████████░░░░░░░░░  51% 1234/2400, 312/s, 4 s left',
    )
    expect(barLine('Embedding', { ...noProgress, trouble: 'queued' }, now, 60)).toBe(
      'Embedding ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░      0, queued',
    )
  })

  test('never fills the last column of a terminal', () => {
    const texts = fc.string({ maxLength: 80, unit: 'grapheme-ascii' })
    fc.assert(
      fc.property(texts, texts, fc.nat(200), fc.nat(2400), (label, trouble, columns, done) => {
        const line = barLine(label, { ...underWay, done, trouble }, now, columns)
        expect([...stripVTControlCharacters(line)].length).toBeLessThanOrEqual(Math.max(1, columns - 1))
      }),
    )
  })
})

test('a bar is full only when all is done, and empty while nobody knows how much there is', () => {
  expect(bar(0, 0, 3)).toBe('███')
  expect(bar(5, null, 3)).toBe('░░░')
  fc.assert(
    fc.property(fc.nat(100_000), fc.nat(100_000), fc.nat(50), (a, b, columns) => {
      fc.pre(columns > 0 && a !== b)
      const drawn = bar(Math.min(a, b), Math.max(a, b), columns)
      expect(drawn).toHaveLength(columns)
      expect(drawn.endsWith('░')).toBe(true)
    }),
  )
})

describe('without a terminal', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  function start() {
    const lines: string[] = []
    let progress: Progress | null = null
    const display = plainProgress(
      'Importing',
      () => progress,
      (line) => lines.push(line),
    )
    return {
      lines,
      display,
      tell(done: number) {
        progress = { ...noProgress, done, total: 100 }
        display.changed()
      },
    }
  }

  test('the first line comes at once, others every three seconds at most, and the last one always', () => {
    const { lines, display, tell } = start()
    for (let done = 1; done <= 70; done++) {
      tell(done)
      vi.advanceTimersByTime(100)
    }
    display.stop()
    expect(lines).toEqual([1, 30, 60, 70].map((done) => `Importing ${done}/100 (${done} %)`))
  })

  test('news that was held back is told though nothing follows, and nothing is told twice', () => {
    const { lines, display, tell } = start()
    tell(1)
    tell(2)
    tell(2)
    vi.advanceTimersByTime(60_000)
    display.changed()
    display.stop()
    expect(lines).toEqual(['Importing 1/100 (1 %)', 'Importing 2/100 (2 %)'])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('nothing is told where there is nothing to tell', () => {
    const { lines, display } = start()
    display.changed()
    display.stop()
    expect(lines).toEqual([])
  })
})
