import type { AtomLink, AtomLinkType } from '../db/generated/prisma/client.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { linkAtoms, unlinkAtoms } from '../knowledge/links.ts'
import { AtomNode } from './atom.ts'
import { builder } from './builder.ts'
import { pageById } from './id-pages.ts'
import { pageSize } from './page-size.ts'

export const AtomLinkTypeEnum = builder.enumType('AtomLinkType', {
  description: 'How the first atom of a link stands to the second.',
  values: {
    CONTINUES: { description: 'It takes up where the other ends.' },
    SOLVES: { description: 'It mends the problem, answers the question, removes the blocker.' },
    CONTRADICTS: { description: 'Both cannot hold.' },
    SUPPORTS: { description: 'It is a reason for the other.' },
    REFINES: { description: 'It says the same, more exactly.' },
    RELATES_TO: { description: 'They are about the same.' },
    DEPENDS_ON: { description: 'It needs the other.' },
  } satisfies Record<AtomLinkType, { description: string }>,
})

export const LinkDirection = builder.enumType('LinkDirection', {
  description: 'Which links of an atom.',
  values: {
    OUT: { description: 'Those that begin at it.' },
    IN: { description: 'Those that end at it.' },
    BOTH: { description: 'All.' },
  } as const,
})

const AtomLinkNode = builder.prismaNode('AtomLink', {
  description: 'A directed tie between two atoms: `from` <type> `to`, such as solution SOLVES problem.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    from: t.relation('from', { type: AtomNode, description: 'Where it begins.' }),
    to: t.relation('to', { type: AtomNode, description: 'Where it ends.' }),
    type: t.expose('type', { type: AtomLinkTypeEnum, description: 'How `from` stands to `to`.' }),
    strength: t.exposeFloat('strength', {
      nullable: true,
      description: 'How strong it is, 0..1; of RELATES_TO the similarity. Null where nobody can say.',
    }),
  }),
})

const AtomLinkConnection = builder.connectionObject(
  { type: AtomLinkNode, name: 'AtomLinkConnection', description: 'A page of links.' },
  { name: 'AtomLinkEdge', description: 'A link in a list.' },
)

builder.prismaObjectField('Atom', 'links', (t) =>
  t.field({
    type: AtomLinkConnection,
    description: 'How it is tied to other atoms, newest link first.',
    args: {
      direction: t.arg({ type: LinkDirection, defaultValue: 'BOTH', description: 'Which way they lead.' }),
      types: t.arg({ type: [AtomLinkTypeEnum], description: 'Links of these types; all unless given.' }),
      first: t.arg.int({
        description: `How many: ${pageSize.default} unless given, at most ${pageSize.max}.`,
      }),
      after: t.arg.string({ description: 'Only links after this cursor.' }),
    },
    resolve: (atom, { direction, types, ...args }, { loaders }) =>
      pageById(args, (page) =>
        loaders.links.load({
          atomId: atom.id,
          direction: direction ?? 'BOTH',
          types: types ?? null,
          ...page,
        }),
      ),
  }),
)

const LinkAtomsInput = builder.inputType('LinkAtomsInput', {
  description: 'A new link.',
  fields: (t) => ({
    fromId: t.globalID({ for: AtomNode, required: true, description: 'The atom where it begins.' }),
    toId: t.globalID({ for: AtomNode, required: true, description: 'The atom where it ends.' }),
    type: t.field({
      type: AtomLinkTypeEnum,
      required: true,
      description: 'How the first stands to the second.',
    }),
    strength: t.float({ description: 'How strong it is, 0..1.' }),
  }),
})

const LinkAtomsPayload = builder.objectRef<{ link: AtomLink }>('LinkAtomsPayload').implement({
  description: 'The new link.',
  fields: (t) => ({
    link: t.field({ type: AtomLinkNode, description: 'The link.', resolve: ({ link }) => link }),
  }),
})

builder.mutationField('linkAtoms', (t) =>
  t.field({
    type: LinkAtomsPayload,
    nullable: true,
    description: 'Ties two atoms.',
    args: { input: t.arg({ type: LinkAtomsInput, required: true, description: 'The link.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      const strength = input.strength ?? null
      if (strength !== null && !(strength >= 0 && strength <= 1)) {
        throw new InvalidInputError(`strength is ${strength}; it must be 0..1`, ['strength'])
      }
      const fields = { fromId: input.fromId.id, toId: input.toId.id, type: input.type, strength }
      return { link: await database.transaction((transaction) => linkAtoms(transaction, fields)) }
    },
  }),
)

const UnlinkAtomsInput = builder.inputType('UnlinkAtomsInput', {
  description: 'Which link to remove.',
  fields: (t) => ({
    id: t.globalID({ for: AtomLinkNode, required: true, description: 'The link.' }),
  }),
})

const UnlinkAtomsPayload = builder.objectRef<{ id: string }>('UnlinkAtomsPayload').implement({
  description: 'What was removed.',
  fields: (t) => ({
    deletedLinkId: t.globalID({
      description: 'Id of the link that is gone.',
      resolve: ({ id }) => ({ type: 'AtomLink', id }),
    }),
  }),
})

builder.mutationField('unlinkAtoms', (t) =>
  t.field({
    type: UnlinkAtomsPayload,
    nullable: true,
    description: 'Removes a link between two atoms.',
    args: { input: t.arg({ type: UnlinkAtomsInput, required: true, description: 'The link.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database }) => {
      await unlinkAtoms(database, input.id.id)
      return { id: input.id.id }
    },
  }),
)
