import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createLinker, type LinkMessage, maxAgeMs, windowSize } from '../../../src/conversations/link.ts'
import { weights } from '../../../src/conversations/weights.ts'
import { createWindow, featureCount, featureNames } from '../../../src/conversations/window.ts'

const start = Date.UTC(2026, 0, 5, 9)
const at = (seconds: number) => new Date(start + seconds * 1000)

function message(
  id: string,
  author: string,
  content: string,
  seconds: number,
  rest: Partial<LinkMessage> = {},
): LinkMessage {
  return { id, author, content, sentAt: at(seconds), threadId: null, replyToId: null, vector: null, ...rest }
}

/** The conversation of each message, named after its first one. */
function linkAll(messages: readonly LinkMessage[], linker = createLinker([])): string[] {
  return messages.map((next) => {
    const conversationId = linker.link(next).conversationId ?? next.id
    linker.remember({ ...next, conversationId })
    return conversationId
  })
}

describe('what decides by itself', () => {
  const chat = [
    message('a1', 'anna', 'the printer on the third floor prints blank pages', 0),
    message('b1', 'boris', 'who has the key to the bicycle shed?', 3600),
  ]

  test('a reply to a known message', () => {
    const linker = createLinker([])
    linkAll(chat, linker)
    const reply = message('c1', 'carol', 'boris: the key to the bicycle shed is here', 3605, {
      replyToId: 'a1',
    })
    expect(linker.link(reply)).toEqual({ conversationId: 'a1', parentId: 'a1' })
    expect(linker.link({ ...reply, replyToId: null })).toEqual({ conversationId: 'b1', parentId: 'b1' })
    expect(linker.link({ ...reply, replyToId: 'not here' })).toEqual({ conversationId: 'b1', parentId: 'b1' })
  })

  test('a reply to a message that is further back than the window', () => {
    const linker = createLinker([])
    linkAll(chat, linker)
    linkAll(
      Array.from({ length: windowSize + 5 }, (_, index) => message(`x${index}`, 'dave', `${index}`, 3700)),
      linker,
    )
    expect(linker.link(message('c1', 'carol', 'yes', 3800, { replyToId: 'a1' })).conversationId).toBe('a1')
  })

  test('the thread of a known message', () => {
    const linker = createLinker([])
    linkAll([message('t1', 'anna', 'new release', 0, { threadId: 'T' }), ...chat.slice(1)], linker)
    const next = message('t2', 'carol', 'boris: the key is here', 3605, { threadId: 'T' })
    expect(linker.link(next)).toEqual({ conversationId: 't1', parentId: 't1' })
  })

  test('what stands in a thread is not answered from outside of it', () => {
    const chatter = [
      message('t1', 'anna', 'new release', 0, { threadId: 'T' }),
      message('t2', 'boris', 'which database does it need?', 90_000, { threadId: 'T' }),
    ]
    const outside = message('m1', 'anna', 'boris: which database? the new database', 90_005)
    const linker = createLinker([])
    linkAll(chatter, linker)
    expect(linker.link(outside).parentId).not.toBe('t2')
    const unthreaded = createLinker([])
    linkAll(
      chatter.map((next) => ({ ...next, threadId: null })),
      unthreaded,
    )
    expect(unthreaded.link(outside).parentId).toBe('t2')
  })
})

