import { expect, test } from 'vitest'
import { iterate } from '../../../src/graphql/iterate.ts'

function counting(limit: number) {
  const state = { ends: 0, asked: 0 }
  const items = iterate<number>(
    async () => (++state.asked <= limit ? state.asked : null),
    () => state.ends++,
  )
  return { state, items }
}

test('gives what there is, and ends once', async () => {
  const { state, items } = counting(3)
  const given = []
  for await (const item of items) given.push(item)
  expect(given).toEqual([1, 2, 3])
  expect(await items.next()).toEqual({ done: true, value: undefined })
  await items.return?.()
  expect(state).toEqual({ ends: 1, asked: 4 })
})

test('ends also if it is left before it has begun', async () => {
  const { state, items } = counting(3)
  await items.return?.()
  expect(state).toEqual({ ends: 1, asked: 0 })
  expect((await items.next()).done).toBe(true)
})

test('tells who waits for the next one that nobody listens any more', async () => {
  let ends = 0
  const items = iterate<number>(
    (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(7))),
    () => ends++,
  )
  const next = items.next()
  await items.return?.()
  expect(await next).toEqual({ done: true, value: undefined })
  expect(ends).toBe(1)
})

test('ends with the error of a source that fails', async () => {
  let ends = 0
  const items = iterate(
    async () => {
      throw new Error('broken')
    },
    () => ends++,
  )
  await expect(items.next()).rejects.toThrow('broken')
  expect((await items.next()).done).toBe(true)
  expect(ends).toBe(1)
})
