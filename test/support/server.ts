import { pino } from 'pino'
import { expect } from 'vitest'
import { parseConfig } from '../../src/config.ts'
import { type Database, openDatabase } from '../../src/db/database.ts'
import { createProgressFeeds } from '../../src/embedding/progress.ts'
import { createSearchSample } from '../../src/embedding/search-sample.ts'
import { ensureActiveSpace } from '../../src/embedding/spaces.ts'
import { createExtractors } from '../../src/extraction/extractors.ts'
import { createNews } from '../../src/graphql/news.ts'
import { enterProcess } from '../../src/jobs/processes.ts'
import { createMetrics, type Metrics } from '../../src/metrics.ts'
import { createEmbeddingProvider } from '../../src/providers/create.ts'
import { createKeyRing } from '../../src/providers/keys.ts'
import { createProviders } from '../../src/providers/providers.ts'
import { accountEmbeddings, startUsageLedger, type UsageLedger } from '../../src/providers/usage.ts'
import { createQueryVectors } from '../../src/search/query-vectors.ts'
import { createSearch } from '../../src/search/search.ts'
import { startApiServer } from '../../src/server/http.ts'
import { type Check, createOperations, type Operations } from '../../src/server/operations.ts'
import { type Patience, usualPatience } from '../../src/server/sockets.ts'
import { providerEnv } from './apps.ts'
import { TestClient } from './client.ts'
import { createTestDatabase } from './databases.ts'
import { ProviderServer } from './provider-server.ts'

/** The API of a database on which nobody works: nothing is embedded, and no job is run. */
export interface TestServer extends AsyncDisposable {
  url: string
  client: TestClient
  database: Database
  usage: UsageLedger
  operations: Operations
  metrics: Metrics
  provider: ProviderServer
  /** What the server has logged so far, debugging included, as it stands in the log. */
  log: string[]
  /** Listeners of the database's notifications that are there now. */
  listeners(): number
  /** Statements so far that contain the text. */
  statements(text: string): number
  /** The value of a metric, as a scrape finds it; null if there is no such line. @param line without the value */
  metric(line: string): Promise<number | null>
  /** As the composition root does at the end. */
  close(): Promise<void>
}

/** What comes true in milliseconds, and on a busy machine in seconds. */
export const eventually = <Value>(read: () => Value | Promise<Value>) =>
  expect.poll(read, { timeout: 20_000 })

export async function startTestServer(
  options: {
    patience?: Partial<Patience>
    checks?: Readonly<Record<string, Check>>
    /** Environment variables on top of the defaults. */
    env?: Record<string, string>
  } = {},
): Promise<TestServer> {
  const providerServer = await ProviderServer.start({ dimensions: 64 })
  const statements: string[] = []
  const lines: string[] = []
  const log = pino({ level: 'debug' }, { write: (line: string) => lines.push(line) })
  const own = await createTestDatabase()
  const opened = await openDatabase(own.config, {
    log,
    onFailure() {},
    onStatement: (text) => statements.push(text),
  })
  let listeners = 0
  const database: Database = {
    ...opened,
    async listen(channel, onNotification) {
      const unlisten = await opened.listen(channel, onNotification)
      listeners++
      return () => {
        listeners--
        return unlisten()
      }
    },
  }
  const config = parseConfig({ PORT: '0', ...providerEnv(providerServer), ...options.env })
  const provider = createEmbeddingProvider(config.embedding)
  const space = await ensureActiveSpace(database, provider, log)
  const embeds = { provider, space }
  const process = await enterProcess(database, 'server', log)
  const metrics = createMetrics()
  const operations = createOperations({
    database,
    activeSpace: () => space,
    process,
    metrics,
    checks: options.checks ?? {},
    server: config.server,
    log,
  })
  const usage = await startUsageLedger(opened, log)
  const live = {
    active: () => embeds,
    all: () => [embeds],
    use: <Result>(_: unknown, work: () => Promise<Result>) => work(),
  }
  const search = createSearch(
    database,
    space,
    createQueryVectors({
      ...embeds,
      provider: accountEmbeddings(provider, usage.account(provider, 'QUERY')),
    }),
  )
  const providers = createProviders({
    database,
    keys: createKeyRing(config.providers.encryptionKeys),
    network: config.providers.network,
    usage,
  })
  const { extractor, rules } = config.extraction
  const extractors = createExtractors({ database, providers, environment: extractor, usage, log })
  const progress = createProgressFeeds(database, () => space, log)
  const { knownDimensions, model } = provider
  const server = await startApiServer({
    config: config.server,
    services: {
      database,
      spaces: { ...live, refresh: async () => {} },
      sample: createSearchSample(false),
      openEnvironment: () => createEmbeddingProvider(config.embedding),
      provider: { ...config.embedding, knownDimensions, model },
      extractor,
      providers,
      usage,
      extractors,
      extraction: rules,
      scoring: config.scoring,
      searches: { now: () => search, keep() {} },
      progress,
      news: createNews(database, log),
      metrics,
    },
    operations,
    log,
    patience: { ...usualPatience, ...options.patience },
  })
  const client = new TestClient(server.url)
  let closing: Promise<void> | null = null
  const close = () => {
    closing ??= server.close()
    return closing
  }
  return {
    url: server.url,
    client,
    database,
    usage,
    operations,
    metrics,
    provider: providerServer,
    log: lines,
    listeners: () => listeners,
    statements: (text) => statements.filter((statement) => statement.includes(text)).length,
    async metric(line) {
      const found = (await metrics.registry.metrics()).split('\n').find((each) => each.startsWith(`${line} `))
      return found ? Number(found.slice(line.length + 1)) : null
    },
    close,
    async [Symbol.asyncDispose]() {
      await client.close()
      await close()
      await process.stop().catch(() => {})
      await extractors.close()
      await providers.close()
      await provider.close()
      await usage.stop()
      await opened.close()
      await own[Symbol.asyncDispose]()
      await providerServer.close()
    },
  }
}
