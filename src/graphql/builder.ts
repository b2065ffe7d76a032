import SchemaBuilder from '@pothos/core'
import ErrorsPlugin from '@pothos/plugin-errors'
import PrismaPlugin from '@pothos/plugin-prisma'
import RelayPlugin, { decodeGlobalID, encodeGlobalID } from '@pothos/plugin-relay'
import { GraphQLError } from 'graphql'
import { DateTimeResolver, JSONResolver } from 'graphql-scalars'
import type { Context } from './context.ts'
import type PrismaTypes from './generated/pothos.ts'
import { getDatamodel } from './generated/pothos.ts'
import PageSizePlugin, { pageSize } from './page-size.ts'

/** An uploaded file: what the multipart parser makes of it, see server/multipart.ts. */
export type UploadedFile = Pick<File, 'name' | 'size' | 'stream'>

export interface SchemaTypes {
  Context: Context
  PrismaTypes: PrismaTypes
  DefaultFieldNullability: false
  DefaultEdgesNullability: false
  DefaultNodeNullability: false
  Scalars: {
    DateTime: { Input: Date; Output: Date }
    JSON: { Input: unknown; Output: unknown }
    File: { Input: UploadedFile; Output: never }
    ID: { Input: string; Output: string }
  }
}

export const builder = new SchemaBuilder<SchemaTypes>({
  // Errors goes first: it must see what the other plugins throw.
  plugins: [ErrorsPlugin, PageSizePlugin, RelayPlugin, PrismaPlugin],
  defaultFieldNullability: false,
  errors: {
    // No default types: `[Error]` would show every internal message to the caller.
    defaultTypes: [],
    directResult: true,
    defaultUnionOptions: {
      description: 'What the mutation did, or an error that the caller can act on.',
      name: ({ fieldName }) => `${fieldName.charAt(0).toUpperCase()}${fieldName.slice(1)}Result`,
    },
  },
  relay: {
    cursorType: 'String',
    clientMutationId: 'omit',
    edgesFieldOptions: {
      description: 'The rows of this page with their cursors, in order.',
      nullable: false,
    },
    nodeFieldOptions: { nullable: false, description: 'The row.' },
    cursorFieldOptions: { description: 'Where this row stands in the list; give it as `after` or `before`.' },
    nodesOnConnection: { description: 'The rows of this page, in order.' },
    pageInfoFieldOptions: { description: 'Whether there is more, and where this page begins and ends.' },
    pageInfoTypeOptions: { description: 'Where a page of a list begins and ends.' },
    hasNextPageFieldOptions: { description: 'Whether there are rows after this page.' },
    hasPreviousPageFieldOptions: { description: 'Whether there are rows before this page.' },
    startCursorFieldOptions: { description: 'Cursor of the first row. Null when the page is empty.' },
    endCursorFieldOptions: {
      description:
        'Cursor of the last row; give it as `after` for the next page. Null when the page is empty.',
    },
    firstArgOptions: {
      description: `How many rows from the start: ${pageSize.default} unless given, at most ${pageSize.max}.`,
    },
    lastArgOptions: { description: `How many rows from the end: at most ${pageSize.max}.` },
    afterArgOptions: { description: 'Only rows after this cursor.' },
    beforeArgOptions: { description: 'Only rows before this cursor.' },
    idFieldOptions: { description: 'Global id.' },
    nodeTypeOptions: { description: 'Something that has an id of its own and can be fetched by it.' },
    nodeQueryOptions: {
      description: 'Fetches anything by its id. Null if it does not exist.',
      args: { id: { description: 'Its global id.' } },
    },
    nodesQueryOptions: {
      description:
        'Fetches many things by their ids, in the order asked for; null for each that does not exist.',
      args: { ids: { description: 'Their global ids.' } },
    },
    encodeGlobalID: (typename, id) => encodeGlobalID(typename, id),
    decodeGlobalID: (globalId) => readGlobalId(globalId),
  },
  prisma: {
    client: (context) => context.database.prisma,
    dmmf: getDatamodel(),
    defaultConnectionSize: pageSize.default,
    maxConnectionSize: pageSize.max,
    onUnusedQuery: 'error',
  },
})

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
/** Whether a text can be compared with an id of the database; any other would be an error there. */
export const isUuid = (text: string): boolean => uuid.test(text)

/** How the database ids of each type look; there are no others in a global id. */
const idPatterns = new Map(
  Object.entries({
    Agent: uuid,
    Alert: uuid,
    Atom: uuid,
    AtomLink: uuid,
    EmbeddingSpace: /^[1-9]\d{0,8}$/,
    Job: uuid,
    Message: uuid,
    Provider: new RegExp(`^[a-z]+$|${uuid.source}`),
    Revision: uuid,
    Source: uuid,
    Topic: uuid,
  }),
)

/**
 * The type and database id behind a global id. Checked here, once, because a malformed one would otherwise reach the
 * database and come back as an internal error.
 * @param expected the only type that is allowed
 */
export function readGlobalId(globalId: string, expected?: string): { typename: string; id: string } {
  const refuse = () =>
    new GraphQLError(
      `${JSON.stringify(globalId.slice(0, 100))} is not ${expected ? `the id of a ${expected}` : 'an id of this API'}; use the id field of what you mean`,
      {
        extensions: { code: 'BAD_USER_INPUT' },
      },
    )
  try {
    const { typename, id } = decodeGlobalID(globalId)
    if (!idPatterns.get(typename)?.test(id) || (expected && typename !== expected)) throw refuse()
    return { typename, id }
  } catch {
    throw refuse()
  }
}

/** The number in `afterSeq`, as text: it can be larger than a JavaScript number holds. */
export function readSeq(afterSeq: string): string {
  if (/^\d{1,18}$/.test(afterSeq)) return afterSeq
  throw new GraphQLError(
    `afterSeq is ${JSON.stringify(afterSeq.slice(0, 100))}; it must be the seq of an earlier event`,
    {
      extensions: { code: 'BAD_USER_INPUT' },
    },
  )
}

builder.addScalarType('DateTime', DateTimeResolver, {
  description: 'A moment in time: RFC 3339 with a zone, such as `2026-05-04T09:30:00Z`. Answers are in UTC.',
})
builder.addScalarType('JSON', JSONResolver, { description: 'Any JSON value.' })
builder.scalarType('File', {
  description: 'A file in a multipart request (GraphQL multipart request specification).',
  serialize: () => {
    throw new GraphQLError('A File can only be sent, not read')
  },
  parseValue: (value) => {
    if (typeof value === 'object' && value !== null && 'stream' in value && 'name' in value)
      return value as UploadedFile
    throw new GraphQLError(
      'A File must be sent as a part of a multipart request (GraphQL multipart request specification)',
    )
  },
})

builder.queryType({ description: 'What can be read.' })
builder.mutationType({
  description:
    'What can be changed. Each mutation takes one input and returns its payload or an error that the caller can act on.',
})
builder.subscriptionType({ description: 'What can be followed live, over graphql-ws or server-sent events.' })

export const OrderDirection = builder.enumType('OrderDirection', {
  description: 'Which end of an order comes first.',
  values: {
    ASC: { description: 'Smallest or oldest first.' },
    DESC: { description: 'Largest or newest first.' },
  } as const,
})
