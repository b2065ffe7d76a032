import type { Database } from '../db/database.ts'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import { readVectorType } from '../embedding/vectors.ts'
import { ProviderError } from '../providers/provider.ts'
import { readBatch } from './batch.ts'
import type { ExtractionBatch, ProposedTopic } from './extractor.ts'
import type { Reader } from './extractors.ts'
import { planBatches } from './plan.ts'
import { type ProvenAtom, type ProvenExtraction, proveExtraction, type Rejection } from './prove.ts'

/** What an extraction would propose, before it is looked up whether that is there already. */
export interface Trial {
  /** With the id of the topic that exists, null for a new one. */
  topics: (ProposedTopic & { topicId: string | null })[]
  /** `topicName` instead of the key, which means nothing outside of one answer. */
  atoms: (ProvenAtom & { topicName: string | null })[]
  links: {
    from: string
    to: string
    type: ProvenExtraction['links'][number]['type']
    strength: number | null
  }[]
  rejections: Rejection[]
  /** Parts of answers that could not be used at all, a sentence each. */
  problems: string[]
  tokensIn: number
  tokensOut: number
  /** Of the requests, together. */
  ms: number
}

/** Of a whole trial, milliseconds: a person waits for it, and a proxy between gives up, too. */
const trialLimitMs = 120_000

/**
 * Reads messages as a job would, batch by batch, and stores nothing.
 * @throws ProviderError, also after 120 s
 */
export async function tryExtraction(
  services: { database: Database; space: EmbeddingSpace },
  reader: Reader,
  messageIds: readonly string[],
  rules: { batchSize: number; minConfidence: number },
): Promise<Trial> {
  const controller = new AbortController()
  const late = new ProviderError(
    'UNAVAILABLE',
    `The trial was not done within ${trialLimitMs / 1000} s: try fewer messages at once.`,
  )
  const timer = setTimeout(() => controller.abort(late), trialLimitMs)
  try {
    return await readAll(services, reader, messageIds, rules, controller.signal)
  } finally {
    clearTimeout(timer)
  }
}

async function readAll(
  { database, space }: { database: Database; space: EmbeddingSpace },
  { extractor, status }: Reader,
  messageIds: readonly string[],
  rules: { batchSize: number; minConfidence: number },
  signal: AbortSignal,
): Promise<Trial> {
  const vectorType = await readVectorType(database)
  const whole = await readBatch(database, space, messageIds, vectorType)
  const trial: Trial = {
    topics: [],
    atoms: [],
    links: [],
    rejections: [],
    problems: [],
    tokensIn: 0,
    tokensOut: 0,
    ms: 0,
  }
  for (const messages of planBatches(whole.messages, rules.batchSize)) {
    const ids = messages.map(({ id }) => id)
    const batch = await readBatch(database, space, ids, vectorType)
    const begun = performance.now()
    const extraction = await extractor.extract(batch, signal).catch(async (error) => {
      if (error instanceof ProviderError && isProvidersFault(error)) {
        await status.failed(error, error.retryAfterMs ?? 0)
      }
      throw error
    })
    trial.ms += performance.now() - begun
    await status.succeeded()
    addTo(trial, proveExtraction(extraction, batch, rules.minConfidence), batch)
    trial.problems.push(...(extraction.problems ?? []))
    trial.tokensIn += extraction.usage.tokensIn
    trial.tokensOut += extraction.usage.tokensOut
  }
  return trial
}

/** Whether it says something of the provider, rather than of these messages. */
const isProvidersFault = ({ failure }: ProviderError) => failure !== 'REFUSED' && failure !== 'BAD_ANSWER'

function addTo(trial: Trial, proven: ProvenExtraction, batch: ExtractionBatch): void {
  const known = new Set(batch.topics.map(({ id }) => id))
  const names = new Map(proven.topics.map(({ key, name }) => [key, name]))
  const titles = new Map([
    ...batch.atoms.map(({ id, title }) => [id, title] as const),
    ...proven.atoms.map(({ key, title }) => [key, title] as const),
  ])
  trial.topics.push(
    ...proven.topics.map((topic) => ({ ...topic, topicId: known.has(topic.key) ? topic.key : null })),
  )
  trial.atoms.push(
    ...proven.atoms.map((atom) => ({ ...atom, topicName: names.get(atom.topicKey ?? '') ?? null })),
  )
  trial.links.push(
    ...proven.links.map(({ from, to, type, strength }) => ({
      from: titles.get(from) ?? from,
      to: titles.get(to) ?? to,
      type,
      strength,
    })),
  )
  trial.rejections.push(...proven.rejections)
}
