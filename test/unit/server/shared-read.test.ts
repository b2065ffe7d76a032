import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createSharedRead } from '../../../src/server/shared-read.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

describe('a shared read', () => {
  test('is done once for all who ask at once, and again when its value is too old', async () => {
    let reads = 0
    const read = createSharedRead(async () => ++reads, { keepMs: 100, limitMs: 1_000 })
    const first = await Promise.all([read(), read(), read()])
    expect(first).toEqual(Array.from({ length: 3 }, () => ({ value: 1, error: null })))
    await vi.advanceTimersByTimeAsync(99)
    expect(await read()).toEqual({ value: 1, error: null })
    await vi.advanceTimersByTimeAsync(1)
    expect(await read()).toEqual({ value: 2, error: null })
  })

  test('that hangs holds nobody up for longer than the limit, and is not joined by another', async () => {
    let reads = 0
    let answer: (value: number) => void = () => {}
    const read = createSharedRead(
      () =>
        new Promise<number>((resolve) => {
          reads++
          answer = resolve
        }),
      { keepMs: 100, limitMs: 1_000 },
    )
    for (let asked = 0; asked < 3; asked++) {
      const waiting = read()
      await vi.advanceTimersByTimeAsync(1_000)
      expect(await waiting).toMatchObject({
        value: null,
        error: { message: expect.stringContaining('1000 ms') },
      })
    }
    expect(reads).toBe(1)
    const last = read()
    answer(7)
    expect(await last).toEqual({ value: 7, error: null })
    expect(vi.getTimerCount()).toBe(0)
  })

  test('that fails says why, and is tried again by the next who asks', async () => {
    let reads = 0
    const read = createSharedRead(
      async () => {
        if (++reads === 1) throw new Error('away')
        return reads
      },
      { keepMs: 100, limitMs: 1_000 },
    )
    expect(await read()).toMatchObject({ value: null, error: { message: 'away' } })
    expect(await read()).toEqual({ value: 2, error: null })
  })
})
