import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { byMarks, ExtractDocument, KnowledgeDocument, openAiExtractor } from '../../support/extraction.ts'
import { graphql } from '../../support/generated/index.ts'
import { missingId } from '../../support/ids.ts'
import { createAtom, createTopic, linkAtoms, tryCreateTopic } from '../../support/knowledge.ts'
import { ingest } from '../../support/messages.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  app = await startProviderApp(byMarks, { env: { ...openAiExtractor, QUARRY_AUTO_APPROVE: 'DECISION:0.9' } })
})
afterAll(() => app[Symbol.asyncDispose]())
afterEach(async () => {
  for (const table of ['message', 'atom', 'topic']) await app.sql(`delete from ${table}`)
})

async function read(...texts: string[]) {
  const { messages } = await ingest(app.client, texts)
  const ids = messages.map(({ id }) => id)
  const { extractKnowledge } = await app.client.run(ExtractDocument, { input: { messageIds: ids } })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error('the extraction was refused')
  await app.client.waitForJob(extractKnowledge.job.id)
  return ids
}

const atoms = async () => (await app.client.run(KnowledgeDocument)).atoms.nodes
const topics = async () => (await app.client.run(KnowledgeDocument)).topics.nodes

const SearchDocument = graphql(`
  query SearchReviewed($query: String!) {
    search(query: $query, kinds: [ATOM, TOPIC], mode: SEMANTIC, threshold: 0.99) {
      nodes { ... on Atom { title } ... on Topic { name } }
    }
  }
`)
const search = async (query: string) => {
  const document = graphql(`query SearchTopicsByWords($query: String!) {
    search(query: $query, kinds: [TOPIC], mode: KEYWORD) { nodes { ... on Topic { name } } }
  }`)
  return (await app.client.run(document, { query })).search.nodes
}
const found = async (query: string) => (await app.client.run(SearchDocument, { query })).search.nodes

describe('an atom that was extracted', () => {
  test('is pending, unless it is sure enough and of a type that is approved by itself', async () => {
    await read('DECISION: Ship on Tuesday', 'DECISION: Ship on Monday ?0.89', 'IDEA: Never ship')
    expect((await atoms()).map(({ reviewState }) => reviewState)).toEqual(['APPROVED', 'PENDING', 'PENDING'])
  })

  test('can be approved, rejected with a reason, and approved after all', async () => {
    await read('IDEA: Paint the bikeshed {shed}')
    const [atom] = await atoms()
    const review = graphql(`
      mutation Review($id: ID!, $reason: String) {
        rejectAtom(input: { id: $id, reason: $reason }) {
          ... on RejectAtomPayload { atom { reviewState reviewNote } }
        }
      }
    `)
    const approve = graphql(`
      mutation Approve($id: ID!) {
        approveAtom(input: { id: $id }) {
          __typename
          ... on ApproveAtomPayload { atom { reviewState reviewNote } }
        }
      }
    `)
    const id = atom?.id ?? ''
    expect(await found('{shed}')).toHaveLength(1)
    expect((await app.client.run(review, { id, reason: 'off topic' })).rejectAtom).toEqual({
      atom: { reviewState: 'REJECTED', reviewNote: 'off topic' },
    })
    expect(await found('{shed}')).toEqual([])
    expect((await app.client.run(approve, { id })).approveAtom).toMatchObject({
      atom: { reviewState: 'APPROVED', reviewNote: null },
    })
    expect(await found('{shed}')).toHaveLength(1)
    expect((await app.client.run(approve, { id: missingId('Atom') })).approveAtom).toMatchObject({
      __typename: 'NotFoundError',
    })
  })

  test('can be archived and restored, and deleted for good', async () => {
    await read('IDEA: Put it away {away}')
    const id = (await atoms())[0]?.id ?? ''
    const document = graphql(`
      mutation PutAway($id: ID!) {
        archiveAtom(input: { id: $id }) { ... on ArchiveAtomPayload { atom { archivedAt } } }
      }
    `)
    expect((await app.client.run(document, { id })).archiveAtom).toMatchObject({
      atom: { archivedAt: expect.any(String) },
    })
    expect(await found('{away}')).toEqual([])
    await app.client.run(
      graphql(`mutation TakeBack($id: ID!) { restoreAtom(input: { id: $id }) { __typename } }`),
      { id },
    )
    expect(await found('{away}')).toHaveLength(1)
    const { deleteAtoms } = await app.client.run(
      graphql(`mutation DeleteAtoms($ids: [ID!]!) {
        deleteAtoms(input: { ids: $ids }) { ... on DeleteAtomsPayload { deletedAtomIds } }
      }`),
      { ids: [id, missingId('Atom')] },
    )
    expect(deleteAtoms).toEqual({ deletedAtomIds: [id] })
    expect(await app.sql(`select from embedding where kind = 'ATOM'`)).toEqual([])
  })

  test('that is edited is embedded again by itself', async () => {
    await read('IDEA: Before the edit {before}')
    const id = (await atoms())[0]?.id ?? ''
    await app.client.run(
      graphql(`mutation EditAtom($id: ID!) {
        updateAtom(input: { id: $id, content: "after the edit {after}", title: "{after}" }) { __typename }
      }`),
      { id },
    )
    await app.client.waitUntilEmbedded()
    expect(await found('{after}')).toMatchObject([{ title: '{after}' }])
    expect(await found('{before}')).toEqual([])
  })
})

