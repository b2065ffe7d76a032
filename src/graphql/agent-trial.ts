import type { Message, Topic } from '../db/generated/prisma/client.ts'
import { InvalidInputError, NotFoundError } from '../errors.ts'
import type { Reader } from '../extraction/extractors.ts'
import type { Rejection } from '../extraction/prove.ts'
import { type Trial, tryExtraction } from '../extraction/trial.ts'
import { ProviderError } from '../providers/provider.ts'
import { AgentNode, readingOf, readingOfAgent, requireAgentFields } from './agent.ts'
import { AtomTypeEnum } from './atom.ts'
import { AtomLinkTypeEnum } from './atom-link.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { maxMessages, requireMessages } from './extraction.ts'
import { requireCount } from './input.ts'
import { MessageNode } from './message.ts'
import { ProviderNode } from './provider.ts'
import { TopicNode } from './topic.ts'

const messageOf = async (id: string, { loaders }: Context) => {
  const row = await loaders.row.load({ kind: 'MESSAGE', id })
  return row as Message | null
}

const ProposedTopic = builder.objectRef<Trial['topics'][number]>('ProposedTopic').implement({
  description: 'A topic that an extraction would take or make.',
  fields: (t) => ({
    topic: t.field({
      type: TopicNode,
      nullable: true,
      description: 'The topic that exists. Null for a new one.',
      resolve: async ({ topicId }, _args, { loaders }) =>
        topicId === null ? null : ((await loaders.row.load({ kind: 'TOPIC', id: topicId })) as Topic | null),
    }),
    name: t.exposeString('name', { description: 'Its name.' }),
    description: t.exposeString('description', { description: 'What belongs to it.' }),
    keywords: t.exposeStringList('keywords', { description: 'Words that are typical for it.' }),
    confidence: t.exposeFloat('confidence', { description: 'How sure the model is, 0..1.' }),
    messages: t.field({
      type: [MessageNode],
      description: 'The messages that would be assigned to it.',
      resolve: async ({ messageIds }, _args, context) => {
        const found = await Promise.all(messageIds.map((id) => messageOf(id, context)))
        return found.filter((message) => message !== null)
      },
    }),
  }),
})

const ProposedCitation = builder
  .objectRef<{ messageId: string; quote: string }>('ProposedCitation')
  .implement({
    description: 'The exact words of a message that would prove an atom.',
    fields: (t) => ({
      message: t.field({
        type: MessageNode,
        nullable: true,
        description: 'Where they stand. Null if it is deleted by now.',
        resolve: ({ messageId }, _args, context) => messageOf(messageId, context),
      }),
      quote: t.exposeString('quote', { description: 'The words.' }),
    }),
  })

const ProposedAtom = builder.objectRef<Trial['atoms'][number]>('ProposedAtom').implement({
  description: 'An atom that an extraction would propose.',
  fields: (t) => ({
    type: t.expose('type', { type: AtomTypeEnum, description: 'What it is.' }),
    title: t.exposeString('title', { description: 'Its headline.' }),
    content: t.exposeString('content', { description: 'The knowledge, understood without the messages.' }),
    confidence: t.exposeFloat('confidence', { description: 'How sure the model is, 0..1.' }),
    topicName: t.exposeString('topicName', {
      nullable: true,
      description: 'Name of the topic that it would belong to. Null if none.',
    }),
    citations: t.field({
      type: [ProposedCitation],
      description: 'What proves it; at least one.',
      resolve: ({ quotes }) => quotes,
    }),
  }),
})

const ProposedLink = builder.objectRef<Trial['links'][number]>('ProposedLink').implement({
  description: 'A tie between two atoms that an extraction would propose.',
  fields: (t) => ({
    from: t.exposeString('from', { description: 'Title of the first atom, proposed or existing.' }),
    type: t.expose('type', { type: AtomLinkTypeEnum, description: 'How `from` stands to `to`.' }),
    to: t.exposeString('to', { description: 'Title of the second atom, proposed or existing.' }),
    strength: t.exposeFloat('strength', {
      nullable: true,
      description: 'How strong the tie is, 0..1. Null if the model did not say.',
    }),
  }),
})

const ProposalKindEnum = builder.enumType('ProposalKind', {
  description: 'What a model proposes.',
  values: {
    TOPIC: { description: 'A topic.' },
    ATOM: { description: 'An atom.' },
    CITATION: { description: 'The words that are to prove an atom.' },
    LINK: { description: 'A tie between two atoms.' },
  } satisfies Record<Rejection['kind'], { description: string }>,
})

