import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
import { createAtom, createTopic } from '../../support/knowledge.ts'
import { ingest } from '../../support/messages.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
beforeAll(async () => {
  app = await startProviderApp()
})
afterAll(() => app[Symbol.asyncDispose]())

const WordsDocument = graphql(`
  query FindWords($query: String!) {
    search(query: $query, mode: KEYWORD) {
      nodes { ... on Message { content } ... on Atom { title } ... on Topic { name } }
    }
  }
`)

const find = async (query: string) => (await app.client.run(WordsDocument, { query })).search.nodes

const EditDocument = graphql(`
  mutation EditWords($input: UpdateMessageInput!) {
    updateMessage(input: $input) { ... on UpdateMessagePayload { message { id } } }
  }
`)

describe('what is written through the API is found by its words at once', () => {
  test('messages, atoms and topics', async () => {
    await ingest(app.client, ['A walrus sits on the server'])
    await createAtom(app.client, { type: 'IDEA', title: 'Feed the walrus', content: 'With fish.' })
    await createTopic(app.client, { name: 'Walruses' })
    expect(await find('walrus ')).toHaveLength(3)
  })

  test('a text that is edited by its new words only', async () => {
    const { messages } = await ingest(app.client, ['The old heron'])
    const [message] = messages
    await app.client.run(EditDocument, { input: { id: message?.id ?? '', content: 'The new pelican' } })
    expect(await find('heron ')).toEqual([])
    expect(await find('pelican ')).toEqual([{ content: 'The new pelican' }])
  })
})

test('a name that stands whole is worth more than its parts, in whatever order these stand', async () => {
  await ingest(app.client, ['cache redis grows', 'redis_cache grows'])
  expect(await find('redis_cache ')).toEqual([
    { content: 'redis_cache grows' },
    { content: 'cache redis grows' },
  ])
})

test('a text with two words that begin like the last one is not better than one with all words', async () => {
  const all = 'We need gold plankton on the server'
  const begun = 'We need a planet in the plaza and a walrus on the server'
  await ingest(app.client, [all, begun])
  expect(await find('gold pla')).toEqual([{ content: all }, { content: begun }])
})

describe('what is written behind the back of the API is found by its words soon', () => {
  const insert = `insert into message (id, source_id, external_id, author, content, sent_at)
    select gen_random_uuid(), id, $1, 'ann', $1, now() from source limit 1`

  test('a row that is new', async () => {
    await app.sql(insert, ['Of an ostrich'])
    // Embedded, the app does not hear of it; it looks all the same.
    await vi.waitFor(async () => expect(await find('ostrich ')).toHaveLength(1), { timeout: 10_000 })
  })

  test('a text that is changed: at no time by its old words', async () => {
    await app.sql(insert, ['Of a flamingo'])
    await vi.waitFor(async () => expect(await find('flamingo ')).toHaveLength(1), { timeout: 10_000 })
    await app.sql(`update message set content = 'Of a toucan' where content = 'Of a flamingo'`)
    expect(await find('flamingo ')).toEqual([])
    await vi.waitFor(async () => expect(await find('toucan ')).toHaveLength(1), { timeout: 10_000 })
  })
})

test('frequent words are counted when there are many more texts', async () => {
  await ingest(
    app.client,
    Array.from({ length: 300 }, (_, n) => `The penguin with number ${n} ${n % 2 === 0 ? 'dives' : ''}`),
  )
  await vi.waitFor(
    async () => {
      const counts = await app.sql<{ word: string; documents: number }>(
        `select word, documents from word_frequency where word in ('penguin', 'dives', 'dive', '77') order by word`,
      )
      expect(counts).toEqual([
        { word: 'dive', documents: 150 },
        { word: 'dives', documents: 150 },
        { word: 'penguin', documents: 300 },
      ])
    },
    { timeout: 10_000 },
  )
})

test('occurrences of a word are what Postgres has counted', async () => {
  const rows = await app.sql<{ n: number; counted: number }>(
    `select n, occurrences(('''word'':' || string_agg(i::text, ',') || ' ''other'':1,2,3')::tsvector, '''word''')::int as counted
     from generate_series(1, 255) as n, generate_series(1, n) as i group by n order by n`,
  )
  expect(rows.filter(({ n, counted }) => n !== counted)).toEqual([])
  expect(await app.sql(`select occurrences('''other'':1', '''word''')::int as counted`)).toEqual([
    { counted: 0 },
  ])
})
