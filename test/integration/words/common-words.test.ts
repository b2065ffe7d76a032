import { afterAll, beforeAll, expect, test } from 'vitest'
import { noFilter, type SearchFilter } from '../../../src/search/filter.ts'
import { createSearch } from '../../../src/search/search.ts'
import { countWords } from '../../../src/words/statistics.ts'
import { openTestSpace } from '../../support/databases.ts'

/** More than are scored because of a common word, and more than the newest that are gone through. */
const rows = 12_000

let opened: Awaited<ReturnType<typeof openTestSpace>>

beforeAll(async () => {
  opened = await openTestSpace()
  const { database } = opened
  await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
  // The oldest ten have both common words, are alone in their channel and the very oldest has a rare one besides.
  await database.query(
    `with text as (
       select i, case when i = 1 then 'walrus river stone' when i <= 10 then 'river stone'
         else (array['river', 'stone', 'lake'])[i % 3 + 1] end || ' ' || 'w' || i as content
       from generate_series(1, $1::int) as i)
     insert into message (id, source_id, channel, external_id, author, content, sent_at, words, word_count)
     select (lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid, (select id from source),
       case when i <= 10 then 'oldest' else 'other' end, i::text, 'ann', content,
       timestamptz '2026-01-01' + make_interval(mins => i), to_tsvector('simple', content), 2 from text`,
    [rows],
  )
  await database.transaction(countWords)
})
afterAll(() => opened[Symbol.asyncDispose]())

async function find(query: string, filter: SearchFilter = noFilter, first = 20): Promise<string[]> {
  const search = createSearch(opened.database, opened.space, {
    get: () => Promise.reject(new Error('asked')),
  })
  const page = await search.search({
    query,
    kinds: ['MESSAGE'],
    mode: 'KEYWORD',
    threshold: null,
    filter,
    first,
    after: null,
  })
  const ids = page.hits.map(({ ranked }) => ranked.id)
  const found = await opened.database.query<{ id: string; number: string }>(
    'select id, external_id as number from message where id = any ($1::uuid[])',
    [ids],
  )
  return ids.map((id) => found.find((row) => row.id === id)?.number ?? '')
}
const oldest = Array.from({ length: 10 }, (_, index) => String(index + 1))

test('texts that have all of several common words are found however old they are', async () => {
  expect((await find('river stone ')).slice(0, 10).toSorted((a, b) => Number(a) - Number(b))).toEqual(oldest)
})

test('a text with a rare word beside common ones comes first', async () => {
  expect((await find('river stone walrus '))[0]).toBe('1')
})

test('a common word fills the page with the newest that have it', async () => {
  const found = await find('river ')
  expect(found).toHaveLength(20)
  for (const number of found) expect(Number(number)).toBeGreaterThan(rows - 5000)
})

test('a common word is found in all texts of a filter that leaves few', async () => {
  const found = await find('river ', { ...noFilter, channels: ['oldest'] })
  expect(found.toSorted((a, b) => Number(a) - Number(b))).toEqual(oldest)
})
