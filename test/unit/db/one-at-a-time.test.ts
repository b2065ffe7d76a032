import { expect, test } from 'vitest'
import { oneAtATime } from '../../../src/db/one-at-a-time.ts'

/** A read that ends when it is told to. */
function controlled() {
  const ends: ((error?: Error) => void)[] = []
  let underWay = 0
  let most = 0
  const read = oneAtATime(async () => {
    const number = ends.length + 1
    most = Math.max(most, ++underWay)
    try {
      await new Promise<void>((resolve, reject) => ends.push((error) => (error ? reject(error) : resolve())))
    } finally {
      underWay--
    }
    return number
  })
  return { read, ends, most: () => most }
}

test('whoever asks while a read is under way gets the next one, together', async () => {
  const { read, ends, most } = controlled()
  const first = read()
  const others = [read(), read(), read()]
  expect(ends).toHaveLength(1)
  ends[0]?.()
  expect(await first).toBe(1)
  ends[1]?.()
  expect(await Promise.all(others)).toEqual([2, 2, 2])
  expect(most()).toBe(1)
  const last = read()
  ends[2]?.()
  expect(await last).toBe(3)
})

test('a read that fails fails for those who got it alone', async () => {
  const { read, ends } = controlled()
  const first = read()
  const second = read()
  ends[0]?.(new Error('away'))
  await expect(first).rejects.toThrow('away')
  ends[1]?.()
  expect(await second).toBe(2)
})

test('there is never more than one, whenever it is asked for', async () => {
  const { read, ends, most } = controlled()
  const first = read()
  const second = read()
  // In the very moment in which the first one is over.
  const third = first.then(() => read())
  ends[0]?.()
  await first
  await Promise.resolve()
  for (let turn = 0; turn < 10; turn++) await Promise.resolve()
  ends[1]?.()
  expect(await second).toBe(2)
  for (let turn = 0; turn < 10; turn++) await Promise.resolve()
  ends[2]?.()
  expect(await third).toBeGreaterThanOrEqual(2)
  expect(most()).toBe(1)
})
