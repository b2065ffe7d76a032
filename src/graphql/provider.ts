import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { wakeWaitingJobs } from '../jobs/control.ts'
import { createChatModel } from '../providers/chat/create.ts'
import { createEmbeddingProvider } from '../providers/create.ts'
import type { ProviderType } from '../providers/provider.ts'
import type { ProviderStatusRow } from '../providers/read-status.ts'
import {
  type ProviderFields,
  type ProviderRow,
  readProviders,
  readProvidersById,
} from '../providers/records.ts'
import { maxApiKeyLength } from '../providers/rules.ts'
import { createProviderStatus, type ProviderPurpose } from '../providers/status.ts'
import { accountChat, accountEmbeddings } from '../providers/usage.ts'
import { tryOut, validationLimitMs } from '../providers/validate.ts'
import { builder, isUuid } from './builder.ts'
import type { Context } from './context.ts'
import { maxBudget, requireBudget, requireRange, requireText } from './input.ts'

export const ProviderTypeEnum = builder.enumType('ProviderType', {
  description: 'How a provider is spoken to.',
  values: {
    LOCAL: { description: 'A model inside Quarry: no key, no network.' },
    OPENAI: { description: 'Any server with the OpenAI API.' },
    OLLAMA: { description: 'An Ollama server.' },
  } as const,
})

const ProviderStateEnum = builder.enumType('ProviderState', {
  description: 'How a provider does.',
  values: {
    PENDING: { description: 'Nobody has asked it for anything yet.' },
    VALIDATING: { description: 'It is being tried out.' },
    CONNECTED: { description: 'It does what it is asked, or has only asked to wait.' },
    ERROR: {
      description: 'It does not; `error` says why. Its work waits and goes on by itself once it does.',
    },
  } satisfies Record<ProviderStatusRow['state'], { description: string }>,
})

interface EnvironmentProvider {
  id: 'environment' | 'extraction'
  purpose: ProviderPurpose
}

/**
 * What the environment configures: who embeds, and, where that is not done by rules, who extracts. Each has the status of
 * its purpose, even if both are the same server.
 */
export const environmentProviders = {
  EMBEDDING: { id: 'environment', purpose: 'EMBEDDING' },
  EXTRACTION: { id: 'extraction', purpose: 'EXTRACTION' },
} as const satisfies Record<ProviderPurpose, EnvironmentProvider>

function environmentOf({ extractor }: Context): EnvironmentProvider[] {
  const { EMBEDDING, EXTRACTION } = environmentProviders
  return extractor.type === 'local' ? [EMBEDDING] : [EMBEDDING, EXTRACTION]
}

type Provider = EnvironmentProvider | ProviderRow

/** To which its requests are accounted; see providers/provider.ts. */
const accountOf = ({ id }: Provider): string => id
const isOfEnvironment = (provider: Provider): provider is EnvironmentProvider => 'purpose' in provider

/** What the two kinds of provider have in common, as it is known without asking anybody. */
type Settings = Omit<ProviderFields, 'isActive'> &
  Pick<ProviderRow, 'type' | 'embeddingDimensions'> & { hasApiKey: boolean }

function settingsOf(provider: Provider, context: Context): Settings {
  if (!isOfEnvironment(provider)) return { ...provider, hasApiKey: provider.keyId !== null }
  const { space, extractor } = context
  const isEmbedding = provider.purpose === 'EMBEDDING'
  const config = isEmbedding ? context.provider : extractor
  const type = config.type.toUpperCase() as Uppercase<ProviderType>
  // Of some models only an answer says it.
  const answered = space.providerId === null ? space.dimensions : null
  return {
    name: `${type.toLowerCase()} (environment${isEmbedding ? '' : ', extraction'})`,
    type,
    baseUrl: 'baseUrl' in config ? config.baseUrl : null,
    hasApiKey: config.type === 'openai' && config.apiKey !== '',
    embeddingModel: isEmbedding ? context.provider.model : null,
    embeddingDimensions: isEmbedding ? (context.provider.knownDimensions ?? answered) : null,
    extractionModel: isEmbedding || extractor.type === 'local' ? null : extractor.model,
    requestsPerMinute: null,
    tokensPerMinute: null,
    maxParallelRequests: null,
    pricePerMillionTokensIn: null,
    pricePerMillionTokensOut: null,
    monthlyBudget: null,
  }
}

