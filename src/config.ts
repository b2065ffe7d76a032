import { isIP } from 'node:net'
import { z } from 'zod'
import { SetupError } from './errors.ts'
import type { ChatModelConfig } from './providers/chat/create.ts'
import type { EmbeddingProviderConfig } from './providers/create.ts'

export type DatabaseConfig =
  | { kind: 'embedded'; dataDir: string }
  | {
      kind: 'postgres'
      url: string
      /** Connections in the pool of this process. */
      poolSize: number
    }

/** How the importance of messages is judged; see ingest/score.ts. */
export interface ScoreRules {
  /** Share of each rule in the sum; together 1. */
  weights: { content: number; author: number; recency: number; topic: number }
  /** Importance below `noise` is NOISE, above `signal` SIGNAL, WEAK_SIGNAL between. */
  thresholds: { noise: number; signal: number }
  /** Names of authors whose word counts more, in any case. */
  importantAuthors: readonly string[]
}

/** When an extraction starts by itself. */
export interface TriggerRules {
  /** Messages that are worth a job, 5..100. */
  messages: number
  /** How old a message may be when it comes in, to count; 1..168 hours. */
  windowHours: number
  /** After this fewer are worth a job, too; hours. */
  patienceHours: number
}

export interface ExtractionRules {
  trigger: TriggerRules
  /** Messages in a batch, 5..500. */
  batchSize: number
  /** Proposals below are dropped, 0..1. */
  minConfidence: number
  /** Least confidence at which an atom of a type is approved by itself. */
  autoApprove: Partial<Record<(typeof atomTypes)[number], number>>
}

export interface JobRules {
  /** Ended jobs are kept so long, days. */
  retentionDays: number
  /** Where alerts are posted as JSON; null: nowhere, they stand in the log, the metrics and the API. */
  alertWebhookUrl: string | null
}

export const providerNetworks = ['public', 'loopback', 'private'] as const
/** Where providers that are added by the API may be: on the internet; also on this machine; also in private networks. */
export type ProviderNetwork = (typeof providerNetworks)[number]

export interface Config {
  database: DatabaseConfig
  embedding: EmbeddingProviderConfig
  indexes: {
    /** In what precision vectors are indexed; null: a space keeps what it has. */
    precision: 'FULL' | 'HALF' | null
    /** What the build of a vector index may take: bytes, and processes of Postgres beside its own. */
    limits: { memoryBytes: number; workers: number }
  }
  /** Whether the words of the newest searches are kept, to compare another model with the present one. */
  keepsQueries: boolean
  /** What holds for providers that are added by the API. */
  providers: {
    /** Of 32 bytes each. The first encrypts API keys, all decrypt; empty: no API key can be stored. */
    encryptionKeys: readonly Buffer[]
    network: ProviderNetwork
  }
  scoring: ScoreRules
  extraction: {
    /** Who reads messages for knowledge; local works by rules. */
    extractor: { type: 'local' } | ChatModelConfig
    rules: ExtractionRules
    /** Whether it starts by itself when enough has come in. */
    isAutomatic: boolean
  }
  server: {
    host: string
    port: number
    /** Origins that a browser may call from; the server's own is always allowed. */
    corsOrigins: string[]
    /** Largest JSON body, in bytes. */
    maxBodyBytes: number
    /** Largest uploaded chat export, in bytes. */
    maxUploadBytes: number
    /** What Telegram sends with each update, so that nobody else can; null: the webhook is off. */
    telegramSecret: string | null
  }
  jobs: JobRules
  /** Where a worker answers /health, /ready and /metrics; null: nowhere. A server does on its own port. */
  workerPort: number | null
  logLevel: (typeof logLevels)[number]
  /** Where a running server is, for the CLI; null = look into the data folder's lock, else work without one. */
  serverUrl: string | null
}

const logLevels = ['silent', 'error', 'warn', 'info', 'debug'] as const
const KIB = 1024
const MIB = 1024 * KIB

const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// address' })
const postgresUrl = z.url({ protocol: /^postgres(ql)?$/, error: 'must be a postgresql:// address' })
const count = (least: number, most: number) =>
  z.coerce
    .number({ error: 'must be a number' })
    .int('must be a whole number')
    .min(least, `must be at least ${least}`)
    .max(most, `must be at most ${most}`)