const RejectedProposal = builder.objectRef<Rejection>('RejectedProposal').implement({
  description: 'Something that a model proposed and that would not be stored.',
  fields: (t) => ({
    kind: t.expose('kind', { type: ProposalKindEnum, description: 'What it is.' }),
    text: t.exposeString('text', {
      description: 'Name of the topic, title of the atom, the quote, or both titles of the link.',
    }),
    reason: t.exposeString('reason', { description: 'Why it would not be.' }),
  }),
})

const TryAgentInput = builder.inputType('TryAgentInput', {
  description:
    'What to try on which messages: a stored agent, one that need not be stored (`providerId` and the rest), or a stored one with changes.',
  fields: (t) => ({
    agentId: t.globalID({
      for: AgentNode,
      description: 'A stored agent. What is given beside it is taken instead of its own.',
    }),
    providerId: t.globalID({
      for: ProviderNode,
      description: 'Whose model reads; needed without an agentId.',
    }),
    model: t.string({ description: 'The chat model; that of the agent or the provider unless given.' }),
    instructions: t.string({
      description: 'What to look for; null: those that ship. Those of the agent unless given.',
    }),
    temperature: t.float({ description: 'As in CreateAgentInput.' }),
    maxOutputTokens: t.int({ description: 'As in CreateAgentInput.' }),
    messageIds: t.globalIDList({
      for: MessageNode,
      required: true,
      description: `The messages to read, 1..${maxMessages}.`,
    }),
  }),
})

const TryAgentPayload = builder.objectRef<Trial & { model: string }>('TryAgentPayload').implement({
  description:
    'What would be extracted. Nothing of it is stored; whether a topic or an atom is there already under another name is seen only when it is.',
  fields: (t) => ({
    model: t.exposeString('model', { description: 'The model that has read.' }),
    topics: t.expose('topics', { type: [ProposedTopic], description: 'Topics, known and new.' }),
    atoms: t.expose('atoms', { type: [ProposedAtom], description: 'Atoms.' }),
    links: t.expose('links', { type: [ProposedLink], description: 'Links between atoms.' }),
    rejections: t.expose('rejections', {
      type: [RejectedProposal],
      description: 'What was proposed and would not be stored, with the reason.',
    }),
    problems: t.exposeStringList('problems', {
      description: 'Parts of the answer that could not be read, a sentence each.',
    }),
    tokensIn: t.exposeInt('tokensIn', {
      description: 'Tokens that were sent, as the provider counts them. 0 where it does not.',
    }),
    tokensOut: t.exposeInt('tokensOut', {
      description: 'Tokens of the answers, as the provider counts them. 0 where it does not.',
    }),
    durationMs: t.int({
      description: 'How long the provider took, milliseconds.',
      resolve: ({ ms }) => Math.round(ms),
    }),
  }),
})

builder.mutationField('tryAgent', (t) =>
  t.field({
    type: TryAgentPayload,
    nullable: true,
    description:
      'Reads messages by an agent and shows what it would extract; stores nothing of it. Asks the provider, so it costs what such a request costs. Takes 2 minutes at most.',
    args: { input: t.arg({ type: TryAgentInput, required: true, description: 'What to try.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ProviderError] },
    resolve: async (_root, { input }, context) => {
      requireAgentFields(input)
      requireCount(input.messageIds.length, ['messageIds'], 1, maxMessages)
      const messageIds = [...new Set(input.messageIds.map(({ id }) => id))]
      await requireMessages(context.database, messageIds)
      const reader = await openReader(input, context)
      try {
        const trial = await tryExtraction(context, reader, messageIds, context.extraction)
        return { ...trial, model: reader.extractor.model }
      } finally {
        await reader.close()
      }
    },
  }),
)

/** @throws InvalidInputError, NotFoundError, ProviderError */
async function openReader(
  { agentId, providerId, ...change }: typeof TryAgentInput.$inferInput,
  context: Context,
): Promise<Reader> {
  if (agentId != null) {
    const reading = await readingOfAgent(agentId.id, { ...change, providerId }, context)
    return context.extractors.openDraft(reading)
  }
  if (providerId == null) {
    throw new InvalidInputError('Neither agentId nor providerId is given; give one of them, or both', [
      'providerId',
    ])
  }
  return context.extractors.openDraft(await readingOf({ ...change, providerId }, context))
}
