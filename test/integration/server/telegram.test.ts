import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { text as readText } from 'node:stream/consumers'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Database } from '../../../src/db/database.ts'
import { clearTelegramUpdates } from '../../../src/ingest/telegram/updates.ts'
import { openTestDatabase, reopen } from '../../support/databases.ts'
import {
  orchard,
  runTelegramTasks,
  startWebhook,
  storedMessages,
  telegramEdit,
  telegramMessage,
  telegramSecret,
  telegramUpdate,
} from '../../support/telegram.ts'

let own: Awaited<ReturnType<typeof openTestDatabase>>
let database: Database
let webhook: Awaited<ReturnType<typeof startWebhook>>
/** Each test has a source of its own. */
let sourceCount = 0
const newSource = () => `Source ${++sourceCount}`

beforeAll(async () => {
  own = await openTestDatabase()
  database = own.database
  webhook = await startWebhook(database)
})
afterAll(async () => {
  await webhook[Symbol.asyncDispose]()
  await own[Symbol.asyncDispose]()
})

interface UpdateRow {
  id: string
  outcome: string | null
  error: string | null
}

const updatesOf = (source: string): Promise<UpdateRow[]> =>
  database.query<UpdateRow>(
    'select update_id::text as id, outcome, error from telegram_update where source = $1 order by update_id',
    [source],
  )

const outcomesOf = async (source: string) =>
  (await updatesOf(source)).map(({ id, outcome }) => `${id} ${outcome}`)

const contentsOf = async (source: string) =>
  (await storedMessages(database, source)).map(({ externalId, content }) => `${externalId} ${content}`)

const jobsOf = (source: string): Promise<object[]> =>
  database.query(`select from graphile_worker._private_jobs where key = 'telegram ' || $1`, [source])

/** Posts updates, each of which must be taken, and works on them. */
async function deliver(source: string, ...updates: unknown[]): Promise<void> {
  for (const update of updates) expect((await webhook.post(source, update)).status).toBe(200)
  await runTelegramTasks(database)
}

