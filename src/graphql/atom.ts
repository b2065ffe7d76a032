import { prismaConnectionHelpers } from '@pothos/plugin-prisma'
import type { Atom, AtomType, ReviewState } from '../db/generated/prisma/client.ts'
import { InvalidInputError, NotFoundError } from '../errors.ts'
import { archiveAtom, createAtom, deleteAtoms, reviewAtom, updateAtom } from '../knowledge/atoms.ts'
import { builder, OrderDirection } from './builder.ts'
import type { Context } from './context.ts'
import { addEmbeddingFields } from './embedding.ts'
import { requireCount, requireText } from './input.ts'
import { ProviderTypeEnum } from './provider.ts'
import { TopicConnection, TopicNode } from './topic.ts'

const limits = { title: 500, content: 100_000, topics: 50, note: 2000, deleted: 100 } as const

export const AtomTypeEnum = builder.enumType('AtomType', {
  description: 'What an atom is.',
  values: {
    PROBLEM: { description: 'Something does not work or is missing.' },
    SOLUTION: { description: 'What mended a problem, or would.' },
    DECISION: { description: 'What was agreed.' },
    QUESTION: { description: 'What somebody wants to know.' },
    INSIGHT: { description: 'What was found out.' },
    PATTERN: { description: 'What happens again and again.' },
    REQUIREMENT: { description: 'What must hold.' },
    IDEA: { description: 'What could be done.' },
    BLOCKER: { description: 'What keeps work from going on.' },
    RISK: { description: 'What could go wrong.' },
  } satisfies Record<AtomType, { description: string }>,
})

export const ReviewStateEnum = builder.enumType('ReviewState', {
  description: 'What people say to a proposal.',
  values: {
    PENDING: { description: 'Nobody has looked yet.' },
    APPROVED: { description: 'It holds.' },
    REJECTED: { description: 'It does not hold.' },
  } satisfies Record<ReviewState, { description: string }>,
})

// Whole rows: a selection taken from the query would see `edges.node` and not `nodes`.
const topicsOfAtom = prismaConnectionHelpers(builder, 'AtomTopic', {
  cursor: 'atomId_topicId',
  query: { orderBy: { topicId: 'asc' } },
  select: () => ({ topic: true }),
  resolveNode: ({ topic }) => topic,
})

const atomsOfTopic = prismaConnectionHelpers(builder, 'AtomTopic', {
  cursor: 'atomId_topicId',
  query: { orderBy: { atomId: 'desc' } },
  select: () => ({ atom: true }),
  resolveNode: ({ atom }) => atom,
})

export const AtomNode = builder.prismaNode('Atom', {
  description: 'One self-contained unit of knowledge.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    type: t.expose('type', { type: AtomTypeEnum, description: 'What it is.' }),
    title: t.exposeString('title', { description: 'It in a few words.' }),
    content: t.exposeString('content', { description: 'It in full; understandable by itself.' }),
    confidence: t.exposeFloat('confidence', {
      nullable: true,
      description: 'How sure whoever extracted it was, 0..1. Null if a person wrote it.',
    }),
    reviewState: t.expose('reviewState', { type: ReviewStateEnum, description: 'What people say to it.' }),
    reviewNote: t.exposeString('reviewNote', {
      nullable: true,
      description: 'Why it was rejected. Null if nobody said.',
    }),
    extractedBy: t.expose('extractedBy', {
      type: ProviderTypeEnum,
      nullable: true,
      description: 'What kind of extractor proposed it; LOCAL works by rules. Null if a person wrote it.',
    }),
    extractionModel: t.exposeString('extractionModel', {
      nullable: true,
      description: 'The model that proposed it, `rules` for LOCAL. Null if a person wrote it.',
    }),
    archivedAt: t.expose('archivedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was put aside. Null while it is in use.',
    }),
    topics: t.connection(
      {
        type: TopicNode,
        description: 'The themes that it belongs to, oldest theme first.',
        select: (args, context, nestedSelection) => ({
          topics: topicsOfAtom.getQuery(args, context, nestedSelection),
        }),
        resolve: (atom, args, context) => topicsOfAtom.resolve(atom.topics, args, context),
      },
      TopicConnection,
    ),
  }),
})

addEmbeddingFields(AtomNode, 'ATOM')

export const AtomConnection = builder.connectionObject(
  { type: AtomNode, name: 'AtomConnection', description: 'A page of atoms.' },
  { name: 'AtomEdge', description: 'An atom in a list.' },
)

builder.prismaObjectField('Topic', 'atoms', (t) =>
  t.connection(
    {
      type: AtomNode,
      description: 'Its atoms, newest first.',
      select: (args, context, nestedSelection) => ({
        atoms: atomsOfTopic.getQuery(args, context, nestedSelection),
      }),
      resolve: (topic, args, context) => atomsOfTopic.resolve(topic.atoms, args, context),
    },
    AtomConnection,
  ),
)

