import fc from 'fast-check'
import { expect, test } from 'vitest'
import { makeSnippet as snippetOf } from '../../../src/search/snippet.ts'
import { parseQuery } from '../../../src/words/query.ts'

const makeSnippet = (text: string, query: string) => snippetOf(text, parseQuery(query))

const words = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 20 }),
  fc.constantFrom('<script>', '&amp;', '</mark>', '<mark>', '"', "'", 'deploy', 'Straße', '😀', '…', ' '),
)
const texts = fc
  .array(words, { maxLength: 80 })
  .chain((list) => fc.constantFrom(list.join(' '), list.join('')))

const entities: Record<string, string> = {
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#39;': "'",
}

function plain(html: string): string {
  return html
    .replace(/<\/?mark>/g, '')
    .replace(/&(amp|lt|gt|quot|#39);/g, (entity) => entities[entity] ?? '?')
}

test('no tag but <mark> comes out, whatever goes in', () => {
  fc.assert(
    fc.property(texts, texts, (text, query) => {
      const html = makeSnippet(text, query)
      expect(html.replace(/<mark>[^<>]*<\/mark>/g, '')).not.toMatch(/[<>"']/)
      expect(html).not.toMatch(/&(?!(amp|lt|gt|quot|#39);)/)
    }),
  )
})

test('unmarked and unescaped it is a passage of the text, never with half of a character', () => {
  fc.assert(
    fc.property(texts, texts, (text, query) => {
      const passage = plain(makeSnippet(text, query))
      const candidates = [
        passage,
        passage.replace(/^… /, ''),
        passage.replace(/ …$/, ''),
        passage.replace(/^… | …$/g, ''),
      ]
      expect(candidates.some((candidate) => text.includes(candidate))).toBe(true)
      expect(passage.isWellFormed()).toBe(true)
    }),
  )
})

test('words of the query are marked whatever their case', () => {
  expect(makeSnippet('Push the Deploy button, then deploy.', 'deploy BUTTON')).toBe(
    'Push the <mark>Deploy</mark> <mark>button</mark>, then <mark>deploy</mark>.',
  )
})

test('words are marked as they are found: by their stem, as parts of names, by the beginning that is typed', () => {
  expect(makeSnippet('A deployment was deployed', 'deploy ')).toBe(
    'A <mark>deployment</mark> was <mark>deployed</mark>',
  )
  expect(makeSnippet('getUserById in src/auth_token.ts', 'user token ')).toBe(
    'get<mark>User</mark>ById in src/auth_<mark>token</mark>.ts',
  )
  expect(makeSnippet('depleted depots', 'depo')).toBe('depleted <mark>depots</mark>')
  expect(makeSnippet('depleted depots', 'depo ')).toBe('depleted depots')
  expect(makeSnippet('東京都', '京都')).toBe('東<mark>京都</mark>')
})

test('a long text is shown where most words of the query stand', () => {
  const filler = 'nothing here '.repeat(40)
  const html = makeSnippet(`needle ${filler} the needle in the haystack ${filler}`, 'needle haystack')
  expect(html).toMatch(/^… .*the <mark>needle<\/mark> in the <mark>haystack<\/mark> .*…$/)
})

test('a long text is shown round the first match', () => {
  const text = `${'before '.repeat(200)}needle ${'after '.repeat(200)}`
  const html = makeSnippet(text, 'needle')
  expect(html).toMatch(/^… before .*<mark>needle<\/mark> .*after …$/)
  expect(html.length).toBeLessThan(300)
})

test('without a match it is the beginning of the text', () => {
  expect(makeSnippet('word '.repeat(100), 'other')).toMatch(/^word word .*word …$/)
  expect(makeSnippet('', 'other')).toBe('')
})

test('a megabyte without white space is no trouble', () => {
  expect(makeSnippet('x'.repeat(1_000_000), 'y')).toHaveLength(242)
})
