import { z } from 'zod'
import { ollamaAdvice, ollamaCall, ollamaFailure } from '../ollama.ts'
import { extractionAccount } from '../provider.ts'
import { type Advice, estimateAll, estimateTokens, type HttpFailure, RemoteClient } from '../remote.ts'
import { type ChatMessage, type ChatModel, chatTimeoutMs } from './chat.ts'

export interface OllamaChatOptions {
  /** Without `/api`, e.g. `http://127.0.0.1:11434`. */
  baseUrl: string
  /** As in `ollama list`. */
  model: string
  /** Milliseconds for a whole request, above 0, at most 300,000; 120,000 by default: the first one loads the model. */
  timeoutMs?: number | undefined
  /** Sent as a bearer token, for Ollama's own cloud or a proxy that asks for one. */
  apiKey?: string | undefined
  /** Makes the requests; the platform's unless given. */
  fetch?: typeof fetch | undefined
}

/**
 * Tokens of an answer where the caller sets no limit. Ollama has none of its own, and small models fall into repeating
 * themselves: such an answer would go on until the context is full.
 */
const defaultOutputTokens = 4096

/** Context sizes are multiples of it. It is also what Ollama gives by itself (its docs, "Context length"). */
const contextStep = 4096

/** Role and marks of one message in the common chat templates, rather too many than too few. */
const tokensPerMessage = 16

const count = z.int().nonnegative().catch(0)
const answerShape = z.object({
  message: z.object({ content: z.string() }),
  done_reason: z.string().optional(),
  prompt_eval_count: count,
  eval_count: count,
})

/**
 * A model on an Ollama server: `POST {baseUrl}/api/chat` with a JSON Schema as `format`.
 * @throws SetupError when the base URL or the time-out cannot be used.
 */
export function createOllamaChat(options: OllamaChatOptions): ChatModel {
  const { baseUrl, model, timeoutMs, apiKey = '' } = options
  const remote = new RemoteClient({
    role: 'chat model',
    baseUrl,
    model,
    timeoutMs: chatTimeoutMs(timeoutMs),
    secrets: [apiKey],
    httpFailure: ollamaFailure,
    advice: (answer) => advice(answer, model),
  })
  const post = ollamaCall('chat', options)
  // Only ever grows: every other size makes Ollama load the model again.
  let contextTokens = contextStep

  return {
    type: 'ollama',
    accountId: extractionAccount,
    model,
    async ask({ messages, schema, temperature, maxOutputTokens = defaultOutputTokens }, signal, onCall) {
      const needed = promptTokens(messages) + maxOutputTokens
      contextTokens = Math.max(contextTokens, Math.ceil(needed / contextStep) * contextStep)
      const body = {
        model,
        messages,
        format: schema.json,
        stream: false,
        // Otherwise a part of what does not fit is left out, and nothing says so. Versions before October 2025 do not
        // know the two: for them it is the size of the context alone that prevents it.
        truncate: false,
        shift: false,
        options: {
          num_ctx: contextTokens,
          num_predict: maxOutputTokens,
          ...(temperature === undefined ? {} : { temperature }),
        },
      }
      return remote.request(
        signal,
        async (inner, count) => {
          const answer = await post(body, inner)
          const shape = answerShape.safeParse(answer)
          if (!shape.success) throw remote.badShape(answer, '{ message: { content } }')
          const { message, prompt_eval_count: tokensIn, eval_count: tokensOut } = shape.data
          count({
            tokensIn: tokensIn || estimateAll(messages.map(({ content }) => content)),
            tokensOut: tokensOut || estimateTokens(message.content),
          })
          return {
            text: message.content,
            isTruncated: shape.data.done_reason === 'length',
            usage: { tokensIn, tokensOut },
          }
        },
        onCall,
      )
    },
    answerError: (failure, what) => remote.answerError(failure, what),
    close: async () => remote.close(),
  }
}

function promptTokens(messages: readonly ChatMessage[]): number {
  return messages.reduce((sum, { content }) => sum + tokensPerMessage + estimateTokens(content), 0)
}

function advice(answer: HttpFailure, model: string): Advice | null {
  if (answer.status === 400 && /does not support chat/i.test(answer.message)) {
    return { failure: 'MISCONFIGURED', hint: 'Take a model that chats; this one may only embed.' }
  }
  if (answer.status === 400 && /format/i.test(answer.message)) {
    return { failure: 'MISCONFIGURED', hint: 'Answers by a JSON Schema need Ollama 0.5 or newer.' }
  }
  return ollamaAdvice(
    answer,
    model,
    'Give the model fewer messages at once, or take one with a longer context.',
  )
}
