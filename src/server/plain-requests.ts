import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { type DocumentNode, type ExecutionResult, getOperationAST } from 'graphql'
import { type GraphQLParams, type Plugin, processRegularResult, type YogaServerInstance } from 'graphql-yoga'
import { LRUCache } from 'lru-cache'
import type { Caller } from '../graphql/context.ts'
import { attributeMasked, maskUnattributed } from './observe-operations.ts'

type Yoga = YogaServerInstance<Caller, object>
type Context = Caller & { params?: GraphQLParams }
type PlainParams = GraphQLParams & { query: string }

/**
 * The lean way of a request. Yoga speaks HTTP by the classes of `fetch`, which a server in Node has to make for each
 * request and to take apart again: three quarters of what a small operation costs. A plain request needs none of it: a
 * query or mutation in JSON, of which Yoga has found the document valid before, answered in JSON. All that is GraphQL
 * goes through the same plugins either way. Whatever is not plain is left to Yoga whole, so that there is one place that
 * says what is wrong with a request.
 */
export interface PlainRequests {
  /** Remembers the documents that were found valid; for the plugins of the same Yoga. */
  readonly plugin: Plugin<Context>
  /** Whether its headers are those of a plain request. */
  mayBePlain(request: IncomingMessage): boolean
  /** Answers a request that may be plain, or leaves it to Yoga. Never rejects. */
  answer(request: IncomingMessage, response: ServerResponse, caller: Caller): Promise<void>
}

/** As many as Yoga keeps parsed (createLRUCache). */
const maxKnown = 1_000
/**
 * The type that Yoga answers with to what common clients accept, by the whole header. A rule of our own for all headers
 * would be a second place that decides; any other one is Yoga's to read.
 */
const answerTypes = new Map<string | undefined, string>([
  [undefined, 'application/json'],
  ['*/*', 'application/json'],
  ['application/json', 'application/json'],
  ['application/json, text/plain, */*', 'application/json'],
  ['application/graphql-response+json', 'application/graphql-response+json'],
  ['application/graphql-response+json, application/json', 'application/graphql-response+json'],
  ['application/graphql-response+json,application/json;q=0.9', 'application/graphql-response+json'],
])
const bodyTypes: readonly (string | undefined)[] = ['application/json', 'application/json; charset=utf-8']
/** A request with others is not plain. */
const paramNames: readonly string[] = ['query', 'variables', 'operationName']

/**
 * @param path where the API is; with anything behind it a request is not plain
 * @param maxBodyBytes a larger body is Yoga's to refuse
 * @param yoga asked for later: it is made with the plugin
 */
export function createPlainRequests(options: {
  path: string
  maxBodyBytes: number
  yoga: () => Yoga
}): PlainRequests {
  const { path, maxBodyBytes, yoga } = options
  const known = new LRUCache<string, DocumentNode>({ max: maxKnown })

  /** Only an operation of a document that was found valid: what Yoga says of others, it says itself. */
  function isKnown({ query, operationName }: PlainParams): boolean {
    const document = known.get(query)
    const operation = document && getOperationAST(document, operationName)
    return operation != null && operation.operation !== 'subscription'
  }

  async function execute(params: PlainParams, { requestId, log }: Caller): Promise<ExecutionResult> {
    const { schema, parse, contextFactory, execute } = yoga().getEnveloped({ params, requestId, log })
    const result: unknown = await execute({
      schema,
      document: parse(params.query),
      contextValue: await contextFactory(),
      variableValues: params.variables,
      operationName: params.operationName,
    })
    // Of a query or mutation; the schema has nothing that is delivered in parts.
    return result as ExecutionResult
  }

  async function send(response: ServerResponse, type: string, result: ExecutionResult): Promise<void> {
    if (result.errors || result.extensions) {
      // By the rules of Yoga: the status depends on what kind of errors there are.
      const { status, headers, ...answer } = await readAnswer(
        processRegularResult(result, yoga().fetchAPI, type),
      )
      response.writeHead(status, headers).end(answer.body)
      return
    }
    const body = JSON.stringify(result)
    response
      .writeHead(200, {
        'content-type': `${type}; charset=utf-8`,
        'content-length': Buffer.byteLength(body),
      })
      .end(body)
  }

  return {
    plugin: {
      onValidate({ context, params }) {
        const query = context.params?.query
        return ({ valid }) => {
          if (valid && query) known.set(query, params.documentAST)
        }
      },
    },
    mayBePlain({ method, url, headers }) {
      const bytes = Number(headers['content-length'])
      return (
        method === 'POST' &&
        url === path &&
        bodyTypes.includes(headers['content-type']) &&
        answerTypes.has(headers.accept) &&
        // A body that is told to be empty has no end to wait for, one of unknown length has to be counted.
        bytes > 0 &&
        bytes <= maxBodyBytes &&
        headers['content-encoding'] === undefined &&
        // Answers to pages of browsers have headers that depend on the page (CORS).
        headers.origin === undefined
      )
    },
    async answer(request, response, caller) {
      const body = await readBody(request)
      // Broken off by its sender: nobody waits for an answer.
      if (body === null) return
      const params = readParams(body)
      const type = answerTypes.get(request.headers.accept)
      if (type === undefined || params === null || !isKnown(params)) {
        // Where Yoga looks for a body that was read before it came.
        Object.assign(request, { body: Readable.from([body]) })
        await yoga()(request, response, caller)
        return
      }
      try {
        await send(response, type, await execute(params, caller))
      } catch (error) {
        const errors = [maskUnattributed(error)]
        attributeMasked(errors, caller)
        await send(response, type, { errors })
      }
    },
  }
}

/** The whole body; null if the connection ends before. */
function readBody(request: IncomingMessage): Promise<Buffer | null> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.once('end', () => resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks)))
    request.once('close', () => resolve(null))
  })
}

/** What is asked for; null if Yoga would have something to say of it. */
function readParams(body: Buffer): PlainParams | null {
  let params: unknown
  try {
    params = JSON.parse(body.toString('utf8'))
  } catch {
    return null
  }
  return isPlain(params) ? params : null
}

function isPlain(params: unknown): params is PlainParams {
  if (!isObject(params) || !Object.keys(params).every((name) => paramNames.includes(name))) return false
  const { query, variables, operationName } = params
  return (
    typeof query === 'string' &&
    (variables == null || isObject(variables)) &&
    (operationName == null || typeof operationName === 'string')
  )
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

async function readAnswer(answer: Response) {
  return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() }
}
