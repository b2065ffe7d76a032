import { randomBytes } from 'node:crypto'
import type { Logger } from '../../log.ts'
import type { ChatAnswer, ChatMessage, ChatModel } from '../../providers/chat/chat.ts'
import type { Extraction, ExtractionBatch, Extractor } from '../extractor.ts'
import { answerJsonSchema } from './answer.ts'
import { defaultInstructions } from './instructions.ts'
import { promptOf, repairOf } from './prompt.ts'
import { type Reading, readAnswer } from './read.ts'

export interface ModelExtractorOptions {
  /** Closed with the extractor. */
  chat: ChatModel
  /** What to look for. Left out or blank: ours. How the data come and what is answered is added to either. */
  instructions?: string | undefined
  /** 0..2. Left out: the model's own. With 0 the same messages give nearly the same answer; some models refuse it. */
  temperature?: number | undefined
  /** Tokens of an answer, 1 or more. Left out: up to the provider. */
  maxOutputTokens?: number | undefined
  /** Told what was left out of an answer. */
  log?: Logger | undefined
}

/** Proposes what a language model reads out of the messages. */
export function createModelExtractor(options: ModelExtractorOptions): Extractor {
  const { chat, temperature, maxOutputTokens, log } = options
  const instructions = options.instructions?.trim() || defaultInstructions

  async function ask(messages: ChatMessage[], batch: ExtractionBatch, signal: AbortSignal): Promise<Attempt> {
    const request = { messages, schema: answerJsonSchema, temperature, maxOutputTokens }
    const answer = await chat.ask(request, signal)
    return { answer, reading: read(answer, batch) }
  }

  return {
    type: chat.type,
    model: chat.model,
    async extract(batch, signal) {
      signal.throwIfAborted()
      if (batch.messages.length === 0) return { topics: [], atoms: [], links: [], usage: usageOf([]) }
      const prompt = promptOf(batch, instructions, randomBytes(16).toString('hex'))
      const first = await ask(prompt, batch, signal)
      if (first.reading.extraction !== null && first.reading.problems.length === 0) {
        return { ...first.reading.extraction, usage: usageOf([first]) }
      }
      const repair = repairOf(prompt, first.answer.text, first.reading.problems)
      const second = await ask(repair, batch, signal)
      // The repair may be worse than what it was to repair: a few wrong items are no reason to lose the others.
      const { extraction, problems } = second.reading.extraction === null ? first.reading : second.reading
      if (extraction === null) {
        throw chat.answerError(
          'BAD_ANSWER',
          `cannot be used, nor can what came when it was asked to repair it: ${second.reading.problems.join(' ')}`,
        )
      }
      if (problems.length > 0) {
        log?.warn(
          { model: chat.model, problems: problems.slice(0, 20), count: problems.length },
          'Parts of what a model answered were left out.',
        )
      }
      const usage = usageOf([first, second])
      return problems.length > 0 ? { ...extraction, usage, problems } : { ...extraction, usage }
    },
    close: () => chat.close(),
  }
}

interface Attempt {
  answer: ChatAnswer
  reading: Reading
}

function read({ text, isTruncated }: ChatAnswer, batch: ExtractionBatch): Reading {
  if (!isTruncated) return readAnswer(text, batch)
  // Even where it is whole by chance, what would have followed is missing.
  const problem = 'It was cut off at the limit of output tokens: extract less, only what matters most.'
  return { extraction: null, problems: [problem] }
}

function usageOf(attempts: readonly Attempt[]): Extraction['usage'] {
  return {
    tokensIn: attempts.reduce((sum, { answer }) => sum + answer.usage.tokensIn, 0),
    tokensOut: attempts.reduce((sum, { answer }) => sum + answer.usage.tokensOut, 0),
  }
}
