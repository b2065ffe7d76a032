import { builder } from './builder.ts'

export const ProviderTypeEnum = builder.enumType('ProviderType', {
  description: 'How a provider is spoken to.',
  values: {
    LOCAL: { description: 'A model inside Quarry: no key, no network.' },
    OPENAI: { description: 'Any server with the OpenAI API.' },
    OLLAMA: { description: 'An Ollama server.' },
  } as const,
})

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
  }),
})
