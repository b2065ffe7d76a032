import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'

/** A request as the server saw it. */
export interface ProviderRequest {
  protocol: 'openai' | 'ollama'
  headers: IncomingMessage['headers']
  model: string
  /** To embed; none where it is a chat. */
  texts: string[]
  /** Of a chat; none where it is texts to embed. */
  messages: { role: string; content: string }[]
  /** The whole body. */
  body: Record<string, unknown>
  /** Counted from 1. */
  number: number
}

/** What goes wrong with one request. Everything left out goes right. */
export interface Fault {
  status?: number
  headers?: Record<string, string>
  /** Sent instead of the right answer. */
  body?: string
  /** Changes the right answer before it is sent: OpenAI's `data` or Ollama's `embeddings`. */
  edit?(vectors: unknown[]): unknown[]
  /**
   * - hang: nothing is ever sent.
   * - stall: the first half of the answer, then nothing, with the connection open.
   * - reset: the first half of the answer, then the connection is torn down.
   */
  end?: 'hang' | 'stall' | 'reset'
}

/** What a chat model says. */
export interface ChatReply {
  /** OpenAI: null for no content. */
  text: string | null
  /** OpenAI's `finish_reason`, Ollama's `done_reason`; 'stop' if left out. */
  finish?: string
  /** OpenAI only. */
  refusal?: string
  /** 100 and 10 if left out. */
  usage?: { tokensIn: number; tokensOut: number }
}

export interface ProviderServerOptions {
  /** Length of the vectors where the request does not ask for another. */
  dimensions?: number
  /** Milliseconds from the whole request to the answer, like a model that computes. */
  latencyMs?: number
  /** Asked at every request; null: all goes right. The answer waits until this says so. */
  fault?(request: ProviderRequest): Fault | null | Promise<Fault | null>
  /** The vector of a text; `hashVector` unless given. */
  vector?(text: string, dimensions: number): number[]
  /** Answers chats; without it the model has nothing to say. */
  chat?(request: ProviderRequest): ChatReply
}

/**
 * A vector that depends on nothing but the text: of norm 1, different for different texts. Bytes of a SHA-256 chain,
 * centred.
 */
export function hashVector(text: string, dimensions: number): number[] {
  const bytes: number[] = []
  let block = createHash('sha256').update(text).digest()
  while (bytes.length < dimensions) {
    bytes.push(...block)
    block = createHash('sha256').update(block).digest()
  }
  const centred = bytes.slice(0, dimensions).map((byte) => byte - 127.5)
  const norm = Math.hypot(...centred)
  return centred.map((value) => value / norm)
}

const protocols: Record<string, ProviderRequest['protocol']> = {
  '/v1/embeddings': 'openai',
  '/v1/chat/completions': 'openai',
  '/api/embed': 'ollama',
  '/api/chat': 'ollama',
}

/**
 * A server on a free port of this machine that embeds and chats in OpenAI's protocol (`/v1/embeddings`,
 * `/v1/chat/completions`) and Ollama's (`/api/embed`, `/api/chat`), with faults on demand and a configurable latency.
 * Ends with `await using` or `close()`.
 */
