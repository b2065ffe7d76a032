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
 * Refuses `first` and `last` outside of 1..100 on every field that has them. Other plugins would cut them silently, and
 * a client that asked for 500 would take 100 for all.
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

const pluginName = 'pageSize'
SchemaBuilder.registerPlugin(pluginName, PageSizePlugin)
export default pluginName
