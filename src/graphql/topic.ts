import type { Topic } from '../db/generated/prisma/client.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { archiveTopic, createTopic, mergeTopics, updateTopic } from '../knowledge/topics.ts'
import { builder, OrderDirection } from './builder.ts'
import { addEmbeddingFields } from './embedding.ts'
import { requireCount, requireText } from './input.ts'

const defaultColor = '#64748b'
const defaultIcon = 'message-circle'

export const TopicNode = builder.prismaNode('Topic', {
  description: 'A theme that messages and atoms belong to.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What it is called; unique.' }),
    description: t.exposeString('description', { description: 'What it is about. Empty if nobody said.' }),
    keywords: t.exposeStringList('keywords', {
      description: 'Words that are typical of it, most typical first.',
    }),
    color: t.exposeString('color', { description: 'Colour for displays, as `#rrggbb`.' }),
    icon: t.exposeString('icon', { description: 'Icon for displays: a name of the Lucide set.' }),
    archivedAt: t.expose('archivedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was put aside. Null while it is in use.',
    }),
  }),
})

export const TopicConnection = builder.connectionObject(
  { type: TopicNode, name: 'TopicConnection', description: 'A page of topics.' },
  { name: 'TopicEdge', description: 'A topic in a list.' },
)

addEmbeddingFields(TopicNode, 'TOPIC')

const limits = { name: 200, description: 10_000, keywords: 50, keyword: 100, icon: 50, merged: 50 } as const

const TopicFilter = builder.inputType('TopicFilter', {
  description: 'Which topics to list.',
  fields: (t) => ({
    includeArchived: t.boolean({
      defaultValue: false,
      description: 'Whether archived topics are listed, too.',
    }),
  }),
})

const TopicOrderField = builder.enumType('TopicOrderField', {
  description: 'What topics can be ordered by.',
  values: {
    NAME: { description: 'Their name.' },
    CREATED_AT: { description: 'When they were made.' },
  } as const,
})

const TopicOrder = builder.inputType('TopicOrder', {
  description: 'How to order topics.',
  fields: (t) => ({
    field: t.field({ type: TopicOrderField, required: true, description: 'What to order by.' }),
    direction: t.field({ type: OrderDirection, required: true, description: 'Which end comes first.' }),
  }),
})

builder.queryField('topics', (t) =>
  t.prismaConnection(
    {
      type: TopicNode,
      cursor: 'id',
      description: 'Topics, by name unless `orderBy` says otherwise.',
      args: {
        filter: t.arg({ type: TopicFilter, description: 'Which topics.' }),
        orderBy: t.arg({ type: TopicOrder, description: 'In which order.' }),
      },
      resolve: (query, _root, { filter, orderBy }, { database }) => {
        const direction = orderBy?.direction === 'DESC' ? 'desc' : 'asc'
        return database.prisma.topic.findMany({
          ...query,
          where: filter?.includeArchived ? {} : { archivedAt: null },
          orderBy: orderBy?.field === 'CREATED_AT' ? { id: direction } : { name: direction },
        })
      },
    },
    TopicConnection,
  ),
)

const CreateTopicInput = builder.inputType('CreateTopicInput', {
  description: 'A new topic.',
  fields: (t) => ({
    name: t.string({
      required: true,
      description: `What it is called; unique, at most ${limits.name} bytes.`,
    }),
    description: t.string({ description: `What it is about; at most ${limits.description} bytes.` }),
    keywords: t.stringList({ description: `Typical words, most typical first; at most ${limits.keywords}.` }),
    color: t.string({ description: `Colour as \`#rrggbb\`; \`${defaultColor}\` unless given.` }),
    icon: t.string({ description: `A name of the Lucide set; \`${defaultIcon}\` unless given.` }),
  }),
})

const CreateTopicPayload = builder.objectRef<{ topic: Topic }>('CreateTopicPayload').implement({
  description: 'The new topic.',
  fields: (t) => ({
    topic: t.field({ type: TopicNode, description: 'The topic.', resolve: ({ topic }) => topic }),
  }),
})

