import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { maxAliasesPlugin } from '@escape.tech/graphql-armor-max-aliases'
import { maxDepthPlugin } from '@escape.tech/graphql-armor-max-depth'
import { maxTokensPlugin } from '@escape.tech/graphql-armor-max-tokens'
import { type ExecutionArgs, execute } from 'graphql'
import { createYoga, type Plugin, type YogaServerInstance, type YogaServerOptions } from 'graphql-yoga'
import type { Config } from '../config.ts'
import { type Caller, createContext, type Services } from '../graphql/context.ts'
import { schema } from '../graphql/schema.ts'
import type { Logger } from '../log.ts'
import { exampleTabs } from './graphiql.ts'
import { listen, urlOf } from './listen.ts'
import { useStreamedUploads } from './multipart.ts'
import {
  attributeErrors,
  maskUnattributed,
  measureOperations,
  observeOperations,
} from './observe-operations.ts'
import { type Operations, pathOf } from './operations.ts'
import { refusal } from './origin.ts'
import { createPlainRequests } from './plain-requests.ts'
import { createRequestObserver, isEventStream, requestIdHeader } from './requests.ts'
import { type Patience, serveSockets, usualPatience } from './sockets.ts'
import { isTelegramPath, telegramWebhook } from './telegram.ts'

export interface ApiServer {
  /** Where it listens, without the path, such as `http://127.0.0.1:4000`. */
  url: string
  /** Lets short requests finish, and ends within a few seconds whoever is connected. */
  close(): Promise<void>
}

export interface ApiServerOptions {
  config: Config['server']
  services: Services
  operations: Operations
  log: Logger
  patience?: Patience
}

export const graphqlPath = '/graphql'
/** The parser descends with the document: 2,000 tokens are at most 1,000 levels, half of what overflows its stack. */
const limits = { depth: 12, aliases: 50, tokens: 2_000 } as const

/**
 * The API over HTTP (queries, mutations, uploads, server-sent events) and WebSocket (graphql-ws), with GraphiQL, and the
 * answers of operations.
 * @throws SetupError if the address is taken
 */
