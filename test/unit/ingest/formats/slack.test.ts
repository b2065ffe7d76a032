import { describe, expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { slack } from '../../../../src/ingest/formats/slack.ts'
import { chatFile, kinds, messages, read, readUntilError, zipOf } from './chat-files.ts'

const base = { type: 'message', user: 'U1', text: 'Ovens are on', ts: '1714550000.000200' }
const users = [
  {
    id: 'U1',
    name: 'lena',
    real_name: 'Lena Crumb',
    profile: { display_name: 'Lena', real_name: 'Lena Crumb' },
  },
  { id: 'U2', name: 'otto', profile: { display_name: '', real_name: 'Otto Rye' } },
  { id: 'U3', name: 'guest' },
]
const lists = {
  'users.json': users,
  'channels.json': [
    { id: 'C1', name: 'bakery', members: ['U1'] },
    { id: 'C2', name: 'orders' },
  ],
}

async function bakery(...items: unknown[]) {
  return read(slack, 'export.zip', await zipOf({ ...lists, 'bakery/2024-05-01.json': items }))
}

async function one(change: object) {
  return messages(await bakery({ ...base, ...change }))[0]
}

test('a message', async () => {
  expect(await bakery(base)).toEqual([
    {
      kind: 'message',
      position: 'bakery/2024-05-01.json[0]',
      message: {
        externalId: 'C1:1714550000.000200',
        author: 'Lena',
        content: 'Ovens are on',
        sentAt: new Date('2024-05-01T07:53:20Z'),
        channel: 'bakery',
        threadId: null,
        replyToExternalId: null,
      },
    },
  ])
})

test.each([
  ['<@U1> and <@U2> and <@U3>', '@Lena and @Otto Rye and @guest'],
  ['<@U9> <@U9|old name>', '@U9 @old name'],
  ['<#C1|bakery> <#C2> <#C2|> <#C9>', '#bakery #orders #orders #C9'],
  ['<!here> <!channel> <!everyone> <!here|here>', '@here @channel @everyone @here'],
  ['<!subteam^S1|@millers> <!subteam^S1>', '@millers @S1'],
  ['<!date^1714550000^{date}|May 1>', 'May 1'],
  ['<https://x.example/a?b=1&amp;c=2|the list>', 'the list (https://x.example/a?b=1&c=2)'],
  ['<https://x.example>', 'https://x.example'],
  ['<https://x.example|https://x.example>', 'https://x.example'],
  ['<mailto:lena@x.example|lena@x.example>', 'lena@x.example'],
  ['1 &lt; 2 &amp;&amp; 3 &gt; 2', '1 < 2 && 3 > 2'],
  ['&lt;@U1&gt; and &amp;lt;', '<@U1> and &lt;'],
  ['a\0b \ud800 \ufeff שלום', 'a\0b \ud800 \ufeff שלום'],
])('markup %j', async (text, content) => {
  expect((await one({ text }))?.content).toBe(content)
})

test('a text of a megabyte comes through whole', async () => {
  expect((await one({ text: 'ß<'.repeat(500_000) }))?.content).toBe('ß<'.repeat(500_000))
})

test.each([
  ['a file', { files: [{ name: 'rye.pdf' }, { title: 'Plan' }] }, '[file rye.pdf]\n[file Plan]'],
  [
    'an attachment',
    { attachments: [{ title: 'Order 5', text: 'for <@U2>', fallback: 'x' }] },
    'Order 5\nfor @Otto Rye',
  ],
  ['an attachment with a fallback', { attachments: [{ fallback: 'Order 6' }] }, 'Order 6'],
  [
    'blocks',
    {
      blocks: [
        { type: 'section', text: { type: 'mrkdwn', text: 'a &amp; b' } },
        { elements: [{ text: 'c' }] },
      ],
    },
    'a & b\nc',
  ],
])('without text: %s', async (_, change, content) => {
  expect((await one({ text: '', ...change }))?.content).toBe(content)
})

test.each([
  [
    'a bot by the name it took',
    { subtype: 'bot_message', user: undefined, username: 'Timer', bot_id: 'B1' },
    'Timer',
  ],
  ['a bot by its profile', { user: undefined, bot_id: 'B1', bot_profile: { name: 'Scale' } }, 'Scale'],
  ['a bot by its id', { user: undefined, bot_id: 'B1' }, 'B1'],
  ['a guest by the profile in the message', { user: 'U9', user_profile: { real_name: 'Gil' } }, 'Gil'],
  ['somebody unknown by id', { user: 'U9' }, 'U9'],
  ['Slackbot', { user: 'USLACKBOT' }, 'Slackbot'],
  ['nobody', { user: undefined }, 'Unknown user'],
])('author: %s', async (_, change, author) => {
  expect((await one(change))?.author).toBe(author)
})

test('threads: the root stands in its thread and answers nobody, replies answer the root', async () => {
  const records = await bakery(
    { ...base, ts: '100.000001', thread_ts: '100.000001' },
    { ...base, ts: '101.000001', thread_ts: '100.000001', subtype: 'thread_broadcast' },
  )
  expect(messages(records).map((m) => [m.externalId, m.threadId, m.replyToExternalId])).toEqual([
    ['C1:100.000001', 'C1:100.000001', null],
    ['C1:101.000001', 'C1:100.000001', 'C1:100.000001'],
  ])
})

test('notices are left out, bad records rejected, the rest goes on', async () => {
  const records = await bakery(
    { ...base, subtype: 'channel_join' },
    { ...base, subtype: 'channel_topic' },
    { ...base, subtype: 'tombstone' },
    { ...base, type: 'event' },
    { ...base, subtype: 'me_message' },
    null,
    { ...base, type: undefined },
    { ...base, ts: 5 },
    { ...base, text: '' },
    { ...base, text: 'new words', edited: { user: 'U1', ts: '1' } },
  )
  expect(kinds(records)).toEqual([
    'left-out',
    'left-out',
    'left-out',
    'left-out',
    'message',
    'rejected bakery/2024-05-01.json[5]: expected a message object, found null',
    'rejected bakery/2024-05-01.json[6]: expected a text in "type", found nothing',
    'rejected bakery/2024-05-01.json[7]: expected a "ts" such as "1714550000.000200", found 5',
    'rejected bakery/2024-05-01.json[8]: neither text nor file, attachment or block with text',
    'message',
  ])
})

describe('the zip', () => {
  const days = {
    'orders/2024-05-01.json': [base],
    'bakery/2024-05-02.json': [{ ...base, ts: '2.0' }],
    'bakery/2024-05-01.json': [{ ...base, ts: '1.0' }],
    'bakery/canvas.json': [{ ...base, ts: '3.0' }],
    'integration_logs.json': [base],
    'D1/2024-05-01.json': [base],
    'mpdm-lena--otto-1/2024-05-01.json': [base],
    'secret/2024-05-01.json': [base],
    'unlisted/2024-05-01.json': [base],
  }
  const all = {
    ...days,
    ...lists,
    'groups.json': [{ id: 'G1', name: 'secret' }],
    'dms.json': [{ id: 'D1', members: ['U1', 'U2'] }],
    'mpims.json': [{ id: 'G2', name: 'mpdm-lena--otto-1', members: ['U1', 'U2'] }],
  }
  const expected = [
    ['D1:1714550000.000200', 'Lena, Otto Rye'],
    ['C1:1.0', 'bakery'],
    ['C1:2.0', 'bakery'],
    ['G2:1714550000.000200', 'Lena, Otto Rye'],
    ['C2:1714550000.000200', 'orders'],
    ['G1:1714550000.000200', 'secret'],
    ['unlisted:1714550000.000200', 'unlisted'],
  ]

  test('is read by channel and day, whatever the order in it', async () => {
    const records = await read(slack, 'export.zip', await zipOf(all))
    expect(messages(records).map((m) => [m.externalId, m.channel])).toEqual(expected)
  })

  test('may hold the export in a folder', async () => {
    const inFolder = Object.fromEntries(
      Object.entries(all).map(([name, content]) => [`Crust Slack export May 2024/${name}`, content]),
    )
    const bytes = await zipOf({ '__MACOSX/channels.json': 'junk', ...inFolder })
    const records = await read(slack, 'export.zip', bytes)
    expect(messages(records).map((m) => [m.externalId, m.channel])).toEqual(expected)
    expect(await slack.sourceName(await chatFile('export.zip', bytes))).toBe('Crust')
  })

  test('names the workspace in its own name alone', async () => {
    const bytes = await zipOf(all)
    expect(await slack.sourceName(await chatFile('Crust & Co Slack export Jan 1 2024.zip', bytes))).toBe(
      'Crust & Co',
    )
    expect(await slack.sourceName(await chatFile('export.zip', bytes))).toBeNull()
  })

  test.each([
    [
      'a broken day',
      { ...lists, 'bakery/2024-05-01.json': '[{"type":"mess' },
      /2024-05-01\.json: breaks off/,
    ],
    ['a day that is no list', { ...lists, 'bakery/2024-05-01.json': {} }, /expected an array/],
    ['no lists', { 'bakery/2024-05-01.json': [base] }, /none of channels\.json/],
  ])('with %s is refused', async (_, entries, reason) => {
    const { error } = await readUntilError(slack, await chatFile('export.zip', await zipOf(entries)))
    expect(error).toBeInstanceOf(InvalidInputError)
    expect(String(error)).toMatch(reason)
  })

  test('that is damaged is refused: cut off, or with other bytes in it', async () => {
    const bytes = await zipOf({ ...lists, 'bakery/2024-05-01.json': Array(500).fill(base) })
    const flipped = Buffer.from(bytes)
    const at = bytes.lastIndexOf('bakery/2024-05-01.json', bytes.length - 150) + 60
    flipped.fill(0x5a, at, at + 20)
    for (const damaged of [bytes.subarray(0, -30), flipped]) {
      const { error } = await readUntilError(slack, await chatFile('export.zip', damaged))
      expect(error).toBeInstanceOf(InvalidInputError)
      expect(String(error)).toContain('not a sound zip archive')
    }
  })
})
