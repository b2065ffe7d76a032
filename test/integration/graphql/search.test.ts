import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startTestApp, type TestApp } from '../../support/apps.ts'
import type { SearchMode, SearchQueryVariables } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId, globalId, missingId } from '../../support/ids.ts'
import { createAtom, createTopic } from '../../support/knowledge.ts'
import { ingest, message } from '../../support/messages.ts'

let app: TestApp
let topics: Record<'releases' | 'phones' | 'archived', string>

const SearchDocument = graphql(`
  query Search(
    $query: String!, $kinds: [EntityKind!], $mode: SearchMode, $threshold: Float, $filter: SearchFilter,
    $first: Int, $after: String
  ) {
    search(
      query: $query, kinds: $kinds, mode: $mode, threshold: $threshold, filter: $filter, first: $first, after: $after
    ) {
      edges {
        cursor rank score similarity snippet
        explain { semanticRank keywordRank keywordScore }
        node {
          __typename
          ... on Message { id content author }
          ... on Atom { id title }
          ... on Topic { id name }
        }
      }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
      coverage { eligible ready pending stale failed }
      space { id dimensions }
    }
  }
`)

const LikeDocument = graphql(`
  query LikeThis($id: ID!, $first: Int, $threshold: Float) {
    node(id: $id) {
      ... on Message {
        similar(first: $first, threshold: $threshold) {
          edges { similarity node { ... on Message { content } } }
          pageInfo { hasNextPage }
        }
        duplicates(threshold: $threshold) { nodes { ... on Message { content } } }
      }
      ... on Topic { similar(threshold: 0) { nodes { ... on Topic { name } } } }
    }
  }
`)

async function search(variables: SearchQueryVariables) {
  return (await app.client.run(SearchDocument, variables)).search
}

type Node = Awaited<ReturnType<typeof search>>['edges'][number]['node']

function titleOf(node: Node): string {
  switch (node.__typename) {
    case 'Message':
      return node.content
    case 'Atom':
      return node.title
    case 'Topic':
      return node.name
  }
}

const titles = ({ edges }: { edges: readonly { node: Node }[] }) => edges.map(({ node }) => titleOf(node))

const late = 'Push notifications arrive hours late when the phone is asleep'
const battery = 'Battery saver delays background messages on Android phones'
const lunch = 'Who wants to order pizza for lunch today?'
const invoice = 'The invoice for the new office chairs is overdue'

beforeAll(async () => {
  app = await startTestApp()
  const made = {
    releases: await createTopic(app.client, {
      name: 'Releases',
      description: 'How new versions are shipped',
    }),
    phones: await createTopic(app.client, {
      name: 'Phones',
      description: 'Mobile apps and their notifications',
    }),
    archived: await createTopic(app.client, {
      name: 'Old phones',
      description: 'Notifications on old phones',
    }),
  }
  topics = { releases: made.releases.id, phones: made.phones.id, archived: made.archived.id }
  await ingest(app.client, [
    message(late, { author: 'ann', channel: 'mobile', sentAt: '2026-05-01T10:00:00Z' }),
    message(battery, { author: 'bob', channel: 'mobile', sentAt: '2026-05-02T10:00:00Z' }),
    message(lunch, { author: 'ann', channel: 'random', sentAt: '2026-05-03T10:00:00Z' }),
    message(' ', { author: 'ann', channel: 'random', sentAt: '2026-05-03T11:00:00Z' }),
  ])
  await ingest(
    app.client,
    [message(invoice, { author: 'cho', channel: 'office', sentAt: '2026-05-04T10:00:00Z' })],
    { name: 'Office', type: 'slack' },
  )
  await createAtom(app.client, {
    type: 'PROBLEM',
    title: 'Late notifications',
    content: 'Notifications reach sleeping phones late.',
    topicIds: [topics.phones],
  })
  await createAtom(app.client, {
    type: 'DECISION',
    title: 'Weekly releases',
    content: 'A release is shipped every Monday.',
    topicIds: [topics.releases],
  })
  await createAtom(app.client, {
    type: 'IDEA',
    title: 'Rejected notifications',
    content: 'Send mails instead.',
  })
  await app.sql(`update atom set review_state = 'REJECTED' where title = 'Rejected notifications'`)
  await app.sql(`update topic set archived_at = now() where name = 'Old phones'`)
  await app.sql('update message set topic_id = $1 where content = $2', [databaseId(topics.phones), late])
  await app.sql(`update message set noise = 'NOISE' where content = $1`, [lunch])
  await app.client.waitUntilEmbedded()
})
afterAll(() => app[Symbol.asyncDispose]())

