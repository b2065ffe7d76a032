import { builder } from './builder.ts'
import { EntityKindEnum } from './embedding.ts'
import { JobKindEnum } from './job.ts'

const AlertTypeEnum = builder.enumType('AlertType', {
  description: 'What is wrong.',
  values: {
    JOBS_FAILING: { description: 'Three jobs of one kind, or more, have failed in a row.' },
    RECALL_LOW: {
      description: 'A vector index finds less than 95 % of the nearest rows: see `vectorIndexes`.',
    },
  } as const,
})

export const AlertNode = builder.prismaNode('Alert', {
  description: 'Something is wrong, and somebody should look.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    type: t.expose('type', { type: AlertTypeEnum, description: 'What is wrong.' }),
    kind: t.expose('kind', {
      type: JobKindEnum,
      nullable: true,
      description: 'What the jobs do. Null unless the type is JOBS_FAILING.',
    }),
    entityKind: t.expose('entityKind', {
      type: EntityKindEnum,
      nullable: true,
      description: 'What the index is of. Null unless the type is RECALL_LOW.',
    }),
    failures: t.exposeInt('failures', {
      description: 'How many jobs have failed in a row by now; 0 unless the type is JOBS_FAILING.',
    }),
    error: t.exposeString('error', {
      nullable: true,
      description: 'Why the last job failed, or what was measured. Null if nothing is known.',
    }),
    job: t.relation('job', {
      nullable: true,
      description: 'The last job that failed. Null when it is no longer kept, or it is not of jobs.',
    }),
    raisedAt: t.expose('raisedAt', {
      type: 'DateTime',
      description: 'When it began: with the third job that failed, or a measurement.',
    }),
    resolvedAt: t.expose('resolvedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was over: a job succeeded, or recall was as it should be. Null until then.',
    }),
  }),
})

builder.queryField('alerts', (t) =>
  t.prismaField({
    type: [AlertNode],
    description:
      'What is wrong now: the alerts that are not resolved, newest first; at most one of each kind of job, and of each vector index.',
    resolve: (query, _root, _args, { database }) =>
      database.prisma.alert.findMany({
        ...query,
        where: { resolvedAt: null },
        orderBy: [{ raisedAt: 'desc' }, { id: 'desc' }],
      }),
  }),
)
