import { expect, test } from 'vitest'
import { startEmbeddingPipeline } from '../../../src/embedding/pipeline.ts'
import { findActiveSpace } from '../../../src/embedding/spaces.ts'
import { enterProcess } from '../../../src/jobs/processes.ts'
import { createLogger } from '../../../src/log.ts'
import { createKeyRing } from '../../../src/providers/keys.ts'
import { createProviders } from '../../../src/providers/providers.ts'
import { createProviderStatus } from '../../../src/providers/status.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId } from '../../support/ids.ts'
import { ingest } from '../../support/messages.ts'
import { addProvider, changeProvider } from '../../support/providers.ts'
import { eventually, startTestServer } from '../../support/server.ts'

const EmbedDocument = graphql(`
  mutation EmbedWithinBudget($ids: [ID!]!) {
    embed(input: { ids: $ids }) { __typename ... on EmbedPayload { job { id } } }
  }
`)

test('the pipeline waits for the budget of its provider, says why, and goes on when it is raised', async () => {
  await using server = await startTestServer()
  const { client, database, usage, metrics } = server
  const log = createLogger('silent')
  // Each request of this server is one token, so 0.1 US dollars: the validation has spent it all.
  const id = await addProvider(client, {
    name: 'Dear',
    type: 'OPENAI',
    baseUrl: `${server.provider.url}/v1`,
    embeddingModel: 'e',
    pricePerMillionTokensIn: 100_000,
    pricePerMillionTokensOut: 0,
    monthlyBudget: 0.1,
  })
  const { messages } = await ingest(client, ['first', 'second'])
  const { embed } = await client.run(EmbedDocument, { ids: messages.map((message) => message.id) })
  expect(embed?.__typename).toBe('EmbedPayload')
  const space = await findActiveSpace(database)
  if (!space) throw new Error('no space')
  const providers = createProviders({ database, keys: createKeyRing([]), network: 'loopback', usage })
  const provider = await providers.embedding(databaseId(id), 'e')
  const process = await enterProcess(database, 'worker', log)
  const before = server.provider.requests
  const pipeline = await startEmbeddingPipeline({
    database,
    provider,
    space,
    status: createProviderStatus(database, 'EMBEDDING', log),
    process,
    usage,
    metrics,
    log,
  })
  try {
    const events = () =>
      database.query<{ message: string }>(
        `select message from job_event where message like 'Waiting for the provider%'`,
      )
    await eventually(events).toMatchObject([
      { message: expect.stringContaining('Provider Dear has used up its budget of 0.1 USD') },
    ])
    // As many requests as may be under way at once have been held back: nobody is left who could ask.
    await eventually(() => server.statements('p.monthly_budget::float8 as limit')).toBeGreaterThanOrEqual(
      provider.limits.maxParallelRequests,
    )
    expect(server.provider.requests).toBe(before)
    await changeProvider(client, { id, monthlyBudget: 50 })
    await eventually(() => database.query('select state from job')).toEqual([{ state: 'SUCCEEDED' }])
    expect(server.provider.requests).toBe(before + 1)
    expect(await database.query('select error, waiting_until from job')).toEqual([
      { error: null, waiting_until: null },
    ])
  } finally {
    await pipeline.stop()
    await process.stop()
    await provider.close()
    await providers.close()
  }
})
