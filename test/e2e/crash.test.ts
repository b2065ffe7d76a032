import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { TestClient } from '../support/client.ts'
import { preparedFolder } from '../support/databases.ts'
import { byMarks, ExtractDocument, openAiExtractor } from '../support/extraction.ts'
import type { CrashMessagesQuery } from '../support/generated/graphql.ts'
import { graphql } from '../support/generated/index.ts'
import { ingest } from '../support/messages.ts'
import { runQuarry, startQuarry } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'

const messageCount = 2000

const CrashCoverageDocument = graphql(`
  query CrashCoverage {
    embeddingCoverage { kind total ready pending stale failed skipped percentReady }
    jobs(first: 10) { nodes { kind state succeeded failed skipped total } }
  }
`)

const CrashImportDocument = graphql(`
  mutation CrashImport($file: File!) {
    importChat(input: { file: $file }) {
      ... on ImportChatPayload { job { id } }
    }
  }
`)

const CrashProgressDocument = graphql(`
  subscription CrashProgress {
    embeddingProgress { coverage { kind total ready } }
  }
`)

const CrashMessagesDocument = graphql(`
  query CrashMessages($after: String) {
    messages(first: 100, after: $after) {
      nodes { content embeddedAt }
      pageInfo { hasNextPage endCursor }
    }
  }
`)

test('a server that is killed in the middle loses and doubles nothing, and embeds no stored text twice', async () => {
  await using folder = await preparedFolder()
  const lastAsked = new Map<string, number>()
  await using provider = await ProviderServer.start({
    latencyMs: 20,
    dimensions: 64,
    fault({ texts }) {
      for (const text of texts) lastAsked.set(text, Date.now())
      return null
    },
  })
  const env = {
    QUARRY_DATA_DIR: join(folder.path, 'data'),
    PORT: '0',
    QUARRY_EMBEDDING_PROVIDER: 'openai',
    OPENAI_BASE_URL: `${provider.url}/v1`,
    OPENAI_API_KEY: 'test',
    OPENAI_EMBEDDING_MODEL: 'test-model',
    OPENAI_EMBEDDING_DIMENSIONS: '64',
  }
  const file = join(folder.path, 'chat.jsonl')
  const rows = Array.from({ length: messageCount }, (_, n) =>
    JSON.stringify({
      id: String(n),
      author: 'ann',
      sentAt: '2026-05-04T09:00:00Z',
      text: `message number ${n}`,
    }),
  )
  await writeFile(file, rows.join('\n'))

  // Killed first while rows arrive, then twice more while they are being embedded.
  for (const share of [0.01, 0.3, 0.6]) {
    await using server = startQuarry(['serve'], env)
    const [, url = ''] = await server.line(/"url":"(http:[^"]+)\/graphql"/)
    const client = new TestClient(url)
    if (share === 0.01) await client.upload(CrashImportDocument, {}, file)
    for await (const { embeddingProgress } of client.subscribe(CrashProgressDocument)) {
      const [messages] = embeddingProgress.coverage
      if (messages && messages.ready >= messageCount * share) break
    }
    server.child.kill('SIGKILL')
    await server.exit()
    await client.close().catch(() => {})
  }

  await using server = startQuarry(['serve'], env)
  const [, url = ''] = await server.line(/"url":"(http:[^"]+)\/graphql"/)
  const client = new TestClient(url)
  for await (const { embeddingProgress } of client.subscribe(CrashProgressDocument)) {
    const [messages] = embeddingProgress.coverage
    if (messages?.ready === messageCount) break
  }
  const { embeddingCoverage } = await client.run(CrashCoverageDocument)
  expect(embeddingCoverage[0]).toMatchObject({ total: messageCount, ready: messageCount, percentReady: 100 })
  const again = await runQuarry(['import', file], { ...env, QUARRY_URL: url })
  expect(again.output).toContain(`0 new, 0 updated, ${messageCount} unchanged`)

  const askedAfterStored: string[] = []
  let after: string | null = null
  do {
    const { messages }: CrashMessagesQuery = await client.run(CrashMessagesDocument, { after })
    for (const { content, embeddedAt } of messages.nodes) {
      if ((lastAsked.get(content) ?? Infinity) > Date.parse(embeddedAt ?? '')) askedAfterStored.push(content)
    }
    after = messages.pageInfo.hasNextPage ? (messages.pageInfo.endCursor ?? null) : null
  } while (after)
  expect(askedAfterStored).toEqual([])
  await client.close()
})

test('an extraction that is killed in the middle goes on with what it has not read, and makes nothing twice', async () => {
  await using folder = await preparedFolder()
  let chats = 0
  let tellSecond: () => void = () => {}
  const second = new Promise<void>((resolve) => {
    tellSecond = resolve
  })
  await using provider = await ProviderServer.start({
    ...byMarks,
    dimensions: 64,
    fault({ messages }) {
      if (messages.length === 0) return null
      chats++
      if (chats !== 2) return null
      tellSecond()
      return { end: 'hang' }
    },
  })
  const env = {
    QUARRY_DATA_DIR: join(folder.path, 'data'),
    PORT: '0',
    QUARRY_EMBEDDING_PROVIDER: 'openai',
    QUARRY_AUTO_EXTRACT: 'off',
    OPENAI_BASE_URL: `${provider.url}/v1`,
    OPENAI_API_KEY: 'test',
    OPENAI_EMBEDDING_DIMENSIONS: '64',
    ...openAiExtractor,
  }
  let jobId = ''
  {
    await using server = startQuarry(['serve'], env)
    const [, url = ''] = await server.line(/"url":"(http:[^"]+)\/graphql"/)
    const client = new TestClient(url)
    const texts = Array.from({ length: 120 }, (_, n) => `IDEA: Thought of number ${n} #thoughts`)
    const { messages } = await ingest(client, texts)
    expect(messages).toHaveLength(texts.length)
    const { extractKnowledge } = await client.run(ExtractDocument, {
      input: { period: { to: '2030-01-01T00:00:00Z' } },
    })
    if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
      throw new Error('the extraction was refused')
    jobId = extractKnowledge.job.id
    await second
    server.child.kill('SIGKILL')
    await server.exit()
    await client.close().catch(() => {})
  }
  await using server = startQuarry(['serve'], env)
  const [, url = ''] = await server.line(/"url":"(http:[^"]+)\/graphql"/)
  const client = new TestClient(url)
  const job = await client.waitForJob(jobId)
  expect(job).toMatchObject({ state: 'SUCCEEDED', total: 120, succeeded: 120, failed: 0, attempts: 2 })
  expect(job.result).toMatchObject({ topicsCreated: 1, atomsCreated: 120, messagesAssigned: 120 })
  // 50 before the kill, then 70 in two batches; the one that hung is asked again.
  expect(chats).toBe(4)
  await client.close()
})
