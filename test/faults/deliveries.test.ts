import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { providerEnv, startTestApp, type TestApp } from '../support/apps.ts'
import { importChat, writeChat } from '../support/chats.ts'
import { createTestDatabase } from '../support/databases.ts'
import { ingest, message } from '../support/messages.ts'
import { temporaryFolder } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'
import { expectTruth, untilDone } from '../support/truth.ts'

/** Two servers on one Postgres, or the one that an embedded database has, with what was sent to their provider. */
async function startServers() {
  const sent = new Map<string, number>()
  const provider = await ProviderServer.start({
    latencyMs: 5,
    fault({ texts }) {
      for (const text of texts) sent.set(text, (sent.get(text) ?? 0) + 1)
      return null
    },
  })
  const own = await createTestDatabase()
  const options = { database: own.config, env: providerEnv(provider) }
  const apps: TestApp[] = [await startTestApp(options)]
  if (inject('template').engine === 'postgres') apps.push(await startTestApp(options))
  const [first] = apps
  if (!first) throw new Error('no app')
  return {
    sent,
    sql: first.sql,
    /** Of the servers in turn. */
    client: (n: number) => (apps[n % apps.length] ?? first).client,
    async [Symbol.asyncDispose]() {
      for (const app of apps) await app[Symbol.asyncDispose]()
      await own[Symbol.asyncDispose]()
      await provider.close()
    },
  }
}

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0)

test('the same messages delivered eight times at once, in different orders, are stored and embedded once', async () => {
  await using servers = await startServers()
  const messages = Array.from({ length: 400 }, (_, n) => message(`delivered ${n}`))
  const orders = [messages, messages.toReversed(), [...messages.slice(200), ...messages.slice(0, 200)]]
  const answers = await Promise.all(
    Array.from({ length: 8 }, (_, n) => ingest(servers.client(n), orders[n % orders.length] ?? [])),
  )
  expect(sum(answers.map(({ created }) => created))).toBe(400)
  expect(sum(answers.map(({ unchanged }) => unchanged))).toBe(7 * 400)
  await untilDone(servers.sql, 20_000)
  expect(await servers.sql('select count(*)::int as n from message')).toEqual([{ n: 400 }])
  expect([...servers.sent].filter(([, times]) => times > 1)).toEqual([])
  expect(servers.sent.size).toBe(400)
  await expectTruth(servers.sql)
})

test('messages that are delivered at once in two versions end as one of them, with its vector', async () => {
  await using servers = await startServers()
  const first = Array.from({ length: 200 }, (_, n) => message(`version one of ${n}`))
  const second = first.map((draft, n) => ({ ...draft, content: `version two of ${n}` })).toReversed()
  await Promise.all(
    Array.from({ length: 8 }, (_, n) => ingest(servers.client(n), n % 2 === 0 ? first : second)),
  )
  await untilDone(servers.sql, 20_000)
  expect(await servers.sql('select count(*)::int as n from message')).toEqual([{ n: 200 }])
  await expectTruth(servers.sql)
})

test('the same file imported four times at once, twice in another order, makes no double, and the counts of the jobs are true', async () => {
  await using servers = await startServers()
  await using folder = await temporaryFolder()
  const texts = Array.from({ length: 2500 }, (_, n) => `imported ${n}`)
  const path = await writeChat(folder.path, 'chat', texts)
  const backwards = join(folder.path, 'backwards.jsonl')
  await writeFile(backwards, (await readFile(path, 'utf8')).split('\n').toReversed().join('\n'))
  const jobs = await Promise.all(
    [path, backwards, path, backwards].map(async (file, n) => {
      const client = servers.client(n)
      return client.waitForJob(await importChat(client, file, { sourceName: 'twice' }))
    }),
  )
  for (const job of jobs) {
    expect(job).toMatchObject({ state: 'SUCCEEDED', total: 2500, succeeded: 2500, failed: 0, skipped: 0 })
  }
  const results = jobs.map(({ result }) => result as { created: number; updated: number; unchanged: number })
  expect(sum(results.map(({ created }) => created))).toBe(2500)
  expect(sum(results.map(({ updated }) => updated))).toBe(0)
  expect(sum(results.map(({ unchanged }) => unchanged))).toBe(3 * 2500)
  await untilDone(servers.sql, 30_000)
  expect(await servers.sql('select count(*)::int as n from message')).toEqual([{ n: 2500 }])
  expect([...servers.sent].filter(([, times]) => times > 1)).toEqual([])
  await expectTruth(servers.sql)
}, 60_000)
