import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { maxAliasesPlugin } from '@escape.tech/graphql-armor-max-aliases'
import { maxDepthPlugin } from '@escape.tech/graphql-armor-max-depth'
import { maxTokensPlugin } from '@escape.tech/graphql-armor-max-tokens'
import { GraphQLError } from 'graphql'
import { useServer } from 'graphql-ws/use/ws'
import { createYoga, type YogaServerOptions } from 'graphql-yoga'
import { WebSocketServer } from 'ws'
import type { Config } from '../config.ts'
import { SetupError } from '../errors.ts'
import { createContext, type Services } from '../graphql/context.ts'
import { schema } from '../graphql/schema.ts'
import type { Logger } from '../log.ts'
import { exampleTabs } from './graphiql.ts'
import { useStreamedUploads } from './multipart.ts'

export interface ApiServer {
  /** Where it listens, without the path, such as `http://127.0.0.1:4000`. */
  url: string
  close(): Promise<void>
}

export const graphqlPath = '/graphql'
/** The largest message of a socket; uploads go over HTTP. */
const maxSocketBytes = 8 * 1024 * 1024
/** The parser descends with the document: 2,000 tokens are at most 1,000 levels, half of what overflows its stack. */
const limits = { depth: 12, aliases: 50, tokens: 2_000 } as const

/**
 * The API over HTTP (queries, mutations, uploads, server-sent events) and WebSocket (graphql-ws), with GraphiQL.
 * @throws SetupError if the address is taken
 */
export async function startApiServer(
  config: Config['server'],
  services: Services,
  log: Logger,
): Promise<ApiServer> {
  const options = {
    schema,
    graphqlEndpoint: graphqlPath,
    context: () => createContext(services),
    // A browser page of another origin is refused before it gets here, unless it is listed.
    cors: { origin: config.corsOrigins, credentials: false, methods: ['GET', 'POST', 'OPTIONS'] },
    multipart: false,
    // Never by NODE_ENV: an internal message must not leave the process because of a variable.
    maskedErrors: { isDev: false },
    graphiql: { title: 'Quarry', defaultTabs: exampleTabs },
    renderGraphiQL: async (options) =>
      (await import('@graphql-yoga/render-graphiql')).renderGraphiQL(options),
    landingPage: false,
    logging: {
      debug: (...args) => log.debug({ args }, 'GraphQL'),
      info: (...args) => log.debug({ args }, 'GraphQL'),
      warn: (...args) => log.warn({ args }, 'GraphQL'),
      error: (...args) => log.error({ err: args[0] }, 'A GraphQL operation failed'),
    },
  } satisfies YogaServerOptions<object, object>
  const guards = [
    maxTokensPlugin({ n: limits.tokens }),
    maxDepthPlugin({ n: limits.depth, flattenFragments: true }),
    maxAliasesPlugin({ n: limits.aliases }),
  ]
  const yoga = createYoga({ ...options, maxRequestBodySize: config.maxBodyBytes, plugins: guards })
  // Yoga's body limit would hold for uploads, too, and those have one of their own.
  const uploads = createYoga({
    ...options,
    maxRequestBodySize: false,
    plugins: [useStreamedUploads(config.maxUploadBytes), ...guards],
  })

  const server = createServer((request, response) => {
    const refused = refusal(request, config)
    if (refused) {
      response
        .writeHead(403, { 'content-type': 'application/json' })
        .end(JSON.stringify({ errors: [{ message: refused }] }))
      return
    }
    if (request.url === '/') {
      response.writeHead(302, { location: graphqlPath }).end()
      return
    }
    const isUpload = request.headers['content-type']?.startsWith('multipart/form-data')
    void (isUpload ? uploads : yoga)(request, response)
  })
  await listen(server, config)
  const sockets = new WebSocketServer({
    server,
    path: graphqlPath,
    maxPayload: maxSocketBytes,
    verifyClient: ({ req }: { req: IncomingMessage }) => refusal(req, config) === null,
  })
  const socketServer = useServer(
    {
      execute: (args) => (args as EnvelopedArgs).rootValue.execute(args),
      subscribe: (args) => (args as EnvelopedArgs).rootValue.subscribe(args),
      onSubscribe: async (context, _id, params) => {
        const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
          ...context,
          req: context.extra.request,
          socket: context.extra.socket,
          params,
        })
        try {
          const document = parse(params.query)
          const errors = validate(schema, document)
          if (errors.length > 0) return errors
          return {
            schema,
            document,
            operationName: params.operationName,
            variableValues: params.variables,
            contextValue: await contextFactory(),
            rootValue: { execute, subscribe },
          }
        } catch (error) {
          // Thrown through, one bad document would close the socket and end everybody's subscriptions on it.
          if (error instanceof GraphQLError) return [error]
          throw error
        }
      },
    },
    sockets,
  )

  const { address, port, family } = server.address() as AddressInfo
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    async close() {
      await socketServer.dispose()
      server.close()
      server.closeAllConnections()
      await yoga.dispose()
    },
  }
}

interface EnvelopedArgs {
  rootValue: Pick<ReturnType<ReturnType<typeof createYoga>['getEnveloped']>, 'execute' | 'subscribe'>
}

async function listen(
  server: ReturnType<typeof createServer>,
  { host, port }: Config['server'],
): Promise<void> {
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code === 'EADDRINUSE') {
      throw new SetupError(
        `${host}:${port} is in use by another program. Stop it, or set PORT to a free one.`,
      )
    }
    if (code === 'EADDRNOTAVAIL' || code === 'EACCES' || code === 'ENOTFOUND') {
      throw new SetupError(`Cannot listen on ${host}:${port} (${String(code)}). Correct HOST and PORT.`)
    }
    throw error
  }
}

/**
 * Browsers let a page send requests to any server (CORS only hides the answer), so a foreign site could change data
 * through a visitor's browser: the origin that the browser names must be ours or listed. And a foreign site may point
 * its own name at this machine (DNS rebinding), which makes it the same origin: while we listen on this machine only,
 * the host must be one of its names.
 */
function refusal(
  { headers }: IncomingMessage,
  { host: listenHost, corsOrigins }: Config['server'],
): string | null {
  const { origin, host = '' } = headers
  const isLocal = (name: string) =>
    name === 'localhost' || name.endsWith('.localhost') || isIP(name.replace(/[[\]]/g, '')) > 0
  const hostName = URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : ''
  if (
    isLocal(listenHost) &&
    !isLocal(hostName) &&
    hostName !== listenHost &&
    listenHost !== '0.0.0.0' &&
    listenHost !== '::'
  ) {
    return `The host ${JSON.stringify(host)} is not a name of this machine; use its address`
  }
  if (origin === undefined || corsOrigins.includes(origin)) return null
  if (URL.canParse(origin) && new URL(origin).host === host) return null
  return `The origin ${origin} is not allowed; list it in QUARRY_CORS_ORIGINS`
}
