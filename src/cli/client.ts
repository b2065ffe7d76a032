import { openAsBlob } from 'node:fs'
import { basename } from 'node:path'
import { type Client, createClient } from 'graphql-ws'
import WebSocket from 'ws'
import { QuarryError, SetupError } from '../errors.ts'

const path = '/graphql'

/** Speaks to a Quarry server over its public API. */
export class ApiClient {
  readonly url: string
  #socket: Client | null = null

  /** @param url the server's address, without the path */
  constructor(url: string) {
    this.url = url.replace(/\/+$/, '').replace(/\/graphql$/, '')
  }

  get graphqlUrl(): string {
    return this.url + path
  }

  /** @throws QuarryError with the messages of the answer's errors */
  async request<Data>(query: string, variables: Record<string, unknown> = {}): Promise<Data> {
    return this.#post<Data>({
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    })
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

  /** Events of a subscription; ends with it. */
  async *subscribe<Data>(query: string, variables: Record<string, unknown> = {}): AsyncIterable<Data> {
    this.#socket ??= createClient({
      url: this.graphqlUrl.replace(/^http/, 'ws'),
      webSocketImpl: WebSocket,
      retryAttempts: 5,
    })
    try {
      for await (const result of this.#socket.iterate<Data>({ query, variables })) {
        if (result.errors) throw new QuarryError(result.errors.map((error) => error.message).join('; '))
        if (result.data) yield result.data
      }
    } catch (error) {
      // A closed socket arrives as a CloseEvent, which is no Error and prints as nothing.
      if (error instanceof Error) throw error
      const { code, reason } = error as { code?: number; reason?: string }
      throw new QuarryError(
        `The server at ${this.url} closed the connection (${[code, reason].filter(Boolean).join(' ')})`,
      )
    }
  }

  async close(): Promise<void> {
    await this.#socket?.dispose()
  }

  async #post<Data>(init: { headers?: Record<string, string>; body: string | FormData }): Promise<Data> {
    let response: Response
    try {
      response = await fetch(this.graphqlUrl, {
        method: 'POST',
        ...init,
        headers: { accept: 'application/graphql-response+json, application/json', ...init.headers },
      })
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : ''
      throw new SetupError(
        `No Quarry server answers at ${this.url}${cause}. Start one (quarry serve) or correct QUARRY_URL.`,
      )
    }
    const text = await response.text()
    const answer = parseAnswer<Data>(text)
    if (!answer)
      throw new SetupError(
        `${this.graphqlUrl} answered ${response.status} with something that is not GraphQL. Is it a Quarry server?`,
      )
    if (answer.errors) throw new QuarryError(answer.errors.map((error) => error.message).join('; '))
    if (!answer.data) throw new QuarryError(`${this.graphqlUrl} answered without data`)
    return answer.data
  }
}

function parseAnswer<Data>(text: string): { data?: Data; errors?: { message: string }[] } | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? value : null
  } catch {
    return null
  }
}
