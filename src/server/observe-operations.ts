import {
  createCounter,
  createHistogram,
  type FillLabelsFnParams,
  usePrometheus,
} from '@graphql-yoga/plugin-prometheus'
import {
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type FragmentDefinitionNode,
  type GraphQLError,
  getOperationAST,
  Kind,
  type SelectionSetNode,
} from 'graphql'
import { isAsyncIterable, maskError, type Plugin } from 'graphql-yoga'
import type { Caller, Context } from '../graphql/context.ts'
import type { Metrics } from '../metrics.ts'

/** What Yoga has in the context of an operation that came over HTTP, besides ours. */
type OperationContext = Context & { request?: Request; params?: { operationName?: string | null } }

const maxLoggedName = 100

/**
 * Measures operations, over HTTP, server-sent events and WebSocket. Labels are the type and the phase alone: the name of
 * an operation is whatever a client says it is, and each one would be time series that stay for ever.
 */
export function measureOperations({ registry }: Metrics): Plugin {
  return usePrometheus({
    registry,
    endpoint: false,
    metrics: {
      graphql_envelop_request_duration: createHistogram({
        registry,
        histogram: {
          name: 'quarry_graphql_operation_seconds',
          help: 'Queries and mutations, by type',
          labelNames: ['type'],
        },
        // Of a subscription it would be how long somebody listened.
        phases: ['execute'],
        fillLabelsFn: (params, context) => ({ type: typeOf(params, context) }),
      }),
      graphql_envelop_error_result: createCounter({
        registry,
        counter: {
          name: 'quarry_graphql_errors_total',
          help: 'Errors that operations were answered with, by type and by the phase in which they arose',
          labelNames: ['type', 'phase'],
        },
        phases: ['parse', 'validate', 'context', 'execute', 'subscribe'],
        fillLabelsFn: (params, context) => ({
          type: typeOf(params, context),
          phase: params.errorPhase ?? 'execute',
        }),
      }),
      graphql_envelop_deprecated_field: false,
      graphql_envelop_request: false,
      graphql_envelop_request_time_summary: false,
      graphql_envelop_phase_parse: false,
      graphql_envelop_phase_validate: false,
      graphql_envelop_phase_context: false,
      graphql_envelop_phase_execute: false,
      graphql_envelop_phase_subscribe: false,
      graphql_envelop_schema_change: false,
      graphql_yoga_http_duration: false,
    },
  })
}

/** Of a document with several operations or fragments, the plugin's own guess is the type of whatever comes first. */
function typeOf({ document }: FillLabelsFnParams, context: unknown): string {
  if (!document) return 'unknown'
  const { params } = context as OperationContext
  return getOperationAST(document, params?.operationName)?.operation ?? 'unknown'
}

/**
 * Writes each operation to the log of its request, masks what is not meant for callers (with the id of the request, so
 * that they can tell an operator), counts open subscriptions, and ends each of them, whichever way it goes.
 */
export function observeOperations({ subscriptions }: Metrics): Plugin<OperationContext> {
  return {
    onExecute({ args }) {
      const operation = begin(args)
      return {
        onExecuteDone({ result, setResult }) {
          if (isAsyncIterable(result)) return
          const masked = operation.mask(result)
          setResult(masked)
          operation.end('A GraphQL operation was executed', { errors: masked.errors?.length ?? 0 })
        },
      }
    },
    onSubscribe({ args }) {
      const operation = begin(args)
      return {
        onSubscribeResult({ result, setResult }) {
          if (!isAsyncIterable(result)) return setResult(operation.mask(result))
          const field = rootField(args.document, operation.node?.selectionSet) ?? 'unknown'
          const { request } = operation.context
          setResult(
            observeEvents(result, {
              mask: operation.mask,
              maskThrown: operation.maskThrown,
              onBegin: () => subscriptions.inc({ field }),
              onEnd(events) {
                subscriptions.dec({ field })
                operation.end('A subscription ended', { field, events })
              },
              signal: request?.signal ?? null,
            }),
          )
        },
      }
    },
  }
}

/**
 * What a caller is told of an error: of one that is not meant for callers nothing but the id of the request, so that they
 * can tell an operator. Never by NODE_ENV: an internal message must not leave the process because of a variable.
 */
export function maskFor(
  caller: Caller | undefined,
  error: unknown,
  message = 'Unexpected error.',
): GraphQLError {
  // Its type says less: it is the error itself, if that is one, or a new one.
  const masked = maskError(error, message, false) as GraphQLError
  if (masked !== error) Object.assign(masked.extensions, { requestId: caller?.requestId })
  return masked
}

/** What stands behind errors that were masked where it is not known who asks. */
const unattributed = new WeakMap<GraphQLError, unknown>()

