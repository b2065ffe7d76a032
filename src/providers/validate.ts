import { z } from 'zod'
import { errorMessage, QuarryError } from '../errors.ts'
import type { ChatModel } from './chat/chat.ts'
import { type EmbeddingProvider, ProviderError } from './provider.ts'
import type { ValidationOutcome } from './records.ts'

/** Of a whole validation, milliseconds: as long as a person waits for a form. */
export const validationLimitMs = 10_000

/** What is to be tried out; null: it does not do that. */
export interface Tried {
  embedding: EmbeddingProvider | null
  chat: ChatModel | null
}

/** What was found out, each purpose by itself. */
export interface TriedOutcome {
  /** Length of the vectors; null where nothing was embedded. */
  dimensions: number | null
  /** Why it does not embed, or extract; null where it does or was not asked to. */
  embeddingError: ProviderError | null
  chatError: ProviderError | null
}

/** Words of every day: a small model knows them, too. */
const sampleText = 'The meeting is on Tuesday.'

const answerShape = z.object({ weekday: z.string() })
const question = {
  messages: [
    { role: 'system', content: 'You answer in JSON.' },
    { role: 'user', content: `${sampleText} On which day of the week is the meeting?` },
  ],
  schema: {
    name: 'validation',
    // Spelt out: OpenAI takes only the keywords that it lists.
    json: {
      type: 'object',
      properties: { weekday: { type: 'string' } },
      required: ['weekday'],
      additionalProperties: false,
    },
  },
} as const

/**
 * Really embeds one text and really asks for one structured answer, both at once.
 * @param limitMs what takes longer has failed
 * @throws nothing that the provider does; whatever is not a QuarryError is a bug of ours
 */
export async function tryOut({ embedding, chat }: Tried, limitMs: number): Promise<TriedOutcome> {
  const controller = new AbortController()
  const { signal } = controller
  const late = new ProviderError('UNAVAILABLE', `There was no answer within ${limitMs / 1000} s.`)
  const timer = setTimeout(() => controller.abort(late), limitMs)
  try {
    const [vector, answer] = await Promise.allSettled([
      embedding && embed(embedding, signal),
      chat && ask(chat, signal),
    ])
    return {
      dimensions: vector.status === 'fulfilled' ? vector.value : null,
      embeddingError: errorOf(vector),
      chatError: errorOf(answer),
    }
  } finally {
    clearTimeout(timer)
  }
}

/** Both purposes as one, in plain words. */
export function outcomeOf(
  { dimensions, embeddingError, chatError }: TriedOutcome,
  stated: Pick<ValidationOutcome, 'statedRequestsPerMinute' | 'statedTokensPerMinute'>,
): ValidationOutcome {
  const errors = [embeddingError, chatError].filter((error) => error !== null)
  const waits = errors.flatMap(({ retryAfterMs }) => retryAfterMs ?? [])
  // Often it is the same twice.
  const messages = [
    ...new Set(errors.map(({ message }) => (message.endsWith('.') ? message : `${message}.`))),
  ]
  return {
    error: messages.length === 0 ? null : messages.join(' '),
    embeddingDimensions: dimensions,
    ...stated,
    waitMs: waits.length === 0 ? null : Math.max(...waits),
  }
}

async function embed(provider: EmbeddingProvider, signal: AbortSignal): Promise<number> {
  const [vector] = await provider.embed([sampleText], signal)
  if (vector) return vector.length
  throw new ProviderError('BAD_ANSWER', `${provider.model} sees nothing to embed in an English sentence.`)
}

async function ask(chat: ChatModel, signal: AbortSignal): Promise<void> {
  const { text } = await chat.ask(question, signal)
  if (!isStructured(text)) {
    throw chat.answerError(
      'BAD_ANSWER',
      `found ${JSON.stringify(text)}, expected JSON like {"weekday": "Tuesday"}. Take a model that answers by a JSON Schema.`,
    )
  }
}

function isStructured(text: string): boolean {
  try {
    return answerShape.safeParse(JSON.parse(text)).success
  } catch {
    return false
  }
}

function errorOf(result: PromiseSettledResult<unknown>): ProviderError | null {
  if (result.status === 'fulfilled') return null
  const error: unknown = result.reason
  if (error instanceof ProviderError) return error
  if (error instanceof QuarryError) return new ProviderError('MISCONFIGURED', errorMessage(error))
  throw error
}