const share = z.coerce
  .number({ error: 'must be a number' })
  .min(0, 'must be at least 0')
  .max(1, 'must be at most 1')
const list = z
  .string()
  .default('')
  .transform((text) => text.split(',').flatMap((entry) => entry.trim() || []))

const encryptionKeyBytes = 32
/** Base64 of 32 bytes each. A mistake is told by place: the value itself must stand in no log. */
const encryptionKeys = list.transform((entries, context) =>
  entries.map((entry, index) => {
    const key = Buffer.from(entry, 'base64')
    // Buffer skips what is no base64: a key with a slip of the pen would be another key, silently.
    const isBase64 = /^[A-Za-z0-9+/]+={0,2}$/.test(entry)
    if (!isBase64 || key.length !== encryptionKeyBytes)
      context.addIssue(
        `key ${index + 1} of ${entries.length} is ${isBase64 ? `${key.length} bytes in` : 'not'} base64; expected ${encryptionKeyBytes} bytes in base64. Make one by \`npm run quarry -- keys generate\` or \`openssl rand -base64 32\``,
      )
    return key
  }),
)

/** `name:number` entries, by name. */
const named = <Name extends string>(names: readonly Name[]) =>
  list.transform((entries, context) => {
    const values: Partial<Record<Name, number>> = {}
    for (const entry of entries) {
      const [, name, value] = /^(\w+):(0(?:\.\d+)?|1(?:\.0+)?|\.\d+)$/.exec(entry) ?? []
      if (names.includes(name as Name)) values[name as Name] = Number(value)
      else
        context.addIssue(
          `has ${JSON.stringify(entry)}; expected name:number, 0..1, with a name of ${names.join(', ')}`,
        )
    }
    return values
  })

const atomTypes = [
  'PROBLEM',
  'SOLUTION',
  'DECISION',
  'QUESTION',
  'INSIGHT',
  'PATTERN',
  'REQUIREMENT',
  'IDEA',
  'BLOCKER',
  'RISK',
] as const
const scoreWeights = { content: 0.4, author: 0.2, recency: 0.2, topic: 0.2 }
const scoreThresholds = { noise: 0.3, signal: 0.6 }
const keysOf = <Key extends string>(object: Record<Key, number>) => Object.keys(object) as Key[]

const environment = z.object({
  DATABASE_URL: postgresUrl.optional(),
  QUARRY_DATABASE_POOL: count(2, 500).default(10),
  QUARRY_DATA_DIR: z.string().default('.quarry'),
  QUARRY_EMBEDDING_PROVIDER: z.enum(['local', 'openai', 'ollama']).default('local'),
  QUARRY_EMBEDDING_THREADS: count(1, 64).optional(),
  QUARRY_EMBEDDING_PRECISION: z.enum(['full', 'half']).optional(),
  QUARRY_INDEX_BUILD_MEMORY_MB: count(64, 1024 * KIB).default(KIB),
  QUARRY_INDEX_BUILD_WORKERS: count(0, 64).default(2),
  QUARRY_KEEP_QUERIES: z.enum(['on', 'off']).default('on'),
  OPENAI_API_KEY: z.string().optional(),
  OPENAI_BASE_URL: httpUrl.optional(),
  OPENAI_EMBEDDING_MODEL: z.string().default('text-embedding-3-small'),
  OPENAI_EMBEDDING_DIMENSIONS: count(1, 4000).optional(),
  OLLAMA_BASE_URL: httpUrl.default('http://127.0.0.1:11434'),
  OLLAMA_EMBEDDING_MODEL: z.string().default('nomic-embed-text'),
  QUARRY_ENCRYPTION_KEY: encryptionKeys,
  QUARRY_PROVIDER_NETWORK: z.enum(providerNetworks).optional(),
  QUARRY_SCORE_WEIGHTS: named(keysOf(scoreWeights)),
  QUARRY_SCORE_THRESHOLDS: named(keysOf(scoreThresholds)),
  QUARRY_IMPORTANT_AUTHORS: list,
  QUARRY_EXTRACTION_PROVIDER: z.enum(['local', 'openai', 'ollama']).default('local'),
  OPENAI_EXTRACTION_MODEL: z.string().default('gpt-4.1-mini'),
  OLLAMA_EXTRACTION_MODEL: z.string().default('llama3.1'),
  QUARRY_AUTO_EXTRACT: z.enum(['on', 'off']).default('on'),
  QUARRY_EXTRACTION_MESSAGES: count(5, 100).default(10),
  QUARRY_EXTRACTION_WINDOW_HOURS: count(1, 168).default(24),
  QUARRY_EXTRACTION_PATIENCE_HOURS: count(1, 168).default(4),
  QUARRY_EXTRACTION_BATCH: count(5, 500).default(50),
  QUARRY_EXTRACTION_MIN_CONFIDENCE: share.default(0.7),
  QUARRY_AUTO_APPROVE: named(atomTypes),
  HOST: z.string().default('127.0.0.1'),
  PORT: count(0, 65535).default(4000),
  QUARRY_CORS_ORIGINS: list.pipe(z.array(httpUrl)),
  QUARRY_MAX_BODY_KB: count(16, 100 * KIB).default(8 * KIB),
  QUARRY_MAX_UPLOAD_MB: count(1, 100 * KIB).default(2 * KIB),
  QUARRY_WORKER_PORT: count(0, 65535).optional(),
  QUARRY_JOB_RETENTION_DAYS: count(1, 3650).default(30),
  QUARRY_ALERT_WEBHOOK_URL: httpUrl.optional(),
  QUARRY_TELEGRAM_SECRET: z
    .string()
    .regex(/^[A-Za-z0-9_-]{16,256}$/, 'must be 16 to 256 letters, digits, _ or -')
    .optional(),
  QUARRY_LOG_LEVEL: z.enum(logLevels).default('info'),
  QUARRY_URL: httpUrl.optional(),
})

