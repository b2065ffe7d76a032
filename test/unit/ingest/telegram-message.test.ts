import fc from 'fast-check'
import type { Update } from 'grammy/types'
import { describe, expect, test } from 'vitest'
import { plainText, telegram } from '../../../src/ingest/formats/telegram.ts'
import { draftOf, placeOf, readUpdate } from '../../../src/ingest/telegram/message.ts'
import { marta, orchard, type TelegramJson, telegramMessage, telegramUpdate } from '../../support/telegram.ts'
import { messages, read } from './formats/chat-files.ts'

const readJson = (update: TelegramJson) => readUpdate(update as unknown as Update)

/** What is stored of a message of a chat that is new. */
function draft(message: TelegramJson, kind = 'message') {
  const found = readJson(telegramUpdate(1, message, kind))
  return found && draftOf(found, placeOf(found.chat, false))
}

const channel = { id: -1_000_000_000_055, type: 'channel', title: 'News', username: 'orchard_news' }
const bot = { id: 1087968824, is_bot: true, first_name: 'Group', username: 'GroupAnonymousBot' }
const photo = [{ file_id: 'f', file_unique_id: 'u', width: 90, height: 90 }]
const file = { file_id: 'f', file_unique_id: 'u' }

test('a message', () => {
  expect(readJson(telegramUpdate(1, telegramMessage(7, 'The pump runs again')))).toEqual({
    chat: { id: -1_000_000_004_242, type: 'supergroup', name: 'Orchard' },
    id: 7,
    writtenAt: new Date('2026-05-04T09:00:00Z'),
    sentAt: new Date('2026-05-04T09:00:00Z'),
    author: 'Marta Quince',
    content: 'The pump runs again',
    topicId: null,
    replyToId: null,
  })
})

test.each([
  ['message', telegramMessage(7, 'New'), 'New'],
  ['edited_message', telegramMessage(7, 'Edited', { edit_date: 1777885260 }), 'Edited'],
  [
    'channel_post',
    { ...telegramMessage(7, 'Posted'), chat: channel, sender_chat: channel, from: undefined },
    'Posted',
  ],
  [
    'edited_channel_post',
    { ...telegramMessage(7, 'Post, edited', { edit_date: 1777885260 }), chat: channel, sender_chat: channel },
    'Post, edited',
  ],
])('%s', (kind, message, content) => {
  const found = readJson(telegramUpdate(1, message, kind))
  const writtenAt = new Date('edit_date' in message ? '2026-05-04T09:01:00Z' : '2026-05-04T09:00:00Z')
  expect(found).toMatchObject({ content, writtenAt, sentAt: new Date('2026-05-04T09:00:00Z') })
})

test.each([
  ['a business message', telegramUpdate(1, telegramMessage(7, 'Private'), 'business_message')],
  ['a guest message', telegramUpdate(1, telegramMessage(7, 'Elsewhere'), 'guest_message')],
  [
    'a press of a button',
    { update_id: 1, callback_query: { id: '1', from: marta, message: telegramMessage(7, 'Old') } },
  ],
  [
    'a reaction',
    {
      update_id: 1,
      message_reaction: { chat: orchard, message_id: 7, date: 1, old_reaction: [], new_reaction: [] },
    },
  ],
  ['a vote', { update_id: 1, poll_answer: { poll_id: '1', user: marta, option_ids: [0] } }],
  ['a member', { update_id: 1, my_chat_member: { chat: orchard, from: marta, date: 1 } }],
  ['nothing', { update_id: 1 }],
  ['what Telegram may invent', { update_id: 1, hologram: telegramMessage(7, 'Boo') }],
])('%s is no message', (_, update) => {
  expect(readJson(update)).toBeNull()
})

test.each([
  ['new_chat_members', [marta]],
  ['left_chat_member', marta],
  ['new_chat_title', 'Barn'],
  ['new_chat_photo', photo],
  ['pinned_message', telegramMessage(3, 'Pinned')],
  ['forum_topic_created', { name: 'Bees', icon_color: 1 }],
  ['forum_topic_closed', {}],
  ['migrate_to_chat_id', -1_000_000_004_242],
  ['video_chat_started', {}],
  ['successful_payment', { currency: 'EUR', total_amount: 1 }],
  ['dice', { emoji: '🎲', value: 4 }],
  ['story', { chat: channel, id: 1 }],
])('a notice or a medium that says nothing is left out: %s', (field, value) => {
  expect(draft({ ...telegramMessage(7, ''), text: undefined, [field]: value })).toBeNull()
})

