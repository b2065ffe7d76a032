import type { ProviderStatusRow } from '../providers/read-status.ts'
import { builder } from './builder.ts'
import type { Context } from './context.ts'

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

const status = ({ loaders }: Context) => loaders.providerStatus.load('EMBEDDING')

/** The one provider there is: what the environment configures. */
export const EnvironmentProvider = { id: 'environment' } as const

export const ProviderNode = builder.objectRef<typeof EnvironmentProvider>('Provider')
builder.node(ProviderNode, {
  description: 'Something that embeds texts.',
  id: { resolve: ({ id }) => id, description: 'Global id.' },
  isTypeOf: (value) => value === EnvironmentProvider,
  loadMany: (ids) => ids.map((id) => (id === EnvironmentProvider.id ? EnvironmentProvider : null)),
  fields: (t) => ({
    name: t.string({
      description: 'What people call it.',
      resolve: (_provider, _args, { space }) => `${space.provider.toLowerCase()} (environment)`,
    }),
    type: t.field({
      type: ProviderTypeEnum,
      description: 'How it is spoken to.',
      resolve: (_provider, _args, { space }) => space.provider,
    }),
    baseUrl: t.string({
      nullable: true,
      description: 'Where its server is. Null for LOCAL and for the default address of OPENAI.',
      resolve: (_provider, _args, { provider }) => ('baseUrl' in provider ? provider.baseUrl : null),
    }),
    isActive: t.boolean({ description: 'Whether it is used.', resolve: () => true }),
    hasApiKey: t.boolean({
      description: 'Whether a key is configured; the key itself is never shown.',
      resolve: (_provider, _args, { provider }) => provider.type === 'openai' && provider.apiKey !== '',
    }),
    embeddingModel: t.string({
      nullable: true,
      description: 'The model that embeds. Null if it embeds nothing.',
      resolve: (_provider, _args, { space }) => space.model,
    }),
    embeddingDimensions: t.int({
      nullable: true,
      description: 'Length of its vectors. Null if it embeds nothing.',
      resolve: (_provider, _args, { space }) => space.dimensions,
    }),
    state: t.field({
      type: ProviderStateEnum,
      description: 'How it does, as the process that asked it last has seen it.',
      resolve: async (_provider, _args, context) => (await status(context))?.state ?? 'PENDING',
    }),
    error: t.string({
      nullable: true,
      description: 'Why it is in ERROR, in its own words. Null otherwise.',
      resolve: async (_provider, _args, context) => (await status(context))?.error ?? null,
    }),
    validatedAt: t.field({
      type: 'DateTime',
      nullable: true,
      description:
        'When it last did what it was asked; while it does, it is noted twice a minute. Null if it never did.',
      resolve: async (_provider, _args, context) => (await status(context))?.validatedAt ?? null,
    }),
    waitingUntil: t.field({
      type: 'DateTime',
      nullable: true,
      description: 'Until when it is left alone, because it has asked for that or failed. Null if it is not.',
      resolve: async (_provider, _args, context) => (await status(context))?.waitingUntil ?? null,
    }),
  }),
})