describe('an update', () => {
  test('is stored with its task, then brings its message', async () => {
    const source = newSource()
    const update = telegramUpdate(500, telegramMessage(17, 'The pump runs again'))
    const response = await webhook.post(source, update)
    expect([response.status, await response.text()]).toEqual([200, ''])
    expect(await outcomesOf(source)).toEqual(['500 null'])
    expect(await storedMessages(database, source)).toEqual([])
    expect(await jobsOf(source)).toHaveLength(1)

    await runTelegramTasks(database)
    expect(await storedMessages(database, source)).toEqual([
      {
        channel: 'Orchard',
        externalId: '17',
        author: 'Marta Quince',
        content: 'The pump runs again',
        sentAt: new Date('2026-05-04T09:00:00Z'),
        threadId: null,
        replyTo: null,
      },
    ])
    expect(await outcomesOf(source)).toEqual(['500 STORED'])
    expect(await jobsOf(source)).toEqual([])
    const [row] = await database.query(
      'select body, chat_id, message_id from telegram_update where source = $1',
      [source],
    )
    expect(row).toEqual({ body: update, chat_id: String(orchard.id), message_id: '17' })
  })

  test('calls nobody', async () => {
    const asked: unknown[] = []
    const onRequest = (message: unknown) => asked.push(message)
    subscribe('http.client.request.start', onRequest)
    try {
      const source = newSource()
      await deliver(source, telegramUpdate(1, telegramMessage(1, 'Is anybody there?')))
      expect(await contentsOf(source)).toEqual(['1 Is anybody there?'])
    } finally {
      unsubscribe('http.client.request.start', onRequest)
    }
    expect(asked).toEqual([])
  })

  test('that comes again is a duplicate, before and after it was worked on', async () => {
    const source = newSource()
    const update = telegramUpdate(7, telegramMessage(3, 'Once'))
    const before = await webhook.counted('duplicate')
    await Promise.all(Array.from({ length: 5 }, () => webhook.post(source, update)))
    await runTelegramTasks(database)
    await database.query(`update message set content = 'Corrected by hand' where content = 'Once'`)
    await deliver(source, update)
    expect(await contentsOf(source)).toEqual(['3 Corrected by hand'])
    expect(await outcomesOf(source)).toEqual(['7 STORED'])
    expect((await webhook.counted('duplicate')) - before).toBe(5)
    expect(await jobsOf(source)).toEqual([])
  })

  test('of the same number in another source is another one', async () => {
    const [one, other] = [newSource(), newSource()]
    await deliver(one, telegramUpdate(7, telegramMessage(3, 'Here')))
    await deliver(other, telegramUpdate(7, telegramMessage(3, 'There')))
    expect([await contentsOf(one), await contentsOf(other)]).toEqual([['3 Here'], ['3 There']])
  })

  test('that comes while the task runs is not forgotten', async () => {
    const source = newSource()
    await webhook.post(source, telegramUpdate(1, telegramMessage(1, 'First')))
    // As if a worker had just taken the task.
    await database.query(
      `update graphile_worker._private_jobs set locked_at = now(), locked_by = 'somebody' where key = 'telegram ' || $1`,
      [source],
    )
    await webhook.post(source, telegramUpdate(2, telegramMessage(2, 'Second')))
    await database.query(`delete from graphile_worker._private_jobs where locked_by = 'somebody'`)
    expect(await jobsOf(source)).toHaveLength(1)
    await runTelegramTasks(database)
    expect(await contentsOf(source)).toEqual(['1 First', '2 Second'])
  })

  test('of any kind is taken, and what brings no message is left out', async () => {
    const source = newSource()
    const poll = { id: 9, poll: { id: '5', question: 'Lunch?', options: [] } }
    const press = {
      id: '4',
      from: telegramMessage(1, '').from,
      chat_instance: '1',
      message: telegramMessage(8, 'Old'),
    }
    await deliver(
      source,
      { update_id: 1, poll },
      { update_id: 2, callback_query: press },
      telegramUpdate(3, telegramMessage(1, 'Between'), 'business_message'),
      { update_id: 4 },
      telegramUpdate(5, { ...telegramMessage(9, ''), text: undefined, new_chat_title: 'Barn' }),
    )
    expect(await outcomesOf(source)).toEqual([1, 2, 3, 4, 5].map((id) => `${id} LEFT_OUT`))
    expect(await database.query('select from source where name = $1', [source])).toEqual([])
  })

  test.each([
    ['NUL', 'a\0b', 'content has a NUL character at 1, which Postgres cannot store; remove it'],
    ['half of a character', 'a\ud800b', /^content has half of a character/],
    ['a number for a text', 5, /^not understood: /],
  ])('that cannot be used (%s) is marked, and the rest is stored', async (_, text, error) => {
    const source = newSource()
    await deliver(
      source,
      telegramUpdate(1, telegramMessage(1, 'Before')),
      telegramUpdate(2, telegramMessage(2, '', { text })),
      telegramUpdate(3, telegramMessage(3, 'After')),
    )
    expect(await contentsOf(source)).toEqual(['1 Before', '3 After'])
    const rows = await updatesOf(source)
    expect(rows.map(({ outcome }) => outcome)).toEqual(['STORED', 'FAILED', 'STORED'])
    expect(rows[1]?.error).toMatch(error)
  })

  test.each([
    ['chat.id', { chat: { ...orchard, id: 'x' } }],
    ['chat.id', { chat: { ...orchard, id: 2 ** 60 } }],
    ['message_id', { message_id: 1.5 }],
    ['date', { date: 'soon' }],
    ['date', { date: -1 }],
    ['edit_date', { edit_date: 1e15 }],
    ['channel', { chat: { ...orchard, title: 'a\0b' } }],
    ['channel', { chat: { ...orchard, title: 'x'.repeat(1001) } }],
    ['author', { from: { id: 1, first_name: 'x'.repeat(1001) } }],
    ['chat', { chat: null }],
  ])('with a wrong %s is marked (%j)', async (name, fields) => {
    const source = newSource()
    await deliver(source, telegramUpdate(1, telegramMessage(1, 'Wrong', fields)))
    await deliver(source, telegramUpdate(2, telegramMessage(2, 'Right')))
    expect(await contentsOf(source)).toEqual(['2 Right'])
    expect((await updatesOf(source))[0]).toMatchObject({
      outcome: 'FAILED',
      error: expect.stringContaining(name),
    })
  })

  test('that the database refuses for its content stands alone', async () => {
    const source = newSource()
    await database.query(
      `alter table message add constraint no_thistles check (content not like '%thistle%')`,
    )
    try {
      const texts = ['wheat', 'thistle', 'rye', 'two thistles', 'oats']
      await deliver(source, ...texts.map((text, n) => telegramUpdate(n, telegramMessage(n + 1, text))))
    } finally {
      await database.query('alter table message drop constraint no_thistles')
    }
    expect(await contentsOf(source)).toEqual(['1 wheat', '3 rye', '5 oats'])
    expect((await updatesOf(source)).map(({ outcome }) => outcome)).toEqual([
      'STORED',
      'FAILED',
      'STORED',
      'FAILED',
      'STORED',
    ])
    expect((await updatesOf(source))[1]?.error).toContain('no_thistles')
  })

  test('that the database cannot take now is kept, and goes on later, with all others and once', async () => {
    const source = newSource()
    await database.query(
      `create function away() returns trigger language plpgsql as $$
       begin raise exception 'The database goes away' using errcode = '57P01'; end $$`,
    )
    await database.query('create trigger away after insert on message for each row execute function away()')
    try {
      await deliver(source, ...[1, 2, 3].map((n) => telegramUpdate(n, telegramMessage(n, `Number ${n}`))))
    } finally {
      await database.query('drop function away cascade')
    }
    expect(await contentsOf(source)).toEqual([])
    expect(await outcomesOf(source)).toEqual(['1 null', '2 null', '3 null'])
    // The next update takes all others with it; so does the next attempt of the queue, after a few seconds.
    await deliver(source, telegramUpdate(4, telegramMessage(4, 'Number 4')))
    expect(await contentsOf(source)).toEqual([1, 2, 3, 4].map((n) => `${n} Number ${n}`))
  })
})

