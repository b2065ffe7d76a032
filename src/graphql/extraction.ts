import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { readAgent, readDefaultAgent } from '../extraction/agents.ts'
import type { ExtractionScope } from '../extraction/claims.ts'
import { type ExtractionEstimate, estimateExtraction } from '../extraction/estimate.ts'
import type { ExtractParams } from '../extraction/extract-job.ts'
import { enqueueJob } from '../jobs/queue.ts'
import { ProviderError } from '../providers/provider.ts'
import { setJobBudget } from '../providers/usage-records.ts'
import { AgentNode } from './agent.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'
import { toQueryError } from './errors.ts'
import { maxBudget, requireBudget, requireCount } from './input.ts'
import { JobNode, readJob } from './job.ts'
import { MessageNode } from './message.ts'
import { TopicNode } from './topic.ts'

/** In one call that names them. */
export const maxMessages = 100
const dayMs = 24 * 3_600_000
const daysOf = { LAST_24H: 1, LAST_7D: 7, LAST_30D: 30 } as const

const PeriodEnum = builder.enumType('Period', {
  description: 'A stretch of time that ends now.',
  values: {
    LAST_24H: { description: 'The last 24 hours.' },
    LAST_7D: { description: 'The last 7 days.' },
    LAST_30D: { description: 'The last 30 days.' },
  } satisfies Record<keyof typeof daysOf, { description: string }>,
})

const PeriodInput = builder.inputType('PeriodInput', {
  description: 'A stretch of time: either `last`, or `from` and/or `to`.',
  fields: (t) => ({
    last: t.field({ type: PeriodEnum, description: 'The time up to now.' }),
    from: t.field({ type: 'DateTime', description: 'From this moment on; from the beginning unless given.' }),
    to: t.field({ type: 'DateTime', description: 'Before this moment; up to now unless given.' }),
  }),
})

const ExtractKnowledgeInput = builder.inputType('ExtractKnowledgeInput', {
  description: 'What to read: exactly one of `messageIds` and `period`.',
  fields: (t) => ({
    messageIds: t.globalIDList({
      for: MessageNode,
      description: `These messages, 1..${maxMessages}; also if they were read before or are noise.`,
    }),
    period: t.field({
      type: PeriodInput,
      description: 'Messages that were sent in this time, without noise and without what was read before.',
    }),
    topicId: t.globalID({
      for: TopicNode,
      description: 'Everything goes to this topic, and no other is made.',
    }),
    agentId: t.globalID({
      for: AgentNode,
      description:
        'The agent that reads. Unless given: the default agent, and where there is none, what the environment configures.',
    }),
    budget: t.float({
      description: `What the job may spend, in US dollars, 0..${maxBudget}; when it has, it waits until setJobBudget raises it. Needs an agent whose provider has both prices. No budget unless given.`,
    }),
  }),
})

/**
 * Who reads what is started without an agent, as it is now; the job settles that as it begins.
 * @throws ConflictError where nobody knows what the reading costs: the budget would never be reached
 */
async function requirePriced({ database, loaders }: Context, agentId: string | undefined): Promise<void> {
  const agent = agentId === undefined ? await readDefaultAgent(database) : await readAgent(database, agentId)
  const provider = agent && (await loaders.provider.load(agent.providerId))
  if (!provider) {
    throw new ConflictError(
      'A budget needs an agent: what the environment configures has no price. Give an agentId, make an agent the default, or leave budget out',
    )
  }
  if (provider.pricePerMillionTokensIn !== null && provider.pricePerMillionTokensOut !== null) return
  throw new ConflictError(
    `A budget needs prices: give provider ${provider.name} its pricePerMillionTokensIn and pricePerMillionTokensOut (0 for what is free), or leave budget out`,
  )
}

const ExtractKnowledgePayload = builder.objectRef<{ jobId: string }>('ExtractKnowledgePayload').implement({
  description: 'The extraction that was started.',
  fields: (t) => ({
    job: t.field({
      type: JobNode,
      description:
        'Counts messages: succeeded were read, failed are in a batch that could not be (`result.failures` says why). `result` counts topicsCreated, topicsMatched, atomsCreated, revisionsProposed, linksCreated, messagesAssigned, tokensIn, tokensOut, and what was dropped.',
      resolve: ({ jobId }, _args, context) => readJob(context, jobId),
    }),
  }),
})

