import { expect } from 'vitest'
import type { TestClient } from './client.ts'
import type { ActivateSpaceMutation } from './generated/graphql.ts'
import { graphql } from './generated/index.ts'
import type { ProviderServer } from './provider-server.ts'

const AddDocument = graphql(`
  mutation AddEmbedder($input: CreateProviderInput!) {
    createProvider(input: $input) {
      __typename
      ... on CreateProviderPayload { provider { id state error } }
      ... on UserError { message }
    }
  }
`)

const StartDocument = graphql(`
  mutation StartMigration($input: StartEmbeddingMigrationInput!) {
    startEmbeddingMigration(input: $input) {
      __typename
      ... on StartEmbeddingMigrationPayload {
        job { id kind }
        space { id state model dimensions isFilled provider { id } }
      }
      ... on UserError { code message }
    }
  }
`)

const ActivateDocument = graphql(`
  mutation ActivateSpace($input: ActivateEmbeddingSpaceInput!) {
    activateEmbeddingSpace(input: $input) {
      __typename
      ... on ActivateEmbeddingSpacePayload { space { id state activatedAt } }
      ... on UserError { code message }
    }
  }
`)

const RetireDocument = graphql(`
  mutation RetireSpace($input: RetireEmbeddingSpaceInput!) {
    retireEmbeddingSpace(input: $input) {
      __typename
      ... on RetireEmbeddingSpacePayload { space { id state retiredAt } }
      ... on UserError { code message }
    }
  }
`)

const SpacesDocument = graphql(`
  query Spaces {
    embeddingSpaces {
      id state model dimensions isFilled activatedAt retiredAt droppedAt
      provider { id name type }
      coverage { kind total ready pending stale failed skipped }
      gate { name isMet text }
      job { id state error waitingUntil }
      comparison {
        queries judgedQueries overlap rankCorrelation emptyActive emptyCompared ndcgActive ndcgCompared
      }
    }
  }
`)

const SearchDocument = graphql(`
  query SearchInSpace($query: String!, $mode: SearchMode) {
    search(query: $query, mode: $mode, first: 5, filter: { includeNoise: true }) {
      space { id dimensions }
      edges { similarity node { __typename ... on Message { id content embeddingStatus } } }
    }
  }
`)

/** Adds a provider of the tests' server, and fails the test unless it works. @returns its global id */
export async function addEmbedder(
  client: TestClient,
  server: ProviderServer,
  type: 'OPENAI' | 'OLLAMA' | 'LOCAL' = 'OPENAI',
  name = `embedder ${type}`,
): Promise<string> {
  const baseUrl = { OPENAI: `${server.url}/v1`, OLLAMA: server.url, LOCAL: null }[type]
  const embeddingModel = type === 'LOCAL' ? null : 'embedder'
  const { createProvider } = await client.run(AddDocument, { input: { name, type, baseUrl, embeddingModel } })
  if (createProvider?.__typename !== 'CreateProviderPayload') throw new Error(JSON.stringify(createProvider))
  expect(createProvider.provider).toMatchObject({ state: 'CONNECTED', error: null })
  return createProvider.provider.id
}

type Target = { providerId: string; model?: string; dimensions?: number }

/** What startEmbeddingMigration answers, payload or error. */
export async function tryStart(client: TestClient, input: Target) {
  const { startEmbeddingMigration } = await client.run(StartDocument, { input })
  if (!startEmbeddingMigration) throw new Error('startEmbeddingMigration is null')
  return startEmbeddingMigration
}

/** Starts a migration, or fails the test. */
export async function startMigration(client: TestClient, input: Target) {
  const started = await tryStart(client, input)
  if (started.__typename !== 'StartEmbeddingMigrationPayload') throw new Error(started.message)
  const { job, space } = started
  if (!job) throw new Error('a migration has no job')
  return { space, jobId: job.id, kind: job.kind }
}

export async function tryActivate(client: TestClient, spaceId: string, force = false) {
  const { activateEmbeddingSpace } = await client.run(ActivateDocument, { input: { spaceId, force } })
  if (!activateEmbeddingSpace) throw new Error('activateEmbeddingSpace is null')
  return activateEmbeddingSpace
}

/** Activates a space as soon as its gate is open, which index care may keep shut for some moments. */
export async function activate(client: TestClient, spaceId: string): Promise<void> {
  let answer: NonNullable<ActivateSpaceMutation['activateEmbeddingSpace']> | null = null
  await expect
    .poll(
      async () => {
        answer = await tryActivate(client, spaceId)
        return 'message' in answer ? answer.message : 'activated'
      },
      { timeout: 20_000, interval: 200 },
    )
    .toBe('activated')
  expect(answer).toMatchObject({ space: { id: spaceId, state: 'ACTIVE' } })
}

export async function tryRetire(client: TestClient, spaceId: string) {
  const { retireEmbeddingSpace } = await client.run(RetireDocument, { input: { spaceId } })
  if (!retireEmbeddingSpace) throw new Error('retireEmbeddingSpace is null')
  return retireEmbeddingSpace
}

export async function readSpaces(client: TestClient) {
  return (await client.run(SpacesDocument)).embeddingSpaces
}

export async function readSpace(client: TestClient, id: string) {
  const space = (await readSpaces(client)).find((each) => each.id === id)
  if (!space) throw new Error(`there is no space ${id}`)
  return space
}

/** Searches by meaning. */
export async function searchFor(client: TestClient, query: string, mode: 'SEMANTIC' | 'HYBRID' = 'SEMANTIC') {
  return (await client.run(SearchDocument, { query, mode })).search
}