describe('a search by meaning', () => {
  test('finds what is meant though it shares no word', async () => {
    const found = await search({
      query: 'alerts are delayed on mobile devices',
      mode: 'SEMANTIC',
      kinds: ['MESSAGE'],
      filter: { includeNoise: true },
    })
    expect(titles(found).slice(0, 2).sort()).toEqual([battery, late].sort())
    expect(found.edges.map(({ rank }) => rank)).toEqual([1, 2, 3, 4])
    for (const { score, similarity, explain, rank } of found.edges) {
      expect(score).toBe(similarity)
      expect(explain).toEqual({ semanticRank: rank, keywordRank: null, keywordScore: null })
    }
  })

  test('gives a text itself the similarity 1', async () => {
    const { edges } = await search({ query: late, mode: 'SEMANTIC', kinds: ['MESSAGE'], first: 1 })
    expect(edges).toMatchObject([{ similarity: expect.closeTo(1, 4), node: { content: late } }])
  })

  test('mixes kinds in one order', async () => {
    const found = await search({ query: 'late notifications on phones', mode: 'SEMANTIC' })
    expect(new Set(found.edges.slice(0, 4).map(({ node }) => node.__typename))).toEqual(
      new Set(['Message', 'Atom', 'Topic']),
    )
    const scores = found.edges.map(({ score }) => score)
    expect(scores).toEqual([...scores].sort((a, b) => b - a))
  })
})

describe('a search by words', () => {
  const words = async (query: string) => titles(await search({ query, mode: 'KEYWORD', kinds: ['MESSAGE'] }))

  test('puts first what holds most of them, in any case and by their stems', async () => {
    expect(await words('PHONES in the background')).toEqual([battery, late, invoice])
    expect(await words('lunch')).toEqual([])
  })

  test('finds what begins like the word that is being typed', async () => {
    expect(await words('overd')).toEqual([invoice])
    expect(await words('overd ')).toEqual([])
  })

  test('holds quoted words together, and leaves out what has a minus', async () => {
    expect(await words('"background messages"')).toEqual([battery])
    expect(await words('"messages background"')).toEqual([])
    expect(await words('the -phone')).toEqual([invoice])
    const hybrid = await search({ query: 'late notifications -asleep', kinds: ['MESSAGE'] })
    expect(titles(hybrid)).not.toContain(late)
    expect(titles(await search({ query: 'late "office chairs"', kinds: ['MESSAGE'] }))).toEqual([invoice])
  })

  test('asks no model: it has no similarity and names no space', async () => {
    const found = await search({ query: 'invoice', mode: 'KEYWORD' })
    expect(found.space).toBeNull()
    expect(found.edges).toMatchObject([
      { similarity: null, explain: { semanticRank: null, keywordRank: 1 }, node: { content: invoice } },
    ])
  })

  test('marks them in the snippet', async () => {
    const { edges } = await search({ query: 'invoice office', mode: 'KEYWORD' })
    expect(edges[0]?.snippet).toBe(
      'The <mark>invoice</mark> for the new <mark>office</mark> chairs is overdue',
    )
  })
})

describe('a hybrid search', () => {
  test('puts first what both ways find, and explains both', async () => {
    const { edges, space } = await search({ query: 'notifications phone asleep', kinds: ['MESSAGE'] })
    expect(edges[0]).toMatchObject({ node: { content: late }, explain: { semanticRank: 1, keywordRank: 1 } })
    expect(edges.at(-1)).toMatchObject({ explain: { keywordRank: null, keywordScore: null } })
    expect(space).toMatchObject({ dimensions: 512 })
  })
})

