import { GraphQLError } from 'graphql'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { ProviderError } from '../providers/provider.ts'
import { builder } from './builder.ts'

const ErrorCode = builder.enumType('ErrorCode', {
  description: 'What kind of mistake an error is, for programs.',
  values: {
    INVALID_INPUT: { description: 'A value that was sent breaks a rule; `path` of InputError leads to it.' },
    NOT_FOUND: { description: 'Something that was named does not exist.' },
    CONFLICT: { description: 'The call contradicts what is stored, such as a name that is taken.' },
    PROVIDER_FAILED: { description: 'The model provider did not do its part.' },
  } as const,
})

const codes = new Map<
  abstract new (
    ...args: never[]
  ) => Error,
  'INVALID_INPUT' | 'NOT_FOUND' | 'CONFLICT' | 'PROVIDER_FAILED'
>([
  [InvalidInputError, 'INVALID_INPUT'],
  [NotFoundError, 'NOT_FOUND'],
  [ConflictError, 'CONFLICT'],
  [ProviderError, 'PROVIDER_FAILED'],
])

function codeOf(error: Error) {
  // By the constructor: the errors plugin hands over a proxy that `instanceof` does not see through.
  for (const [type, code] of codes) if (error.constructor === type) return code
  throw new Error(`${error.name} has no ErrorCode`, { cause: error })
}

const UserError = builder.interfaceRef<Error>('UserError').implement({
  description: 'An error that the caller can act on.',
  fields: (t) => ({
    message: t.exposeString('message', {
      description: 'What was found, what was expected, what to do; for people.',
    }),
    code: t.field({ type: ErrorCode, description: 'The kind of mistake, for programs.', resolve: codeOf }),
  }),
})

builder.objectType(InvalidInputError, {
  name: 'InputError',
  description: 'A value that was sent breaks a rule. Nothing was changed.',
  interfaces: [UserError],
  fields: (t) => ({
    path: t.stringList({
      description:
        'Leads to the value within `input`, such as `["messages", "3", "content"]`. Empty for the input as a whole.',
      resolve: (error) => [...error.path],
    }),
  }),
})
builder.objectType(NotFoundError, {
  name: 'NotFoundError',
  description: 'Something that was named does not exist (any more).',
  interfaces: [UserError],
})
builder.objectType(ConflictError, {
  name: 'ConflictError',
  description: 'The call contradicts what is stored, such as a name that is taken.',
  interfaces: [UserError],
})
builder.objectType(ProviderError, {
  name: 'ProviderError',
  description: 'The model provider did not do its part.',
  interfaces: [UserError],
  fields: (t) => ({
    isRetryable: t.exposeBoolean('isRetryable', { description: 'Whether the same call may succeed later.' }),
  }),
})

/**
 * What a query throws for a mistake of the caller: queries have no error union, so it becomes a GraphQL error with the
 * same code (and without `originalError`: Yoga would take it for an internal one and mask it). Anything else passes unchanged, to be masked.
 */
export function toQueryError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  for (const [type, code] of codes) {
    if (!(error instanceof type)) continue
    const path = error instanceof InvalidInputError && error.path.length > 0 ? { path: error.path } : {}
    return new GraphQLError(error.message, { extensions: { code, ...path } })
  }
  return error
}
