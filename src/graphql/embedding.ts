import { createBell } from '../bell.ts'
import { type EmbeddingCoverage as Coverage, percentReady, readCoverage } from '../embedding/coverage.ts'
import { type EmbeddingProgress as Progress, type ProgressFeed, saysTheSame } from '../embedding/progress.ts'
import { existingOwners, type OwnerRef, requestEmbeddings } from '../embedding/requests.ts'
import {
  type EmbeddingSpace,
  type EntityKind,
  entityKinds,
  readSpaces,
  type VectorPrecision,
} from '../embedding/spaces.ts'
import { InvalidInputError, NotFoundError } from '../errors.ts'
import { enqueueJob } from '../jobs/queue.ts'
import { builder, readGlobalId, readSeq } from './builder.ts'
import type { Context } from './context.ts'
import { requireCount } from './input.ts'
import { iterate } from './iterate.ts'
import { JobNode, readJob } from './job.ts'
import { environmentProviders, ProviderNode } from './provider.ts'

const maxEmbedIds = 1000

export const EntityKindEnum = builder.enumType('EntityKind', {
  description: 'The kinds of things that are embedded and searched.',
  values: {
    MESSAGE: { description: 'A chat message; its content is embedded.' },
    ATOM: { description: 'A unit of knowledge; its title and content are embedded.' },
    TOPIC: { description: 'A theme; its name, description and keywords are embedded.' },
  } satisfies Record<EntityKind, { description: string }>,
})

export const EmbeddingStatusEnum = builder.enumType('EmbeddingStatus', {
  description: 'Where a text is on its way to being found by meaning.',
  values: {
    PENDING: { description: 'Queued.' },
    READY: { description: 'Embedded; findable by meaning.' },
    STALE: {
      description: 'The text has changed since; findable by the old meaning until the new one is there.',
    },
    FAILED: { description: 'Given up; the reason is in `embeddingError`.' },
    SKIPPED: { description: 'Nothing to embed: blank, or no word that the model knows.' },
  } as const,
})

const SpaceStateEnum = builder.enumType('SpaceState', {
  description: 'What an embedding space is used for.',
  values: {
    BUILDING: { description: 'Being filled beside the active one.' },
    ACTIVE: { description: 'Searches use it. There is one.' },
    RETIRED: { description: 'No longer filled or searched.' },
  } as const,
})

const EmbeddingCoverage = builder.objectRef<Coverage>('EmbeddingCoverage').implement({
  description: 'How much of one kind is embedded.',
  fields: (t) => ({
    kind: t.field({ type: EntityKindEnum, description: 'What is counted.', resolve: ({ kind }) => kind }),
    total: t.exposeInt('total', { description: 'All rows: the sum of the five counts.' }),
    ready: t.exposeInt('ready', { description: 'Rows that are READY.' }),
    pending: t.exposeInt('pending', { description: 'Rows that are PENDING.' }),
    stale: t.exposeInt('stale', { description: 'Rows that are STALE.' }),
    failed: t.exposeInt('failed', { description: 'Rows that are FAILED.' }),
    skipped: t.exposeInt('skipped', { description: 'Rows that are SKIPPED.' }),
    percentReady: t.float({
      description:
        'READY of all that can be embedded (total without skipped), 0..100; 100 when there is nothing to embed.',
      resolve: percentReady,
    }),
  }),
})

export const VectorPrecisionEnum = builder.enumType('VectorPrecision', {
  description: 'In what precision vectors are indexed and compared; they are stored whole.',
  values: {
    FULL: { description: 'Four bytes a number; up to 2,000 dimensions.' },
    HALF: { description: 'Two bytes a number: half the room, and nearly the same order.' },
  } satisfies Record<VectorPrecision, { description: string }>,
})

export const EmbeddingSpaceNode = builder.objectRef<EmbeddingSpace>('EmbeddingSpace')
builder.node(EmbeddingSpaceNode, {
  description: 'One model at one dimension: vectors are comparable only inside one space.',
  id: { resolve: (space) => String(space.id), description: 'Global id.' },
  isTypeOf: (value) =>
    typeof value === 'object' && value !== null && 'dimensions' in value && 'state' in value,
  loadMany: async (ids, context) => {
    const spaces = await readSpaces(context.database)
    return ids.map((id) => spaces.find((space) => String(space.id) === id) ?? null)
  },
  fields: (t) => ({
    provider: t.field({
      type: ProviderNode,
      description: 'Who makes the vectors.',
      resolve: async ({ providerId }, _args, { loaders }) => {
        if (providerId === null) return environmentProviders.EMBEDDING
        const row = await loaders.provider.load(providerId)
        if (!row) throw new Error(`provider ${providerId} of an embedding space is gone`)
        return row
      },
    }),
    model: t.exposeString('model', { description: 'The embedding model, as the provider names it.' }),
    dimensions: t.exposeInt('dimensions', { description: 'Length of the vectors.' }),
    precision: t.field({
      type: VectorPrecisionEnum,
      description: 'In what precision its vectors are indexed and compared.',
      resolve: ({ precision }) => precision,
    }),
    state: t.field({
      type: SpaceStateEnum,
      description: 'What it is used for.',
      resolve: ({ state }) => state,
    }),
    coverage: t.field({
      type: [EmbeddingCoverage],
      description: 'How much of each kind is embedded in this space: MESSAGE, ATOM, TOPIC.',
      resolve: async ({ id }, _args, { database }) => (await readCoverage(database, id)).coverage,
    }),
  }),
})

