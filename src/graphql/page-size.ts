import SchemaBuilder, { BasePlugin, type PothosOutputFieldConfig, type SchemaTypes } from '@pothos/core'
import { GraphQLError, type GraphQLFieldResolver } from 'graphql'

export const pageSize = { default: 20, max: 100 } as const

declare global {
  export namespace PothosSchemaTypes {
    export interface Plugins<Types extends SchemaTypes> {
      pageSize: PageSizePlugin<Types>
    }
  }
}

/**
 * Refuses `first` and `last` outside of 1..100 on every field that has them: other plugins would cut them silently, and
 * a client that asked for 500 would take 100 for all. Refuses cursors that hold no key, which would reach the database
 * and come back as an internal error.
 */
class PageSizePlugin<Types extends SchemaTypes> extends BasePlugin<Types> {
  override wrapResolve(
    resolver: GraphQLFieldResolver<unknown, Types['Context'], object>,
    field: PothosOutputFieldConfig<Types>,
  ): GraphQLFieldResolver<unknown, Types['Context'], object> {
    if (!('first' in field.args)) return resolver
    return (parent, args, context, info) => {
      for (const name of ['first', 'last'] as const)
        requirePageSize(name, (args as Record<string, unknown>)[name])
      for (const name of ['after', 'before'] as const)
        requireCursor(name, (args as Record<string, unknown>)[name])
      return resolver(parent, args, context, info)
    }
  }
}

function requirePageSize(name: string, count: unknown): void {
  if (typeof count !== 'number' || (count >= 1 && count <= pageSize.max)) return
  throw new GraphQLError(`${name} is ${count}; it must be 1..${pageSize.max}`, {
    extensions: { code: 'INVALID_INPUT', path: [name] },
  })
}

const uuid = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
/** What the Prisma plugin makes of the keys of this schema: a UUID, or a UUID and more of them or numbers. */
const keyCursor = new RegExp(`^GPC:(?:S:${uuid}|T:\\["S:${uuid}"(?:,"(?:S:${uuid}|[NI]:\\d{1,15})")+\\])$`)

function requireCursor(name: string, cursor: unknown): void {
  if (typeof cursor !== 'string') return
  const decoded = Buffer.from(cursor, 'base64').toString('utf8')
  // Others are not the Prisma plugin's: the field that they belong to reads them.
  if (!decoded.startsWith('GPC:') || keyCursor.test(decoded)) return
  throw new GraphQLError(`${name} is not a cursor of this list; take it from pageInfo`, {
    extensions: { code: 'INVALID_INPUT', path: [name] },
  })
}

const pluginName = 'pageSize'
SchemaBuilder.registerPlugin(pluginName, PageSizePlugin)
export default pluginName
