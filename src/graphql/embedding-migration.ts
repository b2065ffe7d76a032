import {
  type GateCondition,
  type gateConditions,
  leastReady,
  mostNdcgLoss,
  type SpaceComparison,
} from '../embedding/gate.ts'
import {
  readComparison,
  readGate,
  requireSpace,
  retireSpace,
  startMigration,
} from '../embedding/migration.ts'
import { type MigrationPlan, planMigration } from '../embedding/plan.ts'
import { existingOwners } from '../embedding/requests.ts'
import {
  forgetQueries,
  type Judgement,
  readSampleQueries,
  type SampleQuery,
  saveQuery,
} from '../embedding/search-queries.ts'
import { type EntityKind, readSpaces, type SpaceRecord } from '../embedding/spaces.ts'
import { arrivingSeconds } from '../embedding/stats.ts'
import { type OpenTarget, openTarget, type TargetInput } from '../embedding/target.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { ProviderError } from '../providers/provider.ts'
import { changeOver, compareSpaces } from '../search/compare.ts'
import { maxQueryLength } from '../search/search.ts'
import { builder, isUuid, readGlobalId } from './builder.ts'
import type { Context } from './context.ts'
import { EmbeddingSpaceNode } from './embedding.ts'
import { requireCount, requireText } from './input.ts'
import { JobNode, readJob } from './job.ts'
import { environmentProviders } from './provider.ts'

const maxSaved = 100
const maxJudgements = 100
/** Of queries: 200 recent ones, and what people have saved. */
const maxShown = 1000

const spaceIdOf = (globalId: string) => Number(readGlobalId(globalId, 'EmbeddingSpace').id)

const recordOf = async ({ id }: { id: number }, { loaders, database }: Context): Promise<SpaceRecord> => {
  const all = await loaders.once('spaces', () => readSpaces(database))
  const record = all.find((space) => space.id === id)
  if (!record) throw new NotFoundError('The embedding space is gone')
  return record
}

const GateConditionName = builder.enumType('GateConditionName', {
  description: 'What must be true before searches change over to an embedding space.',
  values: {
    READY: {
      description: `At least ${100 * leastReady} % of what can be embedded is READY, apart from what came in the last ${arrivingSeconds} seconds.`,
    },
    INDEXED: { description: 'Every kind has a vector index that can be used.' },
    COMPARED: {
      description:
        'It was compared with the active space since it is READY. Not asked of one that was active before.',
    },
    EMPTY_ANSWERS: { description: 'No larger share of the answers is empty than in the active space.' },
    NDCG: {
      description: `The first ten of the judged queries are as good as in the active space: their nDCG is at most ${mostNdcgLoss} below. Only where queries are judged.`,
    },
  } satisfies Record<(typeof gateConditions)[number], { description: string }>,
})

const GateConditionObject = builder.objectRef<GateCondition>('GateCondition').implement({
  description: 'One of what must be true before searches change over to an embedding space.',
  fields: (t) => ({
    name: t.field({ type: GateConditionName, description: 'Which one.', resolve: ({ name }) => name }),
    isMet: t.exposeBoolean('isMet', { description: 'Whether it is true.' }),
    text: t.exposeString('text', { description: 'What was found and what is expected, for people.' }),
  }),
})

const Comparison = builder.objectRef<SpaceComparison>('SpaceComparison').implement({
  description:
    'How the answers of an embedding space compare with those of the active one, by meaning alone: to the saved queries and the newest searches.',
  fields: (t) => ({
    comparedAt: t.field({
      type: 'DateTime',
      description: 'When.',
      resolve: ({ comparedAt }) => new Date(comparedAt),
    }),
    queries: t.exposeInt('queries', { description: 'Queries that were asked in both.' }),
    judgedQueries: t.exposeInt('judgedQueries', { description: 'Those of which right answers are known.' }),
    overlap: t.exposeFloat('overlap', {
      nullable: true,
      description:
        'Share of the first ten that both have, 0..1, on average. Two good models differ, so this is for information. Null without queries.',
    }),
    rankCorrelation: t.exposeFloat('rankCorrelation', {
      nullable: true,
      description:
        "Spearman's coefficient of the order of what both have, -1..1, on average. Null where nothing can be ordered.",
    }),
    emptyActive: t.exposeFloat('emptyActive', {
      description: 'Share of the queries with no answer in the active space, 0..1.',
    }),
    emptyCompared: t.exposeFloat('emptyCompared', {
      description: 'Share of the queries with no answer in this space, 0..1.',
    }),
    ndcgActive: t.exposeFloat('ndcgActive', {
      nullable: true,
      description:
        'How good the first ten of the judged queries are in the active space: nDCG, 0..1. Null where none is judged.',
    }),
    ndcgCompared: t.exposeFloat('ndcgCompared', {
      nullable: true,
      description:
        'How good the first ten of the judged queries are in this space: nDCG, 0..1. Null where none is judged.',
    }),
  }),
})

