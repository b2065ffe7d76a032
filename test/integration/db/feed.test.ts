import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Database } from '../../../src/db/database.ts'
import { createFeed, FeedGapError, type Follower, keptRows } from '../../../src/db/feed.ts'
import { listenOnDemand } from '../../../src/db/listen-on-demand.ts'
import { createLogger } from '../../../src/log.ts'
import { openTestDatabase } from '../../support/databases.ts'

let own: Awaited<ReturnType<typeof openTestDatabase>>
let database: Database
beforeAll(async () => {
  own = await openTestDatabase()
  database = own.database
})
afterAll(() => own[Symbol.asyncDispose]())

const channel = 'test_feed'
const log = createLogger('silent')
const uuid = (n: number) => `018f0000-0000-7000-8000-${String(n).padStart(12, '0')}`

function feedOf(isState: boolean, readSince = async (): Promise<string[]> => []) {
  return createFeed({
    database,
    log,
    channel,
    isState,
    readIds: (payload) => (payload === 'end' ? [] : payload.split(' ')),
    readSince,
    readGroups: async (ids) => ids.map((id) => ({ id, group: Number(id.at(-1)) % 2 ? 'odd' : 'even' })),
  })
}

/** Tells of rows, and waits until a follower has heard of the last. */
async function tell(from: number, to: number): Promise<void> {
  const heard = new Promise<void>((resolve) => {
    const waiting = listenOnDemand(database, [channel], (payload) => {
      if (!payload?.endsWith('end')) return
      void joined.then((leave) => leave())
      resolve()
    })
    const joined = waiting.join()
    void joined.then(async () => {
      const ids = Array.from({ length: to - from + 1 }, (_, index) => uuid(from + index))
      await database.query('select notify_ids($1, $2::uuid[])', [channel, ids])
      await database.query('select pg_notify($1, $2)', [channel, 'end'])
    })
  })
  await heard
}

function drain(follower: Follower): string[] {
  const ids: string[] = []
  for (let chunk = follower.next(); chunk; chunk = follower.next()) ids.push(...chunk.ids)
  return ids
}

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => uuid(from + index))

describe('a feed of new rows', () => {
  test('tells each follower what came since it began, once and in order', async () => {
    const feed = feedOf(false)
    let news = 0
    const early = await feed.follow(() => news++)
    await tell(1, 300)
    const late = await feed.follow(() => {})
    await tell(250, 450)
    expect(drain(early)).toEqual(range(1, 450))
    expect(drain(late)).toEqual(range(301, 450))
    expect(drain(early)).toEqual([])
    expect(news).toBeGreaterThan(0)
    early.end()
    late.end()
  })

  test('lets go of who falls too far behind, and of nobody else', async () => {
    const feed = feedOf(false)
    const slow = await feed.follow(() => {})
    const quick = await feed.follow(() => {})
    const half = Math.floor(keptRows / 2)
    await tell(1, half)
    expect(drain(quick)).toHaveLength(half)
    await tell(half + 1, keptRows)
    expect(slow.next()?.ids[0]).toBe(uuid(1))
    expect(drain(quick)).toHaveLength(keptRows - half)
    await tell(keptRows + 1, keptRows + 60)
    expect(() => slow.next()).toThrow(FeedGapError)
    expect(drain(quick)).toHaveLength(60)
    slow.end()
    quick.end()
  })

  test('begins anew for those who come after the last has left', async () => {
    const feed = feedOf(false)
    const first = await feed.follow(() => {})
    await tell(1, 10)
    first.end()
    const second = await feed.follow(() => {})
    expect(second.next()).toBeNull()
    await tell(1, 10)
    expect(drain(second)).toEqual(range(1, 10))
    second.end()
  })

  test('can be chosen from', async () => {
    const feed = feedOf(false)
    const follower = await feed.follow(() => {})
    await tell(1, 4)
    const chunk = follower.next()
    if (!chunk) throw new Error('nothing came')
    expect(await feed.idsIn(chunk, new Set(['even']))).toEqual([uuid(2), uuid(4)])
    expect(await feed.idsIn(chunk, new Set(['neither']))).toEqual([])
    follower.end()
  })

  test('reads for all what they want of a chunk, and again when that failed', async () => {
    const feed = feedOf(false)
    const follower = await feed.follow(() => {})
    await tell(1, 1)
    const chunk = follower.next()
    if (!chunk) throw new Error('nothing came')
    let reads = 0
    const read = async () => {
      reads++
      if (reads === 1) throw new Error('the database is away')
      return reads
    }
    expect(await Promise.all([feed.share(chunk, 'x', read), feed.share(chunk, 'x', read)])).toEqual([2, 2])
    expect(await feed.share(chunk, 'y', read)).toBe(3)
    const wrong = () => Promise.reject(new Error('no such column'))
    await expect(feed.share(chunk, 'z', wrong)).rejects.toThrow('no such column')
    follower.end()
  })
})

describe('a feed of states', () => {
  test('tells of many changes of a row the newest one, and of every row the last one', async () => {
    const feed = feedOf(true)
    const slow = await feed.follow(() => {})
    const quick = await feed.follow(() => {})
    await tell(1, 3)
    expect(drain(quick)).toEqual(range(1, 3))
    for (let round = 0; round < 5; round++) await tell(2, 2)
    expect(drain(quick)).toEqual([uuid(2)])
    expect(drain(slow)).toEqual([uuid(1), uuid(3), uuid(2)])
    slow.end()
    quick.end()
  })
})

describe('listening on demand', () => {
  test('hears as long as one is there, and again later', async () => {
    const heard: (string | null)[] = []
    const listener = listenOnDemand(database, [channel], (payload) => heard.push(payload))
    const say = (word: string) => database.query('select pg_notify($1, $2)', [channel, word])
    const other = listenOnDemand(database, [channel], () => ring())
    let ring = () => {}
    const leaveOther = await other.join()
    async function sayAndHear(word: string): Promise<void> {
      const ringing = new Promise<void>((resolve) => {
        ring = resolve
      })
      await say(word)
      await ringing
    }
    const [one, two] = await Promise.all([listener.join(), listener.join()])
    await sayAndHear('both')
    one()
    one()
    await sayAndHear('one of them')
    two()
    // At once: what is on its way out must not take this one with it.
    const three = await listener.join()
    await sayAndHear('again')
    three()
    await sayAndHear('nobody')
    expect(heard).toEqual(['both', 'one of them', 'again'])
    leaveOther()
  })
})
