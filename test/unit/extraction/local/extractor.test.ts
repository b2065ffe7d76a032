import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Extraction, ExtractionBatch } from '../../../../src/extraction/extractor.ts'
import { createLocalExtractor } from '../../../../src/extraction/local/extractor.ts'
import { batchOf, chat, type Said } from './chats.ts'

const extractor = createLocalExtractor()
const extract = (batch: ExtractionBatch) => extractor.extract(batch, new AbortController().signal)
const extractChat = (...lines: string[]) => extract(batchOf(chat(...lines)))

/** `type place: title` of each atom. */
const outline = ({ atoms }: Extraction) =>
  atoms.map(({ type, citations: [main], title }) => `${type} ${main?.messageId}: ${title}`)

/** `from TYPE to` by the atoms' main messages. */
function linksOf({ atoms, links }: Extraction): string[] {
  const main = new Map(atoms.map(({ key, citations }) => [key, citations[0]?.messageId]))
  return links.map(({ from, to, type }) => `${main.get(from)} ${type} ${main.get(to)}`)
}

describe('a question', () => {
  test('and its answer, where the asker says thanks', async () => {
    const found = await extractChat(
      'ada: Does anybody know why the build needs two hours on the new runner?',
      'ben: The new runner has no shared compiler cache yet',
      'ada: ah, makes sense, thanks!',
    )
    expect(outline(found)).toEqual([
      'QUESTION m0: Does anybody know why the build needs two hours on the new runner?',
      'INSIGHT m1: The new runner has no shared compiler cache yet',
    ])
    expect(linksOf(found)).toEqual(['m1 SOLVES m0'])
    const answer = found.atoms[1]
    expect(answer?.content).toBe(
      '“Does anybody know why the build needs two hours on the new runner?” — The new runner has no shared compiler cache yet.',
    )
    expect(answer?.citations.map(({ messageId }) => messageId)).toEqual(['m1', 'm0', 'm2'])
  })

  test('and the answer that the asker has tried is a solution', async () => {
    const found = await extractChat(
      'ada: How can I restore one single table from the nightly backup?',
      'cy: lunch?',
      'ben>0: pg_restore takes the name of a table with --table',
      'ada>2: that worked, thank you',
    )
    expect(outline(found)).toContain('SOLUTION m2: pg_restore takes the name of a table with --table')
    expect(linksOf(found)).toEqual(['m2 SOLVES m0'])
    expect(found.links[0]?.strength).toBeGreaterThan(0.9)
  })

  test('by somebody who names the asker', async () => {
    const found = await extractChat(
      'ada: Is there a way to limit the size of an upload on the proxy?',
      'cy: the printer on the second floor has no toner again',
      'ben: ada: client_max_body_size in the server block of the proxy',
      'ada: thanks ben',
    )
    expect(linksOf(found)).toEqual(['m2 SOLVES m0'])
  })

  test('whose asker only thanks for company has no answer', async () => {
    const found = await extractChat(
      'ada: How can we export the old orders without the archive server?',
      "ben: no idea, I haven't used the archive server for years",
      'ada: ok thanks anyway',
    )
    expect(found.atoms.map(({ type }) => type)).toEqual(['QUESTION'])
  })

  test('back to the asker is none', async () => {
    const found = await extractChat(
      'ada: The nightly backup of the mail server fails with a timeout.',
      'ben: which version of the mail server is it?',
    )
    expect(found.atoms.map(({ type }) => type)).toEqual(['PROBLEM'])
  })
})

describe('a problem', () => {
  test('and what explains it', async () => {
    const found = await extractChat(
      'ada: Users report that the export button is missing in the admin page',
      'ben: Found it. The new role has no permission for the export service.',
    )
    expect(outline(found)[1]).toBe('INSIGHT m1: The new role has no permission for the export service')
    expect(linksOf(found)).toEqual(['m1 REFINES m0'])
  })

  test('and what would mend it', async () => {
    const found = await extractChat(
      'ada: The label printer prints every address twice and then crashes',
      'ben: The print service should send an id with each job.',
    )
    expect(outline(found)[1]).toBe('SOLUTION m1: The print service should send an id with each job')
    expect(linksOf(found)).toEqual(['m1 SOLVES m0'])
  })

  test('in Russian, and what helped', async () => {
    const found = await extractChat(
      'ada: Сервер не отвечает после обновления базы данных',
      'ben: Перезапусти службу авторизации на втором узле',
      'ada: помогло, спасибо!',
    )
    expect(outline(found).map((line) => line.split(':')[0])).toEqual(['PROBLEM m0', 'SOLUTION m1'])
    expect(linksOf(found)).toEqual(['m1 SOLVES m0'])
  })
})

describe('a proposal', () => {
  test('that others agree to is a decision, and they prove it', async () => {
    const found = await extractChat(
      'ada: Idea: a weekly report of the failed imports goes to the support team',
      'ben>0: agreed',
      'cy>0: +1',
    )
    expect(outline(found)).toEqual([
      'DECISION m0: A weekly report of the failed imports goes to the support team',
    ])
    expect(found.atoms[0]?.citations.map(({ messageId }) => messageId)).toEqual(['m0', 'm1', 'm2'])
  })

  test('that its own author likes stays an idea', async () => {
    const found = await extractChat(
      'ada: Idea: a weekly report of the failed imports goes to the support team',
      'ada: agreed?',
    )
    expect(found.atoms.map(({ type }) => type)).toEqual(['IDEA'])
  })
})

test('a correction contradicts what it corrects', async () => {
  const found = await extractChat(
    'ada: Only 12 % of our customers use the export at all',
    'ada: correction: it is 21 %, I had counted the test accounts as well',
  )
  expect(linksOf(found)).toEqual(['m1 CONTRADICTS m0'])
})