describe('a revision', () => {
  const decide = {
    approve: graphql(`mutation ApproveIt($id: ID!) {
      approveRevision(input: { id: $id }) {
        __typename
        ... on ApproveRevisionPayload {
          revision { state decidedAt number node { ... on Atom { content embeddingStatus citations { quote } } } }
        }
        ... on UserError { message }
      }
    }`),
    reject: graphql(`mutation RejectIt($id: ID!) {
      rejectRevision(input: { id: $id }) {
        __typename
        ... on RejectRevisionPayload { revision { state } }
        ... on UserError { message }
      }
    }`),
  }

  async function proposed(): Promise<string> {
    await read('PROBLEM: The disk is full {disk}')
    await read('PROBLEM: The disk is full again {disk@0.96}')
    return (await atoms())[0]?.revisions.nodes[0]?.id ?? ''
  }

  test('that is approved changes the atom, adds the words that prove it, and is embedded by itself', async () => {
    const id = await proposed()
    const { approveRevision } = await app.client.run(decide.approve, { id })
    expect(approveRevision).toMatchObject({
      revision: {
        state: 'APPROVED',
        decidedAt: expect.any(String),
        node: {
          content: 'The disk is full again {disk@0.96}',
          citations: [
            { quote: 'PROBLEM: The disk is full {disk}' },
            { quote: 'PROBLEM: The disk is full again {disk@0.96}' },
          ],
        },
      },
    })
    await app.client.waitUntilEmbedded()
    const [atom] = await atoms()
    expect(atom?.embeddingStatus).toBe('READY')
    expect(
      await found('The disk is full again {disk@0.96}\n\nThe disk is full again {disk@0.96}'),
    ).toHaveLength(1)
  })

  test('is decided once', async () => {
    const id = await proposed()
    expect((await app.client.run(decide.reject, { id })).rejectRevision).toMatchObject({
      revision: { state: 'REJECTED' },
    })
    expect((await app.client.run(decide.approve, { id })).approveRevision).toMatchObject({
      __typename: 'ConflictError',
      message: expect.stringMatching(/REJECTED since .* for good/),
    })
    expect((await atoms())[0]?.content).toBe('The disk is full {disk}')
    expect(
      (await app.client.run(decide.approve, { id: missingId('Revision') })).approveRevision,
    ).toMatchObject({
      __typename: 'NotFoundError',
    })
  })
})

