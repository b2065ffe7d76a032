import type { Revision } from '../db/generated/prisma/client.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { decideRevision } from '../knowledge/revisions.ts'
import { ReviewStateEnum } from './atom.ts'
import { builder } from './builder.ts'
import { Searchable } from './search.ts'

const RevisionNode = builder.prismaNode('Revision', {
  description: 'A proposed or decided change of an atom or a topic.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    node: t.field({
      type: Searchable,
      description: 'What it changes.',
      resolve: async ({ atomId, topicId }, _args, { loaders }) => {
        const row = await loaders.row.load(
          atomId === null ? { kind: 'TOPIC', id: topicId ?? '' } : { kind: 'ATOM', id: atomId },
        )
        if (!row) throw new Error('the owner of a revision is gone')
        return row
      },
    }),
    number: t.exposeInt('number', { description: 'Counted from 1 for each atom or topic.' }),
    state: t.expose('state', {
      type: ReviewStateEnum,
      description: 'What people say to it; APPROVED changes are made.',
    }),
    changes: t.expose('changes', {
      type: 'JSON',
      description:
        'What it changes: for `title`, `content`, `name` and `description` the text `from` and `to`, and `citations` that are added.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was proposed.' }),
    decidedAt: t.expose('decidedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was decided. Null until then.',
    }),
  }),
})

const RevisionConnection = builder.connectionObject(
  { type: RevisionNode, name: 'RevisionConnection', description: 'A page of revisions.' },
  { name: 'RevisionEdge', description: 'A revision in a list.' },
)

for (const owner of ['Atom', 'Topic'] as const) {
  builder.prismaObjectField(owner, 'revisions', (t) =>
    t.relatedConnection(
      'revisions',
      {
        cursor: 'id',
        description: 'Changes that were proposed, newest first.',
        query: { orderBy: { id: 'desc' } },
      },
      RevisionConnection,
    ),
  )
}

const RevisionFilter = builder.inputType('RevisionFilter', {
  description: 'Which revisions to list.',
  fields: (t) => ({
    states: t.field({ type: [ReviewStateEnum], description: 'Revisions in these states.' }),
  }),
})

builder.queryField('revisions', (t) =>
  t.prismaConnection(
    {
      type: RevisionNode,
      cursor: 'id',
      description: 'Changes that were proposed, newest first.',
      args: { filter: t.arg({ type: RevisionFilter, description: 'Which revisions.' }) },
      resolve: (query, _root, { filter }, { database }) =>
        database.prisma.revision.findMany({
          ...query,
          where: filter?.states ? { state: { in: filter.states } } : {},
          orderBy: { id: 'desc' },
        }),
    },
    RevisionConnection,
  ),
)

for (const [verb, state, description] of [
  ['approve', 'APPROVED', 'Makes a proposed change. What it touches is embedded again by itself.'],
  ['reject', 'REJECTED', 'Turns a proposed change down for good: the same is not proposed again.'],
] as const) {
  const name = `${verb.charAt(0).toUpperCase()}${verb.slice(1)}Revision`
  const input = builder.inputType(`${name}Input`, {
    description: 'Which revision.',
    fields: (t) => ({
      id: t.globalID({ for: RevisionNode, required: true, description: 'The revision.' }),
    }),
  })
  const payload = builder.objectRef<{ revision: Revision }>(`${name}Payload`).implement({
    description: 'The decided revision.',
    fields: (t) => ({
      revision: t.field({
        type: RevisionNode,
        description: 'The revision.',
        resolve: ({ revision }) => revision,
      }),
    }),
  })
  builder.mutationField(`${verb}Revision`, (t) =>
    t.field({
      type: payload,
      nullable: true,
      description,
      args: { input: t.arg({ type: input, required: true, description: 'The revision.' }) },
      errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
      resolve: async (_root, { input }, { database }) => ({
        revision: await database.transaction((transaction) =>
          decideRevision(transaction, input.id.id, state),
        ),
      }),
    }),
  )
}
