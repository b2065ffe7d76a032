import type { TestClient } from './client.ts'
import type { CreateAgentInput, CreateProviderInput } from './generated/graphql.ts'
import { graphql } from './generated/index.ts'

const AddProviderDocument = graphql(`
  mutation AddProviderForTest($input: CreateProviderInput!) {
    createProvider(input: $input) {
      __typename
      ... on CreateProviderPayload { provider { id state error } }
      ... on UserError { message }
    }
  }
`)

const ChangeProviderDocument = graphql(`
  mutation ChangeProviderForTest($input: UpdateProviderInput!) {
    updateProvider(input: $input) {
      __typename
      ... on UserError { message }
    }
  }
`)

const AddAgentDocument = graphql(`
  mutation AddAgentForTest($input: CreateAgentInput!) {
    createAgent(input: $input) {
      __typename
      ... on CreateAgentPayload { agent { id version } }
      ... on UserError { message }
    }
  }
`)

/** Adds a provider, and gives its id, whatever came of its validation. */
export async function addProvider(client: TestClient, input: CreateProviderInput): Promise<string> {
  const { createProvider } = await client.run(AddProviderDocument, { input })
  if (createProvider?.__typename !== 'CreateProviderPayload') {
    throw new Error(createProvider?.message ?? 'no answer')
  }
  return createProvider.provider.id
}

export async function changeProvider(
  client: TestClient,
  input: { id: string; isActive?: boolean; monthlyBudget?: number | null },
): Promise<void> {
  const { updateProvider } = await client.run(ChangeProviderDocument, { input })
  if (updateProvider?.__typename !== 'UpdateProviderPayload') {
    throw new Error(updateProvider?.message ?? 'no answer')
  }
}

/** Adds an agent, and gives its id. */
export async function addAgent(client: TestClient, input: CreateAgentInput): Promise<string> {
  const { createAgent } = await client.run(AddAgentDocument, { input })
  if (createAgent?.__typename !== 'CreateAgentPayload') throw new Error(createAgent?.message ?? 'no answer')
  return createAgent.agent.id
}
