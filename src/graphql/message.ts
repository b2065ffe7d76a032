import { createErrorProxy } from '@pothos/plugin-errors'
import type { Message } from '../db/generated/prisma/client.ts'
import { InvalidInputError, NotFoundError } from '../errors.ts'
import type { MessageDraft } from '../ingest/formats/format.ts'
import {
  deleteMessages,
  ensureSource,
  findByIdentity,
  storeMessages,
  updateMessage,
} from '../ingest/messages.ts'
import { findViolation, messageLimits } from '../ingest/normalise.ts'
import { builder, isUuid, OrderDirection, readGlobalId } from './builder.ts'
import { addEmbeddingFields } from './embedding.ts'
import { requireCount, requireText, sourceNameLimit } from './input.ts'
import { TopicNode } from './topic.ts'

const maxMessagesPerCall = 1000

const NoiseEnum = builder.enumType('Noise', {
  description: 'Whether a message is worth reading for knowledge.',
  values: {
    NOISE: { description: 'Importance below 0.30.' },
    WEAK_SIGNAL: { description: 'Importance from 0.30 to 0.60.' },
    SIGNAL: { description: 'Importance above 0.60.' },
  } as const,
})

export const MessageNode = builder.prismaNode('Message', {
  description: 'One chat message. Its identity is source, channel and externalId.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    channel: t.string({
      nullable: true,
      description: 'The room within the source. Null where the source has none.',
      resolve: ({ channel }) => channel || null,
    }),
    threadId: t.exposeString('threadId', {
      nullable: true,
      description: 'The thread that it belongs to, as the source names it. Null outside of threads.',
    }),
    externalId: t.exposeString('externalId', {
      description: 'Its id in the source; unique within source and channel.',
    }),
    author: t.exposeString('author', { description: 'Who wrote it, by the name that the source shows.' }),
    content: t.exposeString('content', { description: 'The text, unchanged.' }),
    sentAt: t.expose('sentAt', { type: 'DateTime', description: 'When it was sent.' }),
    topic: t.relation('topic', {
      type: TopicNode,
      nullable: true,
      description: 'The theme that it belongs to. Null until it is assigned to one.',
    }),
    importance: t.exposeFloat('importance', {
      nullable: true,
      description: 'How much it matters, 0..1. Null until scored.',
    }),
    noise: t.expose('noise', {
      type: NoiseEnum,
      nullable: true,
      description: 'The class of its importance. Null until scored.',
    }),
    conversationId: t.exposeString('conversationId', {
      nullable: true,
      description: 'Messages that answer each other share it. Null until grouped.',
    }),
  }),
})

builder.prismaObjectField(MessageNode, 'replyTo', (t) =>
  t.field({
    type: MessageNode,
    nullable: true,
    description: 'What it answers. Null if it answers nothing, or something that was not imported.',
    resolve: ({ sourceId, channel, replyToExternalId }, _args, { loaders }) =>
      replyToExternalId === null
        ? null
        : loaders.messageByIdentity.load({ sourceId, channel, externalId: replyToExternalId }),
  }),
)

addEmbeddingFields(MessageNode, 'MESSAGE')

export const MessageConnection = builder.connectionObject(
  { type: MessageNode, name: 'MessageConnection', description: 'A page of messages.' },
  { name: 'MessageEdge', description: 'A message in a list.' },
)

builder.prismaObjectField('Topic', 'messages', (t) =>
  t.relatedConnection(
    'messages',
    {
      cursor: 'id',
      description: 'Its messages, oldest first.',
      query: { orderBy: [{ sentAt: 'asc' }, { id: 'asc' }] },
    },
    MessageConnection,
  ),
)

const MessageFilter = builder.inputType('MessageFilter', {
  description: 'Which messages to list. Fields are combined by AND, values of a list by OR.',
  fields: (t) => ({
    sourceIds: t.field({ type: ['ID'], description: 'Messages of these sources.' }),
    channels: t.stringList({ description: 'Messages of these channels, by exact name.' }),
    authors: t.stringList({ description: 'Messages of these authors, by exact name.' }),
    topicIds: t.field({ type: ['ID'], description: 'Messages of these topics.' }),
    conversationIds: t.stringList({ description: 'Messages of these conversations.' }),
    noise: t.field({ type: [NoiseEnum], description: 'Messages of these classes of importance.' }),
    sentAfter: t.field({ type: 'DateTime', description: 'Sent at this moment or later.' }),
    sentBefore: t.field({ type: 'DateTime', description: 'Sent before this moment.' }),
  }),
})

const MessageOrderField = builder.enumType('MessageOrderField', {
  description: 'What messages can be ordered by.',
  values: {
    SENT_AT: { description: 'When they were sent.' },
    CREATED_AT: { description: 'When they were stored here.' },
  } as const,
})

