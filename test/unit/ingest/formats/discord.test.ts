import { expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { discord } from '../../../../src/ingest/formats/discord.ts'
import { chatFile, kinds, messages, read, readUntilError } from './chat-files.ts'

const base = {
  id: '900000000000000017',
  type: 'Default',
  timestamp: '2024-05-01T12:34:56.789+02:00',
  timestampEdited: null,
  content: 'The kiln is at 900 degrees',
  author: { id: '11', name: 'pia.clay', nickname: 'Pia', isBot: false },
  attachments: [],
  embeds: [],
  stickers: [],
  mentions: [],
}

function channel(items: unknown[], change: object = {}) {
  return {
    guild: { id: '5', name: 'Clay Guild', iconUrl: '' },
    channel: { id: '77', type: 'GuildTextChat', category: 'Craft', name: 'kiln', topic: null, ...change },
    dateRange: { after: null, before: null },
    exportedAt: '2024-06-01T00:00:00+00:00',
    messages: items,
    messageCount: items.length,
  }
}

async function one(change: object, channelChange: object = {}) {
  const [message] = messages(
    await read(discord, 'kiln.json', channel([{ ...base, ...change }], channelChange)),
  )
  return message
}

test('a message', async () => {
  expect(await read(discord, 'kiln.json', channel([base]))).toEqual([
    {
      kind: 'message',
      position: 'messages[0]',
      message: {
        externalId: '900000000000000017',
        author: 'Pia',
        content: 'The kiln is at 900 degrees',
        sentAt: new Date('2024-05-01T10:34:56.789Z'),
        channel: 'kiln',
        threadId: null,
        replyToExternalId: null,
      },
    },
  ])
})

test.each([
  ['a file', { content: '', attachments: [{ fileName: 'glaze.pdf', url: 'x' }] }, '[file glaze.pdf]'],
  ['a sticker', { content: '', stickers: [{ name: 'Wave' }] }, '[sticker Wave]'],
  [
    'embeds',
    {
      content: '',
      embeds: [{ title: 'Firing', description: 'done', fields: [{ name: 'cone', value: '6' }] }],
    },
    'Firing\ndone\ncone: 6',
  ],
  ['a forward', { content: '', forwardedMessage: { content: 'from afar' } }, 'from afar'],
  ['words before files', { attachments: [{ fileName: 'glaze.pdf' }] }, 'The kiln is at 900 degrees'],
  ['hard characters', { content: 'a\0b \udfff \ufeff مرحبا' }, 'a\0b \udfff \ufeff مرحبا'],
  ['a megabyte', { content: 'x'.repeat(1_000_000) }, 'x'.repeat(1_000_000)],
])('content: %s', async (_, change, content) => {
  expect((await one(change))?.content).toBe(content)
})

test.each([
  [{ id: '1', name: 'pia.clay', nickname: '' }, 'pia.clay'],
  [{ id: '1', name: 'pia.clay' }, 'pia.clay'],
  [{ id: '1' }, '1'],
  [null, 'Deleted User'],
])('author %j is %s', async (author, name) => {
  expect((await one({ author }))?.author).toBe(name)
})

test('a reply names its message; forwards and messages of other channels are no answers', async () => {
  const reference = { messageId: '16', channelId: '77', guildId: '5' }
  expect((await one({ type: 'Reply', reference }))?.replyToExternalId).toBe('16')
  expect((await one({ type: 'Reply', reference: { messageId: '16' } }))?.replyToExternalId).toBe('16')
  expect(
    (await one({ type: 'Reply', reference: { ...reference, channelId: '8' } }))?.replyToExternalId,
  ).toBeNull()
  expect((await one({ reference }))?.replyToExternalId).toBeNull()
})

test.each(['GuildPublicThread', 'GuildPrivateThread', 'GuildNewsThread'])(
  'a %s is a thread',
  async (type) => {
    expect((await one({}, { type }))?.threadId).toBe('77')
  },
)

test('notices are left out, bad records rejected, the rest goes on', async () => {
  const records = await read(
    discord,
    'kiln.json',
    channel([
      { ...base, type: 'GuildMemberJoin' },
      { ...base, type: 'ChannelPinnedMessage' },
      { ...base, type: '21' },
      { ...base, type: '20' },
      17,
      { ...base, type: undefined },
      { ...base, id: 2 ** 60 },
      { ...base, timestamp: 'yesterday' },
      { ...base, content: '' },
      base,
    ]),
  )
  expect(kinds(records)).toEqual([
    'left-out',
    'left-out',
    'left-out',
    'message',
    'rejected messages[4]: expected a message object, found 17',
    'rejected messages[5]: expected a text in "type", found nothing',
    'rejected messages[6]: expected an id, found 1152921504606847000',
    'rejected messages[7]: expected a moment in "timestamp", found "yesterday"',
    'rejected messages[8]: neither text nor attachment, sticker or embed with text',
    'message',
  ])
})

test('the source is named after the guild, private talks after the people', async () => {
  expect(await discord.sourceName(await chatFile('kiln.json', channel([base])))).toBe('Clay Guild')
  const talk = { ...channel([base], { name: 'Pia, Tom' }), guild: { id: '0', name: 'Direct Messages' } }
  expect(await discord.sourceName(await chatFile('talk.json', talk))).toBe('Pia, Tom')
})

test('a file that breaks off gives what stands before, then says where', async () => {
  const text = JSON.stringify(channel([base, { ...base, id: '18' }]))
  const cut = text.indexOf('"18"') + 2
  const { records, error } = await readUntilError(discord, await chatFile('kiln.json', text.slice(0, cut)))
  expect(messages(records)).toHaveLength(1)
  expect(error).toBeInstanceOf(InvalidInputError)
  expect(String(error)).toContain(`at byte ${cut}, in messages[1]`)
})

test('a file without messages is refused', async () => {
  const { error } = await readUntilError(discord, await chatFile('kiln.json', { guild: {}, channel: {} }))
  expect(String(error)).toContain('no array "messages"')
})
