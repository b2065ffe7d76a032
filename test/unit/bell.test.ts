import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createBell } from '../../src/bell.ts'

const never = new AbortController().signal

async function isOver(waiting: Promise<void>): Promise<boolean> {
  return Promise.race([waiting.then(() => true), delay(0, false)])
}

test('wakes everybody who waits', async () => {
  const bell = createBell()
  const waiting = [bell.wait({ signal: never }), bell.wait({ signal: never })]
  expect(await isOver(Promise.race(waiting))).toBe(false)
  bell.ring()
  await Promise.all(waiting)
})

test('does not forget a ring that nobody waited for', async () => {
  const bell = createBell()
  bell.ring()
  await bell.wait({ signal: never })
})

test('takes many rings that nobody waited for as one', async () => {
  const bell = createBell()
  bell.ring()
  bell.ring()
  await bell.wait({ signal: never })
  expect(await isOver(bell.wait({ signal: never }))).toBe(false)
})

test('counts a ring that woke somebody as heard', async () => {
  const bell = createBell()
  const first = bell.wait({ signal: never })
  bell.ring()
  await first
  expect(await isOver(bell.wait({ signal: never }))).toBe(false)
})

test('wakes at the limit', async () => {
  await createBell().wait({ signal: never, limitMs: 1 })
})

test('wakes whoever is told to end, without an error', async () => {
  const ending = new AbortController()
  const bell = createBell()
  const waiting = bell.wait({ signal: ending.signal })
  ending.abort(new Error('the end'))
  await waiting
  await bell.wait({ signal: ending.signal })
})