describe('content', () => {
  test('brings along what a pronoun stands for', async () => {
    const found = await extractChat(
      'ada: The order import reads the whole file into memory. That could crash the small servers of the branch offices.',
    )
    expect(found.atoms[0]?.content).toBe(
      'The order import reads the whole file into memory. That could crash the small servers of the branch offices.',
    )
  })

  test('without anything to bring along there is no atom', async () => {
    const found = await extractChat('ada: They must be stored in the archive for ten years')
    expect(found.atoms).toEqual([])
  })

  test('of the same statement, said twice, is one atom with both quotes', async () => {
    const found = await extract(
      batchOf([
        { author: 'ada', content: 'Users report that the export button is missing', conversation: 'one' },
        { author: 'ben', content: 'users report that the export button is missing!', conversation: 'two' },
      ]),
    )
    expect(found.atoms.map(({ citations }) => citations.map(({ messageId }) => messageId))).toEqual([
      ['m0', 'm1'],
    ])
  })
})

describe('for any messages', () => {
  const word = fc.constantFrom(
    ...'we must decide why the server fails because users report an error what if let us go with it thanks that worked agreed risk: decision: found it. turns out should ? ! `code` https://a.b/c ``` \n @ada ada: Сервер не работает должны 🙂 12 % of'.split(
      ' ',
    ),
  )
  const content = fc.oneof(
    fc.array(word, { maxLength: 40 }).map((words) => words.join(' ')),
    fc.string({ unit: 'grapheme', maxLength: 200 }),
    fc.string({ unit: 'binary', maxLength: 100 }),
  )
  const said = fc.array(
    fc.record({
      author: fc.constantFrom('ada', 'ben', 'cy', ''),
      content,
      conversation: fc.constantFrom('one', 'two', 'three'),
      answers: fc.option(fc.nat(10), { nil: undefined }),
      vector: fc.option(
        fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 3, maxLength: 3 }),
        {
          nil: undefined,
        },
      ),
    }),
    { maxLength: 12 },
  )

  test('quotes stand in their messages, keys are unique, links and topics join what there is', async () => {
    await fc.assert(
      fc.asyncProperty(said, async (messages) => {
        const batch = batchOf(messages as Said[])
        const { topics, atoms, links } = await extract(batch)
        const contents = new Map(batch.messages.map((message) => [message.id, message.content]))
        const topicKeys = topics.map(({ key }) => key)
        const keys = atoms.map(({ key }) => key)
        expect(new Set(topicKeys).size).toBe(topicKeys.length)
        expect(new Set(keys).size).toBe(keys.length)
        for (const { citations, confidence, title, content, topicKey } of atoms) {
          expect(citations.length).toBeGreaterThan(0)
          for (const { messageId, quote } of citations) {
            expect(quote.trim()).not.toBe('')
            expect(contents.get(messageId)).toContain(quote)
          }
          expect(confidence).toBeGreaterThan(0)
          expect(confidence).toBeLessThanOrEqual(1)
          expect(title.length).toBeGreaterThan(0)
          expect(title.length).toBeLessThanOrEqual(120)
          expect(content.trim()).not.toBe('')
          if (topicKey !== null) expect(topicKeys).toContain(topicKey)
        }
        for (const { from, to } of links) {
          expect(from).not.toBe(to)
          expect(keys).toContain(from)
          expect(keys).toContain(to)
        }
        const placed = topics.flatMap(({ messageIds }) => messageIds)
        expect(new Set(placed).size).toBe(placed.length)
        for (const id of placed) expect(contents.has(id)).toBe(true)
      }),
      { numRuns: 150 },
    )
  })
})

/*
 * No time is measured: with a rule whose time grows with the square of a text, or faster, these would not end before the
 * time limit of a test.
 */
describe('texts made to take long', () => {
  test.each([
    ['one letter', 'a'.repeat(1_000_000)],
    ['one word', 'word '.repeat(200_000)],
    ['spaces', `${' '.repeat(1_000_000)}end`],
    ['open code', '`'.repeat(1_000_000)],
    ['open blocks of code', '``` '.repeat(250_000)],
    ['links', 'http://'.repeat(150_000)],
    ['greetings', 'hi '.repeat(300_000)],
    ['mentions', '@a '.repeat(300_000)],
    ['sentences', 'The server must be restarted because it fails. '.repeat(20_000)],
    ['clauses', 'if the server fails, and so on, because when '.repeat(20_000)],
    ['commas', `${'a, '.repeat(130)}? `.repeat(2_000)],
    ['question marks', '?'.repeat(1_000_000)],
    ['combining marks', `e${'\u0301'.repeat(500_000)}`],
  ])('%s', async (_, content) => {
    await expect(extractChat('ada: hi', `ben: ${content}`)).resolves.toBeDefined()
  })

  test('a conversation of a thousand messages', async () => {
    const lines = Array.from({ length: 1_000 }, (_, place) =>
      place % 2 === 0
        ? `ada: Why does the server number ${place} fail after the update?`
        : `ben: Because the disk of server ${place} is full, so it stops`,
    )
    const { atoms } = await extractChat(...lines)
    expect(atoms.length).toBeGreaterThan(100)
  }, 30_000)
})

test('stops between two conversations when it is aborted', async () => {
  const controller = new AbortController()
  const messages = Array.from({ length: 50 }, (_, place) => ({
    author: 'ada',
    content: 'The nightly backup of the mail server fails with a timeout.',
    conversation: `${place}`,
  }))
  const running = extractor.extract(batchOf(messages), controller.signal)
  controller.abort(new Error('enough'))
  await expect(running).rejects.toThrow('enough')
})