describe('a filter', () => {
  const under = async (filter: SearchQueryVariables['filter'], mode: SearchMode = 'SEMANTIC') =>
    titles(await search({ query: 'late phone notifications release', mode, filter })).sort()

  test.each([
    ['channels', { channels: ['mobile'] }, [battery, late]],
    ['authors', { authors: ['cho', 'bob'] }, [battery, invoice]],
    ['sentAfter', { sentAfter: '2026-05-04T10:00:00Z' }, [invoice]],
    ['sentBefore', { sentBefore: '2026-05-02T10:00:00Z' }, [late]],
    ['both ends', { sentAfter: '2026-05-02T10:00:00Z', sentBefore: '2026-05-04T10:00:00Z' }, [battery]],
    ['noise, too', { channels: ['random'], includeNoise: true }, [lunch]],
    ['atomTypes', { atomTypes: ['DECISION' as const] }, ['Weekly releases']],
    ['reviewStates', { reviewStates: ['REJECTED' as const] }, ['Rejected notifications']],
    [
      'fields of all kinds alone',
      {},
      [battery, invoice, late, 'Late notifications', 'Phones', 'Releases', 'Weekly releases'],
    ],
    ['several of a kind', { channels: ['mobile', 'office'], authors: ['ann', 'cho'] }, [invoice, late]],
    ['fields that no kind has together', { authors: ['ann'], atomTypes: ['IDEA' as const] }, []],
    ['an empty list', { channels: [] }, []],
  ])('on %s leaves what fits, and nothing else', async (_name, filter, expected) => {
    expect(await under(filter)).toEqual([...expected].sort())
  })

  test('on topics leaves their messages, their atoms and themselves', async () => {
    expect(await under({ topicIds: [topics.phones] })).toEqual([late, 'Late notifications', 'Phones'].sort())
    expect(await under({ topicIds: [topics.archived] })).toEqual([])
    expect(await under({ topicIds: [topics.archived], includeArchived: true })).toEqual(['Old phones'])
  })

  test('on sources leaves their messages', async () => {
    const [source] = await app.sql<{ id: string }>(`select id from source where name = 'Office'`)
    expect(await under({ sourceIds: [globalId('Source', source?.id ?? '')] })).toEqual([invoice])
    expect(await under({ sourceIds: [missingId('Source')] })).toEqual([])
  })

  test.each(['KEYWORD', 'HYBRID'] as const)('holds in mode %s, too', async (mode) => {
    const { edges } = await search({ query: 'phone', mode, filter: { channels: ['office'] } })
    expect(edges.flatMap(({ node }) => (node.__typename === 'Message' ? [node.author] : ['?']))).toEqual(
      mode === 'KEYWORD' ? [] : ['cho'],
    )
  })

  test.each([
    ['sourceIds', missingId('Topic')],
    ['topicIds', missingId('Source')],
  ])('on %s refuses an id of another type', async (field, id) => {
    const answer = await app.client.send(SearchDocument.toString(), { query: 'x', filter: { [field]: [id] } })
    expect(answer.errors).toMatchObject([
      { extensions: { code: 'INVALID_INPUT', path: ['filter', field, '0'] } },
    ])
  })
})

describe('a threshold', () => {
  test('drops what is less similar', async () => {
    const all = await search({ query: late, mode: 'SEMANTIC', kinds: ['MESSAGE'] })
    const [, second] = all.edges
    const threshold = second?.similarity ?? Number.NaN
    const above = await search({ query: late, mode: 'SEMANTIC', kinds: ['MESSAGE'], threshold })
    expect(titles(above)).toEqual(titles(all).slice(0, 2))
    const hybrid = await search({ query: late, mode: 'HYBRID', kinds: ['MESSAGE'], threshold })
    expect(titles(hybrid).sort()).toEqual(titles(above).sort())
  })

  test('is passed over by a search by words', async () => {
    expect(titles(await search({ query: 'invoice', mode: 'KEYWORD', threshold: 1 }))).toEqual([invoice])
  })
})

describe('the coverage', () => {
  test('counts what the filter leaves, by status, without what has nothing to embed', async () => {
    const { coverage } = await search({ query: 'x', filter: { channels: ['random'], includeNoise: true } })
    expect(coverage).toEqual({ eligible: 1, ready: 1, pending: 0, stale: 0, failed: 0 })
    const all = await search({ query: 'x' })
    expect(all.coverage).toEqual({ eligible: 7, ready: 7, pending: 0, stale: 0, failed: 0 })
  })

  test('is empty where the filter leaves no kind', async () => {
    const { coverage } = await search({ query: 'x', kinds: ['TOPIC'], filter: { authors: ['ann'] } })
    expect(coverage).toEqual({ eligible: 0, ready: 0, pending: 0, stale: 0, failed: 0 })
  })
})

