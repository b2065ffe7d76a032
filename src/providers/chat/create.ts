import type { Transport } from '../create.ts'
import type { ChatModel } from './chat.ts'
import { createOllamaChat } from './ollama.ts'
import { createOpenAiChat } from './openai.ts'

export type ChatModelConfig =
  | {
      type: 'openai'
      apiKey: string
      /** Up to and with `/v1`; null for OpenAI itself. */
      baseUrl: string | null
      model: string
      /** Milliseconds for a whole request, above 0, at most 300,000; left out: 120,000. */
      timeoutMs?: number | undefined
    }
  | {
      type: 'ollama'
      baseUrl: string
      model: string
      apiKey?: string | undefined
      /** As above. */
      timeoutMs?: number | undefined
    }

/**
 * The chat model that a configuration asks for. It connects with its first request.
 * @throws SetupError when the configuration cannot work.
 */
export function createChatModel(
  config: ChatModelConfig,
  { fetch }: Pick<Transport, 'fetch'> = {},
): ChatModel {
  switch (config.type) {
    case 'openai':
      return createOpenAiChat({ ...config, fetch })
    case 'ollama':
      return createOllamaChat({ ...config, fetch })
  }
}
