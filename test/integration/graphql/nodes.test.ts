import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
import { globalId, missingId } from '../../support/ids.ts'
import { createAtom, createTopic, linkAtoms } from '../../support/knowledge.ts'
import { ingest, message } from '../../support/messages.ts'
import { addAgent, addProvider } from '../../support/providers.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
/** One id of every type that is a node. */
const ids: Record<string, string> = {}

const EveryNodeDocument = graphql(`
  query EveryNode {
    messages(first: 1) { nodes { id source { id } } }
    atoms(first: 1) { nodes { id } }
    topics(first: 1) { nodes { id } }
    jobs(first: 1) { nodes { id } }
    alerts { id }
    revisions(first: 1) { nodes { id } }
    embeddingSpaces { id provider { id } }
  }
`)

const StartJobDocument = graphql(`
  mutation StartJob {
    backfillEmbeddings(input: {}) { ... on BackfillEmbeddingsPayload { job { id } } }
  }
`)

const NodeDocument = graphql(`query AnyNode($id: ID!) { node(id: $id) { __typename id } }`)
const NodesDocument = graphql(`query AnyNodes($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }`)

const count = 25

beforeAll(async () => {
  app = await startProviderApp()
  await ingest(
    app.client,
    Array.from({ length: count }, (_, index) => message(`message ${index}`)),
  )
  await createTopic(app.client, { name: 'Topic' })
  const atoms = [
    await createAtom(app.client, { type: 'IDEA', title: 'Atom', content: 'Text' }),
    await createAtom(app.client, { type: 'IDEA', title: 'Other', content: 'Other text' }),
  ]
  ids.AtomLink = await linkAtoms(app.client, atoms)
  await app.sql(
    `insert into revision (id, atom_id, number, changes) select gen_random_uuid(), id, 1, '{}' from atom limit 1`,
  )
  await app.sql(`insert into alert (id, kind, failures) values (gen_random_uuid(), 'IMPORT', 3)`)
  await app.client.run(StartJobDocument)
  const providerId = await addProvider(app.client, {
    name: 'Added',
    type: 'OPENAI',
    baseUrl: `${app.provider.url}/v1`,
    embeddingModel: 'e',
  })
  ids.Agent = await addAgent(app.client, { name: 'Agent', providerId, model: 'm' })
  const all = await app.client.run(EveryNodeDocument)
  Object.assign(ids, {
    Message: all.messages.nodes[0]?.id,
    Source: all.messages.nodes[0]?.source.id,
    Atom: all.atoms.nodes[0]?.id,
    Alert: all.alerts[0]?.id,
    Topic: all.topics.nodes[0]?.id,
    Job: all.jobs.nodes[0]?.id,
    EmbeddingSpace: all.embeddingSpaces[0]?.id,
    Provider: all.embeddingSpaces[0]?.provider.id,
    Revision: all.revisions.nodes[0]?.id,
  })
})
afterAll(() => app[Symbol.asyncDispose]())

describe('an id', () => {
  test('fetches what it names, of every type that is a node', async () => {
    const { __schema } = (
      await app.client.send<{
        __schema: { types: { name: string; interfaces: { name: string }[] | null }[] }
      }>('{ __schema { types { name interfaces { name } } } }')
    ).data ?? { __schema: { types: [] } }
    const nodeTypes = __schema.types.filter((type) => type.interfaces?.some(({ name }) => name === 'Node'))
    expect(nodeTypes.map(({ name }) => name).sort()).toEqual(Object.keys(ids).sort())
    for (const [type, id] of Object.entries(ids)) {
      expect(await app.client.run(NodeDocument, { id })).toEqual({ node: { __typename: type, id } })
    }
  })

  test('fetches many in the order asked for, and null for what does not exist', async () => {
    const asked = [ids.Topic, missingId('Message'), ids.Message, ids.Topic].flatMap((id) => id ?? [])
    const { nodes } = await app.client.run(NodesDocument, { ids: asked })
    expect(nodes.map((node) => node?.id ?? null)).toEqual([ids.Topic, null, ids.Message, ids.Topic])
  })

  test.each(['Alert', 'Message', 'Source', 'Atom', 'AtomLink', 'Topic', 'Job', 'Revision'])(
    'of no %s is null',
    async (type) => {
      expect(await app.client.run(NodeDocument, { id: missingId(type) })).toEqual({ node: null })
    },
  )

  test('of no space or provider is null', async () => {
    expect(await app.client.run(NodeDocument, { id: globalId('EmbeddingSpace', '99') })).toEqual({
      node: null,
    })
    expect(await app.client.run(NodeDocument, { id: globalId('Provider', 'x') })).toEqual({ node: null })
  })

  test.each([
    ['no id at all', 'garbage'],
    ['empty', ''],
    ['a number where a UUID belongs', globalId('Message', '1')],
    ['a UUID where a number belongs', missingId('EmbeddingSpace')],
    ['longer than any', 'x'.repeat(10_000)],
    ['of a type that is none', missingId('Nothing')],
    ['of a type without ids', missingId('MessageEdge')],
    ['of the name of a property of every object', missingId('constructor')],
  ])('that is %s is a mistake of the caller', async (_name, id) => {
    const { errors } = await app.client.send(NodeDocument.toString(), { id })
    expect(errors).toMatchObject([{ extensions: { code: 'BAD_USER_INPUT' } }])
  })

  test.each(['sourceIds', 'topicIds'])('of another type is refused by the filter %s', async (field) => {
    for (const id of [ids.EmbeddingSpace, ids.Atom, 'garbage']) {
      const { errors } = await app.client.send(
        `query($ids: [ID!]) { messages(filter: { ${field}: $ids }) { nodes { id } } }`,
        { ids: [id] },
      )
      expect(errors?.[0]?.extensions?.code).toBe('BAD_USER_INPUT')
    }
  })
})

