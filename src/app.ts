import type { Config } from './config.ts'
import { startGrouping } from './conversations/group.ts'
import { forBackground } from './db/background.ts'
import { type Database, openDatabase } from './db/database.ts'
import { migrate } from './db/migrate.ts'
import { startIndexCare } from './embedding/index-care.ts'
import { followSpaces, type LiveSpace, type LiveSpaces } from './embedding/live-spaces.ts'
import { migrationHandler } from './embedding/migration-job.ts'
import { createProgressFeeds } from './embedding/progress.ts'
import { requestBackfill, retryEmbeddings } from './embedding/requests.ts'
import { createSearchSample } from './embedding/search-sample.ts'
import { type EntityKind, ensureActiveSpace } from './embedding/spaces.ts'
import { errorMessage } from './errors.ts'
import { extractHandler } from './extraction/extract-job.ts'
import { createExtractors } from './extraction/extractors.ts'
import { startExtractionTrigger } from './extraction/trigger.ts'
import { createNews } from './graphql/news.ts'
import { importHandler } from './ingest/import-job.ts'
import { clearTelegramUpdates, telegramTask } from './ingest/telegram/updates.ts'
import { alertTask, postAlertTask } from './jobs/alerts.ts'
import { startHeldEvents } from './jobs/held-events.ts'
import { enterProcess } from './jobs/processes.ts'
import { retentionTask } from './jobs/retention.ts'
import { type JobHandler, startJobRunner } from './jobs/runner.ts'
import type { Logger } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createEmbeddingProvider } from './providers/create.ts'
import { createKeyRing } from './providers/keys.ts'
import type { EmbeddingProvider } from './providers/provider.ts'
import { createProviders } from './providers/providers.ts'
import { accountEmbeddings, startUsageLedger } from './providers/usage.ts'
import { followActiveSearch } from './search/active-search.ts'
import { createOperations, startOperationsServer } from './server/operations.ts'
import { startKeepingWords } from './words/keep.ts'

export interface App {
  /** Where the API listens; null in a process that only works. */
  url: string | null
  /** Rejects never; resolves with the reason when the app cannot go on, and it has to be stopped. */
  failed: Promise<Error>
  /** Ends everything in the reverse order of the start. */
  stop(): Promise<void>
}

export interface AppOptions {
  config: Config
  log: Logger
  /** `server` serves the API and works; `worker` only works. */
  role: 'server' | 'worker'
  onStatement?: (text: string) => void
}

/** When what is old is cleared: every hour, whichever process is first. */
const schedule = [
  '17 * * * * clear_ended_jobs ?jobKey=clear_ended_jobs',
  '37 * * * * clear_telegram_updates ?jobKey=clear_telegram_updates',
].join('\n')
/** Telegram repeats an update for a day. */
const telegramUpdateDays = 7

