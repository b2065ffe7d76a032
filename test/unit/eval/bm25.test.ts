import { expect, test } from 'vitest'
import { createBm25 } from '../../../eval/bm25.ts'

const documents = [
  { id: 'walks', text: 'She walked along walking paths' },
  { id: 'long', text: `A walk, ${'and much besides '.repeat(20)}` },
  { id: 'paths', text: 'Paths of queries' },
  { id: 'cyrillic', text: 'Поиск по словам' },
]
const rank = createBm25(documents)

test.each([
  { query: 'walk', found: ['walks', 'long'], why: 'twice in a short text is more than once in a long one' },
  { query: 'query path', found: ['paths', 'walks'], why: 'two words are more than one' },
  { query: 'ПОИСК', found: ['cyrillic'], why: 'letters of any script are words' },
  { query: '?!', found: [], why: 'there is no word' },
])('$query: $why', ({ query, found }) => {
  expect(rank(query, 10)).toEqual(found)
})

test('no more than were asked for', () => {
  expect(rank('walk', 1)).toEqual(['walks'])
})
