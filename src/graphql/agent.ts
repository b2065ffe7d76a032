import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import {
  type AgentFields,
  type AgentReading,
  type AgentRow,
  createAgent,
  deleteAgent,
  readAgent,
  readAgents,
  readAgentsById,
  updateAgent,
} from '../extraction/agents.ts'
import { defaultInstructions } from '../extraction/model/instructions.ts'
import { wakeWaitingJobs } from '../jobs/control.ts'
import { builder, isUuid } from './builder.ts'
import type { Context } from './context.ts'
import { requireRange, requireText } from './input.ts'
import { ProviderNode } from './provider.ts'

const limits = { name: 200, description: 2000, model: 200, instructions: 50_000, tokens: 1_000_000 } as const
const temperatures = { least: 0, most: 2, usual: 0 } as const

export const AgentNode = builder.objectRef<AgentRow>('Agent')
builder.node(AgentNode, {
  description: 'How knowledge is extracted: by which chat model, with which instructions.',
  id: { resolve: ({ id }) => id, description: 'Global id.' },
  isTypeOf: (value) => typeof value === 'object' && value !== null && 'maxOutputTokens' in value,
  loadMany: async (ids, { database }) => {
    const rows = await readAgentsById(database, ids)
    return ids.map((id) => rows.find((row) => row.id === id) ?? null)
  },
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What people call it; unique.' }),
    description: t.exposeString('description', {
      description: 'What it is for. Empty if nobody said.',
    }),
    provider: t.field({
      type: ProviderNode,
      description: 'Whose model reads.',
      resolve: async ({ providerId }, _args, { loaders }) => {
        const provider = await loaders.provider.load(providerId)
        // A foreign key keeps it.
        if (!provider) throw new Error(`provider ${providerId} of an agent is gone`)
        return provider
      },
    }),
    model: t.exposeString('model', { description: 'The chat model that reads, as its server names it.' }),
    instructions: t.string({
      description:
        'What the model is told to look for. How the messages come and what is answered is added to it.',
      resolve: ({ instructions }) => instructions ?? defaultInstructions,
    }),
    hasDefaultInstructions: t.boolean({
      description: 'Whether the instructions are those that ship with Quarry, and change with its versions.',
      resolve: ({ instructions }) => instructions === null,
    }),
    temperature: t.exposeFloat('temperature', {
      description:
        'How freely the model answers, 0..2; with 0 the same messages give nearly the same answer.',
    }),
    maxOutputTokens: t.exposeInt('maxOutputTokens', {
      nullable: true,
      description: 'Tokens that an answer may have. Null if that is up to the provider.',
    }),
    isActive: t.exposeBoolean('isActive', {
      description: 'Whether it may read. Jobs that are to be read by one that may not wait.',
    }),
    isDefault: t.exposeBoolean('isDefault', {
      description:
        'Whether it reads wherever nobody names an agent, so in all extractions that start by themselves. If none does, what the environment configures reads.',
    }),
    version: t.exposeInt('version', {
      description: 'Goes up with each change; give it as `expectedVersion` of a change.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was added.' }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime', description: 'When it was last changed.' }),
  }),
})

builder.queryField('agents', (t) =>
  t.field({
    type: [AgentNode],
    description: 'All agents, by name.',
    resolve: (_root, _args, { database }) => readAgents(database),
  }),
)

builder.queryField('defaultInstructions', (t) =>
  t.string({
    description: 'The instructions of agents that have none of their own: something to begin with.',
    resolve: () => defaultInstructions,
  }),
)

const about = {
  name: `What people call it; unique, at most ${limits.name} bytes.`,
  description: `What it is for, at most ${limits.description} bytes.`,
  providerId: 'Whose model reads: one that was added by createProvider.',
  model: `The chat model, as its server names it, at most ${limits.model} bytes; it must answer by a JSON Schema.`,
  instructions: `What to look for, at most ${limits.instructions} bytes; null: those that ship. How the messages come and what is answered is added to it.`,
  temperature: `How freely the model answers, ${temperatures.least}..${temperatures.most}. Reasoning models of OpenAI take only 1.`,
  maxOutputTokens: `Tokens that an answer may have, thinking included, 1..${limits.tokens}.`,
  isActive: 'Whether it may read',
  isDefault:
    'Whether it reads wherever nobody names an agent; true takes that from the one that did, and needs isActive.',
} as const

