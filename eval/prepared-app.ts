import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { startApp } from '../src/app.ts'
import { ApiClient } from '../src/cli/client.ts'
import { type Config, type DatabaseConfig, parseConfig } from '../src/config.ts'
import { SetupError } from '../src/errors.ts'
import { createLogger } from '../src/log.ts'

/** A text to be searched, as a message. */
export interface PreparedText {
  /** Unique among the texts; becomes the message's externalId. */
  id: string
  text: string
  channel?: string
}

export interface PreparedApp extends AsyncDisposable {
  client: ApiClient
  /** For the report: `local universal-sentence-encoder-lite, embedded database`. */
  description: string
  /** Texts without a vector, because the provider refused them or the model knows none of their words. */
  withoutVector: number
}

const root = join(import.meta.dirname, '..')
const cacheFolder = join(import.meta.dirname, '.cache')
/** Beside the migrations: what decides on a stored vector. Everything else is measured as it is now. */
const vectorSources = [
  'src/embedding/parts.ts',
  'src/providers/local-tokens.ts',
  'src/providers/local-worker.ts',
]
/** Of one request; a tenth of what the app is told to take, because JSON may write one byte as six. */
const maxBatchBytes = 8 * 2 ** 20
const maxBodyKb = 80 * 2 ** 10
const maxBatchCount = 1000

/**
 * An app of its own over these texts, when all are embedded. Its database is kept and used again while texts, embedding
 * model, migrations and what makes vectors of texts stay the same: to embed a collection takes minutes. What an earlier
 * run began and did not end is gone on with.
 * @param name of the collection, for people who look into the folder
 * @throws SetupError if the configuration cannot work, another run uses the database, or a text is refused
 */
