import { encodeGlobalID } from '@pothos/plugin-relay'
import { Repeater } from 'graphql-yoga'
import { createBell } from '../bell.ts'
import type { Job, JobEvent } from '../db/generated/prisma/client.ts'
import { findJob, isEnded, type JobEventRow, jobChannel, jobEventsAfter } from '../jobs/records.ts'
import { builder, readSeq } from './builder.ts'
import type { Context } from './context.ts'

const JobKindEnum = builder.enumType('JobKind', {
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
    job: t.relation('job', { description: 'The job, as it is now.' }),
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

const eventsAtOnce = 100

builder.subscriptionField('jobEvents', (t) =>
  t.field({
    type: JobEventObject,
    description:
      'All events of a job after `afterSeq`, then live ones, until the job ends. After a reconnect, nothing is lost or repeated.',
    args: {
      jobId: t.arg.globalID({ for: JobNode, required: true, description: 'The job.' }),
      afterSeq: t.arg.string({
        description: 'Number of the last event that was seen; all events unless given.',
      }),
    },
    subscribe: (_root, args, { database }) =>
      followJob(database, args.jobId.id, args.afterSeq == null ? '0' : readSeq(args.afterSeq)),
    resolve: ({ seq, ...event }) => ({ ...event, seq: BigInt(seq) }) as JobEvent,
  }),
)

/** Reads what is stored, and again after each notification: the notification itself carries nothing that could be lost. */
function followJob(database: Context['database'], jobId: string, afterSeq: string): Repeater<JobEventRow> {
  return new Repeater(async (push, stop) => {
    const bell = createBell()
    const ended = new AbortController()
    const unlisten = await database.listen(jobChannel, (payload) => {
      if (payload === null || payload.startsWith(jobId)) bell.ring()
    })
    stop.finally(() => {
      ended.abort()
      return unlisten()
    })
    let seen = afterSeq
    while (!ended.signal.aborted) {
      // The job first: an event that follows the end can then not be missed.
      const job = await findJob(database, jobId)
      const events = await jobEventsAfter(database, jobId, seen, eventsAtOnce)
      for (const event of events) {
        await push(event)
        seen = event.seq
      }
      if (events.length === eventsAtOnce) continue
      if (!job || isEnded(job.state)) return stop()
      await bell.wait({ signal: ended.signal })
    }
  })
}