builder.queryField('embeddingCoverage', (t) =>
  t.field({
    type: [EmbeddingCoverage],
    description: 'How much of each kind is embedded in the active space: MESSAGE, ATOM, TOPIC.',
    resolve: async (_root, _args, { database, space }) => (await readCoverage(database, space.id)).coverage,
  }),
)

builder.queryField('embeddingSpaces', (t) =>
  t.field({
    type: [EmbeddingSpaceNode],
    description: 'All embedding spaces, newest first.',
    resolve: (_root, _args, { database }) => readSpaces(database),
  }),
)

const EmbeddingProgress = builder.objectRef<Progress>('EmbeddingProgress').implement({
  description: 'How far embedding is, at one moment.',
  fields: (t) => ({
    seq: t.exposeString('seq', {
      description: 'Number of this moment; it never gets smaller. Give it as `afterSeq` after a reconnect.',
    }),
    at: t.field({
      type: 'DateTime',
      description: 'When it was counted, by the clock of the database.',
      resolve: ({ at }) => at,
    }),
    coverage: t.field({
      type: [EmbeddingCoverage],
      description: 'Counts of each kind that was asked for.',
      resolve: ({ coverage }) => coverage,
    }),
    ratePerSecond: t.exposeFloat('ratePerSecond', {
      description:
        'Rows that became READY, a second, over the last ten seconds, or for as long as this server has watched; it watches while somebody is subscribed.',
    }),
    etaSeconds: t.exposeFloat('etaSeconds', {
      nullable: true,
      description:
        'Seconds until nothing is queued, at this rate. 0 when nothing is queued; null while the rate is zero.',
    }),
    lastError: t.exposeString('lastError', {
      nullable: true,
      description:
        'Why the provider does nothing, or a reason why something could not be embedded. Null if nothing has one.',
    }),
    waitingUntil: t.field({
      type: 'DateTime',
      nullable: true,
      description:
        'Until when the provider is left alone, because it has asked for that or failed. Null if it is not.',
      resolve: ({ waitingUntil }) => waitingUntil,
    }),
  }),
})

builder.subscriptionField('embeddingProgress', (t) =>
  t.field({
    type: EmbeddingProgress,
    description:
      'A snapshot at once, then one with each change (several changes within 250 ms come as one). While something is owed the rate counts as a change, too: once a second.',
    args: {
      kinds: t.arg({ type: [EntityKindEnum], description: 'What to count; everything unless given.' }),
      afterSeq: t.arg.string({
        description: 'The last number that was seen: the first snapshot is sent only if there is news since.',
      }),
      spaceId: t.arg.id({ description: 'Of which embedding space; of whichever is active unless given.' }),
    },
    subscribe: async (_root, { kinds, afterSeq, spaceId }, { progress }) =>
      followProgress(
        progress(spaceId == null ? null : Number(readGlobalId(spaceId, 'EmbeddingSpace').id)),
        kinds ?? entityKinds,
        afterSeq == null ? null : BigInt(readSeq(afterSeq)),
      ),
    resolve: (progress) => progress,
  }),
)

async function followProgress(
  feed: ProgressFeed,
  kinds: readonly EntityKind[],
  seen: bigint | null,
): Promise<AsyncIterableIterator<Progress>> {
  const bell = createBell()
  let last: Progress | null = null
  const unsubscribe = await feed.subscribe(bell.ring)
  return iterate<Progress>(async (signal) => {
    if (!last) {
      last = await feed.read(kinds)
      // An open transaction keeps the number where it is: equal numbers then do not mean that there is no news.
      if (seen === null || BigInt(last.seq) > seen || !last.isSettled) return last
    }
    while (!signal.aborted) {
      await bell.wait({ signal })
      const latest = feed.latest(kinds)
      if (!latest || saysTheSame(latest, last)) continue
      last = latest
      return latest
    }
    return null
  }, unsubscribe)
}

const EmbedInput = builder.inputType('EmbedInput', {
  description: 'What to embed now.',
  fields: (t) => ({
    ids: t.idList({ required: true, description: `Messages, atoms and topics, 1..${maxEmbedIds}.` }),
    force: t.boolean({ defaultValue: false, description: 'Whether what is READY is embedded again, too.' }),
  }),
})

