import type { TestClient } from './client.ts'
import type { MessageInput, SourceInput } from './generated/graphql.ts'
import { graphql } from './generated/index.ts'

const IngestDocument = graphql(`
  mutation Ingest($input: IngestMessagesInput!) {
    ingestMessages(input: $input) {
      __typename
      ... on IngestMessagesPayload {
        created
        updated
        unchanged
        messages { id externalId channel author content embeddingStatus }
        errors { code message path }
      }
      ... on InputError { code message path }
    }
  }
`)

let count = 0

/** A message of its own identity, each sent a minute after the one before. */
export function message(content: string, fields: Partial<MessageInput> = {}): MessageInput {
  count++
  const sentAt = new Date(Date.UTC(2026, 0, 1) + count * 60_000).toISOString()
  return { externalId: `m${count}`, author: 'ann', content, sentAt, ...fields }
}

export const testSource: SourceInput = { name: 'Test', type: 'api' }

/** What ingestMessages answers, payload or error. */
export async function tryIngest(client: TestClient, messages: MessageInput[], source = testSource) {
  const { ingestMessages } = await client.run(IngestDocument, { input: { source, messages } })
  if (!ingestMessages) throw new Error('ingestMessages is null')
  return ingestMessages
}

/** Stores messages, or fails the test. */
export async function ingest(client: TestClient, messages: (MessageInput | string)[], source = testSource) {
  const whole = messages.map((entry) => (typeof entry === 'string' ? message(entry) : entry))
  const answer = await tryIngest(client, whole, source)
  if (answer.__typename !== 'IngestMessagesPayload') throw new Error(answer.message)
  return answer
}