test('what one person only sees, and what is not sent yet, is left out', () => {
  expect(draft(telegramMessage(0, 'Psst'))).toBeNull()
})

describe('topics and replies', () => {
  const opening = {
    ...telegramMessage(2, ''),
    text: undefined,
    forum_topic_created: { name: 'Bees', icon_color: 1 },
  }
  const inTopic = { message_thread_id: 2, is_topic_message: true }
  const origin = { type: 'user', sender_user: marta, date: 1 }

  test.each<[string, TelegramJson, string | null, string | null]>([
    ['in no topic', {}, null, null],
    ['an answer', { reply_to_message: telegramMessage(3, 'Earlier') }, null, '3'],
    ['an answer to a photo', { reply_to_message: { ...telegramMessage(3, ''), photo } }, null, '3'],
    ['in a topic', { ...inTopic, reply_to_message: opening }, '2', null],
    [
      'in a topic, with less about the notice',
      { ...inTopic, reply_to_message: { ...opening, forum_topic_created: undefined } },
      '2',
      null,
    ],
    ['in a topic, without the notice', inTopic, '2', null],
    [
      'an answer in a topic',
      { ...inTopic, reply_to_message: telegramMessage(3, 'Earlier', inTopic) },
      '2',
      '3',
    ],
    // A thread of comments is no topic: an export knows nothing of it.
    [
      'an answer in a thread of comments',
      { message_thread_id: 3, reply_to_message: telegramMessage(3, 'Post') },
      null,
      '3',
    ],
    [
      'an answer to another topic',
      { ...inTopic, external_reply: { origin, chat: orchard, message_id: 9 } },
      '2',
      '9',
    ],
    ['an answer to another chat', { external_reply: { origin, chat: channel, message_id: 9 } }, null, null],
    ['an answer to a private chat', { external_reply: { origin } }, null, null],
    ['an answer to a story', { reply_to_story: { chat: channel, id: 9 } }, null, null],
  ])('%s', (_, fields, threadId, replyToExternalId) => {
    expect(draft(telegramMessage(7, 'Here', fields))).toMatchObject({ threadId, replyToExternalId })
  })
})

describe('ids and channels', () => {
  const supergroup = { id: -1_001_234_567_890, type: 'supergroup' as const, name: 'Orchard' }

  test.each([
    ['a supergroup', supergroup, false, { channel: 'Orchard', idPrefix: '' }],
    ['one whose name is taken', supergroup, true, { channel: 'Orchard', idPrefix: '1234567890:' }],
    [
      'a channel',
      { id: -1_000_000_000_001, type: 'channel' as const, name: 'News' },
      true,
      { channel: 'News', idPrefix: '1:' },
    ],
    [
      'a small group',
      { id: -321, type: 'group' as const, name: 'Orchard' },
      false,
      { channel: 'Orchard', idPrefix: 'bot:-321:' },
    ],
    [
      'a person',
      { id: 11, type: 'private' as const, name: 'Marta' },
      true,
      { channel: 'Marta', idPrefix: 'bot:11:' },
    ],
  ])('%s', (_, chat, isQualified, place) => {
    expect(placeOf(chat, isQualified)).toEqual(place)
  })

  test.each([
    ['without a name', { ...orchard, title: ' ' }, 'chat 4242'],
    ['a small group without a name', { id: -321, type: 'group', title: '' }, 'chat 321'],
    ['a person', { id: 11, type: 'private', first_name: 'Marta', last_name: 'Quince' }, 'Marta Quince'],
    ['a person without a name', { id: 11, type: 'private', first_name: '' }, 'chat 11'],
  ])('the channel of a chat: %s', (_, chat, name) => {
    expect(draft(telegramMessage(7, 'Here', { chat }))?.channel).toBe(name)
  })

  test('thread and reply have ids of the same form', () => {
    const fields = {
      message_thread_id: 2,
      is_topic_message: true,
      reply_to_message: telegramMessage(3, 'Earlier'),
    }
    const found = readJson(telegramUpdate(1, telegramMessage(7, 'Here', fields)))
    expect(found && draftOf(found, { channel: 'X', idPrefix: '4242:' })).toMatchObject({
      externalId: '4242:7',
      threadId: '4242:2',
      replyToExternalId: '4242:3',
    })
  })
})

