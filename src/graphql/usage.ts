import { resolveOffsetConnection } from '@pothos/plugin-relay'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { wakeWaitingJobs } from '../jobs/control.ts'
import { findJob, isEnded } from '../jobs/records.ts'
import {
  readUsage,
  setJobBudget,
  type UsageDimension,
  type UsageKind,
  type UsageSum,
  usageDimensions,
} from '../providers/usage-records.ts'
import { builder, isUuid, readGlobalId } from './builder.ts'
import { maxBudget, requireBudget } from './input.ts'
import { JobNode, readJob } from './job.ts'
import { pageSize } from './page-size.ts'
import { environmentProviders, ProviderNode } from './provider.ts'

const UsageKindEnum = builder.enumType('UsageKind', {
  description: 'What a provider was asked for.',
  values: {
    EMBEDDING: { description: 'Vectors of messages, atoms and topics.' },
    QUERY: { description: 'Vectors of what people search for.' },
    EXTRACTION: { description: 'Knowledge, trials included.' },
    VALIDATION: { description: 'To try out whether it works.' },
  } satisfies Record<UsageKind, { description: string }>,
})

const UsageDimensionEnum = builder.enumType('UsageDimension', {
  description: 'By what usage is summed up.',
  values: {
    DAY: { description: 'A sum for each day (UTC).' },
    PROVIDER: { description: 'For each provider.' },
    KIND: { description: 'For each kind of request.' },
    JOB: { description: 'For each job, and for what was for none.' },
  } satisfies Record<UsageDimension, { description: string }>,
})

const ProviderUsage = builder.objectRef<UsageSum>('ProviderUsage').implement({
  description: 'What providers were asked for, and what it cost: a sum over requests.',
  fields: (t) => ({
    day: t.exposeString('day', {
      nullable: true,
      description: 'The day (UTC), such as `2026-11-23`. Null unless it is grouped by DAY.',
    }),
    provider: t.field({
      type: ProviderNode,
      nullable: true,
      description: 'Who was asked. Null unless it is grouped by PROVIDER, and once the provider is deleted.',
      resolve: ({ accountId }, _args, { loaders }) => {
        if (accountId === null) return null
        if (isUuid(accountId)) return loaders.provider.load(accountId)
        return Object.values(environmentProviders).find(({ id }) => id === accountId) ?? null
      },
    }),
    providerName: t.exposeString('accountName', {
      nullable: true,
      description:
        'What the provider was called last; `environment` and `extraction` are what the environment configures. Null unless it is grouped by PROVIDER.',
    }),
    kind: t.expose('kind', {
      type: UsageKindEnum,
      nullable: true,
      description: 'What was asked for. Null unless it is grouped by KIND.',
    }),
    job: t.field({
      type: JobNode,
      nullable: true,
      description:
        'For which job. Null unless it is grouped by JOB, for what was for no job, and once the job is cleared.',
      resolve: ({ jobId }, _args, { database }) =>
        jobId === null ? null : database.prisma.job.findUnique({ where: { id: jobId } }),
    }),
    requests: t.exposeFloat('requests', { description: 'Requests that were sent; a whole number.' }),
    failedRequests: t.exposeFloat('failedRequests', {
      description: 'Those of them that failed, or were broken off; a whole number.',
    }),
    tokensIn: t.exposeFloat('tokensIn', {
      description:
        'Tokens that were sent, as the provider counts them, and estimated where it does not; a whole number.',
    }),
    tokensOut: t.exposeFloat('tokensOut', {
      description: 'Tokens of answers, counted in the same way; a whole number.',
    }),
    durationSeconds: t.float({
      description: 'How long the requests took, together; those under way at once count each.',
      resolve: ({ ms }) => ms / 1000,
    }),
    cost: t.exposeFloat('cost', {
      description: 'US dollars, by the prices of the moment of each request.',
    }),
    unpricedRequests: t.exposeFloat('unpricedRequests', {
      description: 'Requests to providers without a price: they are not in the cost. A whole number.',
    }),
  }),
})