async function statusOf(provider: Provider, context: Context): Promise<Omit<ProviderStatusRow, 'purpose'>> {
  if (isOfEnvironment(provider)) {
    const status = await context.loaders.providerStatus.load(provider.purpose)
    return status ?? { state: 'PENDING', error: null, validatedAt: null, waitingUntil: null }
  }
  // Worked out, not stored: with another QUARRY_ENCRYPTION_KEY it is true, or no longer true, from the start on.
  const keyProblem = context.providers.keyProblem(provider)
  return keyProblem === null ? provider : { ...provider, state: 'ERROR', error: keyProblem }
}

export const ProviderNode = builder.objectRef<Provider>('Provider')
builder.node(ProviderNode, {
  description: 'Something that embeds texts, or extracts knowledge from them.',
  id: { resolve: ({ id }) => id, description: 'Global id.' },
  isTypeOf: (value) =>
    typeof value === 'object' && value !== null && ('purpose' in value || 'connectionVersion' in value),
  loadMany: async (ids, context) => {
    const rows = await readProvidersById(context.database, ids.filter(isUuid))
    const all: Provider[] = [...environmentOf(context), ...rows]
    return ids.map((id) => all.find((provider) => provider.id === id) ?? null)
  },
  fields: (t) => ({
    name: t.string({
      description: 'What people call it; unique.',
      resolve: (provider, _args, context) => settingsOf(provider, context).name,
    }),
    type: t.field({
      type: ProviderTypeEnum,
      description: 'How it is spoken to.',
      resolve: (provider, _args, context) => settingsOf(provider, context).type,
    }),
    baseUrl: t.string({
      nullable: true,
      description: 'Where its server is. Null for LOCAL and for the default address of OPENAI.',
      resolve: (provider, _args, context) => settingsOf(provider, context).baseUrl,
    }),
    isActive: t.boolean({
      description: 'Whether it may be used.',
      resolve: (provider) => isOfEnvironment(provider) || provider.isActive,
    }),
    isEditable: t.boolean({
      description: 'Whether it can be changed and deleted. One that the environment configures cannot.',
      resolve: (provider) => !isOfEnvironment(provider),
    }),
    hasApiKey: t.boolean({
      description: 'Whether a key is configured; the key itself is never shown.',
      resolve: (provider, _args, context) => settingsOf(provider, context).hasApiKey,
    }),
    embeddingModel: t.string({
      nullable: true,
      description: 'The model that embeds. Null if it embeds nothing.',
      resolve: (provider, _args, context) => settingsOf(provider, context).embeddingModel,
    }),
    embeddingDimensions: t.int({
      nullable: true,
      description: 'Length of its vectors. Null if it embeds nothing, or until it is validated.',
      resolve: (provider, _args, context) => settingsOf(provider, context).embeddingDimensions,
    }),
    extractionModel: t.string({
      nullable: true,
      description: 'The chat model that extracts. Null if it extracts nothing, or by rules.',
      resolve: (provider, _args, context) => settingsOf(provider, context).extractionModel,
    }),
    requestsPerMinute: t.int({
      nullable: true,
      description: 'Requests that each process sends it in a minute at most. Null without a limit of ours.',
      resolve: (provider, _args, context) => settingsOf(provider, context).requestsPerMinute,
    }),
    tokensPerMinute: t.int({
      nullable: true,
      description:
        'Tokens, estimated, that each process sends it in a minute at most. Null without a limit of ours.',
      resolve: (provider, _args, context) => settingsOf(provider, context).tokensPerMinute,
    }),
    maxParallelRequests: t.int({
      nullable: true,
      description: 'Requests of each process that are under way at once, at most. Null: as suits its type.',
      resolve: (provider, _args, context) => settingsOf(provider, context).maxParallelRequests,
    }),
    statedRequestsPerMinute: t.int({
      nullable: true,
      description:
        'The limit of requests that its server stated when it was validated. Null if it stated none.',
      resolve: (provider) => (isOfEnvironment(provider) ? null : provider.statedRequestsPerMinute),
    }),
    statedTokensPerMinute: t.int({
      nullable: true,
      description:
        'The limit of tokens that its server stated when it was validated. Null if it stated none.',
      resolve: (provider) => (isOfEnvironment(provider) ? null : provider.statedTokensPerMinute),
    }),
    pricePerMillionTokensIn: t.float({
      nullable: true,
      description: 'Price of a million tokens that are sent, in US dollars. Null if nobody said.',
      resolve: (provider, _args, context) => settingsOf(provider, context).pricePerMillionTokensIn,
    }),
    pricePerMillionTokensOut: t.float({
      nullable: true,
      description: 'Price of a million tokens of answers, in US dollars. Null if nobody said.',
      resolve: (provider, _args, context) => settingsOf(provider, context).pricePerMillionTokensOut,
    }),
    monthlyBudget: t.float({
      nullable: true,
      description:
        'What may be spent in a calendar month (UTC), in US dollars. When it is, embedding and extraction by it wait for the next month or a higher budget; searches go on. Null without one.',
      resolve: (provider, _args, context) => settingsOf(provider, context).monthlyBudget,
    }),
    spentThisMonth: t.float({
      description:
        'What has been spent this calendar month (UTC), in US dollars, as far as prices were given; a second or two late.',
      resolve: (provider, _args, { loaders }) => loaders.spentThisMonth.load(accountOf(provider)),
    }),
    version: t.int({
      description:
        'Goes up with each change of what it is; give it as `expectedVersion` of a change. 0 if it cannot be changed.',
      resolve: (provider) => (isOfEnvironment(provider) ? 0 : provider.version),
    }),
    state: t.field({
      type: ProviderStateEnum,
      description: 'How it does, as the process that asked it last has seen it.',
      resolve: async (provider, _args, context) => (await statusOf(provider, context)).state,
    }),
    error: t.string({
      nullable: true,
      description: 'Why it is in ERROR, in its own words. Null otherwise.',
      resolve: async (provider, _args, context) => {
        const { state, error } = await statusOf(provider, context)
        return state === 'ERROR' ? error : null
      },
    }),
    validatedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description:
        'When it last did what it was asked; while it does, it is noted twice a minute. Null if it never did.',
      resolve: async (provider, _args, context) => (await statusOf(provider, context)).validatedAt,
    }),
    waitingUntil: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Until when it is left alone, because it has asked for that or failed. Null if it is not.',
      resolve: async (provider, _args, context) => (await statusOf(provider, context)).waitingUntil,
    }),
  }),
})

