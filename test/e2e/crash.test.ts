import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { TestClient } from '../support/client.ts'
import { preparedFolder } from '../support/databases.ts'
import type { CrashMessagesQuery } from '../support/generated/graphql.ts'
import { graphql } from '../support/generated/index.ts'
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