builder.objectFields(EmbeddingSpaceNode, (t) => ({
  isFilled: t.boolean({
    description:
      'Whether what is owed is embedded: not before its job has begun or while that is cancelled, nor after it is retired.',
    resolve: async (space, _args, context) => (await recordOf(space, context)).isFilled,
  }),
  createdAt: t.field({
    type: 'DateTime',
    description: 'When it was made.',
    resolve: async (space, _args, context) => (await recordOf(space, context)).createdAt,
  }),
  activatedAt: t.field({
    type: 'DateTime',
    nullable: true,
    description:
      'When searches last changed over to it. Null if they never did. A BUILDING space that has one was active before and stays in step: activate it to go back.',
    resolve: async (space, _args, context) => (await recordOf(space, context)).activatedAt,
  }),
  retiredAt: t.field({
    type: 'DateTime',
    nullable: true,
    description: 'When it was retired. Null if it is not.',
    resolve: async (space, _args, context) => (await recordOf(space, context)).retiredAt,
  }),
  droppedAt: t.field({
    type: 'DateTime',
    nullable: true,
    description: 'When its vectors were dropped: some seconds after it was retired. Null until then.',
    resolve: async (space, _args, context) => (await recordOf(space, context)).droppedAt,
  }),
  job: t.field({
    type: JobNode,
    nullable: true,
    description: 'The job that filled it. Null for the first space, or when the job is no longer kept.',
    resolve: async (space, _args, context) => {
      const { jobId } = await recordOf(space, context)
      return jobId === null ? null : readJob(context, jobId)
    },
  }),
  comparison: t.field({
    type: Comparison,
    nullable: true,
    description: 'The last comparison with the space that was active at the time. Null if there was none.',
    resolve: ({ id }, _args, { database }) => readComparison(database, id),
  }),
  gate: t.field({
    type: [GateConditionObject],
    description:
      'What must be true before searches change over to it; what is not met can be seen before it is refused. Empty for the active space and for retired ones.',
    resolve: async ({ id, state }, _args, { database }) =>
      state === 'BUILDING' ? readGate(database, id) : [],
  }),
}))

const PlanInput = builder.inputType('PlanEmbeddingMigrationInput', {
  description: 'Who is to embed everything.',
  fields: (t) => ({
    providerId: t.id({ required: true, description: 'The provider; that of the environment, too.' }),
    model: t.string({ description: "The embedding model; the provider's own unless given." }),
    dimensions: t.int({
      description:
        'Length of the vectors, 1..4000, where the model has a choice; what it gives unless given.',
    }),
  }),
})

const StartInput = builder.inputType('StartEmbeddingMigrationInput', {
  description: 'Who is to embed everything.',
  fields: (t) => ({
    providerId: t.id({ required: true, description: 'The provider; that of the environment, too.' }),
    model: t.string({ description: "The embedding model; the provider's own unless given." }),
    dimensions: t.int({
      description:
        'Length of the vectors, 1..4000, where the model has a choice; what it gives unless given.',
    }),
  }),
})

function readTarget(input: typeof PlanInput.$inferInput): TargetInput {
  const { id } = readGlobalId(input.providerId, 'Provider')
  const isEnvironment = id === environmentProviders.EMBEDDING.id
  if (!isEnvironment && !isUuid(id))
    throw new InvalidInputError('providerId is of a provider that embeds nothing', ['providerId'])
  if (input.model != null) requireText(input.model, ['model'], 200)
  return {
    providerId: isEnvironment ? null : id,
    model: input.model ?? null,
    dimensions: input.dimensions ?? null,
  }
}