builder.queryField('providers', (t) =>
  t.field({
    type: [ProviderNode],
    description: 'All providers: first what the environment configures, then those that were added, by name.',
    resolve: async (_root, _args, context) => [
      ...environmentOf(context),
      ...(await readProviders(context.database)),
    ],
  }),
)

const limits = {
  name: 200,
  baseUrl: 2000,
  model: 200,
  perMinute: 1_000_000_000,
  parallel: 1000,
  price: 100_000,
} as const

const about = {
  name: `What people call it; unique, at most ${limits.name} bytes.`,
  baseUrl: `Where its server is, at most ${limits.baseUrl} bytes: for OPENAI up to and with \`/v1\`, OpenAI itself unless given; for OLLAMA without \`/api\`, \`http://127.0.0.1:11434\` unless given. Addresses that QUARRY_PROVIDER_NETWORK does not allow are refused.`,
  apiKey: `Its key, at most ${maxApiKeyLength} characters; stored encrypted and never shown. Needs QUARRY_ENCRYPTION_KEY.`,
  embeddingModel: 'The model that embeds, as its server names it.',
  extractionModel: 'The chat model that extracts, as its server names it; it must answer by a JSON Schema.',
  isActive: 'Whether it may be used',
  requestsPerMinute: `Requests that each process may send it in a minute, 1..${limits.perMinute}.`,
  tokensPerMinute: `Tokens, estimated, that each process may send it in a minute, 1..${limits.perMinute}.`,
  maxParallelRequests: `Requests of each process that may be under way at once, 1..${limits.parallel}.`,
  pricePerMillionTokensIn: `Price of a million tokens that are sent, in US dollars, 0..${limits.price}.`,
  pricePerMillionTokensOut: `Price of a million tokens of answers, in US dollars, 0..${limits.price}.`,
  monthlyBudget: `What may be spent in a calendar month (UTC), in US dollars, 0..${maxBudget}; needs both prices.`,
} as const

