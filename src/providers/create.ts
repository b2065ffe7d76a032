import { LocalProvider } from './local.ts'
import { OllamaProvider } from './ollama.ts'
import { OpenAiProvider } from './openai.ts'
import type { EmbeddingLimits, EmbeddingProvider } from './provider.ts'

export type EmbeddingProviderConfig =
  | {
      type: 'local'
      /** 1 or more; left out: 2 (1 on a single core). */
      threads?: number | undefined
    }
  | {
      type: 'openai'
      apiKey: string
      /** Up to and with `/v1`; null for OpenAI itself. */
      baseUrl: string | null
      model: string
      /** Null: what the model gives by itself. */
      dimensions: number | null
    }
  | { type: 'ollama'; baseUrl: string; model: string; apiKey?: string | undefined }

/** How a provider is reached, where that is not what the configuration says. */
export interface Transport {
  /** Makes the requests; the platform's unless given. */
  fetch?: typeof fetch | undefined
  limits?: Partial<EmbeddingLimits> | undefined
}

/**
 * The provider that a configuration asks for. A local one starts to load its model at once; the others connect with
 * their first request.
 * @throws SetupError when the configuration cannot work.
 */
export function createEmbeddingProvider(
  config: EmbeddingProviderConfig,
  { fetch, limits = {} }: Transport = {},
): EmbeddingProvider {
  switch (config.type) {
    case 'local':
      return new LocalProvider({ threads: config.threads })
    case 'openai':
      return new OpenAiProvider({ ...config, fetch, limits })
    case 'ollama':
      return new OllamaProvider({ ...config, fetch, limits })
  }
}