const MessageOrder = builder.inputType('MessageOrder', {
  description: 'How to order messages.',
  fields: (t) => ({
    field: t.field({ type: MessageOrderField, required: true, description: 'What to order by.' }),
    direction: t.field({ type: OrderDirection, required: true, description: 'Which end comes first.' }),
  }),
})

builder.queryField('messages', (t) =>
  t.prismaConnection(
    {
      type: MessageNode,
      cursor: 'id',
      description: 'Messages; the most recently sent first unless `orderBy` says otherwise.',
      args: {
        filter: t.arg({ type: MessageFilter, description: 'Which messages.' }),
        orderBy: t.arg({ type: MessageOrder, description: 'In which order.' }),
      },
      resolve: (query, _root, { filter, orderBy }, { database }) => {
        const direction = orderBy?.direction === 'ASC' ? 'asc' : 'desc'
        const sentAt = {
          ...(filter?.sentAfter ? { gte: filter.sentAfter } : {}),
          ...(filter?.sentBefore ? { lt: filter.sentBefore } : {}),
        }
        return database.prisma.message.findMany({
          ...query,
          where: {
            ...(filter?.sourceIds
              ? { sourceId: { in: filter.sourceIds.map((id) => readGlobalId(id, 'Source').id) } }
              : {}),
            ...(filter?.channels ? { channel: { in: filter.channels } } : {}),
            ...(filter?.authors ? { author: { in: filter.authors } } : {}),
            ...(filter?.topicIds
              ? { topicId: { in: filter.topicIds.map((id) => readGlobalId(id, 'Topic').id) } }
              : {}),
            ...(filter?.conversationIds
              ? { conversationId: { in: filter.conversationIds.filter(isUuid) } }
              : {}),
            ...(filter?.noise ? { noise: { in: filter.noise } } : {}),
            sentAt,
          },
          // Ids are UUIDv7: their order is that of creation.
          orderBy:
            orderBy?.field === 'CREATED_AT' ? { id: direction } : [{ sentAt: direction }, { id: direction }],
        })
      },
    },
    MessageConnection,
  ),
)

const SourceInput = builder.inputType('SourceInput', {
  description: 'Where messages come from; made if there is none of this name and type.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'What people call it.' }),
    type: t.string({ required: true, description: 'What kind of place it is, such as `slack` or `api`.' }),
  }),
})

const MessageInput = builder.inputType('MessageInput', {
  description: 'One message.',
  fields: (t) => ({
    externalId: t.string({
      required: true,
      description: `Its id in the source, unique within source and channel; at most ${messageLimits.externalId} bytes.`,
    }),
    author: t.string({ required: true, description: `Who wrote it; at most ${messageLimits.author} bytes.` }),
    content: t.string({
      required: true,
      description: `The text; at most ${messageLimits.content} bytes of UTF-8, without NUL. Blank is allowed and not embedded.`,
    }),
    sentAt: t.field({ type: 'DateTime', required: true, description: 'When it was sent.' }),
    channel: t.string({ description: 'The room within the source.' }),
    threadId: t.string({ description: 'The thread that it belongs to, as the source names it.' }),
    replyToExternalId: t.string({
      description: 'externalId of the message that it answers, in the same channel; it may come later.',
    }),
  }),
})

const IngestMessagesInput = builder.inputType('IngestMessagesInput', {
  description: 'Messages of one source.',
  fields: (t) => ({
    source: t.field({ type: SourceInput, required: true, description: 'Where they come from.' }),
    messages: t.field({
      type: [MessageInput],
      required: true,
      description: `The messages, 1..${maxMessagesPerCall}.`,
    }),
  }),
})

interface IngestPayload {
  created: number
  updated: number
  unchanged: number
  identities: { sourceId: string; channel: string; externalId: string }[]
  errors: InvalidInputError[]
}

const IngestMessagesPayload = builder.objectRef<IngestPayload>('IngestMessagesPayload').implement({
  description: 'What became of the messages. Those in `errors` were not stored; all others were.',
  fields: (t) => ({
    created: t.exposeInt('created', { description: 'Messages that are new.' }),
    updated: t.exposeInt('updated', {
      description: 'Messages that were known and differ; a changed text is embedded again.',
    }),
    unchanged: t.exposeInt('unchanged', { description: 'Messages that were known just so.' }),
    messages: t.field({
      type: [MessageNode],
      description: 'The stored messages, in the order of the input.',
      resolve: ({ identities }, _args, { database }) => findByIdentity(database, identities),
    }),
    errors: t.field({
      type: [InvalidInputError],
      description: 'Messages that were refused, each with the path to what is wrong.',
      // As they are, the executor would take errors in a list for failures of the query.
      resolve: ({ errors }) =>
        errors.map(
          (error) => createErrorProxy(error, InvalidInputError, { wrapped: true }) as InvalidInputError,
        ),
    }),
  }),
})