describe('a query', () => {
  test.each(['', '   ', '\n\t', '\0'])('that is blank (%j) finds nothing', async (query) => {
    expect((await search({ query })).edges).toEqual([])
  })

  test('may be any text: never an error', { timeout: 60_000 }, async () => {
    const odd = fc.constantFrom(
      "'",
      '"',
      '-',
      'or',
      '&',
      '|',
      '!',
      ':*',
      '<->',
      '\\',
      '\0',
      '%',
      '(',
      ')',
      '\ud83d',
      '😀',
      'phone',
    )
    const anyText = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.array(odd).map((list) => list.join(' ')),
    )
    await fc.assert(
      fc.asyncProperty(anyText, fc.constantFrom('HYBRID', 'SEMANTIC', 'KEYWORD'), async (query, mode) => {
        const { errors } = await app.client.send(SearchDocument.toString(), { query, mode })
        expect(errors).toBeUndefined()
      }),
      { numRuns: 50 },
    )
  })

  test.each(['word '.repeat(2000), 'x'.repeat(10_000), '"'.repeat(9999)])(
    'may be long where no model has to read it (%#)',
    async (query) => {
      expect((await search({ query, mode: 'KEYWORD' })).edges).toEqual([])
    },
  )

  test('of more than 10,000 characters is refused', async () => {
    const { errors } = await app.client.send(SearchDocument.toString(), { query: 'x'.repeat(10_001) })
    expect(errors).toMatchObject([{ extensions: { code: 'INVALID_INPUT', path: ['query'] } }])
  })

  test('that is longer than what the model reads at once is compared whole', async () => {
    const filler = 'nothing to see here '.repeat(100)
    const { edges } = await search({ query: `${filler}. ${late}`, mode: 'SEMANTIC', kinds: ['MESSAGE'] })
    expect(edges).not.toEqual([])
  })

  test('of which the model knows no word finds by words alone', async () => {
    expect((await search({ query: '\u2603', mode: 'SEMANTIC' })).edges).toEqual([])
    expect((await search({ query: '\u2603', mode: 'HYBRID' })).edges).toEqual([])
  })
})

test.each([
  ['first', { first: 0 }],
  ['first', { first: 101 }],
  ['threshold', { threshold: -0.1 }],
  ['threshold', { threshold: 1.1 }],
  ['after', { after: 'garbage' }],
])('a wrong %s is refused by name (%j)', async (field, variables) => {
  const { errors } = await app.client.send(SearchDocument.toString(), { query: 'x', ...variables })
  expect(errors).toMatchObject([{ extensions: { code: 'INVALID_INPUT', path: [field] } }])
})

describe('what is like a message', () => {
  const likeThis = async (content: string, options: { first?: number; threshold?: number } = {}) => {
    const [row] = await app.sql<{ id: string }>('select id from message where content = $1', [content])
    const { node } = await app.client.run(LikeDocument, {
      id: globalId('Message', row?.id ?? ''),
      ...options,
    })
    if (!node || !('duplicates' in node)) throw new Error('no message')
    return node
  }

  test('are the others of its kind, nearest first, within number and threshold', async () => {
    const all = await likeThis(late, { first: 10, threshold: 0 })
    expect(all.similar.edges.map(({ node }) => node)).toEqual([{ content: battery }, { content: invoice }])
    const [nearest, next] = all.similar.edges.map(({ similarity }) => similarity ?? Number.NaN)
    const some = await likeThis(late, { first: 10, threshold: ((nearest ?? 0) + (next ?? 0)) / 2 })
    expect(some.similar.edges).toEqual(all.similar.edges.slice(0, 1))
    const one = await likeThis(late, { first: 1, threshold: 0 })
    expect(one.similar).toEqual({ edges: all.similar.edges.slice(0, 1), pageInfo: { hasNextPage: true } })
  })

  test('and says the same are its duplicates', async () => {
    expect((await likeThis(late)).duplicates.nodes).toEqual([])
    await ingest(app.client, [message(`${late}!`, { channel: 'copies', sentAt: '2026-05-05T10:00:00Z' })])
    await app.client.waitUntilEmbedded()
    expect((await likeThis(late)).duplicates.nodes).toEqual([{ content: `${late}!` }])
    await app.sql(`delete from message where channel = 'copies'`)
  })

  test('is nothing while it has no vector', async () => {
    expect((await likeThis(' ', { threshold: 0 })).similar.edges).toEqual([])
  })

  test('of a topic are other topics', async () => {
    const { node } = await app.client.run(LikeDocument, { id: topics.phones })
    if (!node || !('similar' in node) || 'duplicates' in node) throw new Error('no topic')
    expect(node.similar.nodes).toEqual([{ name: 'Releases' }])
  })
})