describe('versions of a message', () => {
  const original = telegramMessage(5, 'Open at nine')
  const first = telegramUpdate(10, original)
  const second = telegramEdit(11, { ...original, text: 'Open at ten' }, 60)
  const third = telegramEdit(12, { ...original, text: 'Open at noon' }, 120)

  test('replace each other', async () => {
    const source = newSource()
    await deliver(source, first)
    await deliver(source, second)
    expect(await contentsOf(source)).toEqual(['5 Open at ten'])
    await deliver(source, third)
    expect(await contentsOf(source)).toEqual(['5 Open at noon'])
  })

  test('that come together leave the last one', async () => {
    const source = newSource()
    await deliver(source, third, first, second)
    expect(await contentsOf(source)).toEqual(['5 Open at noon'])
    expect(await outcomesOf(source)).toEqual(['10 SUPERSEDED', '11 SUPERSEDED', '12 STORED'])
  })

  test('that come late do not undo what was written after them', async () => {
    const source = newSource()
    await deliver(source, third)
    await deliver(source, first)
    await deliver(source, second)
    expect(await contentsOf(source)).toEqual(['5 Open at noon'])
    expect(await outcomesOf(source)).toEqual(['10 SUPERSEDED', '11 SUPERSEDED', '12 STORED'])
  })

  test('are told apart by when they were written, not by their number, which begins anew after a quiet week', async () => {
    const source = newSource()
    await deliver(source, { ...third, update_id: 900 })
    await deliver(source, telegramEdit(3, { ...original, text: 'Closed' }, 700_000))
    expect(await contentsOf(source)).toEqual(['5 Closed'])
  })

  test('of the same second follow their numbers', async () => {
    const source = newSource()
    await deliver(source, telegramEdit(22, { ...original, text: 'Second edit' }, 60))
    await deliver(source, telegramEdit(21, { ...original, text: 'First edit' }, 60))
    expect(await contentsOf(source)).toEqual(['5 Second edit'])
  })

  test('that could not be used do not hold the place of one that can', async () => {
    const source = newSource()
    await deliver(source, telegramEdit(12, { ...original, text: 'a\0b' }, 120))
    await deliver(source, first)
    expect(await contentsOf(source)).toEqual(['5 Open at nine'])
  })

  test('of the same number in another chat are another message', async () => {
    const source = newSource()
    const barn = { id: -1_000_000_000_777, type: 'supergroup', title: 'Barn' }
    await deliver(source, third, telegramUpdate(13, { ...original, chat: barn }))
    expect((await storedMessages(database, source)).map((m) => [m.channel, m.externalId, m.content])).toEqual(
      [
        ['Barn', '5', 'Open at nine'],
        ['Orchard', '5', 'Open at noon'],
      ],
    )
  })

  test('end as the last one in whatever order, batches and repetitions they come', async () => {
    const versions = Array.from({ length: 3 }, (_, message) =>
      [0, 1, 2].map((edit) => {
        const whole = telegramMessage(message + 1, `Message ${message + 1}, version ${edit}`)
        const id = message * 3 + edit + 1
        return edit === 0 ? telegramUpdate(id, whole) : telegramEdit(id, whole, edit * 10)
      }),
    ).flat()
    const arrival = fc.tuple(
      fc.shuffledSubarray([...versions, ...versions], { minLength: 18, maxLength: 18 }),
      fc.array(fc.boolean(), { minLength: 18, maxLength: 18 }),
    )
    await fc.assert(
      fc.asyncProperty(arrival, async ([updates, pauses]) => {
        const source = newSource()
        for (const [index, update] of updates.entries()) {
          await webhook.post(source, update)
          if (pauses[index]) await runTelegramTasks(database)
        }
        await runTelegramTasks(database)
        expect(await contentsOf(source)).toEqual([1, 2, 3].map((n) => `${n} Message ${n}, version 2`))
      }),
      { numRuns: 10 },
    )
  })
})

