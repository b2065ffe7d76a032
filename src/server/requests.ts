import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Histogram } from 'prom-client'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { pathOf } from './operations.ts'

/** A request, or a connection, as the log knows it. */
export interface Traced {
  /** Stands in the answer (`x-request-id`) and in every line of the log about it. */
  requestId: string
  /** Writes the id by itself. */
  log: Logger
}

export const requestIdHeader = 'x-request-id'
/** What proxies make as ids: UUIDs, hex, base64, dotted traces. Anything else could forge lines or fill the log. */
const saneId = /^[\w.:+/=@-]{1,128}$/
const maxLoggedPath = 200
const knownMethods = ['GET', 'HEAD', 'POST', 'OPTIONS']

/** The id that a proxy gave the request, so that its log and ours can be read together; else a new one. */
export function requestIdOf({ headers }: IncomingMessage): string {
  const given = headers[requestIdHeader]
  return typeof given === 'string' && saneId.test(given) ? given : randomUUID()
}

export const isEventStream = (response: ServerResponse): boolean =>
  String(response.getHeader('content-type')).startsWith('text/event-stream')

/**
 * Gives each request an id, measures it, and writes one line when it has ended: 5xx as errors, all else for debugging.
 * Neither headers nor the query are written, because keys, cookies and variables are there.
 * @param routeOf one of a few names for a path: what a client sends must not make new time series
 */
export function createRequestObserver(options: {
  metrics: Metrics
  log: Logger
  routeOf: (path: string) => string
}): (request: IncomingMessage, response: ServerResponse) => Traced {
  const { metrics, log, routeOf } = options
  const durations = new Histogram({
    name: 'quarry_http_request_seconds',
    help: 'Requests over HTTP, by method, route and status; streams of events for as long as they are open',
    labelNames: ['method', 'route', 'status'] as const,
    registers: [metrics.registry],
  })

  return (request, response) => {
    const requestId = requestIdOf(request)
    const traced: Traced = { requestId, log: log.child({ requestId }) }
    const started = performance.now()
    const path = pathOf(request)
    const { method = '' } = request
    response.setHeader(requestIdHeader, requestId)
    response.once('close', () => {
      const ms = Math.round(performance.now() - started)
      const isWhole = response.writableFinished
      const { statusCode: status } = response
      const isStream = isEventStream(response)
      durations.observe(
        {
          method: knownMethods.includes(method) ? method : 'other',
          route: isStream ? 'events' : routeOf(path),
          status: isWhole || isStream ? String(status) : 'aborted',
        },
        ms / 1000,
      )
      const line = { method, path: path.slice(0, maxLoggedPath), ms }
      if (!isWhole) traced.log.debug(line, 'A request ended without its whole answer')
      else if (status >= 500 && !isProbe(path)) traced.log.error({ ...line, status }, 'A request failed')
      else traced.log.debug({ ...line, status }, 'A request was answered')
    })
    return traced
  }
}

/** That this process is not ready is no failure of the request that asks. */
const isProbe = (path: string): boolean => path === '/ready'
