import { type ChildProcess, execFile, execFileSync, fork, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { type Config, parseConfig } from '../src/config.ts'
import { startupOptions } from '../src/db/connection.ts'
import { type Database, openDatabase } from '../src/db/database.ts'
import { createLogger } from '../src/log.ts'
import type { ProviderCounts, ProviderTask } from './provider-process.ts'
import { dimensions } from './vectors.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const postgresScript = join(root, 'scripts/postgres.sh')
/** Of its own, so that a server for tests on the default port goes on undisturbed, and keeps its faster settings. */
const postgresEnv = {
  QUARRY_POSTGRES_DIR: join(import.meta.dirname, '.postgres'),
  QUARRY_POSTGRES_PORT: process.env.QUARRY_BENCH_PORT ?? '54330',
  QUARRY_POSTGRES_DURABLE: '1',
}

/** A real Postgres with everything that makes it slow left on; each benchmark has a database of its own in it. */
export interface BenchPostgres {
  url: string
  /** For the report: `PostgreSQL 17.2, pgvector 0.8.1`. */
  versions: string
  stop(): Promise<void>
}

/** The server of QUARRY_BENCH_DATABASE_URL, or one that the project's script starts and that ends with the run. */
export async function startPostgres(): Promise<BenchPostgres> {
  const given = process.env.QUARRY_BENCH_DATABASE_URL
  if (!given) process.once('exit', stopPostgresNow)
  const url = given ?? (await postgres('start')).stdout.trim()
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const { rows } = await client.query<{ server: string; vector: string }>(
    `select current_setting('server_version') as server,
       (select default_version from pg_available_extensions where name = 'vector') as vector`,
  )
  await client.end()
  return {
    url,
    versions: `PostgreSQL ${rows[0]?.server.split(' ')[0]}, pgvector ${rows[0]?.vector}`,
    stop: async () => {
      if (given) return
      process.off('exit', stopPostgresNow)
      await postgres('stop')
    },
  }
}

const postgres = (command: 'start' | 'stop') =>
  run('bash', [postgresScript, command], { env: { ...process.env, ...postgresEnv } })

/** At the exit of a process nothing asynchronous is done any more. */
function stopPostgresNow(): void {
  execFileSync('bash', [postgresScript, 'stop'], { env: { ...process.env, ...postgresEnv }, stdio: 'ignore' })
}

/** A process that ends early, by an error or a signal, leaves none of those behind that it has started. */
function endWithUs(child: ChildProcess): void {
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  child.once('exit', () => process.off('exit', kill))
}

/** A new, empty database; `await using` drops it. */
export async function createDatabase(server: BenchPostgres): Promise<AsyncDisposable & { url: string }> {
  const name = `quarry_bench_${randomBytes(4).toString('hex')}`
  await administer(server, `create database ${name}`)
  return {
    url: urlOf(server, name),
    [Symbol.asyncDispose]: async () => {
      await administer(server, `drop database if exists ${name} with (force)`)
    },
  }
}

export interface KeptDatabase extends AsyncDisposable {
  url: string
  /** Whether it was filled by an earlier run. */
  isComplete: boolean
  /** To be called when it is filled: before, the next run makes it anew. */
  complete(): Promise<void>
}

/** A database that outlives the run, for rows that take minutes to load; what an interrupted run has left is dropped. */
export async function keepDatabase(server: BenchPostgres, name: string): Promise<KeptDatabase> {
  const marker = 'complete'
  const [found] = await administer<{ comment: string | null }>(
    server,
    `select shobj_description(oid, 'pg_database') as comment from pg_database where datname = '${name}'`,
  )
  const isComplete = found?.comment === marker
  if (!isComplete) {
    await administer(server, `drop database if exists ${name} with (force)`)
    await administer(server, `create database ${name}`)
  }
  return {
    url: urlOf(server, name),
    isComplete,
    complete: async () => {
      await administer(server, `comment on database ${name} is '${marker}'`)
    },
    [Symbol.asyncDispose]: async () => {},
  }
}

async function administer<Row extends object>(server: BenchPostgres, statement: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: server.url })
  await client.connect()
  const { rows } = await client.query<Row>(statement).finally(() => client.end())
  return rows
}

