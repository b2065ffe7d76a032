import { type ChildProcess, execFile, fork, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import pg from 'pg'
import { type Config, parseConfig } from '../src/config.ts'
import { startupOptions } from '../src/db/connection.ts'
import { type Database, openDatabase } from '../src/db/database.ts'
import { createLogger } from '../src/log.ts'
import type { ProviderTask } from './provider-process.ts'
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
      if (!given) await postgres('stop')
    },
  }
}

const postgres = (command: 'start' | 'stop') =>
  run('bash', [postgresScript, command], { env: { ...process.env, ...postgresEnv } })

/** A new, empty database; `await using` drops it. */
export async function createDatabase(server: BenchPostgres): Promise<AsyncDisposable & { url: string }> {
  const name = `quarry_bench_${randomBytes(4).toString('hex')}`
  const admin = async (statement: string) => {
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    await client.query(statement).finally(() => client.end())
  }
  await admin(`create database ${name}`)
  const url = new URL(server.url)
  url.pathname = `/${name}`
  return {
    url: url.href,
    [Symbol.asyncDispose]: () => admin(`drop database if exists ${name} with (force)`),
  }
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

export async function startProvider(task: Partial<ProviderTask>): Promise<AsyncDisposable & { url: string }> {
  const whole: ProviderTask = { clusters: 200, seed: 1, latencyMs: 0, prepared: 0, refuses: false, ...task }
  const child = forkTypeScript('provider-process.ts', [JSON.stringify(whole)])
  const [{ url }] = (await once(child, 'message')) as [{ url: string }]
  return {
    url,
    async [Symbol.asyncDispose]() {
      const exited = once(child, 'exit')
      child.disconnect()
      await exited
    },
  }
}

/** Starts a module of this folder in a process of its own, with a channel to it. */
export function forkTypeScript(file: string, args: string[] = []): ChildProcess {
  return fork(join(import.meta.dirname, file), args, {
    execArgv: ['--import', 'tsx'],
    serialization: 'advanced',
  })
}

export interface BenchServer extends AsyncDisposable {
  url: string
  pid: number
  /** Log lines as they came, each with milliseconds since the start of the process. */
  log: { atMs: number; message: string }[]
  request<Data>(query: string, variables?: Record<string, unknown>): Promise<Data>
}

/** `quarry serve` as people run it, on a free port, with nothing of the environment but what is given. */
export async function startServer(env: Record<string, string>): Promise<BenchServer> {
  const started = performance.now()
  // `--cpu-prof` here shows where a server's time goes.
  const nodeOptions = (process.env.QUARRY_BENCH_NODE_OPTIONS ?? '').split(' ').filter(Boolean)
  const child = spawn(process.execPath, [...nodeOptions, join(root, 'bin/quarry.js'), 'serve'], {
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      TMPDIR: tmpdir(),
      PORT: '0',
      ...env,
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const log: BenchServer['log'] = []
  const lines: string[] = []
  const url = await new Promise<string>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}:\n${lines.join('\n')}`)))
    createInterface({ input: child.stderr }).on('line', (line) => {
      lines.push(line)
      if (!line.startsWith('{')) return
      const { msg, url } = JSON.parse(line) as { msg: string; url?: string }
      log.push({ atMs: performance.now() - started, message: msg })
      if (msg === 'Quarry serves' && url) resolve(url)
    })
  })
  return {
    url,
    pid: child.pid ?? 0,
    log,
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
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    },
  }
}

/** The most memory that a process has had so far, in bytes; NaN where the system does not tell (not Linux). */
export function peakMemory(pid: number): number {
  try {
    const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return Number(kib) * 1024
  } catch {
    return Number.NaN
  }
}

export async function createFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'quarry-bench-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}