const PageDocument = graphql(`
  query MessagePage($first: Int, $after: String, $last: Int, $before: String, $orderBy: MessageOrder) {
    messages(first: $first, after: $after, last: $last, before: $before, orderBy: $orderBy) {
      nodes { content }
      edges { cursor node { content } }
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  }
`)

const page = async (variables: Parameters<typeof app.client.run<unknown, Record<string, unknown>>>[1]) =>
  (await app.client.run(PageDocument, variables)).messages

describe('the pages of a connection', () => {
  const newestFirst = Array.from({ length: count }, (_, index) => `message ${count - 1 - index}`)

  test('hold twenty unless asked for otherwise', async () => {
    const { nodes, edges, pageInfo } = await page({})
    expect(nodes.map(({ content }) => content)).toEqual(newestFirst.slice(0, 20))
    expect(edges.map(({ node }) => node.content)).toEqual(newestFirst.slice(0, 20))
    expect(pageInfo).toMatchObject({
      hasNextPage: true,
      hasPreviousPage: false,
      startCursor: edges[0]?.cursor,
      endCursor: edges.at(-1)?.cursor,
    })
  })

  test('forwards give each row once', async () => {
    const seen: string[] = []
    let after: string | null | undefined = null
    do {
      const { nodes, pageInfo } = await page({ first: 7, after })
      seen.push(...nodes.map(({ content }) => content))
      after = pageInfo.hasNextPage ? pageInfo.endCursor : null
    } while (after)
    expect(seen).toEqual(newestFirst)
  })

  test('backwards give each row once', async () => {
    const seen: string[] = []
    let before: string | null | undefined = null
    do {
      const { nodes, pageInfo } = await page({ last: 7, before })
      seen.unshift(...nodes.map(({ content }) => content))
      before = pageInfo.hasPreviousPage ? pageInfo.startCursor : null
    } while (before)
    expect(seen).toEqual(newestFirst)
  })

  test('follow the order that is asked for', async () => {
    const { nodes } = await page({ first: 2, orderBy: { field: 'CREATED_AT', direction: 'ASC' } })
    expect(nodes).toHaveLength(2)
    const { nodes: oldest } = await page({ first: 2, orderBy: { field: 'SENT_AT', direction: 'ASC' } })
    expect(oldest.map(({ content }) => content)).toEqual(['message 0', 'message 1'])
  })

  test('of more than a hundred are refused, not cut', async () => {
    const { errors } = await app.client.send(PageDocument.toString(), { first: 101 })
    expect(errors).toMatchObject([
      { message: 'first is 101; it must be 1..100', extensions: { code: 'INVALID_INPUT', path: ['first'] } },
    ])
  })

  test.each([
    { first: -1 },
    { last: -1 },
    { after: 'garbage' },
    { after: btoa('GPC:S:x') },
    { after: btoa('GPC:N:1') },
    { before: btoa('GPC:T:["S:x","S:y"]') },
  ])('refuse %o as a mistake of the caller', async (variables) => {
    const { errors } = await app.client.send(PageDocument.toString(), variables)
    expect(errors).toHaveLength(1)
    expect(errors?.[0]?.extensions?.code).not.toBe('INTERNAL_SERVER_ERROR')
  })
})
