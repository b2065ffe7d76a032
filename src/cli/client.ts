import { openAsBlob } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Client, createClient } from 'graphql-ws'
import WebSocket from 'ws'
import { QuarryError, SetupError } from '../errors.ts'
import { duration } from './wording.ts'

const path = '/graphql'

/** How long is waited for what, in milliseconds. */
export interface Timing {
  /** For a server that has gone. */
  patienceMs: number
  /** For one that answers that something went wrong: its database may be away, or it is a bug that nobody should wait for. */
  maskedPatienceMs: number
  /** Between two attempts: at first, and at most; it doubles. */
  firstRetryMs: number
  mostRetryMs: number
  /** A connection that has held for so long was sound: when it is lost, the waiting begins anew. */
  steadyMs: number
  handshakeMs: number
  /** A server that is gone without a word (a cut network, a suspended machine) is noticed within their sum. */
  pingMs: number
  pongMs: number
}

/** A restart with a large database, or of a machine, takes minutes. */
const usualTiming: Timing = {
  patienceMs: 5 * 60_000,
  maskedPatienceMs: 30_000,
  firstRetryMs: 250,
  mostRetryMs: 5_000,
  steadyMs: 10_000,
  handshakeMs: 5_000,
  pingMs: 10_000,
  pongMs: 5_000,
}

export interface ClientOptions {
  /** Ends everything that is under way, with its reason. */
  signal?: AbortSignal
  /** Where the server is now, as it may be elsewhere after a restart; null: nobody knows. */
  locate?: () => string | null
  timing?: Partial<Timing>
}

export interface ReadOptions {
  /** Whether to wait for a server that has gone however long that takes. */
  isPatient?: boolean
}

export interface SubscribeOptions<Data> extends ReadOptions {
  /** The number of an event, to give as `afterSeq` after a reconnect; without it, each connection begins anew. */
  seqOf?(data: Data): string
  /** Whether there is no end to what it tells: a server that ends it is itself about to end. */
  isEndless?: boolean
}

/** No server answers, or it cannot just now; the same call may succeed later. */
class OutageError extends SetupError {
  /** Whether there is a server that keeps the cause to its log. */
  isMasked = false
}

interface GraphqlError {
  message: string
  extensions?: { code?: string }
}

/** Speaks to a Quarry server over its public API. */
export class ApiClient {
  url: string
  /** Why the server cannot be reached just now; null if it can, as far as anybody knows. */
  outage: string | null = null
  readonly #locate: () => string | null
  readonly #timing: Timing
  readonly #ending = new AbortController()
  readonly #signal: AbortSignal
  readonly #watchers = new Set<() => void>()
  #socket: Client | null = null
  #webSocket: WebSocket | null = null

  /** @param url the server's address, without the path */
  constructor(url: string, { signal, locate = () => null, timing }: ClientOptions = {}) {
    this.url = withoutPath(url)
    this.#locate = locate
    this.#timing = { ...usualTiming, ...timing }
    this.#signal = signal ? AbortSignal.any([this.#ending.signal, signal]) : this.#ending.signal
    this.#signal.addEventListener('abort', () => this.#webSocket?.terminate())
  }

  get graphqlUrl(): string {
    return this.url + path
  }

  /** Calls back when `outage` has changed. Returns what ends that. */
  onOutage(changed: () => void): () => void {
    this.#watchers.add(changed)
    return () => this.#watchers.delete(changed)
  }