const CreateProviderInput = builder.inputType('CreateProviderInput', {
  description: 'A new provider. It needs a model for embedding, for extraction, or both; LOCAL has its own.',
  fields: (t) => ({
    name: t.string({ required: true, description: about.name }),
    type: t.field({ type: ProviderTypeEnum, required: true, description: 'How it is spoken to.' }),
    baseUrl: t.string({ description: about.baseUrl }),
    apiKey: t.string({ description: about.apiKey }),
    embeddingModel: t.string({ description: about.embeddingModel }),
    extractionModel: t.string({ description: about.extractionModel }),
    isActive: t.boolean({ defaultValue: true, description: `${about.isActive}.` }),
    requestsPerMinute: t.int({ description: `${about.requestsPerMinute} No limit unless given.` }),
    tokensPerMinute: t.int({ description: `${about.tokensPerMinute} No limit unless given.` }),
    maxParallelRequests: t.int({
      description: `${about.maxParallelRequests} What suits the type unless given.`,
    }),
    pricePerMillionTokensIn: t.float({ description: about.pricePerMillionTokensIn }),
    pricePerMillionTokensOut: t.float({ description: about.pricePerMillionTokensOut }),
    monthlyBudget: t.float({ description: about.monthlyBudget }),
  }),
})

const CreateProviderPayload = builder.objectRef<{ provider: Provider }>('CreateProviderPayload').implement({
  description: 'The new provider.',
  fields: (t) => ({
    provider: t.field({
      type: ProviderNode,
      description: 'The provider, tried out: CONNECTED, or in ERROR with the reason.',
      resolve: ({ provider }) => provider,
    }),
  }),
})

builder.mutationField('createProvider', (t) =>
  t.field({
    type: CreateProviderPayload,
    nullable: true,
    description:
      'Adds a provider, and tries it out before it answers, which takes 10 seconds at most. One that does not work is stored all the same.',
    args: { input: t.arg({ type: CreateProviderInput, required: true, description: 'The provider.' }) },
    errors: { types: [InvalidInputError, ConflictError] },
    resolve: async (_root, { input }, { providers }) => {
      requireProviderFields(input)
      const { type, apiKey, name, ...given } = input
      const fields: ProviderFields = {
        name,
        baseUrl: given.baseUrl ?? null,
        embeddingModel: given.embeddingModel ?? null,
        extractionModel: given.extractionModel ?? null,
        isActive: given.isActive ?? true,
        requestsPerMinute: given.requestsPerMinute ?? null,
        tokensPerMinute: given.tokensPerMinute ?? null,
        maxParallelRequests: given.maxParallelRequests ?? null,
        pricePerMillionTokensIn: given.pricePerMillionTokensIn ?? null,
        pricePerMillionTokensOut: given.pricePerMillionTokensOut ?? null,
        monthlyBudget: given.monthlyBudget ?? null,
      }
      return { provider: await providers.create(type, fields, apiKey ?? null) }
    },
  }),
)