function urlOf(server: BenchPostgres, database: string): string {
  const url = new URL(server.url)
  url.pathname = `/${database}`
  return url.href
}

/** A connection with the settings that Quarry's own have, so that both meet the same plans. */
export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, options: startupOptions })
  await client.connect()
  return client
}

/** The project's own view of a database, in this process: to migrate it and to fill it. */
export async function openBenchDatabase(url: string): Promise<Database> {
  return openDatabase(
    { kind: 'postgres', url, poolSize: 4 },
    {
      log: createLogger('warn'),
      onFailure(error) {
        throw error
      },
    },
  )
}

/** The configuration of an app whose provider is the bench's. */
export function providerConfig(providerUrl: string): Config['embedding'] {
  return parseConfig(providerEnv(providerUrl)).embedding
}

export function providerEnv(providerUrl: string): Record<string, string> {
  return {
    QUARRY_EMBEDDING_PROVIDER: 'openai',
    OPENAI_API_KEY: 'bench',
    OPENAI_BASE_URL: `${providerUrl}/v1`,
    OPENAI_EMBEDDING_MODEL: 'bench',
    OPENAI_EMBEDDING_DIMENSIONS: String(dimensions),
  }
}

export interface BenchProvider extends AsyncDisposable {
  url: string
  /** What it was asked and has answered so far. */
  counts(): Promise<ProviderCounts>
}

export async function startProvider(task: Partial<ProviderTask>): Promise<BenchProvider> {
  const whole: ProviderTask = {
    clusters: 200,
    seed: 1,
    latencyMs: 0,
    prepared: 0,
    named: {},
    repeats: 1,
    refuses: false,
    limited: null,
    ...task,
  }
  const child = forkTypeScript('provider-process.ts', [JSON.stringify(whole)])
  const { url } = await messageOf<{ url: string }>(child)
  return {
    url,
    counts() {
      child.send('counts')
      return messageOf<ProviderCounts>(child)
    },
    [Symbol.asyncDispose]: () => disconnected(child),
  }
}

/** Starts a module of this folder in a process of its own, with a channel to it. */
export function forkTypeScript(
  file: string,
  args: string[] = [],
  env: Record<string, string> = {},
): ChildProcess {
  const child = fork(join(import.meta.dirname, file), args, {
    env: { ...process.env, ...env },
    execArgv: ['--import', 'tsx'],
    serialization: 'advanced',
  })
  endWithUs(child)
  return child
}

/**
 * The next message of a process of this folder.
 * @throws Error if the process ends before; what went wrong stands in its own output
 */
export function messageOf<Message>(child: ChildProcess): Promise<Message> {
  return new Promise((resolve, reject) => {
    const name = child.spawnargs.find((arg) => arg.endsWith('.ts'))
    const onExit = () => reject(new Error(`${name} ended with ${child.exitCode ?? child.signalCode}`))
    child.once('exit', onExit)
    child.once('message', (message) => {
      child.off('exit', onExit)
      resolve(message as Message)
    })
    if (hasEnded(child)) onExit()
  })
}

/** Ends a process of this folder: each ends by itself when its channel does. */
export async function disconnected(child: ChildProcess): Promise<void> {
  if (child.connected) child.disconnect()
  await exited(child)
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

/** What is given to a process to end by itself: more than a server takes at the most, which is 10 s. */
const exitPatienceMs = 15_000

async function exited(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return
  const limit = setTimeout(() => child.kill('SIGKILL'), exitPatienceMs)
  await once(child, 'exit')
  clearTimeout(limit)
}

export interface QuarryProcess extends AsyncDisposable {
  pid: number
  /** Log lines as they came, each with milliseconds since the start of the process. */
  log: { atMs: number; message: string }[]
}

export interface BenchServer extends QuarryProcess {
  url: string
  /** Of Node's inspector, where it was asked for (`--inspect`); else null. */
  inspectorUrl: string | null
  request<Data>(query: string, variables?: Record<string, unknown>): Promise<Data>
}

/**
 * `quarry serve` as people run it, on a free port, with nothing of the environment but what is given.
 * @param nodeOptions besides those of QUARRY_BENCH_NODE_OPTIONS
 */
export async function startServer(
  env: Record<string, string>,
  nodeOptions: readonly string[] = [],
): Promise<BenchServer> {
  const { url, ...started } = await startQuarry('serve', 'Quarry serves', { PORT: '0', ...env }, nodeOptions)
  if (url === null) throw new Error('the server did not say where it listens')
  return {
    ...started,
    url,
    async request<Data>(query: string, variables: Record<string, unknown> = {}) {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query, variables }),
      })
      const answer = (await response.json()) as { data?: Data; errors?: unknown }
      if (answer.errors || !answer.data) throw new Error(`GraphQL errors: ${JSON.stringify(answer.errors)}`)
      return answer.data
    },
  }
}

