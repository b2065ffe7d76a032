import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import type { UpdateAtomInput, UpdateTopicInput } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { missingId } from '../../support/ids.ts'
import { createAtom, createTopic, tryCreateAtom, tryCreateTopic } from '../../support/knowledge.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>

beforeAll(async () => {
  app = await startProviderApp()
})
afterAll(() => app[Symbol.asyncDispose]())

const UpdateTopicDocument = graphql(`
  mutation UpdateTopic($input: UpdateTopicInput!) {
    updateTopic(input: $input) {
      __typename
      ... on UpdateTopicPayload { topic { id name description keywords color icon embeddingStatus } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const UpdateAtomDocument = graphql(`
  mutation UpdateAtom($input: UpdateAtomInput!) {
    updateAtom(input: $input) {
      __typename
      ... on UpdateAtomPayload { atom { id type title content embeddingStatus topics { nodes { name } } } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const KnowledgeStateDocument = graphql(`
  query KnowledgeState($id: ID!) {
    node(id: $id) {
      ... on Atom { embeddingStatus embeddedAt }
      ... on Topic { embeddingStatus embeddedAt }
    }
  }
`)

const stateOf = async (id: string) => (await app.client.run(KnowledgeStateDocument, { id })).node
const updateTopic = async (input: UpdateTopicInput) =>
  (await app.client.run(UpdateTopicDocument, { input })).updateTopic
const updateAtom = async (input: UpdateAtomInput) =>
  (await app.client.run(UpdateAtomDocument, { input })).updateAtom

describe('a topic', () => {
  test('is made with defaults, and embedded by itself from name, description and keywords', async () => {
    const topic = await createTopic(app.client, {
      name: 'Releases',
      description: 'How we ship',
      keywords: ['deploy', 'tag'],
    })
    expect(topic).toMatchObject({
      name: 'Releases',
      description: 'How we ship',
      keywords: ['deploy', 'tag'],
      color: '#64748b',
      icon: 'message-circle',
      archivedAt: null,
    })
    await app.client.waitUntilEmbedded()
    expect(await stateOf(topic.id)).toMatchObject({
      embeddingStatus: 'READY',
      embeddedAt: expect.any(String),
    })
    expect(app.provider.last?.texts).toEqual(['Releases\n\nHow we ship\n\ndeploy, tag'])
  })

  test('keeps what an update leaves out, and is embedded again only if its text changes', async () => {
    const { id } = await createTopic(app.client, { name: 'Colours', keywords: ['red'] })
    await app.client.waitUntilEmbedded()
    expect(await updateTopic({ id, color: '#1e90ff', icon: 'palette' })).toMatchObject({
      topic: {
        name: 'Colours',
        keywords: ['red'],
        color: '#1e90ff',
        icon: 'palette',
        embeddingStatus: 'READY',
      },
    })
    expect(await updateTopic({ id, keywords: ['blue'] })).toMatchObject({
      topic: { color: '#1e90ff', keywords: ['blue'] },
    })
    await app.client.waitUntilEmbedded()
    expect(app.provider.last?.texts).toEqual(['Colours\n\nblue'])
  })

  test('cannot have the name of another one', async () => {
    await createTopic(app.client, { name: 'Taken' })
    const { id } = await createTopic(app.client, { name: 'Free' })
    const conflict = {
      __typename: 'ConflictError',
      code: 'CONFLICT',
      message: expect.stringContaining('"Taken"'),
    }
    expect(await tryCreateTopic(app.client, { name: 'Taken' })).toMatchObject(conflict)
    expect(await updateTopic({ id, name: 'Taken' })).toMatchObject(conflict)
    expect(await updateTopic({ id, name: 'Free' })).toMatchObject({ topic: { name: 'Free' } })
  })

  test.each([
    ['a blank name', { name: ' ' }, ['name']],
    ['a name with NUL', { name: 'a\0' }, ['name']],
    ['a long name', { name: 'x'.repeat(201) }, ['name']],
    ['a long description', { description: 'x'.repeat(10_001) }, ['description']],
    ['too many keywords', { keywords: Array.from({ length: 51 }, String) }, ['keywords']],
    ['a blank keyword', { keywords: ['a', ''] }, ['keywords', '1']],
    ['a colour that is none', { color: 'red' }, ['color']],
    ['a blank icon', { icon: '' }, ['icon']],
  ])('is refused with %s', async (_name, fields, path) => {
    const refusal = { __typename: 'InputError', code: 'INVALID_INPUT', path }
    expect(await tryCreateTopic(app.client, { name: 'New', ...fields })).toMatchObject(refusal)
    const { id } = await createTopic(app.client, { name: `Refused ${_name}` })
    expect(await updateTopic({ id, ...fields })).toMatchObject(refusal)
  })

  test('that does not exist cannot be changed', async () => {
    expect(await updateTopic({ id: missingId('Topic'), icon: 'x' })).toMatchObject({
      __typename: 'NotFoundError',
      code: 'NOT_FOUND',
    })
  })
})

describe('an atom', () => {
  const fields = { type: 'DECISION', title: 'Ship on Mondays', content: 'Never on a Friday.' } as const

  test('is made, waits for review, and is embedded by itself from title and content', async () => {
    const topic = await createTopic(app.client, { name: 'Shipping' })
    const atom = await createAtom(app.client, { ...fields, confidence: 0.5, topicIds: [topic.id, topic.id] })
    expect(atom).toMatchObject({
      ...fields,
      confidence: 0.5,
      reviewState: 'PENDING',
      archivedAt: null,
      topics: { nodes: [{ id: topic.id, name: 'Shipping' }] },
    })
    await app.client.waitUntilEmbedded()
    expect(await stateOf(atom.id)).toMatchObject({ embeddingStatus: 'READY' })
    expect(app.provider.last?.texts).toContain('Ship on Mondays\n\nNever on a Friday.')
  })

  test('keeps what an update leaves out, and its topics are replaced as a whole', async () => {
    const [a, b] = [
      await createTopic(app.client, { name: 'Topic A' }),
      await createTopic(app.client, { name: 'Topic B' }),
    ]
    const { id } = await createAtom(app.client, { ...fields, title: 'Kept', topicIds: [a.id] })
    await app.client.waitUntilEmbedded()
    expect(await updateAtom({ id, type: 'RISK' })).toMatchObject({
      atom: {
        type: 'RISK',
        title: 'Kept',
        embeddingStatus: 'READY',
        topics: { nodes: [{ name: 'Topic A' }] },
      },
    })
    expect(await updateAtom({ id, topicIds: [b.id] })).toMatchObject({
      atom: { topics: { nodes: [{ name: 'Topic B' }] } },
    })
    expect(await updateAtom({ id, topicIds: [] })).toMatchObject({ atom: { topics: { nodes: [] } } })
    await updateAtom({ id, content: 'Changed.' })
    await app.client.waitUntilEmbedded()
    expect(app.provider.last?.texts).toEqual(['Kept\n\nChanged.'])
  })

  test('is refused whole where one of its topics does not exist', async () => {
    const { id } = await createAtom(app.client, { ...fields, title: 'Old title' })
    const missing = { topicIds: [missingId('Topic')] }
    const refusal = { __typename: 'NotFoundError', code: 'NOT_FOUND' }
    expect(await tryCreateAtom(app.client, { ...fields, title: 'Never stored', ...missing })).toMatchObject(
      refusal,
    )
    expect(await updateAtom({ id, title: 'New title', ...missing })).toMatchObject(refusal)
    expect(await app.sql(`select from atom where title in ('Never stored', 'New title')`)).toEqual([])
  })

  test.each([
    ['a blank title', { title: '' }, ['title']],
    ['a long title', { title: 'x'.repeat(501) }, ['title']],
    ['blank content', { content: ' ' }, ['content']],
    ['half of a character', { content: '\ud83d' }, ['content']],
    ['long content', { content: 'x'.repeat(100_001) }, ['content']],
    ['too many topics', { topicIds: Array.from({ length: 51 }, () => missingId('Topic')) }, ['topicIds']],
  ])('is refused with %s', async (_name, wrong, path) => {
    const refusal = { __typename: 'InputError', code: 'INVALID_INPUT', path }
    expect(await tryCreateAtom(app.client, { ...fields, ...wrong })).toMatchObject(refusal)
    expect(await updateAtom({ id: missingId('Atom'), ...wrong })).toMatchObject(refusal)
  })

  test.each([-0.1, 1.1])('is refused with a confidence of %d', async (confidence) => {
    expect(await tryCreateAtom(app.client, { ...fields, confidence })).toMatchObject({ path: ['confidence'] })
  })

  test('that does not exist cannot be changed', async () => {
    expect(await updateAtom({ id: missingId('Atom'), title: 'x' })).toMatchObject({ code: 'NOT_FOUND' })
  })
})