const AtomFilter = builder.inputType('AtomFilter', {
  description: 'Which atoms to list. Fields are combined by AND, values of a list by OR.',
  fields: (t) => ({
    types: t.field({ type: [AtomTypeEnum], description: 'Atoms of these types.' }),
    reviewStates: t.field({ type: [ReviewStateEnum], description: 'Atoms in these states.' }),
    topicIds: t.globalIDList({ for: TopicNode, description: 'Atoms of these topics.' }),
    includeArchived: t.boolean({
      defaultValue: false,
      description: 'Whether archived atoms are listed, too.',
    }),
  }),
})

const AtomOrderField = builder.enumType('AtomOrderField', {
  description: 'What atoms can be ordered by.',
  values: { CREATED_AT: { description: 'When they were made.' } } as const,
})

const AtomOrder = builder.inputType('AtomOrder', {
  description: 'How to order atoms.',
  fields: (t) => ({
    field: t.field({ type: AtomOrderField, required: true, description: 'What to order by.' }),
    direction: t.field({ type: OrderDirection, required: true, description: 'Which end comes first.' }),
  }),
})

builder.queryField('atoms', (t) =>
  t.prismaConnection(
    {
      type: AtomNode,
      cursor: 'id',
      description: 'Atoms, newest first unless `orderBy` says otherwise.',
      args: {
        filter: t.arg({ type: AtomFilter, description: 'Which atoms.' }),
        orderBy: t.arg({ type: AtomOrder, description: 'In which order.' }),
      },
      resolve: (query, _root, { filter, orderBy }, { database }) =>
        database.prisma.atom.findMany({
          ...query,
          where: {
            ...(filter?.types ? { type: { in: filter.types } } : {}),
            ...(filter?.reviewStates ? { reviewState: { in: filter.reviewStates } } : {}),
            ...(filter?.topicIds
              ? { topics: { some: { topicId: { in: filter.topicIds.map(({ id }) => id) } } } }
              : {}),
            ...(filter?.includeArchived ? {} : { archivedAt: null }),
          },
          // Ids are UUIDv7: their order is that of creation.
          orderBy: { id: orderBy?.direction === 'ASC' ? 'asc' : 'desc' },
        }),
    },
    AtomConnection,
  ),
)

const CreateAtomInput = builder.inputType('CreateAtomInput', {
  description: 'A new atom.',
  fields: (t) => ({
    type: t.field({ type: AtomTypeEnum, required: true, description: 'What it is.' }),
    title: t.string({ required: true, description: `It in a few words; at most ${limits.title} bytes.` }),
    content: t.string({ required: true, description: `It in full; at most ${limits.content} bytes.` }),
    confidence: t.float({ description: 'How sure its maker is, 0..1.' }),
    topicIds: t.globalIDList({
      for: TopicNode,
      description: `The themes that it belongs to; at most ${limits.topics}.`,
    }),
  }),
})

const CreateAtomPayload = builder.objectRef<{ atom: Atom }>('CreateAtomPayload').implement({
  description: 'The new atom.',
  fields: (t) => ({
    atom: t.field({ type: AtomNode, description: 'The atom.', resolve: ({ atom }) => atom }),
  }),
})