describe('the chats of a source', () => {
  const placesOf = async (source: string) =>
    (await storedMessages(database, source)).map((m) => [m.channel, m.externalId, m.threadId, m.replyTo])

  test('that are numbered for everyone have the ids of an export of the chat', async () => {
    const source = newSource()
    const channel = { id: -1_000_000_000_055, type: 'channel', title: 'News' }
    const post = {
      ...telegramMessage(7, 'Harvest is in'),
      chat: channel,
      sender_chat: channel,
      from: undefined,
    }
    await deliver(
      source,
      telegramUpdate(1, telegramMessage(7, 'Hello', { message_thread_id: 2, is_topic_message: true })),
      telegramUpdate(2, post, 'channel_post'),
    )
    expect(await placesOf(source)).toEqual([
      ['News', '7', null, null],
      ['Orchard', '7', '2', null],
    ])
  })

  test('that are numbered for each member cannot, and get ids that no export has', async () => {
    const source = newSource()
    const group = { id: -321, type: 'group', title: 'Orchard' }
    const reply = { reply_to_message: telegramMessage(3, 'Before') }
    await deliver(
      source,
      telegramUpdate(1, telegramMessage(7, 'In the group', { chat: group, ...reply })),
      telegramUpdate(
        2,
        telegramMessage(7, 'Alone', { chat: { id: 11, type: 'private', first_name: 'Marta' } }),
      ),
      telegramUpdate(3, telegramMessage(7, 'After the group has grown')),
    )
    expect(await placesOf(source)).toEqual([
      ['Marta', 'bot:11:7', null, null],
      ['Orchard', '7', null, null],
      ['Orchard', 'bot:-321:7', null, 'bot:-321:3'],
    ])
  })

  test('of the same name are told apart by their ids', async () => {
    const source = newSource()
    const twin = { ...orchard, id: -1_000_000_000_099 }
    await deliver(
      source,
      telegramUpdate(1, telegramMessage(7, 'One')),
      telegramUpdate(2, telegramMessage(7, 'Two', { chat: twin })),
    )
    await deliver(source, telegramUpdate(3, telegramMessage(8, 'Two again', { chat: twin })))
    expect(await placesOf(source)).toEqual([
      ['Orchard', '7', null, null],
      ['Orchard', '99:7', null, null],
      ['Orchard', '99:8', null, null],
    ])
  })

  test('go on where an import of an account has put them', async () => {
    const source = newSource()
    await deliver(
      source,
      telegramUpdate(1, telegramMessage(1, 'Of another chat', { chat: { ...orchard, title: 'Barn' } })),
    )
    await database.query(
      `insert into message (id, source_id, channel, external_id, author, content, sent_at)
       select gen_random_uuid(), id, 'Mill', '77:6', 'ann', 'Imported', now() from source where name = $1`,
      [source],
    )
    const mill = { id: -1_000_000_000_077, type: 'supergroup', title: 'Mill' }
    const answer = { chat: mill, reply_to_message: telegramMessage(6, 'Imported') }
    await deliver(source, telegramUpdate(2, telegramMessage(7, 'Live', answer)))
    expect((await placesOf(source)).filter(([channel]) => channel === 'Mill')).toEqual([
      ['Mill', '77:6', null, null],
      ['Mill', '77:7', null, '77:6'],
    ])
  })

  test('keep their channel when they get a new title, so that an edit still finds its message', async () => {
    const source = newSource()
    await deliver(source, telegramUpdate(1, telegramMessage(1, 'Before')))
    const renamed = { chat: { ...orchard, title: 'Meadow' } }
    await deliver(source, telegramEdit(2, telegramMessage(1, 'Before, edited', renamed), 60))
    await deliver(source, telegramUpdate(3, telegramMessage(2, 'After', renamed)))
    expect((await storedMessages(database, source)).map((m) => [m.channel, m.content])).toEqual([
      ['Orchard', 'Before, edited'],
      ['Orchard', 'After'],
    ])
  })
})