const UpdateProviderInput = builder.inputType('UpdateProviderInput', {
  description: 'A change of a provider; what is left out stays as it is, null takes it away.',
  fields: (t) => ({
    id: t.globalID({ for: ProviderNode, required: true, description: 'The provider.' }),
    expectedVersion: t.int({
      description:
        'The `version` that the change is meant for: if somebody else was faster, it is refused. Any unless given.',
    }),
    name: t.string({ description: about.name }),
    baseUrl: t.string({ description: `${about.baseUrl} With another one the key must be given anew.` }),
    apiKey: t.string({ description: about.apiKey }),
    embeddingModel: t.string({ description: about.embeddingModel }),
    extractionModel: t.string({ description: about.extractionModel }),
    isActive: t.boolean({ description: `${about.isActive}.` }),
    requestsPerMinute: t.int({ description: about.requestsPerMinute }),
    tokensPerMinute: t.int({ description: about.tokensPerMinute }),
    maxParallelRequests: t.int({ description: about.maxParallelRequests }),
    pricePerMillionTokensIn: t.float({ description: about.pricePerMillionTokensIn }),
    pricePerMillionTokensOut: t.float({ description: about.pricePerMillionTokensOut }),
    monthlyBudget: t.float({ description: about.monthlyBudget }),
  }),
})

const UpdateProviderPayload = builder.objectRef<{ provider: Provider }>('UpdateProviderPayload').implement({
  description: 'The changed provider.',
  fields: (t) => ({
    provider: t.field({
      type: ProviderNode,
      description: 'The provider.',
      resolve: ({ provider }) => provider,
    }),
  }),
})