builder.mutationField('createAtom', (t) =>
  t.field({
    type: CreateAtomPayload,
    nullable: true,
    description: 'Makes an atom. It is embedded by itself.',
    args: { input: t.arg({ type: CreateAtomInput, required: true, description: 'The atom.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database }) => {
      requireAtomFields(input)
      const { confidence } = input
      if (confidence != null && !(confidence >= 0 && confidence <= 1)) {
        throw new InvalidInputError(`confidence is ${confidence}; it must be 0..1`, ['confidence'])
      }
      const topicIds = input.topicIds?.map(({ id }) => id) ?? []
      const atom = await database.transaction((transaction) =>
        createAtom(
          transaction,
          { ...input, confidence: confidence ?? null, reviewState: 'PENDING', topicIds },
          null,
        ),
      )
      return { atom }
    },
  }),
)

const UpdateAtomInput = builder.inputType('UpdateAtomInput', {
  description: 'A change of an atom; what is left out stays as it is.',
  fields: (t) => ({
    id: t.globalID({ for: AtomNode, required: true, description: 'The atom.' }),
    type: t.field({ type: AtomTypeEnum, description: 'What it is.' }),
    title: t.string({ description: `It in a few words; at most ${limits.title} bytes.` }),
    content: t.string({ description: `It in full; at most ${limits.content} bytes.` }),
    topicIds: t.globalIDList({
      for: TopicNode,
      description: `The themes that it belongs to from now on; at most ${limits.topics}.`,
    }),
  }),
})

const UpdateAtomPayload = builder.objectRef<{ atom: Atom }>('UpdateAtomPayload').implement({
  description: 'The changed atom.',
  fields: (t) => ({
    atom: t.field({ type: AtomNode, description: 'The atom.', resolve: ({ atom }) => atom }),
  }),
})

builder.mutationField('updateAtom', (t) =>
  t.field({
    type: UpdateAtomPayload,
    nullable: true,
    description: 'Changes an atom. If its title or content changes, it is embedded again by itself.',
    args: { input: t.arg({ type: UpdateAtomInput, required: true, description: 'The change.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database }) => {
      requireAtomFields(input)
      const change = {
        type: input.type ?? null,
        title: input.title ?? null,
        content: input.content ?? null,
        topicIds: input.topicIds?.map(({ id }) => id) ?? null,
      }
      const atom = await database.transaction((transaction) => updateAtom(transaction, input.id.id, change))
      return { atom }
    },
  }),
)

/** A mutation that takes an atom's id, and perhaps more, and gives the atom as it is then. */
function atomMutation(
  name: string,
  description: string,
  change: (context: Context, id: string, input: { reason?: string | null }) => Promise<Atom>,
  hasReason = false,
): void {
  const typeName = `${name.charAt(0).toUpperCase()}${name.slice(1)}`
  const input = builder.inputType(`${typeName}Input`, {
    description: 'Which atom.',
    fields: (t) => ({
      id: t.globalID({ for: AtomNode, required: true, description: 'The atom.' }),
      ...(hasReason ? { reason: t.string({ description: `Why; at most ${limits.note} bytes.` }) } : {}),
    }),
  })
  const payload = builder.objectRef<{ atom: Atom }>(`${typeName}Payload`).implement({
    description: 'The atom as it is now.',
    fields: (t) => ({
      atom: t.field({ type: AtomNode, description: 'The atom.', resolve: ({ atom }) => atom }),
    }),
  })
  builder.mutationField(name, (t) =>
    t.field({
      type: payload,
      nullable: true,
      description,
      args: { input: t.arg({ type: input, required: true, description: 'The atom.' }) },
      errors: { types: [InvalidInputError, NotFoundError] },
      resolve: async (_root, { input }, context) => {
        const { reason } = input as { reason?: string | null }
        if (reason != null) requireText(reason, ['reason'], limits.note)
        return { atom: await change(context, input.id.id, { reason: reason ?? null }) }
      },
    }),
  )
}

atomMutation('approveAtom', 'Says that an atom holds.', ({ database }, id) =>
  reviewAtom(database, id, 'APPROVED', null),
)
atomMutation(
  'rejectAtom',
  'Says that an atom does not hold. Searches leave it out, and it is not proposed again.',
  ({ database }, id, { reason }) => reviewAtom(database, id, 'REJECTED', reason ?? null),
  true,
)
atomMutation('archiveAtom', 'Puts an atom aside: lists and searches leave it out.', ({ database }, id) =>
  archiveAtom(database, id, true),
)
atomMutation('restoreAtom', 'Takes an archived atom into use again.', ({ database }, id) =>
  archiveAtom(database, id, false),
)

const DeleteAtomsInput = builder.inputType('DeleteAtomsInput', {
  description: 'What to delete.',
  fields: (t) => ({
    ids: t.globalIDList({ for: AtomNode, required: true, description: `The atoms, 1..${limits.deleted}.` }),
  }),
})

const DeleteAtomsPayload = builder.objectRef<{ ids: string[] }>('DeleteAtomsPayload').implement({
  description: 'What was deleted.',
  fields: (t) => ({
    deletedAtomIds: t.globalIDList({
      description:
        'Ids of the atoms that were there and are gone, with their links, citations and revisions.',
      resolve: ({ ids }) => ids.map((id) => ({ type: 'Atom', id })),
    }),
  }),
})

builder.mutationField('deleteAtoms', (t) =>
  t.field({
    type: DeleteAtomsPayload,
    nullable: true,
    description: 'Deletes atoms. Ids that do not exist are passed over.',
    args: { input: t.arg({ type: DeleteAtomsInput, required: true, description: 'The atoms.' }) },
    errors: { types: [InvalidInputError] },
    resolve: async (_root, { input }, { database }) => {
      requireCount(input.ids.length, ['ids'], 1, limits.deleted)
      return {
        ids: await deleteAtoms(
          database,
          input.ids.map(({ id }) => id),
        ),
      }
    },
  }),
)

function requireAtomFields(input: {
  title?: string | null
  content?: string | null
  topicIds?: unknown[] | null
}): void {
  if (input.title != null) requireText(input.title, ['title'], limits.title)
  if (input.content != null) requireText(input.content, ['content'], limits.content)
  if (input.topicIds) requireCount(input.topicIds.length, ['topicIds'], 0, limits.topics)
}
