import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseQuery } from '../../../src/words/query.ts'

describe('a query', () => {
  test('of plain words looks for each, the last one as a beginning, too', () => {
    expect(parseQuery('server connections')).toEqual({
      terms: [
        { stem: 'server', forms: ['server'], count: 1, isSmall: false, beginning: null },
        { stem: 'connect', forms: ['connections'], count: 1, isSmall: false, beginning: 'connections' },
      ],
      names: [],
      required: [],
      excluded: [],
      hasStems: true,
      meaning: 'server connections',
    })
  })

  test.each(['done ', 'done.', '"done"', 'done?'])(
    'whose last word is complete (%j) looks for no beginning',
    (text) => {
      expect(parseQuery(text).terms).toMatchObject([{ stem: 'done', beginning: null }])
    },
  )

  test.each([
    ['"connection refused" docker', [['connection', 'refused']], [], 'connection refused docker'],
    ['say “hi there”', [['hi', 'there']], [], 'hi there say'],
    ['proxy -docker', [], [['docker']], 'proxy'],
    ['proxy -"unix socket"', [], [['unix', 'socket']], 'proxy'],
    ['proxy -docker-compose.yml', [], [['docker', 'compose', 'yml']], 'proxy'],
    ['well-known', [], [], 'well-known'],
    ['exit code -1', [], [], 'exit code -1'],
    ['git push --force', [], [], 'git push --force'],
    ['5" disk', [], [], '5" disk'],
    ['-docker', [], [], '-docker'],
    ['-"a b"', [], [], '-"a b"'],
    ['""', [], [], '""'],
  ])('%j requires %j, excludes %j and means %j', (text, required, excluded, meaning) => {
    expect(parseQuery(text)).toMatchObject({ required, excluded, meaning })
  })

  test('knows identifiers and file names as wholes', () => {
    expect(parseQuery('auth_token in src/app.ts (ERR-1042)').names).toEqual([
      ['auth', 'token'],
      ['src', 'app', 'ts'],
      ['err', '1042'],
    ])
  })

  test.each(['well-known facts', 'e.g. this, i.e. that', 'one,two', "don't", 'zero-one'])(
    'of ordinary words (%j) has no names',
    (text) => {
      expect(parseQuery(text).names).toEqual([])
    },
  )

  test('that is prose is compared as it stands: its quotes and minuses are no operators', () => {
    const prose =
      'after the update somebody wrote that "nothing works" when they ran npm install -g and then rm -rf everything again'
    expect(parseQuery(prose)).toMatchObject({
      names: [['nothing', 'works']],
      required: [],
      excluded: [],
      meaning: prose,
    })
  })

  test.each(['"it is down," she said', 'he asked “why now?” again'])('quotes somebody: %j', (text) => {
    expect(parseQuery(text)).toMatchObject({ required: [], meaning: text })
  })

  test.each([
    ['where is the log of the server', ['where', 'is', 'the', 'of']],
    ['warum sind die Listings nicht da', ['warum', 'sind', 'die', 'nicht', 'da']],
    ['почему падает сервер', []],
    ['server logs', []],
  ])('of %j has the small words %j', (text, small) => {
    const { terms } = parseQuery(text)
    expect(terms.flatMap(({ forms, isSmall }) => (isSmall ? forms : []))).toEqual(small)
  })

  test('in another language has no stems', () => {
    expect(parseQuery('warum sind die Listings nicht da').terms.map(({ stem }) => stem)).toContain('listings')
  })

  // No more words than a person types: see the test of prose.
  const part = fc.string({ unit: 'grapheme', maxLength: 12 })

  test('is read whatever it is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), (text) => {
        const { terms, names, required, excluded } = parseQuery(text)
        for (const words of [...names, ...required, ...excluded]) expect(words.length).toBeGreaterThan(0)
        for (const { forms, count } of terms) expect(count).toBeGreaterThanOrEqual(forms.length)
      }),
    )
  })

  test('keeps its quotes and exclusions whatever stands beside them', () => {
    const quiet = part.map((text) => text.replace(/["“”„«»]/g, ''))
    fc.assert(
      fc.property(quiet, quiet, (before, after) => {
        const { required, excluded } = parseQuery(`${before} "alpha beta" -gamma ${after}`)
        expect(required).toContainEqual(['alpha', 'beta'])
        expect(excluded).toContainEqual(['gamma'])
      }),
    )
  })
})
