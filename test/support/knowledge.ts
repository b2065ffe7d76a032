import type { TestClient } from './client.ts'
import type { CreateAtomInput, CreateTopicInput, LinkAtomsInput } from './generated/graphql.ts'
import { graphql } from './generated/index.ts'

const CreateTopicDocument = graphql(`
  mutation CreateTopic($input: CreateTopicInput!) {
    createTopic(input: $input) {
      __typename
      ... on CreateTopicPayload { topic { id name description keywords color icon archivedAt embeddingStatus } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const CreateAtomDocument = graphql(`
  mutation CreateAtom($input: CreateAtomInput!) {
    createAtom(input: $input) {
      __typename
      ... on CreateAtomPayload {
        atom { id type title content confidence reviewState archivedAt embeddingStatus topics { nodes { id name } } }
      }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

/** What createTopic answers, payload or error. */
export async function tryCreateTopic(client: TestClient, input: CreateTopicInput) {
  const { createTopic } = await client.run(CreateTopicDocument, { input })
  if (!createTopic) throw new Error('createTopic is null')
  return createTopic
}

/** Makes a topic, or fails the test. */
export async function createTopic(client: TestClient, input: CreateTopicInput) {
  const answer = await tryCreateTopic(client, input)
  if (answer.__typename !== 'CreateTopicPayload') throw new Error(answer.message)
  return answer.topic
}

/** What createAtom answers, payload or error. */
export async function tryCreateAtom(client: TestClient, input: CreateAtomInput) {
  const { createAtom } = await client.run(CreateAtomDocument, { input })
  if (!createAtom) throw new Error('createAtom is null')
  return createAtom
}

/** Makes an atom, or fails the test. */
export async function createAtom(client: TestClient, input: CreateAtomInput) {
  const answer = await tryCreateAtom(client, input)
  if (answer.__typename !== 'CreateAtomPayload') throw new Error(answer.message)
  return answer.atom
}

const LinkAtomsDocument = graphql(`
  mutation LinkTwoAtoms($input: LinkAtomsInput!) {
    linkAtoms(input: $input) {
      __typename
      ... on LinkAtomsPayload { link { id } }
      ... on UserError { message }
    }
  }
`)

/** Ties the first atom to the second; gives the id of the link. */
export async function linkAtoms(
  client: TestClient,
  [from, to]: readonly { id: string }[],
  type: LinkAtomsInput['type'] = 'RELATES_TO',
): Promise<string> {
  const input = { fromId: from?.id ?? '', toId: to?.id ?? '', type }
  const { linkAtoms: answer } = await client.run(LinkAtomsDocument, { input })
  if (answer?.__typename !== 'LinkAtomsPayload') throw new Error(answer?.message ?? 'linkAtoms is null')
  return answer.link.id
}
