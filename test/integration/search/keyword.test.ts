import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { noFilter } from '../../../src/search/filter.ts'
import { type KeywordCandidate, keywordStatement } from '../../../src/search/keyword.ts'
import { createSearch } from '../../../src/search/search.ts'
import { parseQuery } from '../../../src/words/query.ts'
import { countWords } from '../../../src/words/statistics.ts'
import { openTestSpace } from '../../support/databases.ts'

/** Fewer than are looked up because of a common word, and more than are looked up before the score that is needed is known. */
const rows = 2_500
const wordsOfText = 8
/** Word n is drawn n times less often than the first, so the last are in one text or in none; some begin alike. */
const vocabulary = Array.from({ length: 3_000 }, (_, n) => `${['ba', 'bani', 'ko', 'kolo', 'tu'][n % 5]}${n}`)
const page = 20

let opened: Awaited<ReturnType<typeof openTestSpace>>

beforeAll(async () => {
  opened = await openTestSpace()
  const { database } = opened
  await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
  await database.query('select setseed(0.5)')
  await database.query(
    `with text as (
       select i, string_agg(($2::text[])[ceil(cardinality($2::text[]) ^ random())], ' ') as content
       from generate_series(1, $1::int) as i, generate_series(1, $3 + i % 5) group by i)
     insert into message (id, source_id, channel, external_id, author, content, sent_at, words, word_count)
     select (lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid, (select id from source), 'c', i::text, 'ann',
       content, timestamptz '2026-01-01' + make_interval(mins => i), to_tsvector('simple', content), $3 + i % 5
     from text`,
    [rows, vocabulary, wordsOfText],
  )
  await database.transaction(countWords)
})
afterAll(() => opened[Symbol.asyncDispose]())

/** Each text that has a word of the query is scored. */
async function lookUpAll(query: string): Promise<string[]> {
  const words = parseQuery(query)
  const { text, values } = keywordStatement(opened.space, ['MESSAGE'], noFilter, words, null, page, 0)
  return (await opened.database.query<KeywordCandidate>(text, [...values])).map(({ id }) => id)
}

async function search(query: string): Promise<string[]> {
  const { search } = createSearch(opened.database, opened.space, {
    get: () => Promise.reject(new Error('asked')),
  })
  const { hits } = await search({
    query,
    kinds: ['MESSAGE'],
    mode: 'KEYWORD',
    threshold: null,
    filter: noFilter,
    first: page,
    after: null,
  })
  return hits.map(({ ranked }) => ranked.id)
}

test('the first page is the one that looking up every word in every text gives', async () => {
  // As likely a rare one as a common one.
  const word = fc
    .double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    .map((share) => vocabulary[Math.floor(vocabulary.length ** share)] ?? '')
  const begun = word.map((whole) => whole.slice(0, 3))
  const query = fc
    .tuple(fc.array(word, { minLength: 1, maxLength: 5 }), fc.option(begun, { nil: '' }))
    .map(([words, last]) => `${words.join(' ')} ${last}`)
  await fc.assert(
    fc.asyncProperty(query, async (asked) => {
      expect(await search(asked)).toEqual(await lookUpAll(asked))
    }),
    { numRuns: 150 },
  )
})
