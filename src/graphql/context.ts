import type { Config, ExtractionRules, ScoreRules } from '../config.ts'
import type { Database } from '../db/database.ts'
import type { LiveSpaces } from '../embedding/live-spaces.ts'
import type { ProgressFeed } from '../embedding/progress.ts'
import type { SearchSample } from '../embedding/search-sample.ts'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import type { Extractors } from '../extraction/extractors.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import type { EmbeddingProviderConfig } from '../providers/create.ts'
import type { EmbeddingProvider } from '../providers/provider.ts'
import type { Providers } from '../providers/providers.ts'
import type { UsageLedger } from '../providers/usage.ts'
import type { ActiveSearch } from '../search/active-search.ts'
import type { Search } from '../search/search.ts'
import { createLoaders, type Loaders } from './loaders.ts'
import type { News } from './news.ts'

/** What the API works with; made once by the composition root. */
export interface Services {
  database: Database
  spaces: Pick<LiveSpaces, 'active' | 'all' | 'use' | 'refresh'>
  /** Of searches. */
  sample: SearchSample
  /** Who embeds, as configured by the environment. */
  provider: EmbeddingProviderConfig & Pick<EmbeddingProvider, 'knownDimensions' | 'model'>
  /** Makes it anew, for whoever closes it. */
  openEnvironment(): EmbeddingProvider
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
  searches: ActiveSearch
  /** Of a space; null: of whichever is active. */
  progress(spaceId: number | null): ProgressFeed
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

/** What an answer is read from: all of it in one space, which stays that of the answer when searches change over. */
export interface View {
  /** The active space. */
  space: EmbeddingSpace
  search: Search
  /** Of one answer: they never outlive it, so that no operation sees another one's stale rows. */
  loaders: Loaders
}

/** Of one operation. */
export interface Context extends Services, Caller, View {}

export function createContext(services: Services, { requestId, log }: Caller): Context {
  return { ...services, requestId, log, ...createView(services) }
}

export function createView({ database, searches }: Pick<Services, 'database' | 'searches'>): View {
  const search = searches.now()
  const { space } = search
  return { space, search, loaders: createLoaders(database, space, search) }
}