/** Names of all variables that are read. */
export const knownVariables: readonly string[] = Object.keys(environment.shape)

export interface ConfigMistake {
  /** What it is about: without these, the rest of the environment can be read. */
  variables: readonly string[]
  /** For people; begins with the name of a variable. */
  message: string
}

/** Every mistake at once, each with the variable's name; none if `parseConfig` takes the environment. */
export function findConfigMistakes(env: Readonly<Record<string, string | undefined>>): ConfigMistake[] {
  return readEnvironment(env).mistakes
}

function readEnvironment(env: Readonly<Record<string, string | undefined>>) {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value?.trim()))
  const parsed = environment.safeParse(set)
  const mistakes: ConfigMistake[] = []
  const add = (message: string, ...variables: string[]) => mistakes.push({ variables, message })
  for (const issue of parsed.error?.issues ?? []) {
    const name = String(issue.path[0])
    add(`${name}: ${issue.message}`, name)
    delete set[name]
  }
  // One variable with a mistake must not hide those that others make together.
  const sound = parsed.data ?? environment.parse(set)
  for (const name of ['QUARRY_EMBEDDING_PROVIDER', 'QUARRY_EXTRACTION_PROVIDER'] as const) {
    if (set[name] !== 'openai' || set.OPENAI_API_KEY) continue
    const message = `OPENAI_API_KEY: is needed for ${name}=openai (any value for a server without keys)`
    add(message, name, 'OPENAI_API_KEY')
  }
  const weights = { ...scoreWeights, ...sound.QUARRY_SCORE_WEIGHTS }
  const sum = Object.values(weights).reduce((a, b) => a + b, 0)
  if (Math.abs(sum - 1) > 0.001) {
    const message = `QUARRY_SCORE_WEIGHTS: together with the defaults they make ${sum.toFixed(3)}; must make 1`
    add(message, 'QUARRY_SCORE_WEIGHTS')
  }
  const thresholds = { ...scoreThresholds, ...sound.QUARRY_SCORE_THRESHOLDS }
  if (thresholds.noise > thresholds.signal)
    add('QUARRY_SCORE_THRESHOLDS: noise must not lie above signal', 'QUARRY_SCORE_THRESHOLDS')
  return { variables: parsed.data, mistakes, weights, thresholds }
}

/**
 * The one reader of the environment: turns variables into the typed configuration that everything else is given.
 * An empty variable counts as not set, because `FOO= command` and compose files mean that.
 * @throws SetupError that lists every mistake at once, each with the variable's name.
 */
