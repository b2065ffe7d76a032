import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  countThings,
  countWords,
  headline,
  maxTitleLength,
  nounPhrases,
  readAddressee,
  readSentences,
  scriptOf,
} from '../../../../src/extraction/local/text.ts'

const isAuthor = (name: string) => ['ada', 'Ben_2'].includes(name)
const cleanOf = (text: string) => readSentences(text, isAuthor).map(({ clean }) => clean)

describe('sentences', () => {
  test.each([
    ['One. Two three. Four?', ['Two three.', 'Four?']],
    [
      'the queue is full. the worker died, nobody saw it',
      ['the queue is full.', 'the worker died, nobody saw it'],
    ],
    ['We support old ones, e.g. the blue printer.', ['We support old ones, e.g. the blue printer.']],
    ['It takes 4.2 s with v2.1.0 of it', ['It takes 4.2 s with v2.1.0 of it']],
    ['Run `a. b. c` first. Then wait.', ['Run `a. b. c` first.', 'Then wait.']],
    ['See https://example.com/a.b?c=d. It says more.', ['See https://example.com/a.b?c=d.', 'It says more.']],
    ['первая строка\nвторая строка', ['первая строка', 'вторая строка']],
  ])('of %j', (text, expected) => {
    expect(cleanOf(text).slice(-expected.length)).toEqual(expected)
  })

  test.each([
    ['Hi all, the printer is on fire', 'the printer is on fire'],
    ['good morning everyone! the printer is on fire', 'the printer is on fire'],
    ['btw, fwiw the printer is on fire', 'the printer is on fire'],
    ['@ben the printer is on fire', 'the printer is on fire'],
    ['ada: the printer is on fire', 'the printer is on fire'],
    ['note: the printer is on fire', 'note: the printer is on fire'],
    ['No prints after 22:00, please', 'No prints after 22:00, please'],
    ['no, the printer is on fire', 'the printer is on fire'],
    ['Привет всем, принтер горит', 'принтер горит'],
  ])('begin without what says nothing: %j', (text, expected) => {
    expect(cleanOf(text).at(-1)).toBe(expected)
  })

  test.each([
    ['Where is it?', true],
    ['Where is it?? :)', false],
    ['Where is it?!', true],
    ['Where is it? 🤔', true],
    ['I know where it is', false],
    ['see `a?`', false],
  ])('ask or do not: %j', (text, asks) => {
    expect(readSentences(text).at(-1)?.asks).toBe(asks)
  })

  test('stand in the text word for word, and only their start is cut off', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 300 }), (text) => {
        for (const { text: own, clean, plain } of readSentences(text)) {
          expect(text).toContain(own)
          expect(own.endsWith(clean)).toBe(true)
          expect(clean).toHaveLength(plain.length)
        }
      }),
    )
  })
})

test.each([
  ['ada: look at this', 'ada'],
  ['@Ben_2 look at this', 'Ben_2'],
  ['@Ben_2, look', 'Ben_2'],
  ['note: look at this', null],
  ['look at @Ben_2', null],
])('whom a message names: %j', (text, name) => {
  expect(readAddressee(text, isAuthor)).toBe(name)
})

test.each([
  ['the printer is on fire', 'latin'],
  ['принтер горит, see log', 'cyrillic'],
  ['プリンターが燃えている', 'other'],
  ['', 'latin'],
])('script of %j', (text, script) => {
  expect(scriptOf(text)).toBe(script)
})

test.each([
  ['The backup of the mail server fails after the update.', 3],
  ['It does not work, any idea?', 0],
  ['That is a problem with `backup.sh`', 1],
])('things that %j names', (text, least) => {
  const [sentence] = readSentences(text)
  const things = sentence ? countThings(sentence) : -1
  if (least === 0) expect(things).toBe(0)
  else expect(things).toBeGreaterThanOrEqual(least)
})

test('noun phrases are nouns with what stands before them, written as in the text', () => {
  const phrases = nounPhrases('The nightly backup of the mail server writes to the old NFS share.').map(
    ({ written }) => written.join(' '),
  )
  expect(phrases).toContain('nightly backup')
  expect(phrases).toContain('mail server')
  expect(phrases.some((phrase) => phrase.endsWith('NFS share'))).toBe(true)
})

describe('headlines', () => {
  test.each([
    ['the printer is on fire.', 'The printer is on fire'],
    ['why is the printer on fire?', 'Why is the printer on fire?'],
    ['iOS builds fail', 'iOS builds fail'],
    ['p95 is at 4 s', 'p95 is at 4 s'],
    ['two\nlines  of text', 'Two lines of text'],
  ])('of %j', (text, expected) => {
    expect(headline(text)).toBe(expected)
  })

  test('end with a clause where there is one, else with a word', () => {
    const clause = `${'word '.repeat(18)}end of it, ${'more '.repeat(20)}`
    expect(headline(clause)).toMatch(/end of it$/)
    expect(headline('word '.repeat(40))).toMatch(/word…$/)
  })

  test('have at most 120 characters, and no half of one', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 400 }), (text) => {
        const title = headline(text)
        expect(title.length).toBeLessThanOrEqual(maxTitleLength)
        expect(title.isWellFormed()).toBe(true)
      }),
    )
  })
})

test('words are counted in any script', () => {
  expect(countWords("don't touch the 2nd принтер")).toBe(5)
})
