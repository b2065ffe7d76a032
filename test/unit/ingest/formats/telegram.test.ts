import { describe, expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { telegram } from '../../../../src/ingest/formats/telegram.ts'
import { chatFile, kinds, messages, read, readUntilError } from './chat-files.ts'

const base = {
  id: 7,
  type: 'message',
  date: '2024-05-01T14:00:00',
  date_unixtime: '1714557600',
  from: 'Marta Quince',
  from_id: 'user11',
  text: 'The pump runs again',
}

function chat(...items: unknown[]) {
  return { name: 'Orchard', type: 'private_supergroup', id: 4242, messages: items }
}

async function one(change: object) {
  const [message] = messages(await read(telegram, 'result.json', chat({ ...base, ...change })))
  return message
}

test('a message of one chat', async () => {
  expect(await read(telegram, 'result.json', chat(base))).toEqual([
    {
      kind: 'message',
      position: 'messages[0]',
      message: {
        externalId: '7',
        author: 'Marta Quince',
        content: 'The pump runs again',
        sentAt: new Date('2024-05-01T10:00:00Z'),
        channel: 'Orchard',
        threadId: null,
        replyToExternalId: null,
      },
    },
  ])
})

test.each([
  ['a text', 'plain', 'plain'],
  ['texts and entities', ['see ', { type: 'bold', text: 'this' }, ' now'], 'see this now'],
  [
    'a link behind words',
    [{ type: 'text_link', text: 'the plan', href: 'https://plan.example' }],
    'the plan (https://plan.example)',
  ],
  [
    'a link that is its words',
    [{ type: 'text_link', text: 'https://x.example', href: 'https://x.example' }],
    'https://x.example',
  ],
  ['code', ['run ', { type: 'pre', text: 'make\n\tall', language: 'sh' }], 'run make\n\tall'],
  [
    'mentions, spoilers, emoji',
    [
      { type: 'mention_name', text: 'Ivo', user_id: 3 },
      { type: 'spoiler', text: '!' },
    ],
    'Ivo!',
  ],
  ['hard characters', 'a\0b \ud800 \ufeff שלום 😀', 'a\0b \ud800 \ufeff שלום 😀'],
  ['a megabyte', 'ü'.repeat(1_000_000), 'ü'.repeat(1_000_000)],
])('text: %s', async (_, text, content) => {
  expect((await one({ text }))?.content).toBe(content)
})

test.each([
  ['photo', { photo: 'photos/1.jpg' }, '[photo]'],
  ['photo not exported', { photo: '(File not included.)' }, '[photo]'],
  ['sticker', { media_type: 'sticker', sticker_emoji: '😀', file: 's.webp' }, '[sticker 😀]'],
  ['sticker without emoji', { media_type: 'sticker' }, '[sticker]'],
  ['voice', { media_type: 'voice_message', file: 'v.ogg' }, '[voice message]'],
  ['round video', { media_type: 'video_message', file: 'v.mp4' }, '[video message]'],
  ['video', { media_type: 'video_file', file: 'videos/frost.mp4' }, '[video frost.mp4]'],
  ['animation', { media_type: 'animation', file: 'a.mp4' }, '[GIF]'],
  [
    'music',
    { media_type: 'audio_file', performer: 'The Graftings', title: 'Bud' },
    '[audio The Graftings – Bud]',
  ],
  ['file', { file: 'files/report.pdf' }, '[file report.pdf]'],
  ['file with its name', { file: '(File not included.)', file_name: 'report.pdf' }, '[file report.pdf]'],
  ['file not exported', { file: '(File not included.)' }, '[file]'],
  [
    'poll',
    { poll: { question: 'Prune on Friday?', answers: [{ text: 'yes' }, { text: 'no' }] } },
    '[poll] Prune on Friday? — yes, no',
  ],
  ['to-do list', { todo_list: { title: 'May', answers: [{ text: 'mow' }] } }, '[to-do list] May — mow'],
  [
    'place',
    { place_name: 'Old barn', address: 'Mill Lane 3', location_information: {} },
    '[place Old barn, Mill Lane 3]',
  ],
  ['location', { location_information: { latitude: 52.5, longitude: 13.4 } }, '[location 52.5, 13.4]'],
  [
    'contact',
    { contact_information: { first_name: 'Ivo', last_name: '', phone_number: '+0 1' } },
    '[contact Ivo, +0 1]',
  ],
])('without words: %s', async (_, media, content) => {
  expect((await one({ text: '', ...media }))?.content).toBe(content)
})

test('the caption of a photo is its content', async () => {
  expect((await one({ text: 'Frost damage', photo: 'photos/1.jpg' }))?.content).toBe('Frost damage')
})

test.each([
  ['a forward stays with the sender', { forwarded_from: 'Ivo' }, 'Marta Quince'],
  ['a deleted account that forwarded', { from: null, forwarded_from: 'Ivo' }, 'Ivo'],
  ['an actor', { from: undefined, actor: 'Ivo' }, 'Ivo'],
  ['a deleted account', { from: null }, 'user11'],
  ['a deleted account without id', { from: null, from_id: undefined }, 'Deleted account'],
])('author: %s', async (_, change, author) => {
  expect((await one(change))?.author).toBe(author)
})

test.each([
  ['UTC before local time', {}, '2024-05-01T10:00:00.000Z'],
  ['a number', { date_unixtime: 1714557600 }, '2024-05-01T10:00:00.000Z'],
  ['local time if there is nothing else, as UTC', { date_unixtime: undefined }, '2024-05-01T14:00:00.000Z'],
  ['local time instead of null, not 1970', { date_unixtime: null }, '2024-05-01T14:00:00.000Z'],
  [
    'the time of writing, not of editing',
    { edited: '2024-05-02T00:00:00', edited_unixtime: '1714600000' },
    '2024-05-01T10:00:00.000Z',
  ],
])('time: %s', async (_, change, sentAt) => {
  expect((await one(change))?.sentAt.toISOString()).toBe(sentAt)
})

test('replies name their message, unless it stands in another chat', async () => {
  expect((await one({ reply_to_message_id: 3 }))?.replyToExternalId).toBe('3')
  expect((await one({ reply_to_message_id: -999999997 }))?.replyToExternalId).toBe('-999999997')
  expect((await one({ reply_to_message_id: 3, reply_to_peer_id: 'channel9' }))?.replyToExternalId).toBeNull()
})

test('topics are threads: for what stands in them directly, and for answers to that', async () => {
  const records = await read(
    telegram,
    'result.json',
    chat(
      { id: 1, type: 'service', action: 'topic_created', title: 'Bees' },
      { ...base, id: 2, reply_to_message_id: 1 },
      { ...base, id: 3, reply_to_message_id: 2 },
      { ...base, id: 4, reply_to_message_id: 3 },
      { ...base, id: 5 },
      { ...base, id: 6, reply_to_message_id: 5 },
    ),
  )
  expect(messages(records).map((m) => [m.externalId, m.threadId, m.replyToExternalId])).toEqual([
    ['2', '1', null],
    ['3', '1', '2'],
    ['4', '1', '3'],
    ['5', null, null],
    ['6', null, '5'],
  ])
})

test('notices of the service and unsupported messages are left out; bad records are rejected, the rest goes on', async () => {
  const records = await read(
    telegram,
    'result.json',
    chat(
      { id: 1, type: 'service', action: 'join_group_by_link', actor: 'Ivo' },
      { id: 2, type: 'unsupported' },
      'what',
      { ...base, type: 'poem' },
      { ...base, id: null },
      { ...base, date_unixtime: 'soon' },
      { ...base, date_unixtime: undefined, date: '2024-02-30T00:00:00' },
      { ...base, text: [1] },
      { ...base, text: '' },
      base,
    ),
  )
  expect(kinds(records)).toEqual([
    'left-out',
    'left-out',
    'rejected messages[2]: expected a message object, found "what"',
    'rejected messages[3]: expected the type "message", found "poem"',
    'rejected messages[4]: expected an id, found null',
    'rejected messages[5]: expected a moment in date_unixtime or date, found "soon"',
    'rejected messages[6]: expected a moment in date_unixtime or date, found "2024-02-30T00:00:00"',
    'rejected messages[7]: expected in "text" a text, or a list of texts and objects with a text',
    'rejected messages[8]: neither text nor a medium that is known',
    'message',
  ])
})

describe('an account', () => {
  const account = {
    about: 'Here is the data you requested.',
    personal_information: { first_name: 'Marta' },
    contacts: { list: [{ first_name: 'Ivo' }] },
    chats: {
      about: 'These are the chats.',
      list: [
        { ...chat(base), id: 1 },
        { name: 'Empty', type: 'personal_chat', id: 5, messages: [] },
        { ...chat({ ...base, reply_to_message_id: 6 }), id: 2, name: 'Barn' },
        { type: 'saved_messages', id: 3, messages: [base] },
        { name: null, type: 'personal_chat', id: 4, messages: [base] },
      ],
    },
    left_chats: { list: [{ name: 'Old barn', type: 'private_group', id: 9, messages: [base] }] },
  }

  test('gives the messages of all chats, with ids that tell the chats apart', async () => {
    const records = await read(telegram, 'result.json', account)
    expect(records.map((record) => record.position)).toEqual([
      'chats.list[0].messages[0]',
      'chats.list[2].messages[0]',
      'chats.list[3].messages[0]',
      'chats.list[4].messages[0]',
      'left_chats.list[0].messages[0]',
    ])
    expect(messages(records).map((m) => [m.externalId, m.channel, m.replyToExternalId])).toEqual([
      ['1:7', 'Orchard', null],
      ['2:7', 'Barn', '2:6'],
      ['3:7', 'Saved Messages', null],
      ['4:7', 'chat 4', null],
      ['9:7', 'Old barn', null],
    ])
  })

  test('has no one name; a chat has', async () => {
    expect(await telegram.sourceName(await chatFile('result.json', account))).toBeNull()
    expect(await telegram.sourceName(await chatFile('result.json', chat(base)))).toBe('Orchard')
  })
})

test('a file that breaks off gives what stands before, then says where', async () => {
  const text = JSON.stringify(chat(base, { ...base, id: 8 }, { ...base, id: 9 }))
  const { records, error } = await readUntilError(telegram, await chatFile('result.json', text.slice(0, -40)))
  expect(messages(records).map((m) => m.externalId)).toEqual(['7', '8'])
  expect(error).toBeInstanceOf(InvalidInputError)
  expect(String(error)).toContain(`at byte ${Buffer.byteLength(text) - 40}, in messages[2]`)
})

test.each([[{ name: 'Orchard', messages: {} }], [{ contacts: { list: [] } }], [[base]]])(
  'a file without messages is refused: %j',
  async (content) => {
    const { error } = await readUntilError(telegram, await chatFile('result.json', content))
    expect(error).toBeInstanceOf(InvalidInputError)
    expect(String(error)).toContain('no array "messages"')
  },
)

test('an empty chat is no error', async () => {
  expect(await read(telegram, 'result.json', chat())).toEqual([])
})