async function withTarget<Result>(
  input: typeof PlanInput.$inferInput,
  { providers, openEnvironment, usage }: Context,
  work: (target: OpenTarget) => Promise<Result>,
): Promise<Result> {
  const target = await openTarget(readTarget(input), providers, openEnvironment, usage)
  try {
    return await work(target)
  } finally {
    await target.client.close()
  }
}

const PlanPayload = builder.objectRef<MigrationPlan>('PlanEmbeddingMigrationPayload').implement({
  description: 'What it would take; nothing was changed.',
  fields: (t) => ({
    model: t.exposeString('model', { description: 'The model that would embed.' }),
    dimensions: t.exposeInt('dimensions', { description: 'Length of its vectors, as it gave one just now.' }),
    rows: t.exposeInt('rows', { description: 'Messages, atoms and topics that have something to embed.' }),
    tokens: t.exposeFloat('tokens', { description: 'Tokens that would be sent, estimated.' }),
    requests: t.exposeInt('requests', { description: 'Requests that would be made, estimated.' }),
    cost: t.exposeFloat('cost', { nullable: true, description: 'US dollars. Null without a price.' }),
    seconds: t.exposeFloat('seconds', {
      nullable: true,
      description: 'How long one process would take. Null where nothing could be measured.',
    }),
    assumptions: t.exposeStringList('assumptions', { description: 'What the figures rest on, for people.' }),
  }),
})

