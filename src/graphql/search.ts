import type { Atom, Message, Topic } from '../db/generated/prisma/client.ts'
import { type EntityKind, entityKinds } from '../embedding/spaces.ts'
import { InvalidInputError } from '../errors.ts'
import { type SearchFilter as Filter, noFilter } from '../search/filter.ts'
import type { RankedHit, searchModes } from '../search/rank.ts'
import { maxQueryLength, maxSearchDepth, type SearchHit, type SearchPage } from '../search/search.ts'
import { makeSnippet } from '../search/snippet.ts'
import { AtomNode, AtomTypeEnum, ReviewStateEnum } from './atom.ts'
import { builder, readGlobalId } from './builder.ts'
import type { Context } from './context.ts'
import { EmbeddingSpaceNode, EntityKindEnum } from './embedding.ts'
import { toQueryError } from './errors.ts'
import { MessageNode } from './message.ts'
import { pageSize } from './page-size.ts'
import { TopicNode } from './topic.ts'

type Row = Message | Atom | Topic

interface Edge {
  hit: SearchHit
  node: Row
  page: SearchPage
}

interface Connection {
  page: SearchPage
  edges: Edge[]
  usesMeaning: boolean
  hasPreviousPage: boolean
}

export const Searchable = builder.unionType('Searchable', {
  description: 'What a search can find.',
  types: [MessageNode, AtomNode, TopicNode],
  resolveType: (row) => ('sentAt' in row ? 'Message' : 'reviewState' in row ? 'Atom' : 'Topic'),
})

const SearchModeEnum = builder.enumType('SearchMode', {
  description: 'How a search compares.',
  values: {
    HYBRID: { description: 'By meaning and by words, blended.' },
    SEMANTIC: { description: 'By meaning: nearness of the embeddings.' },
    KEYWORD: {
      description:
        'By words (BM25): the rarer a word and the more of them, the better; the last one may be a beginning. Quotes require words side by side, a minus excludes them; in prose (more than twelve words, or a quote that ends in a comma or a full stop) they do neither.',
    },
  } satisfies Record<(typeof searchModes)[number], { description: string }>,
})

const SearchExplain = builder.objectRef<RankedHit>('SearchExplain').implement({
  description: 'Why a hit stands where it stands.',
  fields: (t) => ({
    semanticRank: t.exposeInt('semanticRank', {
      nullable: true,
      description: 'Place by meaning, from 1. Null if the search by meaning did not bring it up.',
    }),
    keywordRank: t.exposeInt('keywordRank', {
      nullable: true,
      description: 'Place by words, from 1. Null if the search by words did not bring it up.',
    }),
    keywordScore: t.exposeFloat('keywordScore', {
      nullable: true,
      description: 'How well the words fit, 0..1. Null if the search by words did not bring it up.',
    }),
    relatedScore: t.exposeFloat('relatedScore', {
      nullable: true,
      description:
        'How well it fits words that the best hits have and others do not, 0..1. Null outside HYBRID and behind the best hundred.',
    }),
  }),
})

const SearchEdge = builder.objectRef<Edge>('SearchEdge').implement({
  description: 'One hit of a search.',
  fields: (t) => ({
    cursor: t.string({
      description:
        'Knows what was shown up to this hit; give it as `after`. Valid for this very search only.',
      resolve: ({ hit }) => hit.cursor(),
    }),
    node: t.field({ type: Searchable, description: 'What was found.', resolve: (edge) => edge.node }),
    rank: t.int({ description: 'Place in the whole list, from 1.', resolve: ({ hit }) => hit.rank }),
    score: t.float({
      description:
        'What the order is by, 0..1: similarity (SEMANTIC), fit of the words (KEYWORD) or their blend (HYBRID). Comparable within one answer only.',
      resolve: ({ hit }) => hit.ranked.score,
    }),
    similarity: t.float({
      nullable: true,
      description:
        '1 - cosineDistance / 2: 1 is identical, 0.5 unrelated, 0 opposite. Null where the row has no embedding or only keywords were asked for.',
      resolve: ({ hit }) => hit.ranked.similarity,
    }),
    snippet: t.string({
      nullable: true,
      description:
        'Text round the match as HTML: words of the query in <mark>, everything else escaped. Null when there is no text.',
      resolve: (edge) => makeSnippet(textOf(edge.node), edge.page.words()) || null,
    }),
    explain: t.field({
      type: SearchExplain,
      description: 'The ranks and scores behind `score`.',
      resolve: ({ hit }) => hit.ranked,
    }),
  }),
})

const SearchCoverage = builder
  .objectRef<{ eligible: number; ready: number; pending: number; stale: number; failed: number }>(
    'SearchCoverage',
  )
  .implement({
    description:
      'How much of what a search looked at can be found by meaning. Rows with nothing to embed are left out.',
    fields: (t) => ({
      eligible: t.exposeInt('eligible', { description: 'Rows that the filter leaves.' }),
      ready: t.exposeInt('ready', { description: 'Embedded.' }),
      pending: t.exposeInt('pending', { description: 'Queued, not findable by meaning yet.' }),
      stale: t.exposeInt('stale', {
        description: 'Found by the meaning of their old text until the new one is embedded.',
      }),
      failed: t.exposeInt('failed', { description: 'Given up; findable by words only.' }),
    }),
  })

