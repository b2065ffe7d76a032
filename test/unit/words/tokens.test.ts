import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fold } from '../../../src/words/fold.ts'
import { languageOf } from '../../../src/words/language.ts'
import { indexWords, tokenize } from '../../../src/words/tokens.ts'

const searched = (text: string) => tokenize(text, 'searched').map(({ word }) => word)
const indexed = (text: string) => tokenize(text, 'indexed').map(({ word, position }) => `${word}:${position}`)

describe('words', () => {
  test.each([
    ['Push the Deploy button!', ['push', 'the', 'deploy', 'button']],
    ['auth_token', ['auth', 'token']],
    ['src/app.ts', ['src', 'app', 'ts']],
    ['ERR-1042', ['err', '1042']],
    ['C++ and C# are not C', ['c++', 'and', 'c#', 'are', 'not', 'c']],
    ['#42 issue#7 a++b', ['42', 'issue', '7', 'a', 'b']],
    ['Café naïve Ångström Straße', ['cafe', 'naive', 'angstrom', 'strasse']],
    ['Ёлка и мой', ['елка', 'и', 'мой']],
    ['ΣΊΣΥΦΟΣ', ['σισυφοσ']],
    ['东京都 x', ['东京', '京都', 'x']],
    ['京', ['京']],
    ['คน', ['คน']],
    ['हिन्दी', ['हिन्दी']],
    ['ﬁne ① Ⅷ', ['fine', '1', 'viii']],
    ['ship it 🚀👍', ['ship', 'it', '🚀', '👍']],
    ["it's", ['it', 's']],
    ['\u0301 ... --', []],
  ])('of %j', (text, words) => {
    expect(searched(text)).toEqual(words)
  })

  test('of a name in camel case are the name and its parts, side by side', () => {
    expect(indexed('call getUserById now')).toEqual([
      'call:0',
      'getuserbyid:1',
      'get:1',
      'user:2',
      'by:3',
      'id:4',
      'now:5',
    ])
    expect(indexed('HTTPServer')).toEqual(['httpserver:0', 'http:0', 'server:1'])
    expect(indexed('utf8 v2 md5')).toEqual(['utf8:0', 'v2:1', 'md5:2'])
  })

  test('say where in the text they stand', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), (text) => {
        for (const { word, start, end } of tokenize(text, 'indexed')) {
          expect(fold(text.slice(start, end))).toBe(word)
        }
      }),
    )
  })

  test('are the same in a text and in what is searched, whatever the case and the accents', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), (text) => {
        expect(searched(text.toUpperCase().toLowerCase())).toEqual(searched(text.toUpperCase()))
        expect(searched(text.normalize('NFD'))).toEqual(searched(text.normalize('NFC')))
        const there = new Set(tokenize(text, 'indexed').map(({ word }) => word))
        expect(searched(text).filter((word) => !there.has(word))).toEqual([])
      }),
    )
  })
})

describe('a text is English', () => {
  test.each([
    ['The connections are refused by the proxy', true],
    ['connections refused', true],
    ['Die Verbindungen sind nicht mehr da', false],
    ['les connexions sont refusées par le proxy', false],
    ['las conexiones no son para el servidor', false],
    ['', true],
  ])('%j: %s', (text, expected) => {
    expect(languageOf(searched(text)).isEnglish).toBe(expected)
  })
})

describe('the index holds', () => {
  test('stems beside English words', () => {
    expect(indexWords('The connections connected')).toEqual({
      vector: "'the':1 'connections':2 'connect':2,3 'connected':3",
      count: 3,
    })
  })

  test('other languages as they are', () => {
    expect(indexWords('Das ist nicht die beste der Listings')).toMatchObject({
      vector: expect.not.stringContaining("'list'"),
    })
  })

  test('what Postgres can read, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
        expect(indexWords(text).vector).toMatch(/^(?:'(?:[^'\\]|''|\\\\)+':\d+(?:,\d+)*(?: |$))*$/)
      }),
    )
  })
})