export async function startPreparedApp(name: string, texts: readonly PreparedText[]): Promise<PreparedApp> {
  const config = readConfig()
  const key = keyOf(config, texts)
  const database = await openCached(name, key)
  const app = await startApp({
    config: { ...config, database },
    log: createLogger(config.logLevel),
    role: 'server',
  })
  const client = new ApiClient(app.url ?? '')
  const stop = async () => {
    await client.close()
    await app.stop()
  }
  try {
    await ingest(client, name, texts)
    const withoutVector = await untilEmbedded(client, name)
    const { provider, model } = await readSpace(client)
    const engine = database.kind === 'embedded' ? 'embedded database' : 'Postgres'
    return {
      client,
      description: `${provider.toLowerCase()} ${model}, ${engine}`,
      withoutVector,
      [Symbol.asyncDispose]: stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** The provider and its key as for `quarry serve`; nothing that would change what is stored. */
function readConfig(): Config {
  const own = Object.entries(process.env).filter(
    ([variable]) => /^(OPENAI|OLLAMA)_/.test(variable) || variable.startsWith('QUARRY_EMBEDDING_'),
  )
  return parseConfig({
    ...Object.fromEntries(own),
    PORT: '0',
    QUARRY_AUTO_EXTRACT: 'off',
    QUARRY_MAX_BODY_KB: String(maxBodyKb),
    QUARRY_LOG_LEVEL: 'warn',
  })
}

function keyOf({ embedding }: Config, texts: readonly PreparedText[]): string {
  const model =
    embedding.type === 'local'
      ? [embedding.type]
      : [
          embedding.type,
          embedding.baseUrl,
          embedding.model,
          'dimensions' in embedding && embedding.dimensions,
        ]
  const migrations = readdirSync(join(root, 'prisma/migrations'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.sql'))
    .sort()
    .map((file) => join('prisma/migrations', file))
  const hash = createHash('sha256').update(JSON.stringify([model, texts]))
  for (const file of [...migrations, ...vectorSources])
    hash.update(`\0${file}\0`).update(readFileSync(join(root, file)))
  return hash.digest('hex').slice(0, 16)
}

/** A folder of eval/.cache; or, with QUARRY_EVAL_DATABASE_URL, a database of that server. */
async function openCached(name: string, key: string): Promise<DatabaseConfig> {
  const server = process.env.QUARRY_EVAL_DATABASE_URL
  if (!server) {
    mkdirSync(cacheFolder, { recursive: true })
    return { kind: 'embedded', dataDir: join(cacheFolder, `${name.replaceAll(/[^\w-]+/g, '_')}-${key}`) }
  }
  if (!/^postgres(ql)?:/.test(server) || !URL.canParse(server))
    throw new SetupError('QUARRY_EVAL_DATABASE_URL must be a postgresql:// address')
  const database = `quarry_eval_${key}`
  const client = new pg.Client({ connectionString: server })
  await client.connect()
  try {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [database])
    if (rowCount === 0) await client.query(`create database ${database}`)
  } finally {
    await client.end()
  }
  const url = new URL(server)
  url.pathname = `/${database}`
  return { kind: 'postgres', url: url.href, poolSize: 4 }
}

const ingestDocument = `
  mutation Ingest($input: IngestMessagesInput!) {
    ingestMessages(input: $input) {
      ... on UserError { message }
      ... on IngestMessagesPayload { errors { message path } }
    }
  }
`

interface IngestAnswer {
  ingestMessages: { message: string } | { errors: { message: string; path: string[] }[] }
}

/** The same text again changes nothing, so nobody has to know what is there already. */
async function ingest(client: ApiClient, name: string, texts: readonly PreparedText[]): Promise<void> {
  for (const batch of batchesOf(texts)) {
    const { ingestMessages: answer } = await client.request<IngestAnswer>(ingestDocument, {
      input: {
        source: { name: name || 'collection', type: 'eval' },
        messages: batch.map(({ id, text, channel }) => ({
          externalId: id,
          author: 'collection',
          content: text,
          sentAt: '2020-01-01T00:00:00Z',
          ...(channel === undefined ? {} : { channel }),
        })),
      },
    })
    if ('message' in answer) throw new SetupError(`${name}: the texts were refused: ${answer.message}`)
    const [error] = answer.errors
    if (error) {
      const text = batch[Number(error.path[1])]
      throw new SetupError(`${name}: the text ${JSON.stringify(text?.id)} was refused: ${error.message}`)
    }
  }
}

function batchesOf(texts: readonly PreparedText[]): PreparedText[][] {
  const batches: PreparedText[][] = []
  let bytes = 0
  for (const text of texts) {
    const own = Buffer.byteLength(text.text)
    const open = batches.at(-1)
    if (open && open.length < maxBatchCount && bytes + own <= maxBatchBytes) {
      open.push(text)
      bytes += own
    } else {
      batches.push([text])
      bytes = own
    }
  }
  return batches
}

const progressDocument = `
  subscription Progress {
    embeddingProgress(kinds: [MESSAGE]) {
      lastError
      waitingUntil
      coverage { total ready pending stale failed skipped }
    }
  }
`

interface ProgressEvent {
  embeddingProgress: {
    lastError: string | null
    waitingUntil: string | null
    coverage: Record<'total' | 'ready' | 'pending' | 'stale' | 'failed' | 'skipped', number>[]
  }
}

/** @returns how many will have no vector */
async function untilEmbedded(client: ApiClient, name: string): Promise<number> {
  let shown = 0
  for await (const { embeddingProgress } of client.subscribe<ProgressEvent>(progressDocument)) {
    const { coverage, lastError, waitingUntil } = embeddingProgress
    const [messages] = coverage
    if (!messages) throw new Error('embeddingProgress told nothing of messages')
    const { total, ready, pending, stale, failed, skipped } = messages
    if (pending + stale === 0) {
      if (ready === 0) throw new SetupError(`${name}: nothing could be embedded: ${lastError}`)
      return failed + skipped
    }
    if (performance.now() - shown < 10_000) continue
    shown = performance.now()
    const waiting = waitingUntil === null ? '' : `; the provider is left alone for a while: ${lastError}`
    console.error(`${name}: ${ready} of ${total} texts are embedded${waiting}`)
  }
  throw new Error('the progress ended before all was embedded')
}

async function readSpace(client: ApiClient): Promise<{ provider: string; model: string }> {
  const { search } = await client.request<{
    search: { space: { provider: { type: string }; model: string } }
  }>('query Space { search(query: "a", mode: SEMANTIC, first: 1) { space { provider { type } model } } }')
  return { provider: search.space.provider.type, model: search.space.model }
}