describe('names tell crossing conversations apart', () => {
  test.each([
    {
      language: 'English',
      lines: [
        ['olga', 'how do I mount a windows partition?'],
        ['peter', 'my sound card stopped working after the upgrade, any idea?'],
        ['quinn', 'olga: sudo mount the partition with the ntfs driver'],
        ['rita', 'peter, which sound card is it?'],
        ['olga', '@quinn it says unknown filesystem'],
        ['peter', 'rita: an old one from intel'],
      ],
    },
    {
      language: 'Russian',
      lines: [
        ['Ольга', 'как примонтировать раздел windows?'],
        ['Пётр', 'после обновления перестала работать звуковая карта, есть идеи?'],
        ['Женя', 'Ольга: примонтируй раздел драйвером ntfs'],
        ['Рита', 'Пётр, какая звуковая карта?'],
        ['Ольга', '@Женя пишет, что файловая система неизвестна'],
        ['Пётр', 'Рита: старая, от intel'],
      ],
    },
  ])('$language', ({ lines }) => {
    const messages = lines.map(([author = '', text = ''], index) =>
      message(`m${index}`, author, text, 15 * index),
    )
    expect(linkAll(messages)).toEqual(['m0', 'm1', 'm0', 'm1', 'm0', 'm1'])
  })

  test('a name that is also a common word names nobody where it is only a word', () => {
    const window = createWindow()
    const row = () => featureNames.indexOf('addressesAuthor')
    const lines = ['just do it', 'i just did', 'it just hangs', 'they just said so', 'it just works']
    for (const [index, text] of lines.entries())
      window.push(message(`m${index}`, index === 0 ? 'Just' : 'carol', text, index * 60), 'c')
    const { rows } = window.candidatesOf(message('n1', 'dave', 'just restart it', 400))
    expect(rows[row()]).toBe(0)
    expect(window.candidatesOf(message('n2', 'dave', 'just: restart it', 400)).rows[row()]).toBe(1)
  })

  test('a short form names somebody only where one person has it', () => {
    const feature = featureNames.indexOf('addressesAuthor')
    const window = createWindow()
    window.push(message('m1', 'Anna Petrova', 'hello', 0), 'c')
    expect(window.candidatesOf(message('n', 'dave', 'anna: hello', 9)).rows[feature]).toBe(1)
    window.push(message('m2', 'Anna Smith', 'hello', 1), 'c')
    expect(window.candidatesOf(message('n', 'dave', 'anna: hello', 9)).rows[feature]).toBe(0)
    expect(window.candidatesOf(message('n', 'dave', '@Anna Petrova hello', 9)).rows[feature]).toBe(1)
  })
})

test('closeness is told from what is usual in the window, and nothing is told without a vector', () => {
  const column = featureNames.indexOf('closeness')
  const direction = (axis: number, scale = 1) =>
    Float32Array.from({ length: 6 }, (_, index) => scale * (index === axis ? 2 : 1))
  const window = createWindow()
  for (let index = 0; index < 12; index++)
    window.push(message(`m${index}`, 'anna', '', index, { vector: direction(index % 6) }), 'c')
  window.push(message('none', 'anna', '', 12), 'c')
  const closeness = (vector: Float32Array | null) => {
    const { count, rows } = window.candidatesOf(message('new', 'boris', '', 13, { vector }))
    return Array.from({ length: count }, (_, index) => rows[index * featureCount + column] ?? 0)
  }
  const near = closeness(direction(2, 5))
  for (const [index, value] of near.entries())
    expect(Math.sign(value)).toBe(index === 12 ? 0 : index % 6 === 2 ? 1 : -1)
  expect(closeness(direction(2))).toEqual(near.map((value) => expect.closeTo(value, 5)))
  expect(new Set([...closeness(null), ...closeness(Float32Array.of(1, 0))])).toEqual(new Set([0]))
})

test('silence ends a conversation', () => {
  const first = message('m1', 'anna', 'lunch?', 0)
  const join = (seconds: number) => linkAll([first, message('m2', 'boris', 'yes', seconds)])[1]
  expect(join(20)).toBe('m1')
  expect(join(2 * 24 * 3600)).toBe('m2')
  const old = message('m2', 'boris', 'anna: yes', maxAgeMs / 1000 + 1)
  expect(createLinker([{ ...first, conversationId: 'm1' }]).link(old)).toEqual({
    conversationId: null,
    parentId: null,
  })
})

