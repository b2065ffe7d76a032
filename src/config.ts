import { z } from 'zod'
import { SetupError } from './errors.ts'
import type { EmbeddingProviderConfig } from './providers/create.ts'

export type DatabaseConfig =
  | { kind: 'embedded'; dataDir: string }
  | {
      kind: 'postgres'
      url: string
      /** Connections in the pool of this process. */
      poolSize: number
    }

export interface Config {
  database: DatabaseConfig
  embedding: EmbeddingProviderConfig
  server: {
    host: string
    port: number
    /** Origins that a browser may call from; the server's own is always allowed. */
    corsOrigins: string[]
    /** Largest JSON body, in bytes. */
    maxBodyBytes: number
    /** Largest uploaded chat export, in bytes. */
    maxUploadBytes: number
  }
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

const environment = z.object({
  DATABASE_URL: postgresUrl.optional(),
  QUARRY_DATABASE_POOL: count(2, 500).default(10),
  QUARRY_DATA_DIR: z.string().default('.quarry'),
  QUARRY_EMBEDDING_PROVIDER: z.enum(['local', 'openai', 'ollama']).default('local'),
  QUARRY_EMBEDDING_THREADS: count(1, 64).optional(),
  OPENAI_API_KEY: z.string().optional(),
  OPENAI_BASE_URL: httpUrl.optional(),
  OPENAI_EMBEDDING_MODEL: z.string().default('text-embedding-3-small'),
  OPENAI_EMBEDDING_DIMENSIONS: count(1, 4000).optional(),
  OLLAMA_BASE_URL: httpUrl.default('http://127.0.0.1:11434'),
  OLLAMA_EMBEDDING_MODEL: z.string().default('nomic-embed-text'),
  HOST: z.string().default('127.0.0.1'),
  PORT: count(0, 65535).default(4000),
  QUARRY_CORS_ORIGINS: z
    .string()
    .default('')
    .transform((list) => list.split(',').flatMap((origin) => origin.trim() || []))
    .pipe(z.array(httpUrl)),
  QUARRY_MAX_BODY_KB: count(16, 100 * KIB).default(8 * KIB),
  QUARRY_MAX_UPLOAD_MB: count(1, 100 * KIB).default(2 * KIB),
  QUARRY_LOG_LEVEL: z.enum(logLevels).default('info'),
  QUARRY_URL: httpUrl.optional(),
})

/**
 * The one reader of the environment: turns variables into the typed configuration that everything else is given.
 * An empty variable counts as not set, because `FOO= command` and compose files mean that.
 * @throws SetupError that lists every mistake at once, each with the variable's name.
 */
export function parseConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value?.trim()))
  const parsed = environment.safeParse(set)
  const mistakes = parsed.success
    ? []
    : parsed.error.issues.map((issue) => `${issue.path[0]?.toString()}: ${issue.message}`)
  if (set.QUARRY_EMBEDDING_PROVIDER === 'openai' && !set.OPENAI_API_KEY) {
    mistakes.push(
      'OPENAI_API_KEY: is needed for QUARRY_EMBEDDING_PROVIDER=openai (any value for a server without keys)',
    )
  }
  if (!parsed.success || mistakes.length > 0) {
    throw new SetupError(`The configuration has mistakes:\n${mistakes.map((line) => `  ${line}`).join('\n')}`)
  }
  const variables = parsed.data
  return {
    database: variables.DATABASE_URL
      ? { kind: 'postgres', url: variables.DATABASE_URL, poolSize: variables.QUARRY_DATABASE_POOL }
      : { kind: 'embedded', dataDir: variables.QUARRY_DATA_DIR },
    embedding: embeddingConfig(variables),
    server: {
      host: variables.HOST,
      port: variables.PORT,
      corsOrigins: variables.QUARRY_CORS_ORIGINS,
      maxBodyBytes: variables.QUARRY_MAX_BODY_KB * KIB,
      maxUploadBytes: variables.QUARRY_MAX_UPLOAD_MB * MIB,
    },
    logLevel: variables.QUARRY_LOG_LEVEL,
    serverUrl: variables.QUARRY_URL ?? null,
  }
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