export class ProviderServer {
  requests = 0
  texts = 0
  /** The most requests that were under way at once. */
  peakParallel = 0
  last: ProviderRequest | null = null
  options: ProviderServerOptions
  /** Requests that have come and are neither answered nor given up by the client. */
  underWay = 0
  readonly #http = createServer((request, response) => {
    // A client that leaves ends the handling with an error that nobody needs to see.
    this.#handle(request, response).catch(() => response.destroy())
  })

  private constructor(options: ProviderServerOptions) {
    this.options = options
  }

  static async start(options: ProviderServerOptions = {}): Promise<ProviderServer> {
    const server = new ProviderServer(options)
    server.#http.listen(0, '127.0.0.1')
    await once(server.#http, 'listening')
    return server
  }

  /** Without a path: the base URL of Ollama; with `/v1` behind it that of OpenAI. */
  get url(): string {
    const address = this.#http.address()
    if (address === null || typeof address === 'string') throw new Error('The server is closed.')
    return `http://127.0.0.1:${address.port}`
  }

  /** Waits for the next request; `left` is fulfilled when its client has got its answer or has gone. */
  async arrival(): Promise<{ left: Promise<unknown> }> {
    const [, response] = await once(this.#http, 'request')
    return { left: once(response, 'close') }
  }

  async close(): Promise<void> {
    const closed = once(this.#http, 'close')
    this.#http.close()
    this.#http.closeAllConnections()
    await closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const protocol = protocols[request.url ?? '']
    if (request.method !== 'POST' || protocol === undefined) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('404 page not found')
      return
    }
    this.underWay++
    this.peakParallel = Math.max(this.peakParallel, this.underWay)
    response.once('close', () => this.underWay--)
    const body: Record<string, unknown> = JSON.parse((await buffer(request)).toString('utf8'))
    const isChat = Array.isArray(body.messages)
    const texts = isChat ? [] : [body.input].flat().map(String)
    const received: ProviderRequest = {
      protocol,
      headers: request.headers,
      model: String(body.model),
      texts,
      messages: Array.isArray(body.messages) ? body.messages.map(chatMessage) : [],
      body,
      number: ++this.requests,
    }
    this.texts += texts.length
    this.last = received
    const fault = (await this.options.fault?.(received)) ?? {}
    if (this.options.latencyMs) await delay(this.options.latencyMs)
    if (fault.end === 'hang') return
    const right = isChat ? this.#chatAnswer(received) : this.#answer(received, fault)
    const answer = Buffer.from(fault.body ?? JSON.stringify(right))
    response.writeHead(fault.status ?? 200, {
      'content-type': 'application/json',
      'content-length': answer.length,
      ...fault.headers,
    })
    if (fault.end === undefined) {
      response.end(answer)
      return
    }
    response.write(answer.subarray(0, answer.length / 2), () => {
      if (fault.end === 'reset') response.destroy()
    })
  }

  #answer({ protocol, model, texts, body }: ProviderRequest, { edit = (all) => all }: Fault): unknown {
    const asked = body.dimensions
    const dimensions = typeof asked === 'number' ? asked : (this.options.dimensions ?? 64)
    const vectorOf = this.options.vector ?? hashVector
    const vectors = texts.map((text) => vectorOf(text, dimensions))
    if (protocol === 'ollama') return { model, embeddings: edit(vectors), prompt_eval_count: texts.length }
    const data = vectors.map((vector, index) => ({
      object: 'embedding',
      index,
      embedding: body.encoding_format === 'base64' ? base64(vector) : vector,
    }))
    return { object: 'list', model, data: edit(data), usage: { prompt_tokens: 1, total_tokens: 1 } }
  }

  #chatAnswer(request: ProviderRequest): unknown {
    const reply: ChatReply = this.options.chat?.(request) ?? { text: '' }
    const { text, finish = 'stop', refusal = null, usage = { tokensIn: 100, tokensOut: 10 } } = reply
    const { model, protocol } = request
    if (protocol === 'ollama') {
      return {
        model,
        created_at: new Date().toISOString(),
        message: { role: 'assistant', content: text },
        done: true,
        done_reason: finish,
        prompt_eval_count: usage.tokensIn,
        eval_count: usage.tokensOut,
      }
    }
    return {
      id: `chatcmpl-${request.number}`,
      object: 'chat.completion',
      created: Math.floor(Date.now() / 1000),
      model,
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: text, refusal },
          logprobs: null,
          finish_reason: finish,
        },
      ],
      usage: {
        prompt_tokens: usage.tokensIn,
        completion_tokens: usage.tokensOut,
        total_tokens: usage.tokensIn + usage.tokensOut,
      },
    }
  }
}

function chatMessage(message: unknown): { role: string; content: string } {
  const { role, content } = Object(message)
  return { role: String(role), content: String(content) }
}

function base64(vector: number[]): string {
  return Buffer.from(Float32Array.from(vector).buffer).toString('base64')
}

/** What a `fault` can wait for: nothing is answered until it is opened; `using` opens it in the end. */
export function createGate(): Disposable & { opened: Promise<null>; open(): void } {
  let open = () => {}
  const opened = new Promise<null>((resolve) => {
    open = () => resolve(null)
  })
  return { opened, open, [Symbol.dispose]: open }
}