  /** @throws QuarryError with the messages of the answer's errors */
  async request<Data>(query: string, variables: Record<string, unknown> = {}): Promise<Data> {
    return this.#post<Data>({
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    })
  }

  /** Like `request`, of what changes nothing: asks again while the server is away. */
  async read<Data>(
    query: string,
    variables: Record<string, unknown> = {},
    { isPatient = false }: ReadOptions = {},
  ): Promise<Data> {
    const patience = this.#startPatience(isPatient)
    for (;;) {
      try {
        const data = await this.request<Data>(query, variables)
        this.#setOutage(null)
        return data
      } catch (error) {
        if (!(error instanceof OutageError)) throw error
        await patience.wait(error)
      }
    }
  }

  /** Sends the file as the variable `file`, read from disk as it is sent. */
  async upload<Data>(
    query: string,
    variables: Record<string, unknown>,
    filePath: string,
    name?: string,
  ): Promise<Data> {
    const form = new FormData()
    form.set('operations', JSON.stringify({ query, variables: { ...variables, file: null } }))
    form.set('map', JSON.stringify({ 0: ['variables.file'] }))
    form.set('0', await openAsBlob(filePath), name ?? basename(filePath))
    return this.#post<Data>({ body: form })
  }

  /**
   * Events of a subscription; ends with it. When the connection is lost it is made again, and the subscription goes on
   * behind the last event, so that none is lost or doubled.
   * @throws QuarryError with the messages of the answer's errors, or if the server stays away
   */
  async *subscribe<Data>(
    query: string,
    variables: Record<string, unknown> = {},
    { seqOf, isPatient = false, isEndless = false }: SubscribeOptions<Data> = {},
  ): AsyncGenerator<Data, void, undefined> {
    const patience = this.#startPatience(isPatient)
    let resume: Record<string, unknown> = {}
    for (;;) {
      this.#signal.throwIfAborted()
      const began = performance.now()
      try {
        for await (const result of this.#connect().iterate<Data>({
          query,
          variables: { ...variables, ...resume },
        })) {
          if (result.errors) throw failure(result.errors)
          if (!result.data) continue
          patience.end()
          if (seqOf) resume = { afterSeq: seqOf(result.data) }
          yield result.data
        }
        this.#signal.throwIfAborted()
        if (!isEndless) return
        throw new OutageError('the server has ended the subscription')
      } catch (error) {
        this.#signal.throwIfAborted()
        const outage = asOutage(error)
        if (!outage) throw Array.isArray(error) ? failure(error) : error
        if (performance.now() - began > this.#timing.steadyMs) patience.end()
        await patience.wait(outage)
      }
    }
  }

  async close(): Promise<void> {
    this.#ending.abort(new Error('The client is closed'))
  }

  #connect(): Client {
    let pongTimeout: NodeJS.Timeout | undefined
    const stopWaitingForPong = () => clearTimeout(pongTimeout)
    const { handshakeMs, pingMs, pongMs } = this.#timing
    const opened = (socket: WebSocket) => {
      this.#webSocket = socket
      // One that is made while another still closes is made after the end was told to all.
      if (this.#signal.aborted) socket.terminate()
    }
    this.#socket ??= createClient({
      url: () => this.graphqlUrl.replace(/^http/, 'ws'),
      webSocketImpl: class extends WebSocket {
        constructor(address: string, protocols: string | string[]) {
          super(address, protocols, { handshakeTimeout: handshakeMs })
          opened(this)
        }
      },
      // It would ask for the same again, from the same number on: what had arrived by then would come twice.
      retryAttempts: 0,
      keepAlive: pingMs,
      on: {
        connected: () => this.#setOutage(null),
        ping: (isReceived) => {
          if (!isReceived) pongTimeout = setTimeout(() => this.#webSocket?.terminate(), pongMs)
        },
        pong: (isReceived) => {
          if (isReceived) stopWaitingForPong()
        },
        closed: stopWaitingForPong,
      },
    })
    return this.#socket
  }

  #setOutage(reason: string | null): void {
    // The first reason of an outage stays: what the others say of it would only alternate.
    if (this.outage === reason || (this.outage !== null && reason !== null)) return
    this.outage = reason
    for (const changed of this.#watchers) changed()
  }

  /** Waits between attempts, longer each time, until the patience is at its end. */
  #startPatience(isPatient: boolean) {
    const { patienceMs, maskedPatienceMs, firstRetryMs, mostRetryMs } = this.#timing
    let attempts = 0
    let since: number | null = null
    return {
      end: () => {
        attempts = 0
        since = null
      },
      wait: async (outage: OutageError): Promise<void> => {
        since ??= performance.now()
        const awayMs = performance.now() - since
        if (!isPatient && outage.isMasked && awayMs >= maskedPatienceMs) throw outage
        if (!isPatient && awayMs >= patienceMs) {
          throw new SetupError(
            `The server at ${this.url} has been away for ${duration(awayMs / 1000)}: ${outage.message}`,
          )
        }
        this.#setOutage(outage.message)
        const waitMs = Math.min(mostRetryMs, firstRetryMs * 2 ** attempts)
        attempts++
        await delay(waitMs, undefined, { signal: this.#signal }).catch(() => {})
        this.#signal.throwIfAborted()
        const url = this.#locate()
        if (url) this.url = withoutPath(url)
      },
    }
  }

  async #post<Data>(init: { headers?: Record<string, string>; body: string | FormData }): Promise<Data> {
    let response: Response
    let text: string
    try {
      response = await fetch(this.graphqlUrl, {
        method: 'POST',
        signal: this.#signal,
        ...init,
        headers: { accept: 'application/graphql-response+json, application/json', ...init.headers },
      })
      text = await response.text()
    } catch (error) {
      this.#signal.throwIfAborted()
      const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : ''
      throw new OutageError(
        `No Quarry server answers at ${this.url}${cause}. Start one (quarry serve) or correct QUARRY_URL.`,
      )
    }
    const answer = parseAnswer<Data>(text)
    if (!answer)
      throw new SetupError(
        `${this.graphqlUrl} answered ${response.status} with something that is not GraphQL. Is it a Quarry server?`,
      )
    if (answer.errors) throw failure(answer.errors)
    if (!answer.data) throw new QuarryError(`${this.graphqlUrl} answered without data`)
    return answer.data
  }
}

const withoutPath = (url: string) => url.replace(/\/+$/, '').replace(/\/graphql$/, '')

function parseAnswer<Data>(text: string): { data?: Data; errors?: GraphqlError[] } | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : null
  } catch {
    return null
  }
}

/** What the server says has gone wrong. Its database may just be away, which it tells nobody but its log. */
function failure(errors: readonly GraphqlError[]): QuarryError {
  const message = errors.map((error) => error.message).join('; ')
  const isMasked = errors.some(({ extensions }) => extensions?.code === 'INTERNAL_SERVER_ERROR')
  if (!isMasked) return new QuarryError(message)
  const outage = new OutageError(`The server says: ${message} Its log says why.`)
  outage.isMasked = true
  return outage
}

/**
 * What ended a subscription, if it may go on later. graphql-ws gives the events of the socket, which are no errors and print
 * as nothing, and a list of errors where the server refuses.
 */
function asOutage(error: unknown): OutageError | null {
  if (error instanceof OutageError) return error
  if (error instanceof QuarryError || Array.isArray(error)) return null
  const { code, reason, message } = error as { code?: number; reason?: string; message?: string }
  const words = [message ?? reason, typeof code === 'number' ? `(${code})` : null].filter(Boolean).join(' ')
  return new OutageError(`the connection was closed${words ? `: ${words}` : ''}`)
}
