import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { temporaryFolder } from './processes.ts'

const script = fileURLToPath(new URL('../../scripts/postgres.sh', import.meta.url))

/** A Postgres of a test's own, on a free port of this machine: it can be stopped without hurting other tests. */
export interface PrivatePostgres extends AsyncDisposable {
  url: string
  /**
   * Stops it and starts it again.
   * - fast: it breaks off what is under way, and closes cleanly.
   * - immediate: it ends on the spot, as in a crash, and recovers from its log at the start.
   */
  restart(mode: 'fast' | 'immediate'): Promise<void>
  /** kill -9 of one of its connections' processes: it drops all others, and recovers by itself. */
  crash(): Promise<void>
}

/** What pg_ctl sends for its modes; PostgreSQL documentation, "Shutting Down the Server". */
const stopSignals = { fast: 'SIGINT', immediate: 'SIGQUIT' } as const

export async function startPrivatePostgres(): Promise<PrivatePostgres> {
  const folder = await temporaryFolder()
  // Its server runs as another user where the tests run as root, and must get through.
  await chmod(folder.path, 0o711)
  const env = {
    ...process.env,
    QUARRY_POSTGRES_DIR: join(folder.path, 'postgres'),
    QUARRY_POSTGRES_PORT: String(await freePort()),
    // Without it, what was committed last is lost in a crash.
    QUARRY_POSTGRES_DURABLE: '1',
  }
  const run = async (command: string) =>
    (await promisify(execFile)('bash', [script, command], { env, timeout: 60_000 })).stdout.trim()
  const postmaster = () =>
    Number(readFileSync(join(env.QUARRY_POSTGRES_DIR, 'data/postmaster.pid'), 'utf8').split('\n')[0])

  const url = await run('start')
  return {
    url,
    async restart(mode) {
      const pid = postmaster()
      process.kill(pid, stopSignals[mode])
      while (isRunning(pid)) await delay(20)
      await run('start')
    },
    async crash() {
      const { stdout } = await promisify(execFile)('ps', ['-o', 'pid=,args=', '--ppid', String(postmaster())])
      const backend = stdout.match(/^ *(\d+) postgres: .* 127\.0\.0\.1/m)?.[1]
      if (!backend) throw new Error(`no connection to kill among\n${stdout}`)
      process.kill(Number(backend), 'SIGKILL')
    },
    async [Symbol.asyncDispose]() {
      await run('stop')
      await folder[Symbol.asyncDispose]()
    },
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