const EmbedPayload = builder.objectRef<{ jobId: string }>('EmbedPayload').implement({
  description: 'The job that was started.',
  fields: (t) => ({
    job: t.field({
      type: JobNode,
      description:
        'Ends when the last of the rows is READY, FAILED or SKIPPED. What was READY already counts as skipped.',
      resolve: ({ jobId }, _args, context) => readJob(context, jobId),
    }),
  }),
})

builder.mutationField('embed', (t) =>
  t.field({
    type: EmbedPayload,
    nullable: true,
    description: 'Embeds the given messages, atoms and topics; those that had FAILED are tried again.',
    args: { input: t.arg({ type: EmbedInput, required: true, description: 'What to embed.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database, space }) => {
      const owners = readOwners(input.ids)
      const found = await existingOwners(database, owners)
      if (found.length < owners.length) {
        throw new NotFoundError(`${owners.length - found.length} of the ${owners.length} ids do not exist`)
      }
      const jobId = await database.transaction((transaction) =>
        requestEmbeddings(transaction, space.id, owners, input.force ?? false),
      )
      return { jobId }
    },
  }),
)

const BackfillEmbeddingsInput = builder.inputType('BackfillEmbeddingsInput', {
  description: 'What to complete.',
  fields: (t) => ({
    kinds: t.field({ type: [EntityKindEnum], description: 'Which kinds; everything unless given.' }),
    retryFailed: t.boolean({ defaultValue: false, description: 'Whether FAILED rows are tried again.' }),
  }),
})

const BackfillEmbeddingsPayload = builder
  .objectRef<{ jobId: string }>('BackfillEmbeddingsPayload')
  .implement({
    description: 'The job that was started.',
    fields: (t) => ({
      job: t.field({
        type: JobNode,
        description: 'Ends when everything of these kinds is READY, FAILED or SKIPPED.',
        resolve: ({ jobId }, _args, context) => readJob(context, jobId),
      }),
    }),
  })

builder.mutationField('backfillEmbeddings', (t) =>
  t.field({
    type: BackfillEmbeddingsPayload,
    nullable: true,
    description:
      'Makes sure that everything has an embedding: queues what is missing and, if asked to, what had failed.',
    args: {
      input: t.arg({ type: BackfillEmbeddingsInput, required: true, description: 'What to complete.' }),
    },
    errors: { types: [InvalidInputError] },
    resolve: async (_root, { input }, { database }) => {
      const kinds = input.kinds ?? entityKinds
      if (kinds.length === 0)
        throw new InvalidInputError('kinds is empty; leave it out to mean all', ['kinds'])
      const params = { kinds, retryFailed: input.retryFailed ?? false }
      return {
        jobId: await database.transaction((transaction) => enqueueJob(transaction, 'BACKFILL', params)),
      }
    },
  }),
)

const kindOfType: Record<string, EntityKind> = { Message: 'MESSAGE', Atom: 'ATOM', Topic: 'TOPIC' }

function readOwners(ids: readonly string[]): OwnerRef[] {
  requireCount(ids.length, ['ids'], 1, maxEmbedIds)
  const owners = new Map<string, OwnerRef>()
  for (const [index, globalId] of ids.entries()) {
    const { typename, id } = readGlobalId(globalId)
    const kind = kindOfType[typename]
    if (!kind) {
      throw new InvalidInputError(
        `ids[${index}] is the id of a ${typename}; only a Message, Atom or Topic is embedded`,
        ['ids', String(index)],
      )
    }
    owners.set(id, { kind, id })
  }
  return [...owners.values()]
}

/** The fields that say how a node's embedding is; the same on each kind. */
export function addEmbeddingFields(node: Parameters<typeof builder.objectFields>[0], kind: EntityKind): void {
  builder.objectFields(node, (t) => {
    const state = (parent: unknown, context: Context) =>
      context.loaders.embeddingState.load({ kind, id: (parent as { id: string }).id })
    return {
      embeddingStatus: t.field({
        type: EmbeddingStatusEnum,
        description: 'Whether it can be found by meaning.',
        // Owed by trigger in the statement that stores the row: a row without a record is one being deleted.
        resolve: async (parent, _args, context) => (await state(parent, context))?.status ?? 'PENDING',
      }),
      embeddedAt: t.field({
        type: 'DateTime',
        nullable: true,
        description: 'When the embedding was stored. Null until then.',
        resolve: async (parent, _args, context) => (await state(parent, context))?.embeddedAt ?? null,
      }),
      embeddingError: t.string({
        nullable: true,
        description:
          'Why it is FAILED or SKIPPED, or why it must be tried again. Null if nothing went wrong.',
        resolve: async (parent, _args, context) => (await state(parent, context))?.error ?? null,
      }),
    }
  })
}
