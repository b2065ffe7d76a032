import { builder } from './builder.ts'
import { JobKindEnum } from './job.ts'

export const AlertNode = builder.prismaNode('Alert', {
  description: 'Three jobs of one kind, or more, have failed in a row: somebody should look.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    kind: t.expose('kind', { type: JobKindEnum, description: 'What the jobs do.' }),
    failures: t.exposeInt('failures', { description: 'How many have failed in a row by now.' }),
    error: t.exposeString('error', {
      nullable: true,
      description: 'Why the last one failed. Null if nothing is known.',
    }),
    job: t.relation('job', {
      nullable: true,
      description: 'The last one that failed. Null when it is no longer kept.',
    }),
    raisedAt: t.expose('raisedAt', { type: 'DateTime', description: 'When the third one failed.' }),
    resolvedAt: t.expose('resolvedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the jobs of this kind no longer failed in a row. Null until then.',
    }),
  }),
})

builder.queryField('alerts', (t) =>
  t.prismaField({
    type: [AlertNode],
    description:
      'What is wrong now: the alerts that are not resolved, newest first; at most one of each kind of job.',
    resolve: (query, _root, _args, { database }) =>
      database.prisma.alert.findMany({
        ...query,
        where: { resolvedAt: null },
        orderBy: [{ raisedAt: 'desc' }, { id: 'desc' }],
      }),
  }),
)