/**
 * For Yoga, which masks what goes wrong outside of an operation (a body, a context) and does not say whose request it is.
 * Where that is known, `attributeMasked` must follow. Not by an AsyncLocalStorage: its hooks would run for every promise
 * of the process.
 */
export function maskUnattributed(error: unknown, message?: string): GraphQLError {
  const masked = maskFor(undefined, error, message)
  if (masked !== error) unattributed.set(masked, error)
  return masked
}

/** Says in errors of `maskUnattributed` whose request it was, and writes what stands behind them to its log, once. */
export function attributeMasked(errors: readonly GraphQLError[], { requestId, log }: Caller): void {
  for (const error of errors) {
    if (!unattributed.has(error)) continue
    log.error({ err: unattributed.get(error) }, 'A GraphQL request failed')
    unattributed.delete(error)
    Object.assign(error.extensions, { requestId })
  }
}

/** `attributeMasked` for all that Yoga answers. */
export function attributeErrors(): Plugin<object, Caller> {
  return {
    onResultProcess({ result, serverContext }) {
      if (!Array.isArray(result) && 'errors' in result && result.errors) {
        attributeMasked(result.errors, serverContext)
      }
    },
  }
}

function begin(args: ExecutionArgs) {
  const context = args.contextValue as OperationContext
  const started = performance.now()
  const node = getOperationAST(args.document, args.operationName)
  const named = {
    type: node?.operation,
    operation: node?.name?.value.slice(0, maxLoggedName),
  }
  const { log } = context

  function maskThrown(error: unknown): GraphQLError {
    const masked = maskFor(context, error)
    if (masked !== error) {
      const { originalError, path } = error as { originalError?: Error; path?: readonly (string | number)[] }
      log.error({ ...named, path, err: originalError ?? error }, 'A GraphQL operation failed')
    }
    return masked
  }
  return {
    context,
    node,
    maskThrown,
    mask<Result extends ExecutionResult>(result: Result): Result {
      return result.errors ? { ...result, errors: result.errors.map(maskThrown) } : result
    },
    end(message: string, fields: Record<string, unknown>) {
      log.debug({ ...named, ms: Math.round(performance.now() - started), ...fields }, message)
    },
  }
}

/**
 * The same events, with a beginning and an end that are told exactly once: the end also where the events break off with
 * an error, and where nobody asks for the next one any more because the client has gone.
 */
function observeEvents(
  source: AsyncIterable<ExecutionResult>,
  observer: {
    mask(result: ExecutionResult): ExecutionResult
    maskThrown(error: unknown): GraphQLError
    onBegin(): void
    onEnd(events: number): void
    /** Aborted when the client leaves: one that does so before the first event was asked for would never be noticed. */
    signal: AbortSignal | null
  },
): AsyncIterableIterator<ExecutionResult> {
  const { signal } = observer
  const iterator = source[Symbol.asyncIterator]()
  let state: 'new' | 'open' | 'ended' = 'new'
  let events = 0

  function end(): void {
    signal?.removeEventListener('abort', leave)
    if (state === 'open') observer.onEnd(events)
    state = 'ended'
  }
  function leave(): void {
    end()
    iterator.return?.().catch(() => {})
  }

  signal?.addEventListener('abort', leave)
  if (signal?.aborted) leave()

  return {
    [Symbol.asyncIterator]() {
      return this
    },
    async next() {
      if (state === 'new') {
        state = 'open'
        observer.onBegin()
      }
      try {
        const result = await iterator.next()
        if (result.done) {
          end()
          return result
        }
        events++
        return { done: false, value: observer.mask(result.value) }
      } catch (error) {
        end()
        throw observer.maskThrown(error)
      }
    },
    async return() {
      end()
      await iterator.return?.()
      return { done: true, value: undefined }
    },
    async throw(error) {
      end()
      await iterator.return?.()
      throw error
    },
  }
}

/** The one field that a subscription asks for; validation has seen to it that there is no other. */
function rootField(document: DocumentNode, selectionSet: SelectionSetNode | undefined): string | null {
  for (const selection of selectionSet?.selections ?? []) {
    if (selection.kind === Kind.FIELD) return selection.name.value
    const found = rootField(
      document,
      selection.kind === Kind.INLINE_FRAGMENT
        ? selection.selectionSet
        : findFragment(document, selection.name.value)?.selectionSet,
    )
    if (found) return found
  }
  return null
}

function findFragment(document: DocumentNode, name: string): FragmentDefinitionNode | undefined {
  return document.definitions.find(
    (definition) => definition.kind === Kind.FRAGMENT_DEFINITION && definition.name.value === name,
  ) as FragmentDefinitionNode | undefined
}