export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { config, services, operations, log, patience = usualPatience } = options
  const yogaOptions = {
    schema,
    graphqlEndpoint: graphqlPath,
    context: (caller: Caller) => createContext(services, caller),
    // A browser page of another origin is refused before it gets here, unless it is listed.
    cors: {
      origin: config.corsOrigins,
      credentials: false,
      methods: ['GET', 'POST', 'OPTIONS'],
      exposedHeaders: [requestIdHeader],
    },
    multipart: false,
    maskedErrors: { maskError: maskUnattributed },
    graphiql: { title: 'Quarry', defaultTabs: exampleTabs },
    renderGraphiQL: async (options) =>
      (await import('@graphql-yoga/render-graphiql')).renderGraphiQL(options),
    landingPage: false,
    logging: {
      // What it has to say of steps and of errors that it masks is said better, and with the id of the request, by
      // observeOperations and attributeErrors.
      debug: () => {},
      info: () => {},
      error: () => {},
      warn: (...args) => log.warn({ args }, 'GraphQL'),
    },
  } satisfies YogaServerOptions<Caller, object>
  const plain = createPlainRequests({
    path: graphqlPath,
    maxBodyBytes: config.maxBodyBytes,
    yoga: (): YogaServerInstance<Caller, object> => yoga,
  })
  const plugins = [
    leanExecution,
    plain.plugin,
    attributeErrors(),
    measureOperations(services.metrics),
    observeOperations(services.metrics),
    maxTokensPlugin({ n: limits.tokens }),
    maxDepthPlugin({ n: limits.depth, flattenFragments: true }),
    maxAliasesPlugin({ n: limits.aliases }),
  ]
  const yoga = createYoga<Caller>({ ...yogaOptions, maxRequestBodySize: config.maxBodyBytes, plugins })
  // Yoga's body limit would hold for uploads, too, and those have one of their own.
  const uploads = createYoga<Caller>({
    ...yogaOptions,
    maxRequestBodySize: false,
    plugins: [useStreamedUploads(config.maxUploadBytes), ...plugins],
  })

  const observe = createRequestObserver({ metrics: services.metrics, log, routeOf })
  const telegram = telegramWebhook({
    secret: config.telegramSecret,
    database: services.database,
    metrics: services.metrics,
    log,
  })
  const answers = new Map<ServerResponse, Stall>()
  const connections = new Set<Socket>()
  let isStopping = false

  const server = createServer((request, response) => {
    const caller = observe(request, response)
    answers.set(response, { since: 0, waiting: 0 })
    response.once('close', () => {
      answers.delete(response)
      // Only now is its connection idle, and nobody else would end it.
      if (isStopping) setImmediate(() => server.closeIdleConnections())
    })
    if (isStopping) response.setHeader('connection', 'close')
    void answer(request, response, caller)
  })

  function answer(request: IncomingMessage, response: ServerResponse, caller: Caller): unknown {
    const path = pathOf(request)
    if (operations.handles(path)) return operations.handle(request, response, path)
    // Before the check of host and origin: Telegram comes through a proxy under a public name, and brings a secret.
    if (isTelegramPath(request.url)) return telegram.handle(request, response, caller.log)
    const refused = refusal(request, config)
    if (refused) {
      return response
        .writeHead(403, { 'content-type': 'application/json' })
        .end(JSON.stringify({ errors: [{ message: refused }] }))
    }
    if (path === '/') return response.writeHead(302, { location: graphqlPath }).end()
    if (plain.mayBePlain(request)) return plain.answer(request, response, caller)
    const isUpload = request.headers['content-type']?.startsWith('multipart/form-data')
    return (isUpload ? uploads : yoga)(request, response, caller)
  }

  server.on('connection', (socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  await listen(server, { host: config.host, port: config.port, variable: 'PORT' })
  const sockets = serveSockets(server, {
    path: graphqlPath,
    yoga,
    isAllowed: (request) => refusal(request, config) === null,
    patience,
    log,
  })
  const sweep = setInterval(() => cutStalled(answers, patience.stalledMs), patience.stalledMs / 2)

  return {
    url: urlOf(server.address() as AddressInfo),
    async close() {
      operations.stopping()
      isStopping = true
      clearInterval(sweep)
      const ended = new Promise((resolve) => server.close(resolve))
      for (const response of answers.keys()) {
        // A stream has no end of its own. Cut, its client knows that it must connect again.
        if (isEventStream(response)) response.destroy()
        else if (!response.headersSent) response.setHeader('connection', 'close')
      }
      await Promise.all([
        sockets.close(),
        Promise.race([ended, delay(patience.finishMs, undefined, { ref: false })]),
      ])
      for (const socket of connections) socket.destroy()
      await ended
      await telegram.close()
      await yoga.dispose()
      await uploads.dispose()
    },
  }
}

/**
 * GraphQL.js itself. Yoga's own executor can also send an answer in parts, which nothing here does, and a tenth of the
 * searches of a second go into it.
 */
const leanExecution: Plugin = {
  onExecute: ({ setExecuteFn }) =>
    setExecuteFn((args: ExecutionArgs) => {
      const result = execute(args)
      // Nothing was executed, because variables do not fit: by GraphQL over HTTP that is a mistake of the request.
      if (!(result instanceof Promise) && !('data' in result))
        for (const { extensions } of result.errors ?? []) Object.assign(extensions, { http: { status: 400 } })
      return result
    }),
}

/** How a stream stood when it was last looked at. */
interface Stall {
  /** Since when nothing was taken of what waits for its client; 0 if nothing waits. */
  since: number
  /** Bytes that waited then. */
  waiting: number
}

/**
 * Cuts off streams of events that their clients do not take: else each, with all that it listens to, would stay for as
 * long as the other machine's network keeps the connection up. Other answers hold nothing but themselves.
 */
function cutStalled(answers: ReadonlyMap<ServerResponse, Stall>, stalledMs: number): void {
  const now = performance.now()
  for (const [response, stall] of answers) {
    if (!isEventStream(response)) continue
    const isStalled = response.writableNeedDrain && response.writableLength === stall.waiting
    if (!isStalled || stall.since === 0) stall.since = response.writableNeedDrain ? now : 0
    else if (now - stall.since >= stalledMs) response.destroy()
    stall.waiting = response.writableLength
  }
}

const routes = new Map([
  ['/', 'root'],
  [graphqlPath, 'graphql'],
  ['/health', 'health'],
  ['/ready', 'ready'],
  ['/metrics', 'metrics'],
])

/** One of few names: what a client sends must not make new time series. */
function routeOf(path: string): string {
  return routes.get(path) ?? (path.startsWith('/telegram/') ? 'telegram' : 'other')
}
