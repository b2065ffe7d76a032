import { decide, leastRecall } from '../embedding/index-care.ts'
import { bloatOf } from '../embedding/index-plan.ts'
import { type EntityKind, entityKinds } from '../embedding/spaces.ts'
import {
  readCaredSpaces,
  readVectorIndexes,
  requestMeasure,
  requestRebuild,
  type VectorIndex,
} from '../embedding/vector-index.ts'
import { InvalidInputError } from '../errors.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { EmbeddingSpaceNode, EntityKindEnum, VectorPrecisionEnum } from './embedding.ts'

const VectorIndexStateEnum = builder.enumType('VectorIndexState', {
  description: 'Whether searches by meaning have an index, and what is done about it.',
  values: {
    READY: { description: 'Searches use it.' },
    DUE: { description: 'Searches use it, and it should be built anew; `reason` says why.' },
    REBUILDING: { description: 'Searches use it, while a better one is built beside it.' },
    BUILDING: { description: 'There is none; it is being built. Searches compare with every row.' },
    DEFERRED: {
      description: 'There is none; it is built when the rows are embedded. Searches compare with every row.',
    },
    MISSING: { description: 'There is none; it is built soon. Searches compare with every row.' },
  } as const,
})
type VectorIndexState = typeof VectorIndexStateEnum.$inferType

const RecallSourceEnum = builder.enumType('RecallSource', {
  description: 'What recall was measured with.',
  values: {
    SEARCHES: { description: 'The newest searches that people made.' },
    STORED: { description: 'Vectors of rows, because there were too few searches.' },
  } as const,
})

function stateOf(index: VectorIndex, context: Context): { state: VectorIndexState; reason: string | null } {
  const decision = decide(context.database, index, false)
  const reason = 'reason' in decision ? decision.reason : null
  if (!index.present?.isValid) {
    if (index.progress !== null) return { state: 'BUILDING', reason }
    return { state: decision.action === 'defer' ? 'DEFERRED' : 'MISSING', reason }
  }
  if (index.progress !== null) return { state: 'REBUILDING', reason }
  return { state: decision.action === 'none' ? 'READY' : 'DUE', reason }
}

const VectorIndexType = builder.objectRef<VectorIndex>('VectorIndex').implement({
  description: 'The index by which a search by meaning finds rows of one kind (HNSW).',
  fields: (t) => ({
    space: t.field({
      type: EmbeddingSpaceNode,
      description: 'Whose vectors it holds.',
      resolve: ({ space }) => space,
    }),
    kind: t.field({ type: EntityKindEnum, description: 'What it finds.', resolve: ({ kind }) => kind }),
    name: t.exposeString('name', { description: 'Its name in the database.' }),
    state: t.field({
      type: VectorIndexStateEnum,
      description: 'Whether it is there, and what is done about it.',
      resolve: (index, _args, context) => stateOf(index, context).state,
    }),
    reason: t.string({
      nullable: true,
      description: 'Why it is to be built. Null if it is not.',
      resolve: (index, _args, context) => stateOf(index, context).reason,
    }),
    buildProgress: t.float({
      nullable: true,
      description: 'Share of the table that the build under way has read, 0..1. Null if there is none.',
      resolve: ({ progress }) => progress,
    }),
    rows: t.float({
      description: 'Vectors of this kind; as a float, because they may be many.',
      resolve: ({ rows }) => rows,
    }),
    sizeBytes: t.float({
      description: 'Size on disk, in bytes, without one that is built beside it; 0 if there is none.',
      resolve: ({ present }) => present?.bytes ?? 0,
    }),
    precision: t.field({
      type: VectorPrecisionEnum,
      nullable: true,
      description: 'Precision of its vectors. Null if there is none.',
      resolve: ({ present }) => present?.precision ?? null,
    }),
    m: t.int({
      nullable: true,
      description: 'Links of each row to others, which grow with the number of rows. Null if there is none.',
      resolve: ({ present }) => present?.m ?? null,
    }),
    efConstruction: t.int({
      nullable: true,
      description: 'Rows that were compared to find the links of each. Null if there is none.',
      resolve: ({ present }) => present?.efConstruction ?? null,
    }),
    deadRows: t.float({
      description:
        'Dead rows of the table, of all kinds together, that are not cleared away yet: an estimate.',
      resolve: ({ deadRows }) => deadRows,
    }),
    bloat: t.float({
      description: 'Share of the index that holds nothing any more, 0..1: an estimate from its size.',
      resolve: ({ rows, present, space }) => bloatOf({ rows, present, dimensions: space.dimensions }),
    }),
    builtAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When it was built. Null if that is not known.',
      resolve: ({ builtAt }) => builtAt,
    }),
    buildSeconds: t.exposeFloat('buildSeconds', {
      nullable: true,
      description: 'How long that took, in seconds. Null if that is not known.',
    }),
    buildReason: t.exposeString('buildReason', {
      nullable: true,
      description: 'Why it was built. Null if that is not known.',
    }),
    recall: t.exposeFloat('recall', {
      nullable: true,
      description: `Share of the ten nearest rows that it finds, 0..1, compared with an exact scan; less than ${leastRecall} raises an alert. Null until it is measured.`,
    }),
    recallQueries: t.exposeInt('recallQueries', { description: 'Queries that this is the average of.' }),
    recallSource: t.field({
      type: RecallSourceEnum,
      nullable: true,
      description: 'What the queries were. Null until it is measured.',
      resolve: ({ recallSource }) => recallSource,
    }),
    measuredAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When recall was measured. Null until then.',
      resolve: ({ measuredAt }) => measuredAt,
    }),
    rebuildRequestedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When somebody asked to build it anew. Null when that is done, or nobody has.',
      resolve: ({ rebuildRequestedAt }) => rebuildRequestedAt,
    }),
    measureRequestedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'When somebody asked to measure it. Null when that is done, or nobody has.',
      resolve: ({ measureRequestedAt }) => measureRequestedAt,
    }),
    lastError: t.exposeString('lastError', {
      nullable: true,
      description: 'What went wrong last with it. Null if nothing has since it was built.',
    }),
  }),
})