builder.mutationField('extractKnowledge', (t) =>
  t.field({
    type: ExtractKnowledgePayload,
    nullable: true,
    description: 'Starts to read messages for topics, atoms and links. Answers with the job at once.',
    args: { input: t.arg({ type: ExtractKnowledgeInput, required: true, description: 'What to read.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, context) => {
      const { database, extractors } = context
      const budget = input.budget ?? null
      requireBudget(budget)
      const scope = readScope(input)
      const topicId = input.topicId?.id ?? null
      const agentId = input.agentId?.id
      await requireRows(database, scope, topicId)
      if (agentId !== undefined) await requireUsable(extractors, database, agentId)
      if (budget !== null) await requirePriced(context, agentId)
      const params: ExtractParams = { ...scope, topicId, ...(agentId === undefined ? {} : { agentId }) }
      const jobId = await database.transaction(async (transaction) => {
        const id = await enqueueJob(transaction, 'EXTRACT', { ...params })
        if (budget !== null) await setJobBudget(transaction, id, budget)
        return id
      })
      return { jobId }
    },
  }),
)

const ExtractionEstimateObject = builder.objectRef<ExtractionEstimate>('ExtractionEstimate').implement({
  description:
    'What an extraction would take. Tokens are estimated, rather too high; answers that have to be repaired and the embedding of what is found come on top.',
  fields: (t) => ({
    agent: t.field({
      type: AgentNode,
      nullable: true,
      description: 'Who would read. Null: what the environment configures.',
      resolve: ({ agent }) => agent,
    }),
    messages: t.exposeInt('messages', { description: 'Messages that would be read.' }),
    requests: t.exposeInt('requests', {
      description: 'Requests to the provider. 0 where rules read, which ask nobody.',
    }),
    tokensIn: t.exposeFloat('tokensIn', { description: 'Tokens that would be sent; a whole number.' }),
    tokensOut: t.exposeFloat('tokensOut', {
      nullable: true,
      description:
        'Tokens of the answers, by those of the last 30 days; a whole number. Null until the provider has extracted something.',
    }),
    cost: t.exposeFloat('cost', {
      nullable: true,
      description:
        'US dollars; where tokensOut is null, of what is sent alone. Null where the provider has no price.',
    }),
    seconds: t.exposeFloat('seconds', {
      nullable: true,
      description:
        'How long the provider would take, by its limits and by the requests of the last 30 days. Null where neither says it.',
    }),
  }),
})

builder.queryField('estimateExtraction', (t) =>
  t.field({
    type: ExtractionEstimateObject,
    description: 'What `extractKnowledge` with this input would take and cost, without asking the provider.',
    args: { input: t.arg({ type: ExtractKnowledgeInput, required: true, description: 'What to read.' }) },
    resolve: async (_root, { input }, { database, extraction, extractor }) => {
      try {
        const scope = readScope(input)
        await requireRows(database, scope, input.topicId?.id ?? null)
        return await estimateExtraction(database, scope, input.agentId?.id, extraction, extractor)
      } catch (error) {
        throw toQueryError(error)
      }
    },
  }),
)

function readScope(input: typeof ExtractKnowledgeInput.$inferInput): ExtractionScope {
  const { messageIds, period } = input
  if ((messageIds == null) === (period == null)) {
    throw new InvalidInputError(
      `${messageIds == null ? 'Neither' : 'Both'} of messageIds and period are given; give exactly one`,
    )
  }
  if (messageIds != null) {
    requireCount(messageIds.length, ['messageIds'], 1, maxMessages)
    return { messageIds: messageIds.map(({ id }) => id) }
  }
  const { last, from, to } = period ?? {}
  if ((last == null) === (from == null && to == null)) {
    throw new InvalidInputError('A period is either last, or from and/or to', ['period'])
  }
  const now = new Date()
  const begin = last == null ? (from ?? new Date(0)) : new Date(now.getTime() - daysOf[last] * dayMs)
  const end = to ?? now
  if (begin >= end) {
    throw new InvalidInputError(
      `The period begins at ${begin.toISOString()} and ends at ${end.toISOString()}`,
      ['period'],
    )
  }
  return { from: begin.toISOString(), to: end.toISOString() }
}

/** A job would wait for an agent that cannot read; whoever starts it by hand should know at once. */
async function requireUsable(
  extractors: Context['extractors'],
  database: Context['database'],
  agentId: string,
): Promise<void> {
  await readAgent(database, agentId)
  try {
    await (await extractors.open(agentId, null)).close()
  } catch (error) {
    throw error instanceof ProviderError ? new ConflictError(error.message) : error
  }
}

async function requireRows(
  database: Context['database'],
  scope: ExtractionScope,
  topicId: string | null,
): Promise<void> {
  if (topicId !== null && !(await database.prisma.topic.findUnique({ where: { id: topicId } }))) {
    throw new NotFoundError('There is no topic with this id')
  }
  if ('messageIds' in scope) await requireMessages(database, scope.messageIds)
}

/** @throws NotFoundError */
export async function requireMessages(
  database: Context['database'],
  messageIds: readonly string[],
): Promise<void> {
  const wanted = [...new Set(messageIds)]
  const found = await database.prisma.message.count({ where: { id: { in: wanted } } })
  if (found < wanted.length) throw new NotFoundError(`${wanted.length - found} of the messages do not exist`)
}

builder.prismaObjectField(JobNode, 'agent', (t) =>
  t.field({
    type: AgentNode,
    nullable: true,
    description:
      'The agent that reads, of an EXTRACT job. Null until the job begins, where what the environment configures reads, and once the agent is deleted.',
    select: { params: true },
    resolve: ({ params }, _args, { loaders }) => {
      const agentId = Object(params).agentId
      return typeof agentId === 'string' ? loaders.agent.load(agentId) : null
    },
  }),
)