const CreateAgentInput = builder.inputType('CreateAgentInput', {
  description: 'A new agent.',
  fields: (t) => ({
    name: t.string({ required: true, description: about.name }),
    description: t.string({ defaultValue: '', description: about.description }),
    providerId: t.globalID({ for: ProviderNode, required: true, description: about.providerId }),
    model: t.string({ description: `${about.model} The provider's extractionModel unless given.` }),
    instructions: t.string({ description: about.instructions }),
    temperature: t.float({ defaultValue: temperatures.usual, description: about.temperature }),
    maxOutputTokens: t.int({ description: `${about.maxOutputTokens} Up to the provider unless given.` }),
    isActive: t.boolean({ defaultValue: true, description: `${about.isActive}.` }),
    isDefault: t.boolean({ defaultValue: false, description: about.isDefault }),
  }),
})

const CreateAgentPayload = builder.objectRef<{ agent: AgentRow }>('CreateAgentPayload').implement({
  description: 'The new agent.',
  fields: (t) => ({
    agent: t.field({ type: AgentNode, description: 'The agent.', resolve: ({ agent }) => agent }),
  }),
})

builder.mutationField('createAgent', (t) =>
  t.field({
    type: CreateAgentPayload,
    nullable: true,
    description: 'Adds an agent. Whether its instructions do what they should, `tryAgent` shows.',
    args: { input: t.arg({ type: CreateAgentInput, required: true, description: 'The agent.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, context) => {
      requireAgentFields(input)
      const fields: AgentFields = {
        name: input.name,
        description: input.description ?? '',
        ...(await readingOf(input, context)),
        isActive: input.isActive ?? true,
        isDefault: input.isDefault ?? false,
      }
      return { agent: await context.database.transaction((transaction) => createAgent(transaction, fields)) }
    },
  }),
)

const UpdateAgentInput = builder.inputType('UpdateAgentInput', {
  description: 'A change of an agent; what is left out stays as it is.',
  fields: (t) => ({
    id: t.globalID({ for: AgentNode, required: true, description: 'The agent.' }),
    expectedVersion: t.int({
      description:
        'The `version` that the change is meant for: if somebody else was faster, it is refused. Any unless given.',
    }),
    name: t.string({ description: about.name }),
    description: t.string({ description: about.description }),
    providerId: t.globalID({ for: ProviderNode, description: about.providerId }),
    model: t.string({ description: about.model }),
    instructions: t.string({ description: about.instructions }),
    temperature: t.float({ description: about.temperature }),
    maxOutputTokens: t.int({ description: `${about.maxOutputTokens} Null leaves it to the provider.` }),
    isActive: t.boolean({ description: `${about.isActive}.` }),
    isDefault: t.boolean({ description: about.isDefault }),
  }),
})

const UpdateAgentPayload = builder.objectRef<{ agent: AgentRow }>('UpdateAgentPayload').implement({
  description: 'The changed agent.',
  fields: (t) => ({
    agent: t.field({ type: AgentNode, description: 'The agent.', resolve: ({ agent }) => agent }),
  }),
})

builder.mutationField('updateAgent', (t) =>
  t.field({
    type: UpdateAgentPayload,
    nullable: true,
    description: 'Changes an agent. Jobs under way go on as they began; those that wait read by the new one.',
    args: { input: t.arg({ type: UpdateAgentInput, required: true, description: 'The change.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database }) => {
      requireAgentFields(input)
      const { id, expectedVersion, providerId, instructions, maxOutputTokens } = input
      const change: Partial<AgentFields> = {
        ...given(input, ['name', 'description', 'model', 'temperature', 'isActive', 'isDefault']),
        ...(providerId == null ? {} : { providerId: rowIdOf(providerId) }),
        ...(instructions === undefined ? {} : { instructions }),
        ...(maxOutputTokens === undefined ? {} : { maxOutputTokens }),
      }
      const agent = await database.transaction(async (transaction) => {
        const changed = await updateAgent(transaction, id.id, change, expectedVersion)
        await wakeWaitingJobs(transaction)
        return changed
      })
      return { agent }
    },
  }),
)

const DeleteAgentInput = builder.inputType('DeleteAgentInput', {
  description: 'Which agent.',
  fields: (t) => ({ id: t.globalID({ for: AgentNode, required: true, description: 'The agent.' }) }),
})

const DeleteAgentPayload = builder.objectRef<{ id: string }>('DeleteAgentPayload').implement({
  description: 'What was deleted.',
  fields: (t) => ({
    deletedAgentId: t.globalID({
      description: 'Global id that the agent had.',
      resolve: ({ id }) => ({ type: 'Agent', id }),
    }),
  }),
})

builder.mutationField('deleteAgent', (t) =>
  t.field({
    type: DeleteAgentPayload,
    nullable: true,
    description: 'Deletes an agent. What it extracted stays; jobs that wait to be read by it fail.',
    args: { input: t.arg({ type: DeleteAgentInput, required: true, description: 'The agent.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, { database }) => {
      await deleteAgent(database, input.id.id)
      return { id: input.id.id }
    },
  }),
)

type GivenReading = Partial<{ [Field in keyof AgentReading]: AgentReading[Field] | null }>

/**
 * By what a new agent reads, with what is left out filled in.
 * @throws InvalidInputError, NotFoundError
 */
export async function readingOf(
  input: Omit<GivenReading, 'providerId'> & { providerId: { id: string } },
  { loaders }: Context,
): Promise<AgentReading> {
  const providerId = rowIdOf(input.providerId)
  const provider = await loaders.provider.load(providerId)
  if (!provider) throw new NotFoundError('There is no provider with this id')
  const model = input.model ?? provider.extractionModel
  if (model === null) {
    throw new InvalidInputError(
      `model is not given, and provider ${provider.name} has no extractionModel: give one of them`,
      ['model'],
    )
  }
  if (provider.type === 'LOCAL') {
    throw new InvalidInputError('providerId is of type LOCAL, which has no chat model: take another one', [
      'providerId',
    ])
  }
  return {
    providerId,
    model,
    instructions: input.instructions ?? null,
    temperature: input.temperature ?? temperatures.usual,
    maxOutputTokens: input.maxOutputTokens ?? null,
  }
}

/** By what a stored agent reads, with what is given in its place. */
export async function readingOfAgent(
  id: string,
  change: Omit<GivenReading, 'providerId'> & { providerId?: { id: string } | null | undefined },
  { database }: Context,
): Promise<AgentReading> {
  const agent = await readAgent(database, id)
  return {
    providerId: change.providerId == null ? agent.providerId : rowIdOf(change.providerId),
    model: change.model ?? agent.model,
    instructions: change.instructions === undefined ? agent.instructions : change.instructions,
    temperature: change.temperature ?? agent.temperature,
    maxOutputTokens: change.maxOutputTokens === undefined ? agent.maxOutputTokens : change.maxOutputTokens,
  }
}

/** What agents and trials have in common. @throws InvalidInputError */
export function requireAgentFields(
  input: Omit<GivenReading, 'providerId'> & { name?: string | null; description?: string | null },
): void {
  if (input.name != null) requireText(input.name, ['name'], limits.name)
  if (input.description != null) requireText(input.description, ['description'], limits.description, true)
  if (input.model != null) requireText(input.model, ['model'], limits.model)
  if (input.instructions != null) requireText(input.instructions, ['instructions'], limits.instructions)
  requireRange(input.temperature, 'temperature', temperatures.least, temperatures.most)
  requireRange(input.maxOutputTokens, 'maxOutputTokens', 1, limits.tokens)
}

/** @throws InvalidInputError for what the environment configures: its keys and models are not a row's */
function rowIdOf({ id }: { id: string }): string {
  if (isUuid(id)) return id
  throw new InvalidInputError(
    'providerId is of a provider that the environment configures; add one by createProvider, and give its id',
    ['providerId'],
  )
}

/** Those of the fields that are given: for them null means the same as leaving them out. */
function given<Input extends object, Field extends keyof Input>(
  input: Input,
  fields: readonly Field[],
): { [Name in Field]?: NonNullable<Input[Name]> } {
  const entries = fields.flatMap((field) => (input[field] == null ? [] : [[field, input[field]]]))
  return Object.fromEntries(entries)
}