test.each([
  ['a person', {}, 'Marta Quince'],
  ['a person with one name', { from: { ...marta, last_name: undefined } }, 'Marta'],
  ['a person without a name', { from: { ...marta, first_name: ' ', last_name: '' } }, 'user11'],
  ['who speaks as the group', { from: bot, sender_chat: orchard }, 'Orchard'],
  ['who speaks as a channel', { from: bot, sender_chat: channel }, 'News'],
  [
    'a post that came from the channel',
    { from: bot, sender_chat: channel, is_automatic_forward: true },
    'News',
  ],
  [
    'a channel, whoever signed',
    { chat: channel, from: undefined, sender_chat: channel, author_signature: 'Ivo' },
    'News',
  ],
  ['a channel that is not named as the sender', { chat: channel, from: undefined }, 'News'],
  ['a channel without a name', { from: bot, sender_chat: { ...channel, title: '' } }, 'channel55'],
  [
    'a forward stays with the sender',
    { forward_origin: { type: 'hidden_user', sender_user_name: 'Ivo', date: 1 } },
    'Marta Quince',
  ],
])('author: %s', (_, fields, author) => {
  expect(draft(telegramMessage(7, 'Here', fields))?.author).toBe(author)
})

describe('text', () => {
  const linked = (text: string, offset: number, length: number, url: string) => ({
    text,
    entities: [{ type: 'text_link', offset, length, url }],
  })

  test.each([
    ['plain', { text: 'plain' }, 'plain'],
    ['markup', { text: 'see this now', entities: [{ type: 'bold', offset: 4, length: 4 }] }, 'see this now'],
    [
      'a link behind words',
      linked('see the plan now', 4, 8, 'https://plan.example/a'),
      'see the plan (https://plan.example/a) now',
    ],
    [
      'after emoji',
      linked('🐝🐝 the plan', 5, 8, 'https://plan.example/a'),
      '🐝🐝 the plan (https://plan.example/a)',
    ],
    [
      'a link that is its words',
      linked('https://x.example/a', 0, 19, 'https://x.example/a'),
      'https://x.example/a',
    ],
    [
      'a link that is its words, and a slash',
      linked('https://x.example', 0, 17, 'https://x.example/'),
      'https://x.example',
    ],
    [
      'a link within markup',
      {
        text: 'the plan',
        entities: [
          { type: 'bold', offset: 0, length: 8 },
          { type: 'text_link', offset: 4, length: 4, url: 'https://plan.example/a' },
        ],
      },
      'the plan (https://plan.example/a)',
    ],
    [
      'two links, and one of them again',
      {
        text: 'one two',
        entities: [
          { type: 'text_link', offset: 0, length: 3, url: 'https://1.example/a' },
          { type: 'text_link', offset: 4, length: 3, url: 'https://2.example/a' },
          { type: 'text_link', offset: 0, length: 3, url: 'https://1.example/a' },
        ],
      },
      'one (https://1.example/a) two (https://2.example/a)',
    ],
    ['a caption', { text: undefined, photo, caption: 'Frost damage' }, 'Frost damage'],
    [
      'a caption with a link',
      {
        text: undefined,
        document: file,
        caption: 'the plan',
        caption_entities: [{ type: 'text_link', offset: 4, length: 4, url: 'https://plan.example/a' }],
      },
      'the plan (https://plan.example/a)',
    ],
  ])('%s', (_, fields, content) => {
    expect(draft({ ...telegramMessage(7, ''), ...fields })?.content).toBe(content)
  })

  test('a rich message, line by line', () => {
    const paragraph = (text: unknown) => ({ type: 'paragraph', text })
    const blocks = [
      { type: 'heading', size: 1, text: 'Report' },
      paragraph([
        'The ',
        { type: 'bold', text: ['pump ', { type: 'italic', text: 'runs' }] },
        ' ',
        { type: 'custom_emoji', custom_emoji_id: '1', alternative_text: '🐝' },
      ]),
      paragraph([
        'See ',
        { type: 'url', text: 'the plan', url: 'https://plan.example/a' },
        { type: 'anchor', name: 'x' },
      ]),
      { type: 'divider' },
      { type: 'mathematical_expression', expression: 'E = mc^2' },
      {
        type: 'list',
        items: [
          { label: '1.', blocks: [paragraph('mow'), paragraph('rake')] },
          { label: '•', blocks: [] },
        ],
      },
      { type: 'blockquote', blocks: [paragraph('Said once')], credit: 'Ivo' },
      {
        type: 'table',
        cells: [
          [{ text: 'Tree' }, { text: 'Yield' }],
          [{ text: 'Plum' }, {}],
        ],
        caption: 'By tree',
      },
      {
        type: 'details',
        summary: 'More',
        blocks: [paragraph({ type: 'mathematical_expression', expression: 'x^2' })],
      },
      { type: 'photo', photo, caption: { text: 'The pump', credit: 'Marta' } },
    ]
    expect(
      draft({ ...telegramMessage(7, ''), text: undefined, rich_message: { blocks } })?.content.split('\n'),
    ).toEqual([
      'Report',
      'The pump runs 🐝',
      'See the plan (https://plan.example/a)',
      'E = mc^2',
      '1. mow',
      'rake',
      '• ',
      'Said once',
      'Ivo',
      'Tree | Yield',
      'Plum | ',
      'By tree',
      'More',
      'x^2',
      'The pump',
    ])
    expect(
      draft({ ...telegramMessage(7, ''), text: undefined, rich_message: { blocks: [{ type: 'divider' }] } }),
    ).toBeNull()
  })

  test('with any links in it reads as an import reads it', () => {
    const url = fc.option(fc.constantFrom('https://plan.example/a', 'https://x.example/?b=c#d'))
    const part = fc.record({ words: fc.string({ unit: 'grapheme', maxLength: 6 }), url })
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 8 }), (parts) => {
        const text = parts.map(({ words }) => words).join('')
        fc.pre(text !== '')
        let offset = 0
        const entities = parts.flatMap(({ words, url }) => {
          const entity = { type: 'text_link', offset, length: words.length, url }
          offset += words.length
          return url === null || words === '' ? [] : [entity]
        })
        const exported = parts.map(({ words, url }) =>
          url === null || words === '' ? words : { type: 'text_link', text: words, href: url },
        )
        expect(draft({ ...telegramMessage(7, text), entities })?.content).toBe(plainText(exported))
      }),
    )
  })
})