async function readAll(
  { database }: Context,
  kinds: readonly EntityKind[] = entityKinds,
): Promise<VectorIndex[]> {
  const indexes = await readVectorIndexes(database, await readCaredSpaces(database))
  return indexes.filter(({ kind }) => kinds.includes(kind))
}

builder.queryField('vectorIndexes', (t) =>
  t.field({
    type: [VectorIndexType],
    description:
      'The vector indexes of every embedding space that is filled or searched: MESSAGE, ATOM, TOPIC of each.',
    resolve: (_root, _args, context) => readAll(context),
  }),
)

function readKinds(kinds: readonly EntityKind[] | null | undefined): readonly EntityKind[] {
  if (kinds?.length === 0) throw new InvalidInputError('kinds is empty; leave it out to mean all', ['kinds'])
  return kinds ?? entityKinds
}

for (const { name, verb, does, description, request } of [
  {
    name: 'rebuildVectorIndexes',
    verb: 'Rebuild',
    does: 'be built anew',
    description:
      'Asks for indexes to be built anew, beside those that searches use meanwhile. The embedded database does nothing else while it builds.',
    request: requestRebuild,
  },
  {
    name: 'measureVectorIndexes',
    verb: 'Measure',
    does: 'be measured',
    description: 'Asks for the recall of indexes to be measured.',
    request: requestMeasure,
  },
] as const) {
  const Input = builder.inputType(`${verb}VectorIndexesInput`, {
    description: `Which indexes are to ${does}.`,
    fields: (t) => ({
      kinds: t.field({ type: [EntityKindEnum], description: 'Those of these kinds; all unless given.' }),
    }),
  })
  const Payload = builder.objectRef<readonly EntityKind[]>(`${verb}VectorIndexesPayload`).implement({
    description: `The indexes that are to ${does}.`,
    fields: (t) => ({
      vectorIndexes: t.field({
        type: [VectorIndexType],
        description: 'As they are now; the work begins in moments.',
        resolve: (kinds, _args, context) => readAll(context, kinds),
      }),
    }),
  })
  builder.mutationField(name, (t) =>
    t.field({
      type: Payload,
      nullable: true,
      description,
      args: { input: t.arg({ type: Input, required: true, description: 'Which indexes.' }) },
      errors: { types: [InvalidInputError] },
      resolve: async (_root, { input }, { database }) => {
        const kinds = readKinds(input.kinds)
        await request(database, kinds)
        return kinds
      },
    }),
  )
}