describe('topics', () => {
  const MergeDocument = graphql(`
    mutation Merge($ids: [ID!]!, $intoId: ID!) {
      mergeTopics(input: { ids: $ids, intoId: $intoId }) {
        __typename
        ... on MergeTopicsPayload { topic { name messages { nodes { content } } atoms { nodes { title } } } }
        ... on UserError { message }
      }
    }
  `)

  test('that are merged become one: messages and atoms move, the old names lead to it', async () => {
    await read('IDEA: One #alpha', 'IDEA: Two #beta', 'IDEA: Three #gamma')
    const [alpha, beta, gamma] = await topics()
    const { mergeTopics } = await app.client.run(MergeDocument, {
      ids: [beta?.id ?? '', gamma?.id ?? ''],
      intoId: alpha?.id ?? '',
    })
    expect(mergeTopics).toMatchObject({
      topic: {
        name: 'alpha',
        messages: { nodes: expect.objectContaining({ length: 3 }) },
        atoms: { nodes: expect.objectContaining({ length: 3 }) },
      },
    })
    expect(await search('gamma')).toMatchObject([{ name: 'alpha' }])
    await read('IDEA: Four #Betas')
    expect((await topics()).map(({ name, messages }) => [name, messages.nodes.length])).toEqual([
      ['alpha', 4],
    ])
  })

  test('are not merged into themselves, nor with what is not there', async () => {
    const { id } = await createTopic(app.client, { name: 'Alone' })
    expect((await app.client.run(MergeDocument, { ids: [id], intoId: id })).mergeTopics).toMatchObject({
      __typename: 'InputError',
    })
    const missing = { ids: [missingId('Topic')], intoId: id }
    expect((await app.client.run(MergeDocument, missing)).mergeTopics).toMatchObject({
      __typename: 'NotFoundError',
      message: '1 of the topics do not exist',
    })
  })

  test('keep the name that they had for what is extracted, and give it up for a new topic of that name', async () => {
    const { id } = await createTopic(app.client, { name: 'Old name' })
    await app.client.run(
      graphql(
        `mutation Rename($id: ID!) { updateTopic(input: { id: $id, name: "New name" }) { __typename } }`,
      ),
      { id },
    )
    await read('IDEA: Goes to the renamed one #old-name')
    expect((await topics()).map(({ name }) => name)).toEqual(['New name'])
    expect(await tryCreateTopic(app.client, { name: 'new NAMES' })).toMatchObject({
      __typename: 'ConflictError',
    })
    await createTopic(app.client, { name: 'Old names' })
    await read('IDEA: Goes to the new one #old-name')
    expect((await topics()).find(({ name }) => name === 'Old names')?.messages.nodes).toHaveLength(1)
  })

  test('that are archived are out of lists and searches until they are restored', async () => {
    const { id } = await createTopic(app.client, { name: 'Dusty {dust}' })
    await app.client.waitUntilEmbedded()
    const document = graphql(`
      mutation Shelve($id: ID!) { archiveTopic(input: { id: $id }) { ... on ArchiveTopicPayload { topic { archivedAt } } } }
    `)
    await app.client.run(document, { id })
    expect([await topics(), await found('{dust}')]).toEqual([[], []])
    await app.client.run(
      graphql(`mutation Unshelve($id: ID!) { restoreTopic(input: { id: $id }) { __typename } }`),
      {
        id,
      },
    )
    expect([(await topics()).length, (await found('{dust}')).length]).toEqual([1, 1])
  })

  test('are suggested to a message by meaning, nearest first', async () => {
    for (const name of ['{a@0.9}', '{a@0.7}', '{a@0.8}']) await createTopic(app.client, { name })
    const { messages } = await ingest(app.client, ['about {a} and nothing else'])
    await app.client.waitUntilEmbedded()
    const { node } = await app.client.run(
      graphql(`query Suggested($id: ID!) {
        node(id: $id) { ... on Message { suggestedTopics(first: 2) { edges { similarity node { ... on Topic { name } } } } } }
      }`),
      { id: messages[0]?.id ?? '' },
    )
    expect(node).toMatchObject({
      suggestedTopics: {
        edges: [
          { similarity: expect.closeTo(0.9, 3), node: { name: '{a@0.9}' } },
          { similarity: expect.closeTo(0.8, 3), node: { name: '{a@0.8}' } },
        ],
      },
    })
  })
})

