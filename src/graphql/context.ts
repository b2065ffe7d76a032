import type { Config, ExtractionRules, ScoreRules } from '../config.ts'
import type { Database } from '../db/database.ts'
import type { ProgressFeed } from '../embedding/progress.ts'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import type { Extractors } from '../extraction/extractors.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { EmbeddingProviderConfig } from '../providers/create.ts'
import type { Providers } from '../providers/providers.ts'
import type { UsageLedger } from '../providers/usage.ts'
import type { Search } from '../search/search.ts'
import { createLoaders, type Loaders } from './loaders.ts'
import type { News } from './news.ts'

/** What the API works with; made once by the composition root. */
export interface Services {
  database: Database
  /** The active space. */
  space: EmbeddingSpace
  /** Who embeds, as configured by the environment. */
  provider: EmbeddingProviderConfig
  /** Who extracts, as configured by the environment. */
  extractor: Config['extraction']['extractor']
  /** Those that are added by the API. */
  providers: Providers
  /** What is asked of providers, and what it costs. */
  usage: UsageLedger
  /** Agents, and what the environment configures: who reads messages. */
  extractors: Extractors
  extraction: ExtractionRules
  /** How messages are scored when they are stored. */
  scoring: ScoreRules
  search: Search
  progress: ProgressFeed
  news: News
  metrics: Metrics
}

/** Who asks: an operation's own part of the context. */
export interface Caller {
  /** Of the request, or of the operation where many share a connection. */
  requestId: string
  /** Writes the id by itself. */
  log: Logger
}

/** Of one operation: loaders never outlive it, so that no operation sees another one's stale rows. */
export interface Context extends Services, Caller {
  loaders: Loaders
}

export function createContext(services: Services, { requestId, log }: Caller): Context {
  const { database, space, search } = services
  return { ...services, requestId, log, loaders: createLoaders(database, space, search) }
}