const chat = fc
  .array(
    fc.record({
      author: fc.constantFrom('anna', 'boris', 'carol', 'dave'),
      words: fc.array(fc.constantFrom('disk', 'mail', 'red', 'blue', 'why?', 'anna:', '@carol', 'dave'), {
        maxLength: 6,
      }),
      pause: fc.constantFrom(0, 5, 60, 1800, 90_000),
      vector: fc.option(
        fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 3, maxLength: 4 }),
      ),
      thread: fc.constantFrom(null, null, null, 'T', 'U'),
      reply: fc.option(fc.nat(20)),
    }),
    { maxLength: 60 },
  )
  .map((lines) => {
    let seconds = 0
    return lines.map(({ author, words, pause, vector, thread, reply }, index) => {
      seconds += pause
      return message(`m${index}`, author, words.join(' '), seconds, {
        vector: vector ? Float32Array.from(vector) : null,
        threadId: thread,
        replyToId: reply === null ? null : `m${reply}`,
      })
    })
  })

test('a message joins a conversation that there is, by an earlier message of it, and asking changes nothing', () => {
  fc.assert(
    fc.property(chat, (messages) => {
      const linker = createLinker([])
      const conversations = new Map<string, string>()
      for (const next of messages) {
        const link = linker.link(next)
        expect(linker.link(next)).toEqual(link)
        if (link.parentId !== null) expect(conversations.get(link.parentId)).toBe(link.conversationId)
        if (link.conversationId === null) expect(link.parentId).toBeNull()
        else expect([...conversations.values()]).toContain(link.conversationId)
        const conversationId = link.conversationId ?? next.id
        linker.remember({ ...next, conversationId })
        conversations.set(next.id, conversationId)
      }
    }),
  )
})

test('a linker that begins with the recent messages goes on as the one that saw them come', () => {
  fc.assert(
    fc.property(chat, fc.nat(60), (messages, cut) => {
      const whole = linkAll(messages)
      const recent = messages
        .slice(0, cut)
        .map((next, index) => ({ ...next, conversationId: whole[index] ?? '' }))
      expect(linkAll(messages.slice(cut), createLinker(recent))).toEqual(whole.slice(cut))
    }),
  )
})

test('nothing that has left the window is felt', () => {
  fc.assert(
    fc.property(chat, chat, (before, after) => {
      const filler = Array.from({ length: windowSize }, (_, index) =>
        message(
          `f${index}`,
          index % 2 ? 'eve' : 'boris',
          index % 3 ? 'green anna' : 'boris: why?',
          1e7 + 30 * index,
        ),
      ).map((next, index) => ({ ...next, conversationId: `c${index % 7}` }))
      const later = after.map((next) => ({
        ...next,
        id: `l${next.id}`,
        replyToId: null,
        threadId: null,
        sentAt: new Date(next.sentAt.getTime() + 1e10 + 4e6),
      }))
      // Recent enough to share conversations and names with the filler, before it pushes them out.
      const seen = before.map((next, index) => ({
        ...next,
        sentAt: at(1e7 - 60),
        threadId: null,
        conversationId: `c${index % 7}`,
      }))
      const [whole, short] = [createWindow(), createWindow()]
      for (const next of [...seen, ...filler]) whole.push(next, next.conversationId)
      for (const next of filler) short.push(next, next.conversationId)
      for (const [index, next] of later.entries()) {
        const [one, other] = [whole.candidatesOf(next), short.candidatesOf(next)]
        expect(one.rows.slice(0, one.count * featureCount)).toEqual(
          other.rows.slice(0, other.count * featureCount),
        )
        for (const window of [whole, short]) window.push(next, `c${index % 4}`)
      }
    }),
    { numRuns: 30 },
  )
})

test('features are finite and about 0..1, and each has a weight', () => {
  expect(Object.keys(weights)).toEqual([...featureNames])
  fc.assert(
    fc.property(chat, (messages) => {
      const window = createWindow()
      for (const [index, next] of messages.entries()) {
        const { count, rows } = window.candidatesOf(next)
        expect(count).toBeLessThanOrEqual(windowSize)
        for (const value of rows.subarray(0, (count + 1) * featureCount)) {
          expect(value).toBeGreaterThanOrEqual(-1)
          expect(value).toBeLessThanOrEqual(1.0001)
        }
        window.push(next, `c${index % 5}`)
      }
    }),
  )
})
