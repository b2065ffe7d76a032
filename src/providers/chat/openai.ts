import { z } from 'zod'
import { isRefusal, officialUrl, openAiClient, openAiFailure } from '../openai.ts'
import { extractionAccount } from '../provider.ts'
import { type Advice, estimateAll, estimateTokens, type HttpFailure, RemoteClient } from '../remote.ts'
import { type ChatModel, chatTimeoutMs } from './chat.ts'

export interface OpenAiChatOptions {
  apiKey: string
  /** Up to and with `/v1`; null for OpenAI itself. */
  baseUrl?: string | null
  model: string
  /** Milliseconds for a whole request, above 0, at most 300,000; 120,000 by default. */
  timeoutMs?: number | undefined
  /** Makes the requests; the platform's unless given. */
  fetch?: typeof fetch | undefined
}

const count = z.int().nonnegative().catch(0)
const answerShape = z.object({
  choices: z
    .array(
      z.object({
        finish_reason: z.string().nullish(),
        message: z.object({ content: z.string().nullish(), refusal: z.string().nullish() }),
      }),
    )
    .min(1),
  usage: z.object({ prompt_tokens: count, completion_tokens: count }).nullish().catch(null),
})

/**
 * OpenAI and everything that speaks its protocol: `POST {baseUrl}/chat/completions` with a JSON Schema as
 * `response_format`.
 * @throws SetupError when the base URL, the key or the time-out cannot be used.
 */
export function createOpenAiChat(options: OpenAiChatOptions): ChatModel {
  const { apiKey, model } = options
  const baseUrl = options.baseUrl ?? officialUrl
  const timeoutMs = chatTimeoutMs(options.timeoutMs)
  const client = openAiClient({ apiKey, baseUrl, timeoutMs, fetch: options.fetch })
  const remote = new RemoteClient({
    role: 'chat model',
    baseUrl,
    model,
    timeoutMs,
    secrets: [apiKey],
    httpFailure: openAiFailure,
    advice,
  })
  // Reasoning models of OpenAI refuse the older name, older servers of others do not know the newer one.
  const outputLimit = baseUrl === officialUrl ? 'max_completion_tokens' : 'max_tokens'

  return {
    type: 'openai',
    accountId: extractionAccount,
    model,
    async ask({ messages, schema, temperature, maxOutputTokens }, signal, onCall) {
      return remote.request(
        signal,
        async (inner, count) => {
          // Not client.chat.completions.create: what compatible servers answer is not always of its type.
          const answer = await (await client()).post<unknown>('/chat/completions', {
            body: {
              model,
              messages,
              response_format: {
                type: 'json_schema',
                json_schema: { name: schema.name, strict: true, schema: schema.json },
              },
              ...(temperature === undefined ? {} : { temperature }),
              ...(maxOutputTokens === undefined ? {} : { [outputLimit]: maxOutputTokens }),
            },
            signal: inner,
          })
          const shape = answerShape.safeParse(answer)
          const choice = shape.data?.choices[0]
          if (!shape.success || choice === undefined) {
            throw remote.badShape(answer, '{ choices: [{ message: { content } }] }')
          }
          const { refusal, content } = choice.message
          const tokensIn = shape.data.usage?.prompt_tokens ?? 0
          const tokensOut = shape.data.usage?.completion_tokens ?? 0
          // Refusals are paid for, too.
          count({
            tokensIn: tokensIn || estimateAll(messages.map((message) => message.content)),
            tokensOut: tokensOut || estimateTokens(content ?? refusal ?? ''),
          })
          if (refusal) throw remote.answerError('REFUSED', `the model refuses: ${refusal}`)
          if (choice.finish_reason === 'content_filter') {
            throw remote.answerError('REFUSED', "the provider's content filter stopped it.")
          }
          return {
            // Nothing but thinking leaves no content.
            text: content ?? '',
            isTruncated: choice.finish_reason === 'length',
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

/** Parameters that a server or model does not know. Without this the messages would be blamed and given up. */
function advice({ status, message }: HttpFailure): Advice | null {
  if (!isRefusal(status)) return null
  // First, because such messages name max_tokens as well.
  if (/context.?(length|window|size)|too many tokens/i.test(message)) {
    return { failure: 'REFUSED', hint: 'Give the model fewer messages at once, or allow a shorter answer.' }
  }
  if (/response_?format|json_?schema|structured.?output|guided|grammar/i.test(message)) {
    return {
      failure: 'MISCONFIGURED',
      hint: 'Take a server and a model that answer by a JSON Schema (response_format json_schema).',
    }
  }
  if (/temperature/i.test(message)) {
    return {
      failure: 'MISCONFIGURED',
      hint: 'Set the temperature to 1, or leave it out: this model may take only its own.',
    }
  }
  if (/max_(completion_)?tokens/i.test(message)) {
    return { failure: 'MISCONFIGURED', hint: 'Lower the limit of output tokens, or leave it out.' }
  }
  return null
}
