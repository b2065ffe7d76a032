import { v7 as uuidv7 } from 'uuid'
import { expect, test } from 'vitest'
import { claimOwed } from '../../../src/embedding/queue.ts'
import { arrivingSeconds, countArriving } from '../../../src/embedding/stats.ts'
import { startProviderApp } from '../../support/apps.ts'
import { openTestSpace } from '../../support/databases.ts'
import { ingest } from '../../support/messages.ts'

/** Kinds and statuses of which the kept count is not that of the rows. Both are read by one statement, so of one moment. */
const differences = `
  select coalesce(k.kind, r.kind) as kind, coalesce(k.status, r.status) as status, k.n as kept, r.n as rows
  from (select kind, status, sum(n)::int as n from embedding_count group by 1, 2 having sum(n) <> 0) as k
  full join (select kind, status, count(*)::int as n from embedding group by 1, 2) as r
    on r.kind = k.kind and r.status = k.status
  where k.n is distinct from r.n`

test('the kept counts are those of the rows at every moment, whoever writes at once', async () => {
  await using app = await startProviderApp({
    latencyMs: 1,
    fault: ({ number }) => (number % 7 === 0 ? { status: 400, body: 'every seventh' } : null),
  })
  let isOver = false
  let looked = 0
  async function look(): Promise<void> {
    while (!isOver) {
      expect(await app.sql(differences)).toEqual([])
      looked++
    }
  }
  async function write(writer: number): Promise<void> {
    const session = await app.session()
    try {
      for (let round = 0; round < 8; round++) {
        const source = { name: `writer ${writer}`, type: 'api' }
        const texts = Array.from({ length: 20 }, (_, n) =>
          n % 9 === 0 ? ' ' : `text ${writer} ${round} ${n}`,
        )
        const { messages } = await ingest(app.client, texts, source)
        expect(messages).toHaveLength(texts.length)
        const mine = `source_id = (select id from source where name = '${source.name}')`
        await session.query(
          `update message set content = content || '!' where ${mine} and external_id like '%${round}'`,
        )
        await session.query(
          `delete from message where id in (select id from message where ${mine} order by id limit 5)`,
        )
        await session.query('begin')
        await session.query(`delete from message where content like 'text ${writer} ${round} 1%'`)
        await session.query('rollback')
        await session.query('select compact_embedding_counts()')
      }
    } finally {
      await session.end()
    }
  }
  const looking = look()
  // On the embedded engine all share one session, and a transaction of the back door would hold up the app's own.
  const writers = app.config.database.kind === 'embedded' ? [1] : [1, 2, 3, 4]
  await Promise.all(writers.map(write)).finally(() => {
    isOver = true
  })
  await looking
  expect(looked).toBeGreaterThan(5)
  await app.client.waitUntilEmbedded()
  expect(await app.sql(differences)).toEqual([])
})

test('arriving is what has come in the last seconds, since the space is there, and has not failed', async () => {
  await using opened = await openTestSpace()
  const { database, space } = opened
  await database.query(
    `update embedding_space set created_at = clock_timestamp() - interval '2 s' where id = $1`,
    [space.id],
  )
  const enter = (age: number, status = 'PENDING', attempts = 0) =>
    database.query(
      `insert into embedding (space_id, kind, owner_id, status, content_hash, attempts)
       values ($1, 'MESSAGE', $2, $3::embedding_status, gen_random_uuid(), $4)`,
      [space.id, uuidv7({ msecs: Date.now() - 1000 * age }), status, attempts],
    )
  await enter(0)
  await enter(1)
  // Older than the space, of a clock that is an hour ahead, done, changed, failed once.
  for (const age of [3, 3600, -3600]) await enter(age)
  for (const status of ['READY', 'STALE', 'SKIPPED', 'FAILED']) await enter(1, status)
  await enter(1, 'PENDING', 1)
  expect(await countArriving(database, space.id)).toBe(2)
  await database.query(
    `update embedding_space set created_at = clock_timestamp() - interval '1 day' where id = $1`,
    [space.id],
  )
  expect(await countArriving(database, space.id)).toBe(3)
  await enter(arrivingSeconds + 1)
  expect(await countArriving(database, space.id)).toBe(3)
  await database.query('update embedding_space set is_filled = false where id = $1', [space.id])
  expect(await countArriving(database, space.id)).toBe(0)
})

test('nothing is claimed in a space that is not filled any more', async () => {
  await using opened = await openTestSpace()
  const { database, space } = opened
  await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
  await database.query(
    `insert into message (id, source_id, channel, external_id, author, content, sent_at, words, word_count)
     select $1, id, 'a', '1', 'ann', 'hello', now(), '', 1 from source`,
    [uuidv7()],
  )
  const claim = () => claimOwed(database, space.id, '1', 10, 1_000, [])
  await database.query('update embedding_space set is_filled = false where id = $1', [space.id])
  expect(await claim()).toEqual([])
  await database.query('update embedding_space set is_filled = true where id = $1', [space.id])
  expect(await claim()).toMatchObject([{ text: 'hello' }])
})