builder.mutationField('createTopic', (t) =>
  t.field({
    type: CreateTopicPayload,
    nullable: true,
    description: 'Makes a topic. It is embedded by itself.',
    args: { input: t.arg({ type: CreateTopicInput, required: true, description: 'The topic.' }) },
    errors: { types: [InvalidInputError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      requireTopicFields(input)
      const fields = {
        name: input.name,
        description: input.description ?? '',
        keywords: input.keywords ?? [],
        color: input.color ?? defaultColor,
        icon: input.icon ?? defaultIcon,
      }
      return { topic: await database.transaction((transaction) => createTopic(transaction, fields, null)) }
    },
  }),
)

const UpdateTopicInput = builder.inputType('UpdateTopicInput', {
  description: 'A change of a topic; what is left out stays as it is.',
  fields: (t) => ({
    id: t.globalID({ for: TopicNode, required: true, description: 'The topic.' }),
    name: t.string({ description: `What it is called; unique, at most ${limits.name} bytes.` }),
    description: t.string({ description: `What it is about; at most ${limits.description} bytes.` }),
    keywords: t.stringList({ description: `Typical words, most typical first; at most ${limits.keywords}.` }),
    color: t.string({ description: 'Colour as `#rrggbb`.' }),
    icon: t.string({ description: 'A name of the Lucide set.' }),
  }),
})

const UpdateTopicPayload = builder.objectRef<{ topic: Topic }>('UpdateTopicPayload').implement({
  description: 'The changed topic.',
  fields: (t) => ({
    topic: t.field({ type: TopicNode, description: 'The topic.', resolve: ({ topic }) => topic }),
  }),
})

builder.mutationField('updateTopic', (t) =>
  t.field({
    type: UpdateTopicPayload,
    nullable: true,
    description:
      'Changes a topic. If its name, description or keywords change, it is embedded again by itself.',
    args: { input: t.arg({ type: UpdateTopicInput, required: true, description: 'The change.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      requireTopicFields(input)
      const change = {
        name: input.name ?? null,
        description: input.description ?? null,
        keywords: input.keywords ?? null,
        color: input.color ?? null,
        icon: input.icon ?? null,
      }
      return {
        topic: await database.transaction((transaction) => updateTopic(transaction, input.id.id, change)),
      }
    },
  }),
)

const MergeTopicsInput = builder.inputType('MergeTopicsInput', {
  description: 'Which topics become one.',
  fields: (t) => ({
    ids: t.globalIDList({
      for: TopicNode,
      required: true,
      description: `The topics that go, 1..${limits.merged}.`,
    }),
    intoId: t.globalID({ for: TopicNode, required: true, description: 'The topic that remains.' }),
  }),
})

const MergeTopicsPayload = builder.objectRef<{ topic: Topic }>('MergeTopicsPayload').implement({
  description: 'The topic that remains.',
  fields: (t) => ({
    topic: t.field({ type: TopicNode, description: 'The topic.', resolve: ({ topic }) => topic }),
  }),
})

builder.mutationField('mergeTopics', (t) =>
  t.field({
    type: MergeTopicsPayload,
    nullable: true,
    description:
      'Merges topics into one: messages and atoms move, and what is extracted under their old names goes to it, too.',
    args: { input: t.arg({ type: MergeTopicsInput, required: true, description: 'The topics.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database }) => {
      requireCount(input.ids.length, ['ids'], 1, limits.merged)
      const ids = input.ids.map(({ id }) => id)
      return {
        topic: await database.transaction((transaction) => mergeTopics(transaction, input.intoId.id, ids)),
      }
    },
  }),
)

for (const [name, isArchived, description] of [
  ['archiveTopic', true, 'Puts a topic aside: lists and searches leave it out.'],
  ['restoreTopic', false, 'Takes an archived topic into use again.'],
] as const) {
  const typeName = `${name.charAt(0).toUpperCase()}${name.slice(1)}`
  const input = builder.inputType(`${typeName}Input`, {
    description: 'Which topic.',
    fields: (t) => ({ id: t.globalID({ for: TopicNode, required: true, description: 'The topic.' }) }),
  })
  const payload = builder.objectRef<{ topic: Topic }>(`${typeName}Payload`).implement({
    description: 'The topic as it is now.',
    fields: (t) => ({
      topic: t.field({ type: TopicNode, description: 'The topic.', resolve: ({ topic }) => topic }),
    }),
  })
  builder.mutationField(name, (t) =>
    t.field({
      type: payload,
      nullable: true,
      description,
      args: { input: t.arg({ type: input, required: true, description: 'The topic.' }) },
      errors: { types: [InvalidInputError, NotFoundError] },
      resolve: async (_root, { input }, { database }) => ({
        topic: await archiveTopic(database, input.id.id, isArchived),
      }),
    }),
  )
}

function requireTopicFields(input: {
  name?: string | null
  description?: string | null
  keywords?: string[] | null
  color?: string | null
  icon?: string | null
}): void {
  if (input.name != null) requireText(input.name, ['name'], limits.name)
  if (input.description != null) requireText(input.description, ['description'], limits.description, true)
  if (input.keywords) {
    requireCount(input.keywords.length, ['keywords'], 0, limits.keywords)
    for (const [index, word] of input.keywords.entries())
      requireText(word, ['keywords', String(index)], limits.keyword)
  }
  if (input.color != null && !/^#[0-9a-f]{6}$/i.test(input.color)) {
    throw new InvalidInputError(`color is ${JSON.stringify(input.color)}; it must look like #1e90ff`, [
      'color',
    ])
  }
  if (input.icon != null) requireText(input.icon, ['icon'], limits.icon)
}