/** `quarry worker` as people run it; resolves when it works. */
export async function startWorker(env: Record<string, string>): Promise<QuarryProcess> {
  return startQuarry('worker', 'Quarry works', env, [])
}

/** @param ready the line of its log that says that it is there */
async function startQuarry(
  command: 'serve' | 'worker',
  ready: string,
  env: Record<string, string>,
  nodeOptions: readonly string[],
): Promise<QuarryProcess & { url: string | null; inspectorUrl: string | null }> {
  const started = performance.now()
  // `--cpu-prof` here shows where a server's time goes.
  const options = [...(process.env.QUARRY_BENCH_NODE_OPTIONS ?? '').split(' '), ...nodeOptions].filter(
    Boolean,
  )
  const child = spawn(process.execPath, [...options, join(root, 'bin/quarry.js'), command], {
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      TMPDIR: tmpdir(),
      ...env,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  endWithUs(child)
  const log: QuarryProcess['log'] = []
  const lines: string[] = []
  let inspectorUrl: string | null = null
  const url = await new Promise<string | null>((resolve, reject) => {
    child.once('exit', (code) =>
      reject(new Error(`quarry ${command} ended with ${code}:\n${lines.join('\n')}`)),
    )
    createInterface({ input: child.stderr }).on('line', (line) => {
      lines.push(line)
      inspectorUrl ??= /^Debugger listening on (ws:\S+)/.exec(line)?.[1] ?? null
      if (!line.startsWith('{')) return
      const { msg, url } = JSON.parse(line) as { msg: string; url?: string }
      log.push({ atMs: performance.now() - started, message: msg })
      if (msg === ready) resolve(url ?? null)
    })
  })
  return {
    url,
    inspectorUrl,
    pid: child.pid ?? 0,
    log,
    async [Symbol.asyncDispose]() {
      if (!hasEnded(child)) child.kill('SIGTERM')
      await exited(child)
    },
  }
}

/** The id in the database behind one of the API. */
export const databaseId = (globalId: string): string =>
  Buffer.from(globalId, 'base64').toString('utf8').replace(/^\w+:/, '')

/** Milliseconds of a clock that is the same in all processes of the machine, and that nobody sets. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6

/** @throws Error that names what did not come in time: a benchmark that waits for ever tells nothing */
export async function within<Result>(
  limitMs: number,
  what: string,
  promise: Promise<Result>,
): Promise<Result> {
  const ended = new AbortController()
  const late = delay(limitMs, undefined, { signal: ended.signal }).then(() => {
    throw new Error(`${what} took more than ${limitMs / 1000} s`)
  })
  late.catch(() => {})
  return Promise.race([promise, late]).finally(() => ended.abort())
}

/** The most memory that a process has had so far, in bytes; NaN where the system does not tell (not Linux). */
export const peakMemory = (pid: number): number => memoryOf(pid, 'VmHWM')

/** The memory that a process has now, in bytes; NaN where the system does not tell (not Linux). */
export const residentMemory = (pid: number): number => memoryOf(pid, 'VmRSS')

function memoryOf(pid: number, field: 'VmHWM' | 'VmRSS'): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024
  } catch {
    return Number.NaN
  }
}

export async function createFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'quarry-bench-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}
