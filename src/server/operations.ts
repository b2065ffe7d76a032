import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Config } from '../config.ts'
import type { Database } from '../db/database.ts'
import { readSpaceState } from '../embedding/stats.ts'
import { deadAfterSeconds } from '../jobs/processes.ts'
import { readHeartbeatAge } from '../jobs/stats.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { readServingStatus } from '../providers/read-status.ts'
import { registerDatabaseGauges } from './gauges.ts'
import { listen, urlOf } from './listen.ts'
import { refusal } from './origin.ts'
import { createSharedRead } from './shared-read.ts'

/** Something that must be well for a process to be of use. Null if it is, else what is wrong, for people. */
export type Check = () => string | null

/** What those who run this process ask it, over HTTP: `/health`, `/ready` and `/metrics`. */
export interface Operations {
  handles(path: string): boolean
  /** Answers a request for a path that it handles. Never rejects. */
  handle(request: IncomingMessage, response: ServerResponse, path: string): Promise<void>
  /** From here on, this process is not ready: it takes nothing new. */
  stopping(): void
}

export interface OperationsOptions {
  database: Database
  /** The space that searches of this process use now. */
  activeSpace(): { id: number }
  /** This process, as it is entered among those that work on the database. */
  process: { id: string }
  metrics: Metrics
  /** By name, what else must be well: `jobs`, `embedding`. */
  checks: Readonly<Record<string, Check>>
  /** As the API has it: a page of another origin must not read the metrics either. */
  server: Pick<Config['server'], 'host' | 'corsOrigins'>
  log: Logger
}

export interface OperationsServer {
  /** Where it listens, such as `http://127.0.0.1:9464`. */
  url: string
  close(): Promise<void>
}

interface Readiness {
  status: 'ready' | 'unready'
  /** By name: `ok`, or what is wrong. */
  checks: Record<string, string>
  /** The state of whoever serves each purpose. One in ERROR leaves much to serve, so it makes nothing unready. */
  providers: Record<string, string>
}

const paths = { health: '/health', ready: '/ready', metrics: '/metrics' } as const
const allowedMethods = ['GET', 'HEAD']
/** A database that takes longer to say anything is of no use to those who wait for an answer. */
const databaseLimitMs = 2_000

export function createOperations(options: OperationsOptions): Operations {
  const { database, activeSpace, metrics, checks, log } = options
  let isStopping = false
  let wasReady: boolean | null = null
  registerDatabaseGauges({ registry: metrics.registry, database, activeSpace, log })

  const readDatabase = createSharedRead(
    async () => ({
      spaceState: await readSpaceState(database, activeSpace().id),
      heartbeatAge: await readHeartbeatAge(database, options.process.id),
      providers: await readServingStatus(database),
    }),
    { keepMs: 0, limitMs: databaseLimitMs },
  )

  async function readiness(): Promise<Readiness> {
    const { value: state, error } = await readDatabase()
    const found: Record<string, string | null> = {
      stopping: isStopping ? 'This process is stopping' : null,
      database: error?.message ?? null,
      space: state ? wrongSpace(state.spaceState) : unknown,
      process: state ? wrongHeartbeat(state.heartbeatAge) : unknown,
      ...Object.fromEntries(Object.entries(checks).map(([name, check]) => [name, check()])),
    }
    const wrong = Object.entries(found).filter(([, reason]) => reason !== null)
    return {
      status: wrong.length === 0 ? 'ready' : 'unready',
      checks: Object.fromEntries(Object.entries(found).map(([name, reason]) => [name, reason ?? 'ok'])),
      providers: Object.fromEntries((state?.providers ?? []).map(({ purpose, state }) => [purpose, state])),
    }
  }

  /** Probes come every few seconds: only a change is worth a line. */
  function note({ status, checks }: Readiness): void {
    const isReady = status === 'ready'
    if (wasReady === isReady) return
    if (!isReady) log.warn({ checks }, 'This process is not ready')
    else if (wasReady === false) log.info({}, 'This process is ready again')
    wasReady = isReady
  }

  async function answer(path: string): Promise<{ status: number; type: string; body: string }> {
    if (path === paths.metrics) {
      return { status: 200, type: metrics.registry.contentType, body: await metrics.registry.metrics() }
    }
    if (path === paths.health) return json(200, { status: 'ok' })
    const ready = await readiness()
    note(ready)
    return json(ready.status === 'ready' ? 200 : 503, ready)
  }

  return {
    handles: (path) => Object.values<string>(paths).includes(path),
    async handle(request, response, path) {
      // Probes name a machine however their network does. They learn nothing that a foreign page could use.
      const refused = path === paths.metrics ? refusal(request, options.server) : null
      if (refused) return send(response, 403, 'text/plain', refused)
      if (!allowedMethods.includes(request.method ?? '')) {
        response.setHeader('allow', allowedMethods.join(', '))
        return send(response, 405, 'text/plain', `${path} is asked by ${allowedMethods.join(' or ')}`)
      }
      try {
        const { status, type, body } = await answer(path)
        send(response, status, type, request.method === 'HEAD' ? '' : body)
      } catch (error) {
        log.error({ err: error, path }, 'A question of operations was not answered')
        send(response, 500, 'text/plain', '')
      }
    },
    stopping() {
      isStopping = true
    },
  }
}

/**
 * Serves nothing but the answers of operations: for a process that has no API.
 * @throws SetupError if the address is taken
 */
export async function startOperationsServer(
  { host, port }: { host: string; port: number },
  operations: Operations,
): Promise<OperationsServer> {
  const server: Server = createServer((request, response) => {
    const path = pathOf(request)
    if (operations.handles(path)) void operations.handle(request, response, path)
    else send(response, 404, 'text/plain', `There is ${Object.values(paths).join(', ')}`)
  })
  await listen(server, { host, port, variable: 'QUARRY_WORKER_PORT' })
  return {
    url: urlOf(server.address() as AddressInfo),
    async close() {
      operations.stopping()
      await new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      })
    },
  }
}

/** The path of a request, without what follows a question mark. */
export const pathOf = ({ url = '' }: IncomingMessage): string => url.split('?', 1)[0] ?? ''

const unknown = 'Unknown: the database does not answer'

function wrongSpace(state: string | null): string | null {
  // BUILDING: searches are just changing over; it stays in step, and what is found in it is right.
  if (state === 'ACTIVE' || state === 'BUILDING') return null
  return state === null
    ? 'The embedding space of this process is gone; start it again'
    : `The embedding space of this process is ${state}; start it again`
}

function wrongHeartbeat(ageSeconds: number | null): string | null {
  if (ageSeconds === null) return 'Others took this process for dead; it enters again with its next heartbeat'
  return ageSeconds <= deadAfterSeconds ? null : `The last heartbeat is ${Math.round(ageSeconds)} s old`
}

function json(status: number, body: unknown): { status: number; type: string; body: string } {
  return { status, type: 'application/json', body: JSON.stringify(body) }
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body)
}
