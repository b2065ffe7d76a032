import { expect, test } from 'vitest'
import { forBackground } from '../../../src/db/background.ts'
import { openTestDatabase } from '../../support/databases.ts'
import { needsPostgres } from '../../support/fleet.ts'

test('work in the background never has all connections: a request gets one at once', async ({ skip }) => {
  needsPostgres(skip)
  await using opened = await openTestDatabase()
  const { database } = opened
  const background = forBackground(database)
  const { max } = database.pool.options
  let running = 0
  let end = () => {}
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  const work = Array.from({ length: 3 * max }, () =>
    background.transaction(async (transaction) => {
      running++
      await transaction.query('select 1')
      await ended
    }),
  )
  await expect.poll(() => running).toBeGreaterThan(1)
  expect(await database.query('select 1 as one')).toEqual([{ one: 1 }])
  expect(running).toBeLessThan(max)
  const waiting = background.query('select 2 as two')
  end()
  await Promise.all(work)
  expect(running).toBe(3 * max)
  expect(await waiting).toEqual([{ two: 2 }])
})