builder.mutationField('ingestMessages', (t) =>
  t.field({
    type: IngestMessagesPayload,
    nullable: true,
    description:
      'Stores messages. The same message again changes nothing; a new text under a known identity updates it.',
    args: { input: t.arg({ type: IngestMessagesInput, required: true, description: 'The messages.' }) },
    errors: { types: [InvalidInputError] },
    resolve: async (_root, { input }, { database, scoring }): Promise<IngestPayload> => {
      requireCount(input.messages.length, ['messages'], 1, maxMessagesPerCall)
      requireText(input.source.name, ['source', 'name'], sourceNameLimit)
      requireText(input.source.type, ['source', 'type'], sourceNameLimit)
      const errors: InvalidInputError[] = []
      const drafts: MessageDraft[] = []
      for (const [index, message] of input.messages.entries()) {
        const draft = {
          ...message,
          channel: message.channel ?? null,
          threadId: message.threadId ?? null,
          replyToExternalId: message.replyToExternalId ?? null,
        }
        const violation = findViolation(draft)
        if (violation)
          errors.push(
            new InvalidInputError(`${violation.field} ${violation.problem}`, [
              'messages',
              String(index),
              violation.field,
            ]),
          )
        else drafts.push(draft)
      }
      return database.transaction(async (transaction) => {
        const source = await ensureSource(transaction, input.source.name, input.source.type)
        const outcome = await storeMessages(transaction, scoring, source.id, drafts)
        const identities = drafts.map((draft) => ({
          sourceId: source.id,
          channel: draft.channel ?? '',
          externalId: draft.externalId,
        }))
        return { ...outcome, identities, errors }
      })
    },
  }),
)

const UpdateMessageInput = builder.inputType('UpdateMessageInput', {
  description: 'A change of a message; what is left out stays as it is.',
  fields: (t) => ({
    id: t.globalID({ for: MessageNode, required: true, description: 'The message.' }),
    content: t.string({ description: 'The new text; it is embedded again.' }),
    author: t.string({ description: 'Who wrote it.' }),
  }),
})

const UpdateMessagePayload = builder.objectRef<{ message: Message }>('UpdateMessagePayload').implement({
  description: 'The changed message.',
  fields: (t) => ({
    message: t.field({
      type: MessageNode,
      description:
        'The message as it is now. Give it an alias beside the `message` of an error: one name cannot be both.',
      resolve: ({ message }) => message,
    }),
  }),
})

builder.mutationField('updateMessage', (t) =>
  t.field({
    type: UpdateMessagePayload,
    nullable: true,
    description: 'Changes the text or author of a message.',
    args: { input: t.arg({ type: UpdateMessageInput, required: true, description: 'The change.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database, scoring }) => {
      const violation = findViolation({
        externalId: '-',
        author: input.author ?? '-',
        content: input.content ?? '',
        sentAt: new Date(),
        channel: null,
        threadId: null,
        replyToExternalId: null,
      })
      if (violation) throw new InvalidInputError(`${violation.field} ${violation.problem}`, [violation.field])
      const change = { content: input.content ?? null, author: input.author ?? null }
      const message = await database.transaction((transaction) =>
        updateMessage(transaction, scoring, input.id.id, change),
      )
      return { message }
    },
  }),
)

const DeleteMessagesInput = builder.inputType('DeleteMessagesInput', {
  description: 'What to delete.',
  fields: (t) => ({
    ids: t.globalIDList({
      for: MessageNode,
      required: true,
      description: `The messages, 1..${maxMessagesPerCall}.`,
    }),
  }),
})

const DeleteMessagesPayload = builder.objectRef<{ ids: string[] }>('DeleteMessagesPayload').implement({
  description: 'What was deleted.',
  fields: (t) => ({
    deletedMessageIds: t.globalIDList({
      description: 'Ids of the messages that were there and are gone, with their embeddings.',
      resolve: ({ ids }) => ids.map((id) => ({ type: 'Message', id })),
    }),
  }),
})

builder.mutationField('deleteMessages', (t) =>
  t.field({
    type: DeleteMessagesPayload,
    nullable: true,
    description:
      'Deletes messages and everything that was derived from them alone. Ids that do not exist are passed over.',
    args: { input: t.arg({ type: DeleteMessagesInput, required: true, description: 'The messages.' }) },
    errors: { types: [InvalidInputError] },
    resolve: async (_root, { input }, { database }) => {
      requireCount(input.ids.length, ['ids'], 1, maxMessagesPerCall)
      return {
        ids: await deleteMessages(
          database,
          input.ids.map(({ id }) => id),
        ),
      }
    },
  }),
)