describe('much at once', () => {
  test('goes through many batches and several runs, in order', async () => {
    const source = newSource()
    const count = 1_234
    await database.query(
      `insert into telegram_update (source, update_id, body)
       select $1, n, json_build_object('update_id', n, 'message', $2::jsonb || jsonb_build_object('message_id', n, 'text', 'Number ' || n))
       from generate_series(1, $3::int) as n`,
      [source, JSON.stringify(telegramMessage(0, '')), count],
    )
    await database.query('select queue_telegram_updates($1)', [source])
    await runTelegramTasks(database)
    expect((await storedMessages(database, source)).map(({ content }) => content)).toEqual(
      Array.from({ length: count }, (_, n) => `Number ${n + 1}`),
    )
    const [row] = await database.query(
      `select count(*) filter (where outcome = 'STORED')::int as stored from telegram_update where source = $1`,
      [source],
    )
    expect(row).toEqual({ stored: count })
  })

  test('is taken from forty connections at once', async () => {
    const source = newSource()
    const updates = Array.from({ length: 200 }, (_, n) =>
      telegramUpdate(n, telegramMessage(n + 1, `Number ${n}`)),
    )
    const statuses = await Promise.all(
      updates.map(async (update) => (await webhook.post(source, update)).status),
    )
    expect(new Set(statuses)).toEqual(new Set([200]))
    await runTelegramTasks(database)
    expect(await storedMessages(database, source)).toHaveLength(200)
  })

  test('elsewhere does not hold up an update', async () => {
    const source = newSource()
    let ended = 0
    const slow = Array.from({ length: 60 }, () =>
      database.query('select pg_sleep(0.03)').then(() => {
        ended++
      }),
    )
    expect((await webhook.post(source, telegramUpdate(1, telegramMessage(1, 'Quick')))).status).toBe(200)
    // Ten connections: behind all of them in their queue it would come last.
    expect(ended).toBeLessThan(45)
    await Promise.all(slow)
  })
})

describe('on a server', () => {
  test('a lock on the messages holds up the task, not an update', async ({ skip }) => {
    if (database.engine === 'embedded') skip('one session: nothing can be locked for another')
    const source = newSource()
    await using other = await startOther()
    await other.database.query('select 1')
    let task: Promise<void> | null = null
    await other.database.transaction(async (transaction) => {
      await transaction.query('lock table message in access exclusive mode')
      await webhook.post(source, telegramUpdate(1, telegramMessage(1, 'First')))
      task = runTelegramTasks(database)
      await expect
        .poll(() =>
          database.query(`select from pg_locks where not granted and relation = 'message'::regclass`),
        )
        .toHaveLength(1)
      expect((await webhook.post(source, telegramUpdate(2, telegramMessage(2, 'Second')))).status).toBe(200)
    })
    await task
    await runTelegramTasks(database)
    expect(await contentsOf(source)).toEqual(['1 First', '2 Second'])
  })

  test('a task whose connection is cut loses and doubles nothing', async ({ skip }) => {
    if (database.engine === 'embedded') skip('one session: it cannot be cut from within')
    const source = newSource()
    await using other = await startOther()
    await webhook.post(source, telegramUpdate(1, telegramMessage(1, 'First')))
    let task: Promise<void> | null = null
    await other.database.transaction(async (transaction) => {
      await transaction.query('lock table message in access exclusive mode')
      task = runTelegramTasks(database)
      const waiting = `select pid from pg_locks where not granted and relation = 'message'::regclass`
      await expect.poll(() => database.query(waiting)).toHaveLength(1)
      await database.query(`select pg_terminate_backend(pid) from (${waiting}) as w`)
      await task
    })
    expect(await outcomesOf(source)).toEqual(['1 null'])
    await webhook.post(source, telegramUpdate(2, telegramMessage(2, 'Second')))
    await runTelegramTasks(database)
    expect(await contentsOf(source)).toEqual(['1 First', '2 Second'])
  })

  async function startOther() {
    const other = await reopen(own.config)
    return { database: other, [Symbol.asyncDispose]: () => other.close() }
  }
})

