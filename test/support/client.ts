import { openAsBlob } from 'node:fs'
import { basename } from 'node:path'
import { type Client, createClient } from 'graphql-ws'
import WebSocket from 'ws'
import type { TypedDocumentString } from './generated/graphql.ts'
import { graphql } from './generated/index.ts'

interface GraphqlAnswer<Data> {
  data?: Data | null
  errors?: { message: string; path?: (string | number)[]; extensions?: Record<string, unknown> }[]
}

/** Speaks to the API as any client does: over HTTP and graphql-ws, with documents that codegen has typed. */
export class TestClient {
  readonly url: string
  #socket: Client | null = null

  constructor(url: string) {
    this.url = `${url}/graphql`
  }

  /** The data; fails the test if there are errors. */
  async run<Data, Variables>(
    document: TypedDocumentString<Data, Variables>,
    ...[variables]: Variables extends Record<string, never> ? [] : [Variables]
  ): Promise<Data> {
    const answer = await this.send<Data>(document.toString(), variables)
    if (answer.errors || !answer.data) throw new Error(`GraphQL errors: ${JSON.stringify(answer.errors)}`)
    return answer.data
  }

  /** The whole answer, errors and all. */
  async send<Data = unknown>(query: string, variables?: unknown): Promise<GraphqlAnswer<Data>> {
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    })
    return (await response.json()) as GraphqlAnswer<Data>
  }

  /** Uploads a file as the variable `file`. */
  async upload<Data, Variables>(
    document: TypedDocumentString<Data, Variables>,
    variables: Omit<Variables, 'file'>,
    path: string,
  ): Promise<Data> {
    const form = new FormData()
    form.set(
      'operations',
      JSON.stringify({ query: document.toString(), variables: { ...variables, file: null } }),
    )
    form.set('map', JSON.stringify({ 0: ['variables.file'] }))
    form.set('0', await openAsBlob(path), basename(path))
    const answer = (await (
      await fetch(this.url, { method: 'POST', body: form })
    ).json()) as GraphqlAnswer<Data>
    if (answer.errors || !answer.data) throw new Error(`GraphQL errors: ${JSON.stringify(answer.errors)}`)
    return answer.data
  }

  /** Events over graphql-ws; leaving the loop ends the subscription. */
  async *subscribe<Data, Variables>(
    document: TypedDocumentString<Data, Variables>,
    ...[variables]: Variables extends Record<string, never> ? [] : [Variables]
  ): AsyncGenerator<Data> {
    this.#socket ??= createClient({
      url: this.url.replace(/^http/, 'ws'),
      webSocketImpl: WebSocket,
      retryAttempts: 0,
    })
    const request = { query: document.toString(), variables: (variables ?? {}) as Record<string, unknown> }
    for await (const result of this.#socket.iterate<Data>(request)) {
      if (result.errors) throw new Error(`GraphQL errors: ${JSON.stringify(result.errors)}`)
      if (result.data) yield result.data
    }
  }

  /** Resolves when nothing is owed an embedding any more; waits for the event, not for time. */
  async waitUntilEmbedded(): Promise<void> {
    for await (const { embeddingProgress } of this.subscribe(EmbeddedDocument)) {
      if (embeddingProgress.coverage.every((kind) => kind.pending + kind.stale === 0)) return
    }
  }

  /** Resolves with the job when it has ended. */
  async waitForJob(id: string) {
    for await (const _ of this.subscribe(JobEndDocument, { id })) {
      // All that counts is the end of the events.
    }
    const { node } = await this.run(EndedJobDocument, { id })
    if (node?.__typename !== 'Job') throw new Error(`${id} is not a job`)
    return node
  }

  async close(): Promise<void> {
    await this.#socket?.dispose()
  }
}

const EmbeddedDocument = graphql(`
  subscription UntilEmbedded {
    embeddingProgress { coverage { kind pending stale } }
  }
`)

const JobEndDocument = graphql(`
  subscription UntilJobEnds($id: ID!) {
    jobEvents(jobId: $id) { seq }
  }
`)

const EndedJobDocument = graphql(`
  query EndedJob($id: ID!) {
    node(id: $id) {
      __typename
      ... on Job { id kind state total succeeded failed skipped attempts error result }
    }
  }
`)
