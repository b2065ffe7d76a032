import { encodeGlobalID } from '@pothos/plugin-relay'
import { createBell } from '../bell.ts'
import type { Job, JobEvent } from '../db/generated/prisma/client.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { cancelJob, retryJob } from '../jobs/control.ts'
import type { JobEvent as FollowedEvent, JobEvents } from '../jobs/follow.ts'
import { builder, readGlobalId, readSeq } from './builder.ts'
import { type Context, createView, type View } from './context.ts'
import { toQueryError } from './errors.ts'
import { iterate } from './iterate.ts'
import { selectionName } from './selection.ts'

export const JobKindEnum = builder.enumType('JobKind', {
  description: 'What a job does.',
  values: {
    IMPORT: { description: 'Reads an uploaded chat export.' },
    EMBED: { description: 'Embeds chosen rows.' },
    BACKFILL: { description: 'Makes sure that everything is embedded.' },
    EXTRACT: { description: 'Reads messages and proposes topics and atoms.' },
    MIGRATE_EMBEDDINGS: { description: 'Moves everything to another embedding model.' },
  } as const,
})

const JobStateEnum = builder.enumType('JobState', {
  description: 'Where a job is in its life.',
  values: {
    QUEUED: { description: 'Waits for its turn, or for the next attempt.' },
    RUNNING: { description: 'At work.' },
    SUCCEEDED: { description: 'Ended; single rows may still have failed, see `failed`.' },
    FAILED: { description: 'Given up; `error` says why.' },
    CANCELLED: { description: 'Stopped on request.' },
  } as const,
})

export const JobNode = builder.prismaNode('Job', {
  description: 'One visible piece of background work.',
  id: { field: 'id', description: 'Global id.' },
  nullable: true,
  fields: (t) => ({
    kind: t.expose('kind', { type: JobKindEnum, description: 'What it does.' }),
    state: t.expose('state', { type: JobStateEnum, description: 'Where it is in its life.' }),
    total: t.exposeInt('total', {
      nullable: true,
      description: 'Rows or records in all. Null until it is known.',
    }),
    succeeded: t.exposeInt('succeeded', { description: 'Rows or records that are done.' }),
    failed: t.exposeInt('failed', { description: 'Rows or records that could not be done.' }),
    skipped: t.exposeInt('skipped', { description: 'Rows or records that needed nothing.' }),
    attempts: t.exposeInt('attempts', { description: 'How often it was begun.' }),
    error: t.exposeString('error', {
      nullable: true,
      description: 'Why it failed or must be tried again. Null if nothing went wrong.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was queued.' }),
    startedAt: t.expose('startedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was begun. Null until then.',
    }),
    finishedAt: t.expose('finishedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it ended. Null until then.',
    }),
    waitingUntil: t.expose('waitingUntil', {
      type: 'DateTime',
      nullable: true,
      description:
        'Until when it waits because the provider has asked for that, or is not to be had. Null unless it waits.',
    }),
    result: t.field({
      type: 'JSON',
      nullable: true,
      description:
        'What came of it, by kind; of an IMPORT: format, source, created, updated, unchanged, rejected (the first 100). Null if there is nothing to say.',
      resolve: ({ result }) => withGlobalIds(result),
    }),
    events: t.relatedConnection(
      'events',
      { cursor: 'jobId_seq', description: 'Its progress, oldest first.', query: { orderBy: { seq: 'asc' } } },
      { name: 'JobEventConnection', description: 'A page of job events.' },
      { name: 'JobEventEdge', description: 'A job event in a list.' },
    ),
  }),
})

const JobEventObject = builder.prismaObject('JobEvent', {
  description: 'One step of a job.',
  fields: (t) => ({
    seq: t.string({
      description: 'Number of the event within its job, from 1, without gaps.',
      resolve: ({ seq }) => String(seq),
    }),
    at: t.expose('at', { type: 'DateTime', description: 'When it happened, by the clock of the database.' }),
    job: t.relation('job', {
      description: 'The job, as it is now.',
      // Where the event did not come with it from a list.
      resolve: (query, { jobId }, _args, { database, loaders }) =>
        loaders.once(`job ${jobId} ${selectionName(query)}`, () =>
          database.prisma.job.findUniqueOrThrow({ ...query, where: { id: jobId } }),
        ),
    }),
    message: t.exposeString('message', {
      nullable: true,
      description: 'What happened, for people. Null when only counts changed.',
    }),
    data: t.expose('data', {
      type: 'JSON',
      nullable: true,
      description: 'State and counts of the job at this step. Null if there are none.',
    }),
  }),
})

export const JobConnection = builder.connectionObject(
  { type: JobNode, name: 'JobConnection', description: 'A page of jobs.' },
  { name: 'JobEdge', description: 'A job in a list.' },
)

const JobFilter = builder.inputType('JobFilter', {
  description: 'Which jobs to list. Fields are combined by AND, values of a list by OR.',
  fields: (t) => ({
    kinds: t.field({ type: [JobKindEnum], description: 'Jobs of these kinds.' }),
    states: t.field({ type: [JobStateEnum], description: 'Jobs in these states.' }),
  }),
})