/** The composition root: opens, migrates, checks and starts everything that one process runs. */
export async function startApp({ config, log, role, onStatement }: AppOptions): Promise<App> {
  const stops: (() => Promise<void>)[] = []
  let fail: (error: Error) => void = () => {}
  const failed = new Promise<Error>((resolve) => {
    fail = resolve
  })
  async function stop(): Promise<void> {
    for (;;) {
      const next = stops.pop()
      if (!next) return
      // One part that cannot end cleanly (its database is gone) must not keep the others from ending.
      await next().catch((error) => log.warn({ error: errorMessage(error) }, 'A part did not end cleanly'))
    }
  }

  try {
    const metrics = createMetrics()
    const provider = createEmbeddingProvider(config.embedding)
    // What follows the spaces takes it over, and closes it.
    let untaken: EmbeddingProvider | null = provider
    stops.push(async () => untaken?.close())
    const opening = openDatabase(config.database, {
      log,
      onFailure: fail,
      ...(onStatement ? { onStatement } : {}),
    })
    // The API's libraries take as long to load as an embedded database to boot: side by side, a start is much shorter.
    const [database, http] = await Promise.all([
      opening,
      role === 'server' ? import('./server/http.ts') : null,
    ])
    stops.push(() => database.close())
    const background = role === 'server' ? forBackground(database) : database
    const applied = await migrate(database)
    if (applied.length > 0) log.info({ applied }, 'Migrated the database')
    const usage = await startUsageLedger(database, log)
    stops.push(() => usage.stop())
    // In every role, and closed after all that works with them: rows embed and extract in workers, too.
    const keys = createKeyRing(config.providers.encryptionKeys)
    const providers = createProviders({ database, keys, network: config.providers.network, usage })
    stops.push(() => providers.close())
    const environment = config.extraction.extractor
    const extractors = createExtractors({ database, providers, environment, usage, log })
    stops.push(() => extractors.close())
    await ensureActiveSpace(
      database,
      accountEmbeddings(provider, usage.account(provider, 'VALIDATION')),
      log,
      config.indexes,
    )

    const process = await enterProcess(database, role, log)
    stops.push(() => process.stop())
    const openEnvironment = () => {
      const provider = untaken ?? createEmbeddingProvider(config.embedding)
      untaken = null
      return provider
    }
    const spaces = await followSpaces({
      database,
      background,
      process,
      providers,
      openEnvironment,
      usage,
      metrics,
      log,
    })
    stops.push(() => spaces.stop())
    const sample = createSearchSample(config.keepsQueries)
    const { limits } = config.indexes
    const indexCare = await startIndexCare({ database: background, spaces, sample, limits, metrics, log })
    stops.push(() => indexCare.stop())
    const words = await startKeepingWords(background, log)
    stops.push(() => words.stop())
    const grouping = await startGrouping(background, spaces, log)
    stops.push(() => grouping.stop())
    const { rules } = config.extraction
    const handlers = {
      IMPORT: importHandler(background, config.scoring),
      EMBED: embedHandler(background, spaces),
      BACKFILL: backfillHandler(background, spaces),
      MIGRATE_EMBEDDINGS: migrationHandler(background),
      EXTRACT: inActiveSpace(spaces, ({ space, provider }) =>
        extractHandler({ database: background, space, provider, extractors, usage, rules, metrics, log }),
      ),
    }
    const tasks = {
      check_alerts: alertTask(background, { webhookUrl: config.jobs.alertWebhookUrl, log }),
      post_alert: postAlertTask(background, config.jobs.alertWebhookUrl),
      clear_ended_jobs: retentionTask(background, config.jobs.retentionDays, log),
      telegram_updates: telegramTask(background, config.scoring),
      clear_telegram_updates: async () => {
        await clearTelegramUpdates(background, telegramUpdateDays)
      },
    }
    const heldEvents = await startHeldEvents(database, log)
    stops.push(() => heldEvents.stop())
    const runner = await startJobRunner({ database, handlers, tasks, schedule, metrics, log })
    stops.push(() => runner.stop())
    if (config.extraction.isAutomatic) {
      const trigger = await startExtractionTrigger(background, rules.trigger, log)
      stops.push(() => trigger.stop())
    }
    await process.setWorkers(runner.poolIds)
    const operations = createOperations({
      database,
      activeSpace: () => spaces.active().space,
      process,
      metrics,
      checks: { jobs: () => runner.problem(), embedding: () => spaces.problem() },
      server: config.server,
      log,
    })
    if (!http) {
      if (config.workerPort !== null) {
        const address = { host: config.server.host, port: config.workerPort }
        const server = await startOperationsServer(address, operations)
        stops.push(() => server.close())
        log.info({ url: server.url }, 'Health and metrics are served')
      }
      return { url: null, failed, stop }
    }

    const searches = followActiveSearch(database, spaces, sample, usage)
    const progress = createProgressFeeds(database, () => spaces.active().space, log)
    const news = createNews(database, log)
    const { scoring } = config
    const { knownDimensions, model } = provider
    const server = await http.startApiServer({
      config: config.server,
      services: {
        database,
        spaces,
        sample,
        openEnvironment: () => createEmbeddingProvider(config.embedding),
        provider: { ...config.embedding, knownDimensions, model },
        extractor: environment,
        providers,
        usage,
        extractors,
        extraction: rules,
        scoring,
        searches,
        progress,
        news,
        metrics,
      },
      operations,
      log,
    })
    stops.push(() => server.close())
    await database.publishAddress(server.url)
    return { url: server.url, failed, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** A job that is done in the space that is active when it begins, to its end. */
function inActiveSpace(spaces: LiveSpaces, handlerIn: (live: LiveSpace) => JobHandler): JobHandler {
  return (context) => {
    const live = spaces.active()
    return spaces.use(live, () => handlerIn(live)(context))
  }
}

function backfillHandler(database: Database, spaces: LiveSpaces): JobHandler {
  return async ({ job }) => {
    const { id: spaceId } = spaces.active().space
    const params = job.params as { kinds: EntityKind[]; retryFailed: boolean; isRetry?: boolean }
    const retryFailed = params.retryFailed || params.isRetry === true
    await database.transaction((transaction) =>
      requestBackfill(transaction, job.id, spaceId, params.kinds, retryFailed),
    )
    return 'waiting'
  }
}

/** Only one that is taken up again comes here: the first time, its rows are requested as it is made. */
function embedHandler(database: Database, spaces: LiveSpaces): JobHandler {
  return async ({ job }) => {
    const { id: spaceId } = spaces.active().space
    await database.transaction((transaction) => retryEmbeddings(transaction, spaceId, job))
    return 'waiting'
  }
}
