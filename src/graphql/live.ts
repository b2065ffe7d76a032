import { queryFromInfo } from '@pothos/plugin-prisma'
import { GraphQLError, type GraphQLResolveInfo } from 'graphql'
import { createBell } from '../bell.ts'
import { type Chunk, type Feed, FeedGapError, keptRows } from '../db/feed.ts'
import { InvalidInputError, NotFoundError } from '../errors.ts'
import { AtomNode } from './atom.ts'
import { builder, readGlobalId } from './builder.ts'
import { type Context, createView, type View } from './context.ts'
import { toQueryError } from './errors.ts'
import { iterate } from './iterate.ts'
import { JobKindEnum, JobNode } from './job.ts'
import type { Loader, Loaders } from './loaders.ts'
import { MessageNode } from './message.ts'
import { selectionName } from './selection.ts'

/*
 * Subscriptions that tell of rows. What a subscription selects of a row is read once for all subscriptions that select
 * the same, however many they are.
 */

/** What is sent: a row, with what is read to it; or why nothing more is. */
type Told<Row> = { row: Row; view: View } | GraphQLError

type Selection = ReturnType<typeof queryFromInfo>

interface Followed<Row> {
  feed: Feed
  /** Only rows of these groups of the feed; all if null. */
  groups: readonly string[] | null
  /** The rows with these ids that exist, in any order. */
  read(selection: Selection, ids: readonly string[]): Promise<Row[]>
  /** Of rows that are told one after the other: asks for all of them what is asked for the first. */
  together?(loaders: Loaders, rows: readonly Row[]): Loaders
  /** The query that lists such rows, for those that have missed some. */
  query: string
}

async function follow<Row extends { id: string }>(
  context: Context,
  info: GraphQLResolveInfo,
  { feed, groups, read, together = (loaders) => loaders, query }: Followed<Row>,
): Promise<AsyncIterableIterator<Told<Row>>> {
  const selection = queryFromInfo({ context, info })
  const wanted = groups && new Set(groups)
  const name = `${groups} ${selectionName(selection)}`
  const bell = createBell()
  const follower = await feed.follow(bell.ring)
  let waiting: { row: Row; view: View }[] = []
  let isOver = false

  const readChunk = (chunk: Chunk) =>
    feed.share(chunk, name, async () => {
      const ids = wanted ? await feed.idsIn(chunk, wanted) : chunk.ids
      if (ids.length === 0) return []
      const found = new Map((await read(selection, ids)).map((row) => [row.id, row]))
      const rows = ids.flatMap((id) => found.get(id) ?? [])
      const view = createView(context)
      const told = { ...view, loaders: together(view.loaders, rows) }
      return rows.map((row) => ({ row, view: told }))
    })

  return iterate<Told<Row>>(async (signal) => {
    while (!isOver && !signal.aborted) {
      const told = waiting.shift()
      if (told) return told
      try {
        const chunk = follower.next()
        if (chunk) waiting = [...(await readChunk(chunk))]
        else await bell.wait({ signal })
      } catch (error) {
        if (!(error instanceof FeedGapError)) throw error
        isOver = true
        return new GraphQLError(
          `${error.message}. Read what you have missed by the query \`${query}\`, and subscribe again`,
          { extensions: { code: 'MISSED' } },
        )
      }
    }
    return null
  }, follower.end)
}

/** The row, or the error that ends the subscription: sent like this it reaches the client by every protocol. */
function tell<Row>(told: Told<Row>, context: Context): Row {
  if (told instanceof GraphQLError) throw told
  // That of the operation would keep what it has read, and its space, for as long as it is subscribed.
  Object.assign(context, told.view)
  return told.row
}

function together<Key, Value>(loader: Loader<Key, Value>, keys: readonly Key[]): Loader<Key, Value> {
  let isAsked = false
  return {
    load(key) {
      if (!isAsked) {
        isAsked = true
        // Whoever needs one of them gets its error.
        for (const other of keys) loader.load(other).catch(() => {})
      }
      return loader.load(key)
    },
  }
}

const behind = `Who falls more than ${keptRows.toLocaleString('en')} behind gets an error with the code MISSED, and the subscription ends.`

builder.subscriptionField('jobUpdated', (t) =>
  t.field({
    type: JobNode,
    description:
      'Jobs, each time they change, from now on: the newest state, so that several changes may come as one. The end of a job is always told.',
    args: { kinds: t.arg({ type: [JobKindEnum], description: 'Of which kinds; of all unless given.' }) },
    subscribe: (_root, { kinds }, context, info) => {
      if (kinds?.length === 0)
        throw toQueryError(new InvalidInputError('kinds is empty; leave it out to mean all', ['kinds']))
      return follow(context, info, {
        feed: context.news.jobs,
        groups: kinds ?? null,
        read: (selection, ids) =>
          context.database.prisma.job.findMany({ ...selection, where: { id: { in: [...ids] } } }),
        query: 'jobs',
      })
    },
    resolve: (told, _args, context) => tell(told, context),
  }),
)

builder.subscriptionField('messageIngested', (t) =>
  t.field({
    type: MessageNode,
    description: `New messages from now on, however they come; not those that are only changed. ${behind}`,
    args: {
      sourceId: t.arg.id({ description: 'Of this source; of all unless given.' }),
    },
    subscribe: async (_root, { sourceId }, context, info) => {
      const { prisma } = context.database
      const id = sourceId == null ? null : readGlobalId(sourceId, 'Source').id
      if (id !== null && !(await prisma.source.findUnique({ where: { id } })))
        throw toQueryError(
          new NotFoundError('There is no source with this sourceId; leave it out to mean all'),
        )
      return follow(context, info, {
        feed: context.news.messages,
        groups: id === null ? null : [id],
        read: (selection, ids) => prisma.message.findMany({ ...selection, where: { id: { in: [...ids] } } }),
        together: (loaders, messages) => ({
          ...loaders,
          embeddingState: together(
            loaders.embeddingState,
            messages.map(({ id }) => ({ kind: 'MESSAGE', id })),
          ),
          messageByIdentity: together(
            loaders.messageByIdentity,
            messages.flatMap(({ sourceId, channel, replyToExternalId }) =>
              replyToExternalId === null ? [] : { sourceId, channel, externalId: replyToExternalId },
            ),
          ),
        }),
        query: 'messages',
      })
    },
    resolve: (told, _args, context) => tell(told, context),
  }),
)

builder.subscriptionField('atomExtracted', (t) =>
  t.field({
    type: AtomNode,
    description: `Atoms from now on as they are extracted from messages; not those that people write. ${behind}`,
    args: {
      topicId: t.arg.id({
        description: 'Those that belong to this topic when they are extracted; all unless given.',
      }),
    },
    subscribe: async (_root, { topicId }, context, info) => {
      const { prisma } = context.database
      const id = topicId == null ? null : readGlobalId(topicId, 'Topic').id
      if (id !== null && !(await prisma.topic.findUnique({ where: { id } })))
        throw toQueryError(new NotFoundError('There is no topic with this topicId; leave it out to mean all'))
      return follow(context, info, {
        feed: context.news.atoms,
        groups: id === null ? null : [id],
        read: (selection, ids) => prisma.atom.findMany({ ...selection, where: { id: { in: [...ids] } } }),
        together: (loaders, atoms) => ({
          ...loaders,
          embeddingState: together(
            loaders.embeddingState,
            atoms.map(({ id }) => ({ kind: 'ATOM', id })),
          ),
        }),
        query: 'atoms',
      })
    },
    resolve: (told, _args, context) => tell(told, context),
  }),
)