builder.mutationField('planEmbeddingMigration', (t) =>
  t.field({
    type: PlanPayload,
    nullable: true,
    description:
      'What it would take to move everything to another embedding model. The provider is asked to embed one request of texts, to see how long that takes.',
    args: { input: t.arg({ type: PlanInput, required: true, description: 'Who is to embed.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ProviderError] },
    resolve: (_root, { input }, context) =>
      withTarget(input, context, (target) => planMigration(context.database, target)),
  }),
)

const StartPayload = builder
  .objectRef<{ spaceId: number; jobId: string }>('StartEmbeddingMigrationPayload')
  .implement({
    description: 'The migration that was started.',
    fields: (t) => ({
      space: t.field({
        type: EmbeddingSpaceNode,
        description: 'The new space, BUILDING: what is written is embedded in it, too, from now on.',
        resolve: ({ spaceId }, _args, { database }) => requireSpace(database, spaceId),
      }),
      job: t.field({
        type: JobNode,
        description:
          'Ends when everything is READY, FAILED or SKIPPED in the new space. Cancel it to pause the migration, and take it up again to go on.',
        resolve: ({ jobId }, _args, context) => readJob(context, jobId),
      }),
    }),
  })

builder.mutationField('startEmbeddingMigration', (t) =>
  t.field({
    type: StartPayload,
    nullable: true,
    description:
      'Makes an embedding space beside the active one and fills it. Searches go on in the active one until the new one is activated. One migration at a time.',
    args: { input: t.arg({ type: StartInput, required: true, description: 'Who is to embed.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError, ProviderError] },
    resolve: (_root, { input }, context) =>
      withTarget(input, context, async (target) => {
        const started = await startMigration(context.database, target)
        await context.spaces.refresh()
        return started
      }),
  }),
)

const spacePayload = (name: string, description: string, about: string) =>
  builder.objectRef<{ spaceId: number }>(name).implement({
    description,
    fields: (t) => ({
      space: t.field({
        type: EmbeddingSpaceNode,
        description: about,
        resolve: ({ spaceId }, _args, { database }) => requireSpace(database, spaceId),
      }),
    }),
  })

const CompareInput = builder.inputType('CompareEmbeddingSpacesInput', {
  description: 'Which embedding space to compare with the active one.',
  fields: (t) => ({ spaceId: t.id({ required: true, description: 'The space.' }) }),
})

const ComparePayload = spacePayload(
  'CompareEmbeddingSpacesPayload',
  'What came of the comparison.',
  'The space, with its comparison.',
)

builder.mutationField('compareEmbeddingSpaces', (t) =>
  t.field({
    type: ComparePayload,
    nullable: true,
    description:
      'Asks the saved queries and the newest searches, 100 at most, in a space and in the active one, and stores how the answers compare.',
    args: { input: t.arg({ type: CompareInput, required: true, description: 'Which space.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError, ProviderError] },
    resolve: async (_root, { input }, context) => {
      const spaceId = spaceIdOf(input.spaceId)
      await compareSpaces(context, spaceId)
      return { spaceId }
    },
  }),
)

const ActivateInput = builder.inputType('ActivateEmbeddingSpaceInput', {
  description: 'Which embedding space searches change over to.',
  fields: (t) => ({
    spaceId: t.id({ required: true, description: 'The space; also one that was active before, to go back.' }),
    force: t.boolean({ defaultValue: false, description: 'Whether the conditions of its gate are ignored.' }),
  }),
})

const ActivatePayload = spacePayload(
  'ActivateEmbeddingSpacePayload',
  'What searches use now.',
  'The space, ACTIVE. Searches of this server use it; other servers change over within a second.',
)

builder.mutationField('activateEmbeddingSpace', (t) =>
  t.field({
    type: ActivatePayload,
    nullable: true,
    description:
      'Searches change over to a space, in one transaction; the one before stays in step until it is retired, and activating it again is the way back. Refused while a condition of its `gate` is not met, unless forced; one that was not compared yet is compared first.',
    args: { input: t.arg({ type: ActivateInput, required: true, description: 'Which space.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError, ProviderError] },
    resolve: async (_root, { input }, context) => {
      const spaceId = spaceIdOf(input.spaceId)
      await changeOver(context, spaceId, input.force ?? false)
      return { spaceId }
    },
  }),
)

const RetireInput = builder.inputType('RetireEmbeddingSpaceInput', {
  description: 'Which embedding space is no longer needed.',
  fields: (t) => ({ spaceId: t.id({ required: true, description: 'The space.' }) }),
})

const RetirePayload = spacePayload(
  'RetireEmbeddingSpacePayload',
  'What is no longer filled.',
  'The space, RETIRED. Its vectors and indexes are dropped when no process uses them any more, within seconds.',
)

builder.mutationField('retireEmbeddingSpace', (t) =>
  t.field({
    type: RetirePayload,
    nullable: true,
    description:
      'Gives up an embedding space that is not the active one: what fills it is cancelled, and its vectors are dropped. There is no way back to it.',
    args: { input: t.arg({ type: RetireInput, required: true, description: 'Which space.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, context) => {
      const spaceId = spaceIdOf(input.spaceId)
      await context.database.transaction((transaction) => retireSpace(transaction, spaceId))
      await context.spaces.refresh()
      return { spaceId }
    },
  }),
)

const JudgementInput = builder.inputType('JudgementInput', {
  description: 'A right answer to a query.',
  fields: (t) => ({
    answerId: t.id({ required: true, description: 'A message, atom or topic.' }),
    grade: t.int({
      defaultValue: 1,
      description: 'How good an answer it is, 1..3: 1 helps, 2 answers, 3 is the best.',
    }),
  }),
})

const SavedQueryInput = builder.inputType('SavedQueryInput', {
  description: 'A query to compare embedding spaces with.',
  fields: (t) => ({
    query: t.string({
      required: true,
      description: `What is looked for, at most ${maxQueryLength} characters.`,
    }),
    judgements: t.field({
      type: [JudgementInput],
      description: `Its right answers, as far as they are known, at most ${maxJudgements}; they take the place of those of before.`,
    }),
  }),
})

const SaveInput = builder.inputType('SaveSearchQueriesInput', {
  description: 'Queries to keep.',
  fields: (t) => ({
    queries: t.field({
      type: [SavedQueryInput],
      required: true,
      description: `1..${maxSaved} queries.`,
    }),
  }),
})

const JudgementObject = builder.objectRef<Judgement>('Judgement').implement({
  description: 'A right answer to a query.',
  fields: (t) => ({
    answerId: t.globalID({
      description: 'Global id of the message, atom or topic.',
      resolve: ({ kind, ownerId }) => ({ type: typeOfKind[kind], id: ownerId }),
    }),
    grade: t.exposeInt('grade', { description: 'How good an answer it is, 1..3.' }),
  }),
})

const SampleQueryObject = builder.objectRef<SampleQuery>('SampleQuery').implement({
  description: 'A query that embedding spaces are compared with.',
  fields: (t) => ({
    query: t.exposeString('query', { description: 'What is looked for.' }),
    isSaved: t.exposeBoolean('isSaved', {
      description: 'Whether it is kept until it is forgotten. Others are of the newest 200 searches.',
    }),
    judgements: t.field({
      type: [JudgementObject],
      description: 'Its right answers, as far as they are known.',
      resolve: ({ judgements }) => judgements,
    }),
  }),
})

builder.queryField('searchQueries', (t) =>
  t.field({
    type: [SampleQueryObject],
    description: `The queries that embedding spaces are compared with, saved ones first, then the newest; at most ${maxShown}.`,
    resolve: (_root, _args, { database }) => readSampleQueries(database, maxShown),
  }),
)

const SavePayload = builder.objectRef<{ saved: number }>('SaveSearchQueriesPayload').implement({
  description: 'What is kept.',
  fields: (t) => ({ saved: t.exposeInt('saved', { description: 'Queries that were saved.' }) }),
})

const kindOfType: Record<string, EntityKind> = { Message: 'MESSAGE', Atom: 'ATOM', Topic: 'TOPIC' }
const typeOfKind: Record<EntityKind, string> = { MESSAGE: 'Message', ATOM: 'Atom', TOPIC: 'Topic' }

function readJudgement(input: typeof JudgementInput.$inferInput, path: readonly string[]): Judgement {
  const { typename, id } = readGlobalId(input.answerId)
  const kind = kindOfType[typename]
  const grade = input.grade ?? 1
  if (!kind)
    throw new InvalidInputError(
      `${path.join('.')} is the id of a ${typename}; an answer is a Message, Atom or Topic`,
      path,
    )
  if (grade < 1 || grade > 3) throw new InvalidInputError(`The grade is ${grade}; it must be 1..3`, path)
  return { kind, ownerId: id, grade }
}

builder.mutationField('saveSearchQueries', (t) =>
  t.field({
    type: SavePayload,
    nullable: true,
    description:
      'Keeps queries, with their right answers where they are known, to compare embedding spaces with. One that is saved already gets the answers that are given now.',
    args: { input: t.arg({ type: SaveInput, required: true, description: 'The queries.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database }) => {
      requireCount(input.queries.length, ['queries'], 1, maxSaved)
      const queries = input.queries.map(({ query, judgements }, index) => {
        const path = ['queries', String(index)]
        requireText(query, [...path, 'query'], maxQueryLength)
        requireCount(judgements?.length ?? 0, [...path, 'judgements'], 0, maxJudgements)
        const read = (judgements ?? []).map((each, at) =>
          readJudgement(each, [...path, 'judgements', String(at), 'answerId']),
        )
        return { query, judgements: [...new Map(read.map((each) => [each.ownerId, each])).values()] }
      })
      const owners = queries.flatMap(({ judgements }) =>
        judgements.map(({ kind, ownerId }) => ({ kind, id: ownerId })),
      )
      const known = new Set((await existingOwners(database, owners)).map(({ id }) => id))
      const missing = owners.filter(({ id }) => !known.has(id)).length
      if (missing > 0) throw new NotFoundError(`${missing} of the answers do not exist`)
      await database.transaction(async (transaction) => {
        for (const { query, judgements } of queries) await saveQuery(transaction, query, judgements)
      })
      return { saved: queries.length }
    },
  }),
)

const ForgetInput = builder.inputType('ForgetSearchQueriesInput', {
  description: 'Saved queries that are no longer needed.',
  fields: (t) => ({
    queries: t.stringList({ required: true, description: `1..${maxSaved} queries, as they were saved.` }),
  }),
})

const ForgetPayload = builder.objectRef<{ forgotten: number }>('ForgetSearchQueriesPayload').implement({
  description: 'What is gone.',
  fields: (t) => ({
    forgotten: t.exposeInt('forgotten', { description: 'Queries that were saved, and are no longer.' }),
  }),
})

builder.mutationField('forgetSearchQueries', (t) =>
  t.field({
    type: ForgetPayload,
    nullable: true,
    description: 'Forgets saved queries and their answers; one that is not saved is left out.',
    args: { input: t.arg({ type: ForgetInput, required: true, description: 'Which queries.' }) },
    errors: { types: [InvalidInputError] },
    resolve: async (_root, { input }, { database }) => {
      requireCount(input.queries.length, ['queries'], 1, maxSaved)
      return { forgotten: await forgetQueries(database, input.queries) }
    },
  }),
)
