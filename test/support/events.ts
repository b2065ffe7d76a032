import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import { createClient } from 'graphql-ws'
import WebSocket from 'ws'
import type { TypedDocumentString } from './generated/graphql.ts'

/** What a subscription sends, errors and all. */
export interface EventResult<Data> {
  data?: Data | null
  errors?: readonly { message: string; extensions?: Record<string, unknown> }[]
}

/** Subscribes over one protocol; leaving the loop, or `return`, ends the subscription. */
export type Subscribe = <Data, Variables>(
  url: string,
  document: TypedDocumentString<Data, Variables>,
  variables: Variables,
) => AsyncGenerator<EventResult<Data>>

/** Over graphql-ws, each subscription on a connection of its own. */
export const overSocket: Subscribe = async function* <Data, Variables>(
  url: string,
  document: TypedDocumentString<Data, Variables>,
  variables: Variables,
) {
  const client = createClient({
    url: url.replace(/^http/, 'ws'),
    webSocketImpl: WebSocket,
    retryAttempts: 0,
  })
  try {
    const request = { query: document.toString(), variables: variables as Record<string, unknown> }
    yield* client.iterate<Data>(request) as AsyncIterable<EventResult<Data>>
  } catch (errors) {
    // What the protocol calls an error ends the operation.
    if (!Array.isArray(errors)) throw errors
    yield { errors }
  } finally {
    await client.dispose()
  }
}

/** Over server-sent events ("distinct connections mode" of the GraphQL over SSE protocol). */
export const overEvents: Subscribe = async function* <Data, Variables>(
  url: string,
  document: TypedDocumentString<Data, Variables>,
  variables: Variables,
) {
  const leaving = new AbortController()
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: document.toString(), variables }),
    signal: leaving.signal,
  })
  try {
    let received = ''
    for await (const text of Readable.fromWeb(response.body as ReadableStream).setEncoding('utf8')) {
      received += text
      for (let end = received.indexOf('\n\n'); end >= 0; end = received.indexOf('\n\n')) {
        const block = received.slice(0, end).split('\n')
        received = received.slice(end + 2)
        const data = block.find((line) => line.startsWith('data: '))?.slice('data: '.length)
        if (block.includes('event: complete')) return
        if (block.includes('event: next') && data) yield JSON.parse(data) as EventResult<Data>
      }
    }
  } finally {
    leaving.abort()
  }
}

/**
 * Begins to listen: does something that is told, again and again, until it was. From then on nothing is missed. What
 * came of it may be told once more, or later.
 */
export async function begin<Result>(
  events: AsyncGenerator<Result>,
  something: () => Promise<unknown>,
): Promise<Result> {
  let isBegun = false
  const first = events.next().finally(() => {
    isBegun = true
  })
  first.catch(() => {})
  while (!isBegun) await something()
  const { value, done } = await first
  if (done) throw new Error('the subscription ended before it told anything')
  return value
}