builder.mutationField('updateProvider', (t) =>
  t.field({
    type: UpdateProviderPayload,
    nullable: true,
    description:
      'Changes a provider. With another address, model or key it is tried out before the answer, which takes 10 seconds at most.',
    args: { input: t.arg({ type: UpdateProviderInput, required: true, description: 'The change.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { database, providers }) => {
      requireProviderFields(input)
      const { apiKey, expectedVersion, name, isActive } = input
      const nullable = Object.fromEntries(
        nullableFields.flatMap((field) => (input[field] === undefined ? [] : [[field, input[field]]])),
      ) as Partial<ProviderFields>
      const fields = {
        ...nullable,
        ...(name == null ? {} : { name }),
        ...(isActive == null ? {} : { isActive }),
      }
      const provider = await providers.update(rowIdOf(input.id), { fields, apiKey, expectedVersion })
      await database.transaction(wakeWaitingJobs)
      return { provider }
    },
  }),
)

const DeleteProviderInput = builder.inputType('DeleteProviderInput', {
  description: 'Which provider.',
  fields: (t) => ({
    id: t.globalID({ for: ProviderNode, required: true, description: 'The provider.' }),
  }),
})

const DeleteProviderPayload = builder.objectRef<{ id: string }>('DeleteProviderPayload').implement({
  description: 'What was deleted.',
  fields: (t) => ({
    deletedProviderId: t.globalID({
      description: 'Global id that the provider had.',
      resolve: ({ id }) => ({ type: 'Provider', id }),
    }),
  }),
})

builder.mutationField('deleteProvider', (t) =>
  t.field({
    type: DeleteProviderPayload,
    nullable: true,
    description: 'Deletes a provider and its key. Refused while something uses it.',
    args: { input: t.arg({ type: DeleteProviderInput, required: true, description: 'The provider.' }) },
    errors: { types: [InvalidInputError, NotFoundError, ConflictError] },
    resolve: async (_root, { input }, { providers }) => {
      const id = rowIdOf(input.id)
      await providers.delete(id)
      return { id }
    },
  }),
)

const ValidateProviderInput = builder.inputType('ValidateProviderInput', {
  description: 'Which provider.',
  fields: (t) => ({
    id: t.globalID({ for: ProviderNode, required: true, description: 'The provider.' }),
  }),
})

const ValidateProviderPayload = builder
  .objectRef<{ provider: Provider }>('ValidateProviderPayload')
  .implement({
    description: 'What came of it.',
    fields: (t) => ({
      provider: t.field({
        type: ProviderNode,
        description: 'The provider: CONNECTED, or in ERROR with the reason.',
        resolve: ({ provider }) => provider,
      }),
    }),
  })

builder.mutationField('validateProvider', (t) =>
  t.field({
    type: ValidateProviderPayload,
    nullable: true,
    description:
      'Tries a provider out: it has to embed one text, and to answer one question in JSON, as far as it has the models, within 10 seconds.',
    args: { input: t.arg({ type: ValidateProviderInput, required: true, description: 'The provider.' }) },
    errors: { types: [InvalidInputError, NotFoundError] },
    resolve: async (_root, { input }, context) => {
      const environment = environmentOf(context).find(({ id }) => id === input.id.id)
      if (!environment) return { provider: await context.providers.validate(rowIdOf(input.id)) }
      await validateEnvironment(environment.purpose, context)
      return { provider: environment }
    },
  }),
)

/** Tries out what the environment configures, and tells of it as those do that work with it. */
async function validateEnvironment(purpose: ProviderPurpose, context: Context): Promise<void> {
  const { database, log, provider, extractor, usage } = context
  const isEmbedding = purpose === 'EMBEDDING'
  const embedding = isEmbedding
    ? createEmbeddingProvider(provider.type === 'local' ? { type: 'local', threads: 1 } : provider)
    : null
  const chat = isEmbedding || extractor.type === 'local' ? null : createChatModel(extractor)
  const status = createProviderStatus(database, purpose, log)
  try {
    const tried = {
      embedding: embedding && accountEmbeddings(embedding, usage.account(embedding, 'VALIDATION')),
      chat: chat && accountChat(chat, usage.account(chat, 'VALIDATION')),
    }
    const { embeddingError, chatError } = await tryOut(tried, validationLimitMs)
    const error = embeddingError ?? chatError
    if (error) await status.failed(error, error.retryAfterMs ?? 0)
    else await status.succeeded()
  } finally {
    await Promise.all([embedding?.close(), chat?.close()])
  }
}

/** @throws InvalidInputError for what the environment configures, NotFoundError for what cannot exist */
function rowIdOf({ id }: { id: string }): string {
  if (Object.values(environmentProviders).some((provider) => provider.id === id)) {
    throw new InvalidInputError(
      'id is of the provider that the environment configures: change its variables and start again (see docs/configuration.md), or add another one by createProvider',
      ['id'],
    )
  }
  if (!isUuid(id)) throw new NotFoundError('There is no provider with this id')
  return id
}

const models = ['embeddingModel', 'extractionModel'] as const
const perMinute = ['requestsPerMinute', 'tokensPerMinute'] as const
const prices = ['pricePerMillionTokensIn', 'pricePerMillionTokensOut'] as const
const nullableFields = [
  'baseUrl',
  ...models,
  ...perMinute,
  'maxParallelRequests',
  ...prices,
  'monthlyBudget',
] as const

type GivenFields = { [Field in keyof ProviderFields]?: ProviderFields[Field] | null | undefined }

function requireProviderFields(input: GivenFields): void {
  if (input.name != null) requireText(input.name, ['name'], limits.name)
  if (input.baseUrl != null) requireText(input.baseUrl, ['baseUrl'], limits.baseUrl)
  for (const model of models) if (input[model] != null) requireText(input[model], [model], limits.model)
  for (const field of perMinute) requireRange(input[field], field, 1, limits.perMinute)
  requireRange(input.maxParallelRequests, 'maxParallelRequests', 1, limits.parallel)
  for (const field of prices) requireRange(input[field], field, 0, limits.price)
  requireBudget(input.monthlyBudget, 'monthlyBudget')
}