const ProviderUsageFilter = builder.inputType('ProviderUsageFilter', {
  description: 'Which requests to sum up. Fields are combined by AND, values of a list by OR.',
  fields: (t) => ({
    providerIds: t.globalIDList({ for: ProviderNode, description: 'To these providers.' }),
    kinds: t.field({ type: [UsageKindEnum], description: 'Of these kinds.' }),
    jobIds: t.idList({ description: 'For these jobs.' }),
    from: t.field({ type: 'DateTime', description: 'On the day (UTC) of this moment or later.' }),
    to: t.field({ type: 'DateTime', description: 'Before the day (UTC) of this moment.' }),
  }),
})

builder.queryField('providerUsage', (t) =>
  t.connection(
    {
      type: ProviderUsage,
      description:
        'What providers were asked for, and what it cost: one sum for each group, the newest day first. A second or two late.',
      args: {
        filter: t.arg({ type: ProviderUsageFilter, description: 'Which requests; all unless given.' }),
        groupBy: t.arg({
          type: [UsageDimensionEnum],
          description: `A sum for each of these, such as each day and provider; a single sum unless given. In the order ${usageDimensions.join(', ')}.`,
        }),
      },
      resolve: (_root, { filter, groupBy, ...args }, { database }) =>
        resolveOffsetConnection({ args, defaultSize: pageSize.default, maxSize: pageSize.max }, (page) =>
          readUsage(
            database,
            {
              accountIds: filter?.providerIds?.map(({ id }) => id),
              kinds: filter?.kinds ?? undefined,
              jobIds: filter?.jobIds?.map((id) => readGlobalId(id, 'Job').id),
              from: filter?.from ?? undefined,
              to: filter?.to ?? undefined,
            },
            new Set(groupBy ?? []),
            page,
          ),
        ),
    },
    { name: 'ProviderUsageConnection', description: 'A page of sums.' },
    { name: 'ProviderUsageEdge', description: 'A sum in a list.' },
  ),
)

const nothing: UsageSum = {
  day: null,
  accountId: null,
  accountName: null,
  kind: null,
  jobId: null,
  requests: 0,
  failedRequests: 0,
  tokensIn: 0,
  tokensOut: 0,
  ms: 0,
  cost: 0,
  unpricedRequests: 0,
}

builder.prismaObjectField(JobNode, 'usage', (t) =>
  t.field({
    type: ProviderUsage,
    description: 'What it has asked of providers, and what that cost; a second or two late.',
    select: { id: true },
    resolve: async ({ id }, _args, { loaders }) => (await loaders.usageOfJob.load(id)) ?? nothing,
  }),
)

builder.prismaObjectField(JobNode, 'budget', (t) =>
  t.float({
    nullable: true,
    description:
      'What it may spend, in US dollars. When it has, it waits until the budget is raised by `setJobBudget`. Null without one.',
    select: { budget: true },
    resolve: ({ budget }) => budget?.toNumber() ?? null,
  }),
)

const SetJobBudgetInput = builder.inputType('SetJobBudgetInput', {
  description: 'What a job may spend.',
  fields: (t) => ({
    jobId: t.id({ required: true, description: 'The job.' }),
    budget: t.float({
      description: `US dollars for all of it, what it has spent included, 0..${maxBudget}. No budget unless given.`,
    }),
  }),
})

const SetJobBudgetPayload = builder.objectRef<{ jobId: string }>('SetJobBudgetPayload').implement({
  description: 'The job with its new budget.',
  fields: (t) => ({
    job: t.field({
      type: JobNode,
      description: 'The job. If it waits, it looks at once whether it can go on.',
      resolve: ({ jobId }, _args, context) => readJob(context, jobId),
    }),
  }),
})

builder.mutationField('setJobBudget', (t) =>
  t.field({
    type: SetJobBudgetPayload,
    nullable: true,
    description:
      'Says what a job may spend. It counts what has a price; the request that crosses it is still paid for.',
    args: { input: t.arg({ type: SetJobBudgetInput, required: true, description: 'Which job, how much.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      requireBudget(input.budget)
      const jobId = readGlobalId(input.jobId, 'Job').id
      await database.transaction(async (transaction) => {
        const job = await findJob(transaction, jobId)
        if (!job) throw new NotFoundError('There is no such job; ended ones are cleared after some time')
        if (isEnded(job.state)) throw new ConflictError(`The job has ended as ${job.state}`)
        await setJobBudget(transaction, jobId, input.budget ?? null)
        await wakeWaitingJobs(transaction)
      })
      return { jobId }
    },
  }),
)
