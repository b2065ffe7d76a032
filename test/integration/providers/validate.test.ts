import { expect, test } from 'vitest'
import { createOllamaChat } from '../../../src/providers/chat/ollama.ts'
import { OpenAiProvider } from '../../../src/providers/openai.ts'
import { outcomeOf, tryOut } from '../../../src/providers/validate.ts'
import { ProviderServer } from '../../support/provider-server.ts'

const nothingStated = { statedRequestsPerMinute: null, statedTokensPerMinute: null }

test('all together ends at the limit, and what has answered by then counts', async () => {
  await using server = await ProviderServer.start({
    dimensions: 8,
    fault: ({ messages }) => (messages.length > 0 ? { end: 'hang' } : null),
  })
  const embedding = new OpenAiProvider({ apiKey: 'sk-1', baseUrl: `${server.url}/v1`, model: 'm' })
  const chat = createOllamaChat({ baseUrl: server.url, model: 'llama' })
  // The first request loads the client library, which is not what the limit is about here.
  await embedding.embed(['warm'])
  const tried = await tryOut({ embedding, chat }, 1000)
  expect(tried).toMatchObject({ dimensions: 8, embeddingError: null, chatError: { failure: 'UNAVAILABLE' } })
  expect(outcomeOf(tried, nothingStated)).toEqual({
    error: 'There was no answer within 1 s.',
    embeddingDimensions: 8,
    waitMs: null,
    ...nothingStated,
  })
})

test('a reason that both have is said once', async () => {
  await using server = await ProviderServer.start({ fault: () => ({ end: 'hang' }) })
  const embedding = new OpenAiProvider({ apiKey: 'sk-1', baseUrl: `${server.url}/v1`, model: 'm' })
  const chat = createOllamaChat({ baseUrl: server.url, model: 'llama' })
  const { error } = outcomeOf(await tryOut({ embedding, chat }, 100), nothingStated)
  expect(error).toBe('There was no answer within 0.1 s.')
})