describe('a message is the same live and by an import of the chat', () => {
  const both = { date: 1777885200 }
  const exported = {
    id: 7,
    type: 'message',
    date: '2026-05-04T11:00:00',
    date_unixtime: '1777885200',
    from: 'Marta Quince',
    from_id: 'user11',
    text: '',
  }
  const live = { ...telegramMessage(7, ''), ...both, text: undefined }

  test.each<[string, TelegramJson, TelegramJson]>([
    ['text', { text: 'Hello' }, { text: 'Hello' }],
    [
      'link',
      { text: ['see ', { type: 'text_link', text: 'it', href: 'https://x.example/a' }] },
      { text: 'see it', entities: [{ type: 'text_link', offset: 4, length: 2, url: 'https://x.example/a' }] },
    ],
    ['caption', { text: 'Frost', photo: 'p.jpg' }, { photo, caption: 'Frost' }],
    ['photo', { photo: 'p.jpg' }, { photo }],
    [
      'sticker',
      { media_type: 'sticker', sticker_emoji: '😀', file: 's.webp' },
      { sticker: { ...file, emoji: '😀' } },
    ],
    ['sticker without emoji', { media_type: 'sticker', file: 's.webp' }, { sticker: file }],
    ['voice', { media_type: 'voice_message', file: 'v.ogg' }, { voice: { ...file, duration: 3 } }],
    ['round video', { media_type: 'video_message', file: 'v.mp4' }, { video_note: { ...file, length: 240 } }],
    [
      'video',
      { media_type: 'video_file', file: 'v/frost.mp4' },
      { video: { ...file, file_name: 'frost.mp4' } },
    ],
    [
      'animation',
      { media_type: 'animation', file: 'a.mp4' },
      { animation: { ...file, file_name: 'a.mp4' }, document: { ...file, file_name: 'a.mp4' } },
    ],
    [
      'music',
      { media_type: 'audio_file', performer: 'The Graftings', title: 'Bud' },
      { audio: { ...file, performer: 'The Graftings', title: 'Bud' } },
    ],
    [
      'music by its file',
      { media_type: 'audio_file', file: 'f/bud.mp3' },
      { audio: { ...file, file_name: 'bud.mp3' } },
    ],
    ['file', { file: 'files/report.pdf' }, { document: { ...file, file_name: 'report.pdf' } }],
    ['file without a name', { file: '(File not included.)' }, { document: file }],
    [
      'poll',
      { poll: { question: 'Prune on Friday?', answers: [{ text: 'yes' }, { text: 'no' }] } },
      {
        poll: {
          id: '1',
          question: 'Prune on Friday?',
          options: [{ text: 'yes', voter_count: 0 }, { text: 'no' }],
        },
      },
    ],
    [
      'to-do list',
      { todo_list: { title: 'May', answers: [{ text: 'mow' }] } },
      { checklist: { title: 'May', tasks: [{ id: 1, text: 'mow' }] } },
    ],
    [
      'place',
      { place_name: 'Old barn', address: 'Mill Lane 3', location_information: {} },
      {
        venue: { title: 'Old barn', address: 'Mill Lane 3', location: { latitude: 52.5, longitude: 13.4 } },
        location: { latitude: 52.5, longitude: 13.4 },
      },
    ],
    [
      'location',
      { location_information: { latitude: 52.5, longitude: 13.4 } },
      { location: { latitude: 52.5, longitude: 13.4 } },
    ],
    [
      'contact',
      { contact_information: { first_name: 'Ivo', last_name: '', phone_number: '+0 1' } },
      { contact: { first_name: 'Ivo', phone_number: '+0 1' } },
    ],
    ['game', { game_title: 'Harvest' }, { game: { title: 'Harvest', description: '', photo } }],
    [
      'invoice',
      { invoice_information: { title: 'Apples' } },
      { invoice: { title: 'Apples', currency: 'EUR' } },
    ],
    ['giveaway', { giveaway_information: {} }, { giveaway: { chats: [channel], winner_count: 1 } }],
    ['winners of a giveaway', { giveaway_results: {} }, { giveaway_winners: { chat: channel, winners: [] } }],
    ['paid media', { paid_stars_amount: 5 }, { paid_media: { star_count: 5, paid_media: [] } }],
    [
      'an answer',
      { text: 'Yes', reply_to_message_id: 3 },
      { text: 'Yes', reply_to_message: telegramMessage(3, 'Earlier') },
    ],
    [
      'edited',
      { text: 'Yes', edited: '2026-05-04T11:01:00', edited_unixtime: '1777885260' },
      { text: 'Yes', edit_date: 1777885260 },
    ],
    [
      'in the name of the group',
      { text: 'Rule one', from: 'Orchard', from_id: 'channel4242' },
      { text: 'Rule one', from: bot, sender_chat: orchard },
    ],
    [
      'in a topic',
      { text: 'Bees', reply_to_message_id: 2 },
      {
        text: 'Bees',
        message_thread_id: 2,
        is_topic_message: true,
        reply_to_message: {
          ...telegramMessage(2, ''),
          text: undefined,
          forum_topic_created: { name: 'Bees' },
        },
      },
    ],
  ])('%s', async (_, exportFields, liveFields) => {
    const chat = {
      name: 'Orchard',
      type: 'private_supergroup',
      id: 4242,
      messages: [
        { id: 2, type: 'service', action: 'topic_created', title: 'Bees' },
        { ...exported, ...exportFields },
      ],
    }
    const [imported] = messages(await read(telegram, 'result.json', chat))
    expect(imported).toBeDefined()
    expect(draft({ ...live, ...liveFields })).toEqual(imported)
    const account = { about: 'x', chats: { about: 'x', list: [chat] } }
    const [ofAccount] = messages(await read(telegram, 'result.json', account))
    const found = readJson(telegramUpdate(1, { ...live, ...liveFields }))
    expect(found && draftOf(found, placeOf(found.chat, true))).toEqual(ofAccount)
  })
})

test('whatever an update holds, it is read or refused, never endless', () => {
  const json = fc.jsonValue({ maxDepth: 4 })
  const message = fc.record(
    {
      message_id: json,
      chat: fc.oneof(json, fc.constant(orchard)),
      from: json,
      date: fc.oneof(json, fc.nat()),
      text: json,
      entities: json,
      caption: json,
      reply_to_message: json,
      poll: json,
      rich_message: fc.record({ blocks: json }),
      photo: json,
    },
    { requiredKeys: [] },
  )
  fc.assert(
    fc.property(message, (fields) => {
      try {
        readJson({ update_id: 1, message: fields })
      } catch (error) {
        expect(error).toSatisfy((thrown) => thrown instanceof TypeError || thrown instanceof RangeError)
      }
    }),
    { numRuns: 2_000 },
  )
})