export function parseConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const { variables, mistakes, weights, thresholds } = readEnvironment(env)
  if (!variables || mistakes.length > 0) {
    const lines = mistakes.map(({ message }) => `  ${message}`)
    throw new SetupError(`The configuration has mistakes:\n${lines.join('\n')}`)
  }
  return {
    database: variables.DATABASE_URL
      ? { kind: 'postgres', url: variables.DATABASE_URL, poolSize: variables.QUARRY_DATABASE_POOL }
      : { kind: 'embedded', dataDir: variables.QUARRY_DATA_DIR },
    embedding: embeddingConfig(variables),
    indexes: {
      precision:
        variables.QUARRY_EMBEDDING_PRECISION === undefined
          ? null
          : variables.QUARRY_EMBEDDING_PRECISION === 'full'
            ? 'FULL'
            : 'HALF',
      limits: {
        memoryBytes: variables.QUARRY_INDEX_BUILD_MEMORY_MB * MIB,
        workers: variables.QUARRY_INDEX_BUILD_WORKERS,
      },
    },
    keepsQueries: variables.QUARRY_KEEP_QUERIES === 'on',
    providers: {
      encryptionKeys: variables.QUARRY_ENCRYPTION_KEY,
      // Who reaches the API on this machine's own address reaches everything else there without it. From outside, it
      // would be a way in.
      network: variables.QUARRY_PROVIDER_NETWORK ?? (isLoopback(variables.HOST) ? 'loopback' : 'public'),
    },
    scoring: { weights, thresholds, importantAuthors: variables.QUARRY_IMPORTANT_AUTHORS },
    extraction: {
      extractor: extractorConfig(variables),
      rules: {
        trigger: {
          messages: variables.QUARRY_EXTRACTION_MESSAGES,
          windowHours: variables.QUARRY_EXTRACTION_WINDOW_HOURS,
          patienceHours: variables.QUARRY_EXTRACTION_PATIENCE_HOURS,
        },
        batchSize: variables.QUARRY_EXTRACTION_BATCH,
        minConfidence: variables.QUARRY_EXTRACTION_MIN_CONFIDENCE,
        autoApprove: variables.QUARRY_AUTO_APPROVE,
      },
      isAutomatic: variables.QUARRY_AUTO_EXTRACT === 'on',
    },
    server: {
      host: variables.HOST,
      port: variables.PORT,
      corsOrigins: variables.QUARRY_CORS_ORIGINS,
      maxBodyBytes: variables.QUARRY_MAX_BODY_KB * KIB,
      maxUploadBytes: variables.QUARRY_MAX_UPLOAD_MB * MIB,
      telegramSecret: variables.QUARRY_TELEGRAM_SECRET ?? null,
    },
    jobs: {
      retentionDays: variables.QUARRY_JOB_RETENTION_DAYS,
      alertWebhookUrl: variables.QUARRY_ALERT_WEBHOOK_URL ?? null,
    },
    workerPort: variables.QUARRY_WORKER_PORT ?? null,
    logLevel: variables.QUARRY_LOG_LEVEL,
    serverUrl: variables.QUARRY_URL ?? null,
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}

function embeddingConfig(variables: z.infer<typeof environment>): EmbeddingProviderConfig {
  switch (variables.QUARRY_EMBEDDING_PROVIDER) {
    case 'local':
      return variables.QUARRY_EMBEDDING_THREADS
        ? { type: 'local', threads: variables.QUARRY_EMBEDDING_THREADS }
        : { type: 'local' }
    case 'openai':
      return {
        type: 'openai',
        apiKey: variables.OPENAI_API_KEY ?? '',
        baseUrl: variables.OPENAI_BASE_URL ?? null,
        model: variables.OPENAI_EMBEDDING_MODEL,
        dimensions: variables.OPENAI_EMBEDDING_DIMENSIONS ?? null,
      }
    case 'ollama':
      return { type: 'ollama', baseUrl: variables.OLLAMA_BASE_URL, model: variables.OLLAMA_EMBEDDING_MODEL }
  }
}

function extractorConfig(variables: z.infer<typeof environment>): Config['extraction']['extractor'] {
  switch (variables.QUARRY_EXTRACTION_PROVIDER) {
    case 'local':
      return { type: 'local' }
    case 'openai':
      return {
        type: 'openai',
        apiKey: variables.OPENAI_API_KEY ?? '',
        baseUrl: variables.OPENAI_BASE_URL ?? null,
        model: variables.OPENAI_EXTRACTION_MODEL,
      }
    case 'ollama':
      return { type: 'ollama', baseUrl: variables.OLLAMA_BASE_URL, model: variables.OLLAMA_EXTRACTION_MODEL }
  }
}
