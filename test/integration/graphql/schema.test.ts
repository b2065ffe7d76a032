import {
  type GraphQLField,
  type GraphQLInputField,
  type GraphQLNamedType,
  getNamedType,
  getNullableType,
  isEnumType,
  isInputObjectType,
  isInterfaceType,
  isListType,
  isNonNullType,
  isObjectType,
  isScalarType,
  isUnionType,
} from 'graphql'
import { describe, expect, test } from 'vitest'
import { schema } from '../../../src/graphql/schema.ts'

const builtIn = new Set(['String', 'Int', 'Float', 'Boolean', 'ID'])
const types = Object.values(schema.getTypeMap()).filter(
  ({ name }) => !name.startsWith('__') && !builtIn.has(name),
)

const roots = [schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()]
const objects = types.filter((type) => isObjectType(type))
const fields = types.flatMap((type) =>
  isObjectType(type) || isInterfaceType(type)
    ? Object.values(type.getFields()).map((field) => ({ path: `${type.name}.${field.name}`, type, field }))
    : [],
)
const inputFields = types.flatMap((type) =>
  isInputObjectType(type)
    ? Object.values(type.getFields()).map((field) => ({ path: `${type.name}.${field.name}`, type, field }))
    : [],
)
const args = fields.flatMap(({ path, field }) =>
  field.args.map((arg) => ({ path: `${path}(${arg.name}:)`, arg })),
)
const enumValues = types.flatMap((type) =>
  isEnumType(type) ? type.getValues().map((value) => ({ path: `${type.name}.${value.name}`, value })) : [],
)

/** The paths of those that break a rule. */
function broken<Item extends { path: string }>(items: readonly Item[], isRight: (item: Item) => boolean) {
  return items.filter((item) => !isRight(item)).map(({ path }) => path)
}

const named = <Type extends GraphQLNamedType>(list: readonly Type[]) =>
  list.map((type) => ({ path: type.name, type }))

