import type { TestClient } from './client.ts'
import { graphql } from './generated/index.ts'

const CancelDocument = graphql(`
  mutation CancelForTest($jobId: ID!) {
    cancelJob(input: { jobId: $jobId }) {
      __typename
      ... on CancelJobPayload { job { state } }
      ... on UserError { message }
    }
  }
`)

const RetryDocument = graphql(`
  mutation RetryForTest($jobId: ID!) {
    retryJob(input: { jobId: $jobId }) {
      __typename
      ... on RetryJobPayload { job { state } }
      ... on UserError { message }
    }
  }
`)

/** @throws with the API's message where it refuses */
export async function cancelJob(client: TestClient, jobId: string): Promise<void> {
  const { cancelJob: answer } = await client.run(CancelDocument, { jobId })
  if (answer?.__typename !== 'CancelJobPayload') throw new Error(answer?.message ?? 'no answer')
}

/** @throws with the API's message where it refuses */
export async function retryJob(client: TestClient, jobId: string): Promise<void> {
  const { retryJob: answer } = await client.run(RetryDocument, { jobId })
  if (answer?.__typename !== 'RetryJobPayload') throw new Error(answer?.message ?? 'no answer')
}