describe('a request is refused', () => {
  const update = telegramUpdate(1, telegramMessage(1, 'Refused'))
  const json = { 'content-type': 'application/json' }
  const headers = { ...json, 'x-telegram-bot-api-secret-token': telegramSecret }

  async function answer(response: Response) {
    const body = (await response.json()) as { errors: { message: string }[] }
    return [response.status, body.errors[0]?.message]
  }

  test.each([
    ['none', json],
    ['a wrong one', { ...headers, 'x-telegram-bot-api-secret-token': 'wrong' }],
    [
      'one of the same length',
      { ...headers, 'x-telegram-bot-api-secret-token': telegramSecret.replace('a', 'b') },
    ],
    ['its beginning', { ...headers, 'x-telegram-bot-api-secret-token': telegramSecret.slice(0, -1) }],
    ['an empty one', { ...headers, 'x-telegram-bot-api-secret-token': '' }],
  ])('for its secret: %s', async (_, given) => {
    const source = newSource()
    const before = await webhook.counted('refused')
    expect(await answer(await webhook.post(source, update, { headers: given }))).toEqual([
      401,
      'Unauthorized',
    ])
    expect(await updatesOf(source)).toEqual([])
    expect((await webhook.counted('refused')) - before).toBe(1)
  })

  test('if the webhook is off', async () => {
    await using off = await startWebhook(database, null)
    expect(await answer(await off.post(newSource(), update))).toEqual([
      404,
      'The Telegram webhook is off. Set QUARRY_TELEGRAM_SECRET to turn it on',
    ])
  })

  test.each(['GET', 'PUT', 'DELETE', 'OPTIONS'])('for its method: %s', async (method) => {
    const init = method === 'GET' ? { method, headers, body: null } : { method, headers }
    const response = await webhook.post(newSource(), update, init)
    expect(response.headers.get('allow')).toBe('POST')
    expect(await answer(response)).toEqual([405, 'Only POST is answered here'])
  })

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', ''])(
    'for its content type: "%s"',
    async (type) => {
      const response = await webhook.post(newSource(), update, {
        headers: { ...headers, 'content-type': type },
      })
      expect((await answer(response))[0]).toBe(415)
    },
  )

  test('a charset in the content type is fine', async () => {
    const type = { 'content-type': 'Application/JSON; charset=utf-8' }
    expect((await webhook.post(newSource(), update, { headers: { ...headers, ...type } })).status).toBe(200)
  })

  test.each([
    ['no JSON', '{"update_id": 1', 'The update is not valid JSON'],
    ['nothing', '', 'The update is not valid JSON'],
    ['an array', '[1]', 'The update is no JSON object with an update_id'],
    ['null', 'null', 'The update is no JSON object with an update_id'],
    ['no number', '{"message": {}}', 'The update is no JSON object with an update_id'],
    ['half a number', '{"update_id": 1.5}', 'The update is no JSON object with an update_id'],
    [
      'too great a number',
      '{"update_id": 9007199254740993}',
      'The update is no JSON object with an update_id',
    ],
    ['no UTF-8', Buffer.from('{"update_id": 1, "x": "\xff"}', 'latin1'), 'The update is not valid UTF-8'],
  ])('for its body: %s', async (_, body, message) => {
    const source = newSource()
    expect(await answer(await webhook.post(source, '', { body }))).toEqual([400, message])
    expect(await updatesOf(source)).toEqual([])
  })

  test.each([
    ['no name', '/telegram/', 404],
    ['a path', '/telegram/a/b', 404],
    ['a blank name', '/telegram/%20', 400],
    ['half an escape', '/telegram/%E0%A4', 400],
    ['NUL', '/telegram/a%00b', 400],
    ['too long a name', `/telegram/${'x'.repeat(501)}`, 400],
  ])('for its address: %s', async (_, path, status) => {
    const response = await fetch(webhook.url + path, {
      method: 'POST',
      headers,
      body: JSON.stringify(update),
    })
    expect((await answer(response))[0]).toBe(status)
  })

  test.each([
    ['the longest', 'x'.repeat(500)],
    ['hard', 'Сад / 50 % off? #1'],
  ])('a name may be %s', async (_, source) => {
    await deliver(source, telegramUpdate(1, telegramMessage(1, 'Taken')))
    expect(await contentsOf(source)).toEqual(['1 Taken'])
  })

  const padded = (bytes: number) => {
    const empty = JSON.stringify({ ...telegramUpdate(1, telegramMessage(1, 'Large')), pad: '' })
    return empty.replace('"pad":""', `"pad":"${'x'.repeat(bytes - empty.length)}"`)
  }

  test('for its size: more than 1 MiB, said before or not', async () => {
    const source = newSource()
    const tooLarge = padded(1024 * 1024 + 1)
    expect(await answer(await webhook.post(source, tooLarge))).toEqual([
      413,
      'The update has more than the 1048576 bytes that are allowed',
    ])
    // In pieces, without a word about their number.
    const { hostname, port } = new URL(webhook.url)
    const sent = httpRequest({
      hostname,
      port,
      path: `/telegram/${encodeURIComponent(source)}`,
      method: 'POST',
      headers,
    })
    const response = new Promise<IncomingMessage>((resolve, reject) => {
      sent.once('response', resolve).once('error', reject)
    })
    for (let at = 0; at < tooLarge.length; at += 100_000) sent.write(tooLarge.slice(at, at + 100_000))
    sent.end()
    expect((await response).statusCode).toBe(413)
    await readText(await response)
    expect(await updatesOf(source)).toEqual([])
  })

  test('1 MiB is taken', async () => {
    const source = newSource()
    await deliver(source, padded(1024 * 1024))
    expect(await contentsOf(source)).toEqual(['1 Large'])
  })

  test('for what the database cannot hold, which breaks nothing', async () => {
    const source = newSource()
    const depth = 500_000
    const deep = `{"update_id": 1, "x": ${'['.repeat(depth)}${']'.repeat(depth)}}`
    const response = await webhook.post(source, deep)
    if (database.engine === 'embedded') expect(response.status).toBe(200)
    else {
      const message = 'The update cannot be stored: stack depth limit exceeded'
      expect(await answer(response)).toEqual([400, message])
    }
    await deliver(source, telegramUpdate(2, telegramMessage(2, 'Right')))
    expect(await contentsOf(source)).toEqual(['2 Right'])
  })

  test('one that breaks off is forgotten', async () => {
    const source = newSource()
    const { hostname, port } = new URL(webhook.url)
    const sent = httpRequest({
      hostname,
      port,
      path: `/telegram/${encodeURIComponent(source)}`,
      method: 'POST',
      headers: { ...headers, 'content-length': '1000' },
    })
    const broken = new Promise((resolve) => sent.once('error', resolve))
    await new Promise((resolve) => sent.write('{"update_id"', resolve))
    sent.destroy(new Error('broken off'))
    await broken
    expect((await webhook.post(source, update)).status).toBe(200)
    expect(await outcomesOf(source)).toEqual(['1 null'])
  })

  test('with 503 if it cannot be stored, so that Telegram repeats it', async () => {
    const source = newSource()
    await database.query('alter table telegram_update rename to telegram_update_away')
    try {
      expect(await answer(await webhook.post(source, update))).toEqual([
        503,
        'The update could not be stored; send it again',
      ])
    } finally {
      await database.query('alter table telegram_update_away rename to telegram_update')
    }
    await deliver(source, update)
    expect(await contentsOf(source)).toEqual(['1 Refused'])
  })
})

test('updates that were worked on long ago are cleared, others are kept', async () => {
  const source = newSource()
  await deliver(source, ...[1, 2, 3, 4].map((n) => telegramUpdate(n, telegramMessage(n, `Number ${n}`))))
  await webhook.post(source, telegramUpdate(5, telegramMessage(5, 'Owed')))
  await database.query(
    `update telegram_update set received_at = received_at - interval '40 days',
       processed_at = processed_at - interval '1 day' * update_id where source = $1`,
    [source],
  )
  expect(await clearTelegramUpdates(database, 3)).toBe(2)
  expect(await outcomesOf(source)).toEqual(['1 STORED', '2 STORED', '5 null'])
  // Telegram may repeat an update for a day.
  expect(await clearTelegramUpdates(database, 0)).toBe(1)
  expect(await outcomesOf(source)).toEqual(['1 STORED', '5 null'])
  expect(await storedMessages(database, source)).toHaveLength(4)
})
