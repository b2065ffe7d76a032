import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { expect, test } from 'vitest'
import { startApp } from '../../../src/app.ts'
import { createLogger } from '../../../src/log.ts'
import { startTestApp } from '../../support/apps.ts'
import { createTestDatabase } from '../../support/databases.ts'
import { byMarks, ExtractDocument, readByMarks } from '../../support/extraction.ts'
import { graphql } from '../../support/generated/index.ts'
import { ingest } from '../../support/messages.ts'
import { type ProviderRequest, ProviderServer } from '../../support/provider-server.ts'
import { addAgent, addProvider } from '../../support/providers.ts'
import { eventually } from '../../support/server.ts'

const JobStateDocument = graphql(`
  query JobOfWorker($id: ID!) {
    node(id: $id) { ... on Job { state usage { requests cost } } }
  }
`)

const postgres = process.env.QUARRY_TEST_DATABASE_URL
test.skipIf(!postgres)(
  'a worker reads by an agent: with the key, to the account of its job (needs QUARRY_TEST_DATABASE_URL)',
  async () => {
    const asked: ProviderRequest[] = []
    await using upstream = await ProviderServer.start({
      ...byMarks,
      chat: (request) => {
        asked.push(request)
        return readByMarks(request)
      },
    })
    await using database = await createTestDatabase()
    const env = {
      QUARRY_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
      QUARRY_EMBEDDING_PROVIDER: 'ollama',
      OLLAMA_BASE_URL: upstream.url,
    }
    let jobId = ''
    let config: Awaited<ReturnType<typeof startTestApp>>['config']
    {
      await using server = await startTestApp({ database: database.config, env })
      config = server.config
      const providerId = await addProvider(server.client, {
        name: 'Upstream',
        type: 'OPENAI',
        baseUrl: `${upstream.url}/v1`,
        apiKey: 'sk-of-the-row',
        extractionModel: 'marks',
        pricePerMillionTokensIn: 5,
        pricePerMillionTokensOut: 50,
      })
      await addAgent(server.client, { name: 'Reader', providerId, isDefault: true })
      // The job waits until the server is gone.
      await server.sql('update provider set is_active = false')
      const { messages } = await ingest(server.client, ['RISK: The crane may fall'])
      const { extractKnowledge } = await server.client.run(ExtractDocument, {
        input: { messageIds: messages.map(({ id }) => id) },
      })
      if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload') throw new Error('refused')
      jobId = extractKnowledge.job.id
      await eventually(async () => {
        const [waiting] = await server.sql(
          `select from job where state = 'QUEUED' and waiting_until is not null`,
        )
        return waiting !== undefined
      }).toBe(true)
      await server.sql('update provider set is_active = true')
      await server.sql(
        'select graphile_worker.reschedule_jobs(array_agg(id), run_at => now() + interval $$2 s$$) from graphile_worker.jobs',
      )
      asked.splice(0)
    }
    const worker = await startApp({ config, log: createLogger('silent'), role: 'worker' })
    if (config.database.kind !== 'postgres') throw new Error('the test database is no Postgres')
    const session = new pg.Client({ connectionString: config.database.url })
    try {
      await session.connect()
      await eventually(async () => (await session.query('select state from job')).rows).toEqual([
        { state: 'SUCCEEDED' },
      ])
    } finally {
      await session.end()
      await worker.stop()
    }
    expect(asked[0]?.headers.authorization).toBe('Bearer sk-of-the-row')
    await using server = await startTestApp({ database: database.config, env })
    await server.client.waitForJob(jobId)
    expect((await server.client.run(JobStateDocument, { id: jobId })).node).toMatchObject({
      state: 'SUCCEEDED',
      usage: { cost: 0.001 },
    })
    expect(asked).toHaveLength(1)
  },
)
