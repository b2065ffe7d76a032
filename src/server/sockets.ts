import type { IncomingMessage, Server } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { GraphQLError } from 'graphql'
import { useServer } from 'graphql-ws/use/ws'
import type { YogaServerInstance } from 'graphql-yoga'
import { type WebSocket, WebSocketServer } from 'ws'
import type { Logger } from '../log.ts'
import { attributeMasked, maskUnattributed } from './observe-operations.ts'
import { requestIdOf, type Traced } from './requests.ts'

/** How patient the server is with those who are connected; milliseconds. */
export interface Patience {
  /** A socket is asked so often whether it lives, and has as long to answer: dead ones are gone after twice that. */
  pingMs: number
  /** A new socket has so long to say what it is. */
  initMs: number
  /** Who takes nothing of its answer for so long is cut off. */
  stalledMs: number
  /** At the end, requests under way have so long. */
  finishMs: number
  /** At the end, a socket has so long to answer the goodbye. */
  goodbyeMs: number
}

export const usualPatience: Patience = {
  pingMs: 12_000,
  initMs: 10_000,
  stalledMs: 30_000,
  finishMs: 3_000,
  goodbyeMs: 1_000,
}

/** The largest message of a socket; uploads go over HTTP. */
const maxSocketBytes = 8 * 1024 * 1024
/** Operations under way on one socket: each may hold one answer that waits to be sent. */
export const maxSocketOperations = 100
/** From so many bytes that wait for a client on, nothing more is read from it: what it asks for would only add to them. */
const maxWaitingBytes = 1024 * 1024

type Enveloped = ReturnType<YogaServerInstance<object, object>['getEnveloped']>
interface EnvelopedArgs {
  rootValue: Pick<Enveloped, 'execute' | 'subscribe'>
}

interface Connection extends Traced {
  /** Operations so far: they are numbered, because the ids that clients give them repeat. */
  operations: number
}

/**
 * GraphQL over WebSocket (graphql-ws) on an HTTP server. Each subscription sends an event only when the one before has
 * left for the network, so that a client that does not read holds up itself and nobody else; it is cut off when it does
 * not answer a ping.
 */
export function serveSockets(
  server: Server,
  options: {
    path: string
    yoga: Pick<YogaServerInstance<object, object>, 'getEnveloped'>
    isAllowed(request: IncomingMessage): boolean
    patience: Patience
    log: Logger
  },
): { close(): Promise<void> } {
  const { yoga, isAllowed, patience, log } = options
  const sockets = new WebSocketServer({
    server,
    path: options.path,
    maxPayload: maxSocketBytes,
    verifyClient: ({ req }: { req: IncomingMessage }) => isAllowed(req),
  })
  const connections = new WeakMap<WebSocket, Connection>()
  /** Queries and mutations that are not answered yet. */
  const underWay = new Set<Promise<unknown>>()

  sockets.on('connection', (socket, request) => {
    const requestId = requestIdOf(request)
    const connectionLog = log.child({ connectionId: requestId })
    connections.set(socket, { requestId, log: connectionLog, operations: 0 })
    connectionLog.debug({}, 'A WebSocket was opened')
    socket.once('close', (code) => connectionLog.debug({ code }, 'A WebSocket was closed'))
    socket.on('message', () => {
      if (socket.isPaused || socket.bufferedAmount <= maxWaitingBytes) return
      socket.pause()
      request.socket.once('drain', () => socket.resume())
    })
  })
  const socketServer = useServer(
    {
      connectionInitWaitTimeout: patience.initMs,
      execute: (args) => {
        const executing = Promise.resolve((args as EnvelopedArgs).rootValue.execute(args))
        const done = executing.then(nextTurn, nextTurn).finally(() => underWay.delete(done))
        underWay.add(done)
        return executing
      },
      subscribe: (args) => (args as EnvelopedArgs).rootValue.subscribe(args),
      onSubscribe: async ({ extra, subscriptions }, _id, params) => {
        const connection = connections.get(extra.socket)
        if (!connection) throw new Error('an operation came over a socket that is not connected')
        const requestId = `${connection.requestId}.${++connection.operations}`
        const operationLog = connection.log.child({ requestId })
        if (Object.keys(subscriptions).length > maxSocketOperations) {
          operationLog.debug({}, 'An operation was refused: there are too many on its connection')
          return [
            new GraphQLError(
              `${maxSocketOperations} operations are under way on this connection; end one of them, or open another connection`,
              { extensions: { code: 'TOO_MANY_OPERATIONS' } },
            ),
          ]
        }
        const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
          req: extra.request,
          params,
          requestId,
          log: operationLog,
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
          const errors = [maskUnattributed(error)]
          attributeMasked(errors, { requestId, log: operationLog })
          return errors
        }
      },
      // Never by NODE_ENV: an internal message must not leave the process because of a variable.
      isProd: true,
    },
    sockets,
    patience.pingMs,
  )
  sockets.on('connection', (socket) => {
    // graphql-ws has a listener that writes to the console, beside the log.
    socket.removeAllListeners('error')
    socket.on('error', (error) => {
      connections.get(socket)?.log.debug({ error: error.message }, 'A WebSocket broke')
    })
  })

  return {
    async close() {
      await Promise.race([Promise.all(underWay), delay(patience.finishMs, undefined, { ref: false })])
      // Those who do not answer are dead, or would keep this process from ending.
      const limit = setTimeout(() => {
        for (const socket of sockets.clients) socket.terminate()
      }, patience.goodbyeMs)
      await socketServer.dispose()
      clearTimeout(limit)
    },
  }
}

/** An answer that is ready goes out before whatever is begun after this. */
const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve))