describe('links between atoms', () => {
  const LinksDocument = graphql(`
    query Links($id: ID!, $direction: LinkDirection, $types: [AtomLinkType!], $first: Int, $after: String) {
      node(id: $id) {
        ... on Atom {
          links(direction: $direction, types: $types, first: $first, after: $after) {
            nodes { id type from { title } to { title } }
            pageInfo { hasNextPage endCursor }
          }
        }
      }
    }
  `)
  const atom = (title: string) => createAtom(app.client, { type: 'IDEA', title, content: title })

  test('are made, listed by direction and type in pages, and removed', async () => {
    const [hub, ...others] = await Promise.all(['hub', 'one', 'two', 'three'].map(atom))
    if (!hub) throw new Error('no atom')
    for (const other of others.slice(0, 2)) await linkAtoms(app.client, [hub, other], 'SUPPORTS')
    const last = await linkAtoms(app.client, [others[2] ?? hub, hub], 'CONTRADICTS')
    const links = async (variables: object) => {
      const { node } = await app.client.run(LinksDocument, { id: hub.id, ...variables })
      if (!node || !('links' in node)) throw new Error('no links')
      return node.links
    }
    expect((await links({})).nodes.map(({ type }) => type)).toEqual(['CONTRADICTS', 'SUPPORTS', 'SUPPORTS'])
    expect((await links({ direction: 'OUT' })).nodes).toHaveLength(2)
    expect((await links({ direction: 'IN' })).nodes).toMatchObject([
      { from: { title: 'three' }, to: { title: 'hub' } },
    ])
    expect((await links({ types: ['SUPPORTS'] })).nodes).toHaveLength(2)
    const page = await links({ first: 2 })
    expect(page.pageInfo.hasNextPage).toBe(true)
    const next = await links({ first: 2, after: page.pageInfo.endCursor })
    expect(next).toMatchObject({ nodes: [{ type: 'SUPPORTS' }], pageInfo: { hasNextPage: false } })
    const { unlinkAtoms } = await app.client.run(
      graphql(`mutation Unlink($id: ID!) {
        unlinkAtoms(input: { id: $id }) { __typename ... on UnlinkAtomsPayload { deletedLinkId } }
      }`),
      { id: last },
    )
    expect(unlinkAtoms).toMatchObject({ deletedLinkId: last })
    expect((await links({})).nodes).toHaveLength(2)
  })

  test('are refused to oneself, twice, and to nobody', async () => {
    const [a, b] = await Promise.all(['a', 'b'].map(atom))
    if (!a || !b) throw new Error('no atoms')
    await linkAtoms(app.client, [a, b])
    await expect(linkAtoms(app.client, [a, b])).rejects.toThrow(/already/)
    await expect(linkAtoms(app.client, [a, a])).rejects.toThrow(/itself/)
    await expect(linkAtoms(app.client, [a, { id: missingId('Atom') }])).rejects.toThrow(/1 of the two atoms/)
  })
})

describe('a message that goes', () => {
  test('takes with it what it alone proves, and leaves what others prove, too', async () => {
    const ids = await read(
      'IDEA: Mine alone {mine}',
      'RISK: Shared {shared}',
      'RISK: Shared more {shared@0.99}',
    )
    const shared = (await atoms()).find(({ type }) => type === 'RISK')
    await app.client.run(
      graphql(`mutation ApproveShared($id: ID!) { approveRevision(input: { id: $id }) { __typename } }`),
      { id: shared?.revisions.nodes[0]?.id ?? '' },
    )
    await app.client.run(
      graphql(`mutation DeleteSome($ids: [ID!]!) { deleteMessages(input: { ids: $ids }) { __typename } }`),
      { ids: ids.slice(0, 2) },
    )
    expect((await atoms()).map(({ type, citations }) => [type, citations.length])).toEqual([['RISK', 1]])
  })

  test('or changes its words takes what they no longer prove, unless a person has approved it', async () => {
    const ids = await read('IDEA: Before {x}', 'DECISION: Kept {y}', 'IDEA: Moved {z}')
    const change = graphql(`mutation Change($id: ID!, $content: String!) {
      updateMessage(input: { id: $id, content: $content }) { __typename }
    }`)
    await app.client.run(change, { id: ids[0] ?? '', content: 'something else' })
    await app.client.run(change, { id: ids[1] ?? '', content: 'something else' })
    await app.client.run(change, { id: ids[2] ?? '', content: 'edited: IDEA: Moved {z}' })
    expect((await atoms()).map(({ content, citations }) => [content, citations])).toEqual([
      ['Kept {y}', []],
      ['Moved {z}', [expect.objectContaining({ quote: 'IDEA: Moved {z}', start: 8, end: 23 })]],
    ])
  })
})