export const SearchConnection = builder.objectRef<Connection>('SearchConnection').implement({
  description: 'Ranked hits, best first.',
  fields: (t) => ({
    edges: t.field({
      type: [SearchEdge],
      description: 'The hits with rank, score and snippet.',
      resolve: ({ edges }) => edges,
    }),
    nodes: t.field({
      type: [Searchable],
      description: 'What was found, without ranks.',
      resolve: ({ edges }) => edges.map((edge) => edge.node),
    }),
    pageInfo: t.field({
      type: builder.pageInfoRef(),
      description: 'Whether there is more, and where this page begins and ends.',
      resolve: ({ page, edges, hasPreviousPage }) => ({
        hasNextPage: page.hasNextPage,
        hasPreviousPage,
        startCursor: edges[0]?.hit.cursor() ?? null,
        endCursor: edges.at(-1)?.hit.cursor() ?? null,
      }),
    }),
    coverage: t.field({
      type: SearchCoverage,
      description:
        'How complete the answer can be. Counted when asked for: on large filtered sets this costs more than the search.',
      resolve: ({ page }, _args, { search }) => search.coverage(page.kinds, page.filter),
    }),
    space: t.field({
      type: EmbeddingSpaceNode,
      nullable: true,
      description: 'The embedding space that was searched. Null when meaning played no part.',
      resolve: ({ usesMeaning }, _args, { space }) => (usesMeaning ? space : null),
    }),
  }),
})

const SearchFilterInput = builder.inputType('SearchFilter', {
  description:
    'Which rows a search looks at. Fields are combined by AND, values of a list by OR. A field that a kind does not have (authors of a topic) leaves that kind out.',
  fields: (t) => ({
    sourceIds: t.idList({ description: 'Messages of these sources.' }),
    channels: t.stringList({ description: 'Messages of these channels, by exact name.' }),
    authors: t.stringList({ description: 'Messages of these authors, by exact name.' }),
    topicIds: t.idList({ description: 'Messages and atoms of these topics, and the topics themselves.' }),
    atomTypes: t.field({ type: [AtomTypeEnum], description: 'Atoms of these types.' }),
    reviewStates: t.field({
      type: [ReviewStateEnum],
      description: 'Atoms in these states; without it, all but REJECTED.',
    }),
    sentAfter: t.field({ type: 'DateTime', description: 'Messages sent at this moment or later.' }),
    sentBefore: t.field({ type: 'DateTime', description: 'Messages sent before this moment.' }),
    includeNoise: t.boolean({
      defaultValue: false,
      description: 'Whether messages that were scored as noise are looked at, too.',
    }),
    includeArchived: t.boolean({
      defaultValue: false,
      description: 'Whether archived topics and atoms are looked at, too.',
    }),
  }),
})

builder.queryField('search', (t) =>
  t.field({
    type: SearchConnection,
    description: `Finds messages, atoms and topics by meaning and by words, best first. Any text is a valid query (at most ${maxQueryLength} characters).`,
    args: {
      query: t.arg.string({ required: true, description: 'What is looked for, in plain words.' }),
      kinds: t.arg({ type: [EntityKindEnum], description: 'What may be found; everything unless given.' }),
      mode: t.arg({ type: SearchModeEnum, defaultValue: 'HYBRID', description: 'How to compare.' }),
      threshold: t.arg.float({
        description:
          'Least similarity, 0..1, of a hit; hits without an embedding are dropped then. KEYWORD has no similarity and ignores it.',
      }),
      filter: t.arg({ type: SearchFilterInput, description: 'Which rows are looked at.' }),
      first: t.arg.int({
        defaultValue: pageSize.default,
        description: `Hits on the page, 1..${pageSize.max}.`,
      }),
      after: t.arg.string({
        description: `Only hits after this cursor of the same search; pages end at result ${maxSearchDepth}.`,
      }),
    },
    resolve: async (_root, args, context) => {
      const mode = args.mode ?? 'HYBRID'
      const endTimer = context.metrics.searches.startTimer({ mode: mode.toLowerCase() })
      try {
        const page = await context.search.search({
          query: args.query,
          kinds: args.kinds ?? entityKinds,
          mode,
          threshold: args.threshold == null ? null : requireThreshold(args.threshold),
          filter: toFilter(args.filter),
          first: args.first ?? pageSize.default,
          after: args.after ?? null,
        })
        return await toConnection(page, context, {
          usesMeaning: mode !== 'KEYWORD',
          hasPreviousPage: Boolean(args.after),
        })
      } catch (error) {
        throw toQueryError(error)
      } finally {
        endTimer()
      }
    },
  }),
)

