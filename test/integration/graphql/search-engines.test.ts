import { expect, test, vi } from 'vitest'
import { migrate } from '../../../src/db/migrate.ts'
import { providerEnv, startTestApp, type TestApp } from '../../support/apps.ts'
import { createTestDatabase, reopen, type TestDatabase } from '../../support/databases.ts'
import type { SearchMode } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { createAtom, createTopic } from '../../support/knowledge.ts'
import { ingest, message } from '../../support/messages.ts'
import { temporaryFolder } from '../../support/processes.ts'
import { ProviderServer } from '../../support/provider-server.ts'

const RankDocument = graphql(`
  query Rank($query: String!, $mode: SearchMode!) {
    search(query: $query, mode: $mode, first: 50) {
      edges {
        score similarity snippet
        explain { semanticRank keywordRank keywordScore relatedScore }
        node { ... on Message { content } ... on Atom { title } ... on Topic { name } }
      }
    }
  }
`)

const words = [
  'deploy',
  'rollback',
  'connection',
  'timeout',
  'invoice',
  'Zahlung',
  'сервер',
  'logs',
  'auth_token',
  '検索',
]
const count = 300
/** A row of words that has no pattern and is the same in each run. */
const textOf = (number: number) =>
  Array.from(
    { length: 3 + (number % 9) },
    (_, place) => words[(number * 7 + place * place * 3 + (number >> 2)) % words.length],
  )
    .concat(`#${number}`)
    .join(' ')

async function fill({ client, sql }: TestApp): Promise<void> {
  await ingest(
    client,
    Array.from({ length: count }, (_, number) => message(textOf(number))),
  )
  const topic = await createTopic(client, { name: 'Deploy and rollback' })
  await createAtom(client, {
    type: 'PROBLEM',
    title: 'Connection timeout',
    content: textOf(7),
    topicIds: [topic.id],
  })
  await client.waitUntilEmbedded()
  // Counted while the texts came in, they would be those of some moment.
  await sql('update word_statistics set documents = 0')
  await vi.waitFor(
    async () => {
      const [row] = await sql<{ n: number }>('select sum(documents)::int as n from word_statistics')
      expect(row?.n).toBe(count + 2)
    },
    { timeout: 20_000 },
  )
}

async function ranks(app: TestApp, query: string, mode: SearchMode) {
  const { edges } = (await app.client.run(RankDocument, { query, mode })).search
  const round = (value: unknown) => (typeof value === 'number' ? Number(value.toPrecision(5)) : value)
  return edges.map((edge) => JSON.stringify(edge, (_key, value) => round(value)))
}

const postgres = process.env.QUARRY_TEST_DATABASE_URL
test.skipIf(!postgres)(
  'both engines rank alike (needs QUARRY_TEST_DATABASE_URL)',
  { timeout: 120_000 },
  async () => {
    await using provider = await ProviderServer.start()
    await using folder = await temporaryFolder()
    const embedded: TestDatabase['config'] = { kind: 'embedded', dataDir: folder.path }
    const opened = await reopen(embedded)
    await migrate(opened)
    await opened.close()
    await using database = await createTestDatabase()
    await using one = await startTestApp({ database: embedded, env: providerEnv(provider) })
    await using other = await startTestApp({ database: database.config, env: providerEnv(provider) })
    await Promise.all([fill(one), fill(other)])
    for (const mode of ['KEYWORD', 'SEMANTIC', 'HYBRID'] as const) {
      for (const query of [
        'deploy timeout',
        'Сервер logs',
        'auth_token',
        '"connection timeout" -invoice',
        '検索',
        'conn',
      ]) {
        expect(await ranks(one, query, mode)).toEqual(await ranks(other, query, mode))
      }
    }
  },
)