builder.queryField('jobs', (t) =>
  t.prismaConnection(
    {
      type: JobNode,
      cursor: 'id',
      description: 'Jobs, newest first.',
      args: { filter: t.arg({ type: JobFilter, description: 'Which jobs.' }) },
      resolve: (query, _root, { filter }, { database }) =>
        database.prisma.job.findMany({
          ...query,
          where: {
            ...(filter?.kinds ? { kind: { in: filter.kinds } } : {}),
            ...(filter?.states ? { state: { in: filter.states } } : {}),
          },
          orderBy: { id: 'desc' },
        }),
    },
    JobConnection,
  ),
)

/** The job as it is now. */
export function readJob({ database }: Context, id: string): Promise<Job> {
  return database.prisma.job.findUniqueOrThrow({ where: { id } })
}

/** Jobs that a result names can be fetched like any other. */
function withGlobalIds(result: unknown): unknown {
  if (typeof result !== 'object' || result === null || !('extractJobId' in result)) return result
  return { ...result, extractJobId: encodeGlobalID('Job', String(result.extractJobId)) }
}

const CancelJobInput = builder.inputType('CancelJobInput', {
  description: 'Which job to stop.',
  fields: (t) => ({ jobId: t.id({ required: true, description: 'The job.' }) }),
})

const CancelJobPayload = builder.objectRef<{ jobId: string }>('CancelJobPayload').implement({
  description: 'The job that was stopped.',
  fields: (t) => ({
    job: t.field({
      type: JobNode,
      description: 'The job; what it has in hand ends within two seconds.',
      resolve: ({ jobId }, _args, context) => readJob(context, jobId),
    }),
  }),
})

builder.mutationField('cancelJob', (t) =>
  t.field({
    type: CancelJobPayload,
    nullable: true,
    description:
      'Stops a job that waits or is at work. What it has done stays; embeddings that it alone had asked for are taken back. A CANCELLED job stays as it is.',
    args: { input: t.arg({ type: CancelJobInput, required: true, description: 'Which job.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      const jobId = readGlobalId(input.jobId, 'Job').id
      await database.transaction((transaction) => cancelJob(transaction, jobId))
      return { jobId }
    },
  }),
)

const RetryJobInput = builder.inputType('RetryJobInput', {
  description: 'Which job to take up again.',
  fields: (t) => ({ jobId: t.id({ required: true, description: 'The job.' }) }),
})

const RetryJobPayload = builder.objectRef<{ jobId: string }>('RetryJobPayload').implement({
  description: 'The job that was taken up again.',
  fields: (t) => ({
    job: t.field({
      type: JobNode,
      description: 'The job, in the queue again.',
      resolve: ({ jobId }, _args, context) => readJob(context, jobId),
    }),
  }),
})

builder.mutationField('retryJob', (t) =>
  t.field({
    type: RetryJobPayload,
    nullable: true,
    description:
      'Takes up a job that has FAILED, was CANCELLED, or ended with failed rows: what is done stays, what is left is tried again.',
    args: { input: t.arg({ type: RetryJobInput, required: true, description: 'Which job.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      const jobId = readGlobalId(input.jobId, 'Job').id
      await database.transaction((transaction) => retryJob(transaction, jobId))
      return { jobId }
    },
  }),
)

builder.subscriptionField('jobEvents', (t) =>
  t.field({
    type: JobEventObject,
    description:
      'All events of a job after `afterSeq`, then live ones, until the job ends. After a reconnect, nothing is lost or repeated. Of a job that is taken up again the events go on after those of before.',
    args: {
      jobId: t.arg.id({ required: true, description: 'The job.' }),
      afterSeq: t.arg.string({
        description: 'Number of the last event that was seen; all events unless given.',
      }),
    },
    subscribe: (_root, { jobId, afterSeq }, { news }) => {
      const { id } = readGlobalId(jobId, 'Job')
      return followJob(news.jobEvents, id, BigInt(afterSeq == null ? '0' : readSeq(afterSeq)))
    },
    resolve: ({ event, version }, _args, context) => {
      // Those of the operation would show the job as it was at the first event.
      Object.assign(context, viewOf(version, context))
      return event
    },
  }),
)

interface ToldEvent {
  event: JobEvent
  /** Changes when something may have. */
  version: object
}

async function followJob(
  jobEvents: JobEvents,
  jobId: string,
  afterSeq: bigint,
): Promise<AsyncIterableIterator<ToldEvent>> {
  if (!(await jobEvents.exists(jobId)))
    throw toQueryError(new NotFoundError('There is no such job; ended ones are cleared after some time'))
  const bell = createBell()
  const follower = await jobEvents.follow(jobId, afterSeq, bell.ring)
  let waiting: readonly FollowedEvent[] = []
  let at = 0
  return iterate<ToldEvent>(async (signal) => {
    for (;;) {
      const event = waiting[at++]
      if (event) return { event: event as JobEvent, version: follower.version }
      const next = await follower.next()
      if (next === 'ended' || signal.aborted) return null
      if (next === null) await bell.wait({ signal })
      waiting = next ?? []
      at = 0
    }
  }, follower.end)
}

/** What is read beside events is read once for all who follow, however many they are. */
const viewOfVersion = new WeakMap<object, View>()

function viewOf(version: object, context: Context): View {
  const known = viewOfVersion.get(version) ?? createView(context)
  viewOfVersion.set(version, known)
  return known
}