/** The nearest others of a node, by the stored vectors: the provider is never asked. */
async function resolveNeighbours(
  of: EntityKind,
  kind: EntityKind,
  id: string,
  first: number,
  threshold: number,
  context: Context,
): Promise<Connection> {
  try {
    const key = { of, kind, id, first, threshold: requireThreshold(threshold) }
    const page = await context.loaders.neighbours.load(key)
    return await toConnection(page, context, { usesMeaning: true, hasPreviousPage: false })
  } catch (error) {
    throw toQueryError(error)
  }
}

for (const [kind, node] of [
  ['MESSAGE', MessageNode],
  ['ATOM', AtomNode],
  ['TOPIC', TopicNode],
] as const) {
  const noun = kind.toLowerCase()
  builder.objectField(node, 'similar', (t) =>
    t.field({
      type: SearchConnection,
      description: `The ${noun}s nearest in meaning, nearest first, without this one. Empty until it is embedded.`,
      args: {
        first: t.arg.int({ defaultValue: 10, description: `How many, 1..${pageSize.max}.` }),
        threshold: t.arg.float({ defaultValue: 0.7, description: 'Least similarity, 0..1.' }),
      },
      resolve: (row, { first, threshold }, context) =>
        resolveNeighbours(kind, kind, row.id, first ?? 10, threshold ?? 0.7, context),
    }),
  )
  if (kind === 'TOPIC') continue
  builder.objectField(node, 'duplicates', (t) =>
    t.field({
      type: SearchConnection,
      description: `The ${noun}s that say the same, nearest first, without this one. Empty until it is embedded.`,
      args: {
        first: t.arg.int({ defaultValue: 5, description: `How many, 1..${pageSize.max}.` }),
        threshold: t.arg.float({
          description:
            'Least similarity, 0..1. Unless given, that from which on two texts say the same to the embedding model.',
        }),
      },
      resolve: (row, { first, threshold }, context) =>
        resolveNeighbours(kind, kind, row.id, first ?? 5, threshold ?? context.space.duplicate, context),
    }),
  )
}

builder.objectField(MessageNode, 'suggestedTopics', (t) =>
  t.field({
    type: SearchConnection,
    description: 'Topics that are nearest to it in meaning, nearest first. Empty until it is embedded.',
    args: { first: t.arg.int({ defaultValue: 3, description: `How many, 1..${pageSize.max}.` }) },
    resolve: (row, { first }, context) =>
      resolveNeighbours('MESSAGE', 'TOPIC', row.id, first ?? 3, 0, context),
  }),
)

async function toConnection(
  page: SearchPage,
  context: Context,
  search: { usesMeaning: boolean; hasPreviousPage: boolean },
): Promise<Connection> {
  const missing = page.hits.flatMap(({ ranked }) => (ranked.row === null ? ranked : []))
  const read = await context.loaders.row.loadMany(missing.map(({ kind, id }) => ({ kind, id })))
  const rows = new Map(missing.map((hit, index) => [hit.id, read[index]]))
  const edges = page.hits.flatMap((hit) => {
    const node = hit.ranked.row ?? rows.get(hit.ranked.id)
    if (node instanceof Error) throw node
    // Deleted between the search and this read: no longer a hit.
    return node ? [{ hit, node, page }] : []
  })
  return { page, edges, usesMeaning: search.usesMeaning, hasPreviousPage: search.hasPreviousPage }
}

function textOf(row: Row): string {
  if ('name' in row) return [row.name, row.description, row.keywords.join(', ')].filter(Boolean).join('\n\n')
  return 'title' in row ? `${row.title}\n\n${row.content}` : row.content
}

function toFilter(input: typeof SearchFilterInput.$inferInput | null | undefined): Filter {
  if (!input) return noFilter
  const databaseIds = (field: 'sourceIds' | 'topicIds', typename: string) =>
    input[field]?.map((id, index) => {
      const decoded = readGlobalId(id)
      if (decoded.typename !== typename) {
        throw new InvalidInputError(
          `${field}[${index}] is the id of a ${decoded.typename}, not of a ${typename}`,
          ['filter', field, String(index)],
        )
      }
      return decoded.id
    }) ?? null
  return {
    sourceIds: databaseIds('sourceIds', 'Source'),
    channels: input.channels ?? null,
    authors: input.authors ?? null,
    topicIds: databaseIds('topicIds', 'Topic'),
    atomTypes: input.atomTypes ?? null,
    reviewStates: input.reviewStates ?? null,
    sentAfter: input.sentAfter ?? null,
    sentBefore: input.sentBefore ?? null,
    includeNoise: input.includeNoise ?? false,
    includeArchived: input.includeArchived ?? false,
  }
}

function requireThreshold(threshold: number): number {
  if (threshold >= 0 && threshold <= 1) return threshold
  throw new InvalidInputError(`threshold is ${threshold}; it must be 0..1`, ['threshold'])
}