describe('descriptions', () => {
  const described = [
    ...named(types).map(({ path, type }) => ({ path, description: type.description })),
    ...fields.map(({ path, field }) => ({ path, description: field.description })),
    ...inputFields.map(({ path, field }) => ({ path, description: field.description })),
    ...args.map(({ path, arg }) => ({ path, description: arg.description })),
    ...enumValues.map(({ path, value }) => ({ path, description: value.description })),
  ]

  test('stand at everything', () => {
    expect(described.length).toBeGreaterThan(300)
    expect(broken(described, ({ description }) => Boolean(description))).toEqual([])
  })

  test('are sentences, without notes to oneself', () => {
    expect(
      broken(
        described,
        ({ description }) =>
          /^[\p{Lu}\d`].*\.$/su.test(description ?? '') &&
          !/TODO|FIXME|XXX|\[internal\]/i.test(description ?? ''),
      ).filter((path) => !sentencesThatBeginWithAName.has(path)),
    ).toEqual([])
  })

  const sentencesThatBeginWithAName = new Set(['MessageInput.replyToExternalId'])

  test('say what null means where a field can be null', () => {
    const nullable = fields.filter(
      ({ type, field }) => !isNonNullType(field.type) && type !== schema.getMutationType(),
    )
    expect(broken(nullable, ({ field }) => /\bnull\b/i.test(field.description ?? ''))).toEqual([])
  })
})

describe('names', () => {
  test('of types are in PascalCase without a suffix that says nothing', () => {
    expect(
      broken(
        named(types.filter((type) => type.name !== 'JSON')),
        ({ path }) => /^([A-Z][a-z]+)+$/.test(path) && !/(Model|Data|Node)$/.test(path.replace(/^Node$/, '')),
      ),
    ).toEqual([])
  })

  test('of fields and arguments are in camelCase, and never begin with get', () => {
    const all = [...fields, ...inputFields].map(({ path, field }) => ({ path, name: field.name }))
    const everything = [...all, ...args.map(({ path, arg }) => ({ path, name: arg.name }))]
    expect(
      broken(everything, ({ name }) => /^[a-z]+([A-Z][a-z]*)*$/.test(name) && !/^get[A-Z]/.test(name)),
    ).toEqual([])
  })

  test('of enum values are in SCREAMING_SNAKE_CASE', () => {
    expect(broken(enumValues, ({ value }) => /^[A-Z]+(_[A-Z0-9]+)*$/.test(value.name))).toEqual([])
  })

  test('that end in Input, Filter and Order belong to input types, and no others do', () => {
    const inputs = types.filter((type) => isInputObjectType(type))
    expect(broken(named(inputs), ({ path }) => /(Input|Filter|Order)$/.test(path))).toEqual([])
    const others = types.filter((type) => !isInputObjectType(type))
    expect(broken(named(others), ({ path }) => !/(Input|Filter|Order)$/.test(path))).toEqual([])
  })

  test('that end in Result belong to the unions of mutations, and no others do', () => {
    const results = types.filter((type) => type.name.endsWith('Result'))
    const ofMutations = Object.values(schema.getMutationType()?.getFields() ?? {}).map((field) =>
      getNamedType(field.type),
    )
    expect(new Set(results)).toEqual(new Set(ofMutations))
  })

  test('that end in Error belong to types that implement UserError', () => {
    expect(
      broken(
        named(objects),
        ({ path, type }) =>
          path.endsWith('Error') === type.getInterfaces().some(({ name }) => name === 'UserError'),
      ),
    ).toEqual([])
  })

  test('of Booleans say a state or an ability', () => {
    const booleans = [...fields, ...inputFields].filter(
      ({ field }) => getNullableType(field.type).toString() === 'Boolean',
    )
    const isState = (name: string) => /^(is|has|can|include|retry)[A-Z]|^(force|extract)$/.test(name)
    expect(broken(booleans, ({ field }) => isState(field.name))).toEqual([])
  })

  test('of moments end in At, or in Until, and so do the moments of input, but for the ends of a range', () => {
    const moments = [...fields, ...inputFields].filter(
      ({ field }) => getNamedType(field.type).name === 'DateTime',
    )
    expect(
      broken(moments, ({ field }) => /^at$|At$|Until$|^sent(After|Before)$|^(from|to)$/.test(field.name)),
    ).toEqual([])
  })
})

describe('ids', () => {
  test('are fields called id of type ID!, on types that are nodes', () => {
    const ids = fields.filter(({ field, type }) => field.name === 'id' && isObjectType(type))
    expect(broken(ids, ({ field }) => field.type.toString() === 'ID!')).toEqual([])
    const nodes = objects.filter((type) => type.getInterfaces().some(({ name }) => name === 'Node'))
    expect(ids.map(({ type }) => type.name)).toEqual(nodes.map(({ name }) => name))
  })

  test('are of type ID wherever they are asked for', () => {
    // The ids of the source and of a conversation are opaque to this API.
    const foreign = new Set([
      'externalId',
      'threadId',
      'replyToExternalId',
      'conversationId',
      'conversationIds',
    ])
    const asked = [...inputFields, ...fields, ...args.map(({ path, arg }) => ({ path, field: arg }))].filter(
      ({ field }) => /(^id|Id|Ids|^ids)$/.test(field.name) && !foreign.has(field.name),
    )
    expect(broken(asked, ({ field }) => getNamedType(field.type).name === 'ID')).toEqual([])
  })
})

describe('lists', () => {
  test('hold no null and are empty rather than null, but for nodes(ids:)', () => {
    const isWhole = (field: GraphQLField<unknown, unknown> | GraphQLInputField, mayBeLeftOut: boolean) => {
      const list = getNullableType(field.type)
      return !isListType(list) || (isNonNullType(list.ofType) && (mayBeLeftOut || isNonNullType(field.type)))
    }
    expect(broken(fields, ({ field }) => isWhole(field, false))).toEqual(['Query.nodes'])
    expect(broken(inputFields, ({ field }) => isWhole(field, true))).toEqual([])
  })

  test('that are paged are connections with edges, nodes and pageInfo', () => {
    const connections = objects.filter(({ name }) => name.endsWith('Connection'))
    expect(connections.length).toBeGreaterThan(4)
    for (const connection of connections) {
      const { edges, nodes, pageInfo } = connection.getFields()
      const noun = connection.name.replace('Connection', '')
      expect([edges, nodes, pageInfo].map((field) => field?.type.toString())).toEqual([
        `[${noun}Edge!]!`,
        `[${noun === 'Search' ? 'Searchable' : noun}!]!`,
        'PageInfo!',
      ])
    }
  })

  test('that take a size say its default and its limit', () => {
    const sizes = args.filter(({ arg }) => arg.name === 'first' || arg.name === 'last')
    expect(broken(sizes, ({ arg }) => /\b100\b/.test(arg.description ?? ''))).toEqual([])
    const returned = fields.filter(({ field }) => getNamedType(field.type).name.endsWith('Connection'))
    expect(broken(returned, ({ field }) => field.args.some(({ name }) => name === 'first'))).toEqual([])
  })
})

describe('mutations', () => {
  const mutations = Object.values(schema.getMutationType()?.getFields() ?? {})
  const nameOf = (mutation: { name: string }) =>
    `${mutation.name.charAt(0).toUpperCase()}${mutation.name.slice(1)}`

  test.each(mutations.map((mutation) => [mutation.name, mutation] as const))(
    '%s takes one input and returns a nullable union of its payload and errors',
    (_name, mutation) => {
      expect(mutation.args.map((arg) => `${arg.name}: ${arg.type}`)).toEqual([
        `input: ${nameOf(mutation)}Input!`,
      ])
      const result = mutation.type
      if (!isUnionType(result)) throw new Error(`${mutation.name} returns ${result}`)
      expect(result.name).toBe(`${nameOf(mutation)}Result`)
      const [payloads, errors] = [/Payload$/, /Error$/].map((pattern) =>
        result.getTypes().filter(({ name }) => pattern.test(name)),
      )
      expect(payloads?.map(({ name }) => name)).toEqual([`${nameOf(mutation)}Payload`])
      expect(errors?.map(({ name }) => name)).toContain('InputError')
      expect(result.getTypes()).toHaveLength(1 + (errors?.length ?? 0))
    },
  )
})

test('queries and subscriptions are not null unless null means not found', () => {
  const read = roots.flatMap((root) =>
    root === schema.getMutationType() ? [] : Object.values(root?.getFields() ?? {}),
  )
  expect(read.filter((field) => !isNonNullType(field.type)).map(({ name }) => name)).toEqual(['node'])
})

test('scalars are those of GraphQL, DateTime, JSON and File', () => {
  const scalars = types.filter((type) => isScalarType(type)).map(({ name }) => name)
  expect(scalars.sort()).toEqual(['DateTime', 'File', 'JSON'])
})
