import { setTimeout as delay } from 'node:timers/promises'
import { createBell } from '../bell.ts'
import type { ExtractionRules } from '../config.ts'
import { groupedChannel } from '../conversations/group.ts'
import type { Database, Transaction } from '../db/database.ts'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import { readVectorType } from '../embedding/vectors.ts'
import { errorMessage, QuarryError } from '../errors.ts'
import {
  addJobParams,
  addJobProgress,
  appendJobEvent,
  findJob,
  type JobRow,
  setJobTotal,
  setJobWaiting,
} from '../jobs/records.ts'
import { type JobContext, type JobHandler, PostponeError } from '../jobs/runner.ts'
import type { Origin } from '../knowledge/topics.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'
import { accountEmbeddings, type UsageLedger } from '../providers/usage.ts'
import { readDefaultAgent } from './agents.ts'
import { readBatch } from './batch.ts'
import {
  type ClaimedMessage,
  claimMessages,
  type ExtractionScope,
  forgetFailures,
  markExtracted,
  markFailed,
  readClaimed,
} from './claims.ts'
import type { Extraction, ExtractionBatch } from './extractor.ts'
import type { Extractors, Reader } from './extractors.ts'
import { planBatches } from './plan.ts'
import { proveExtraction } from './prove.ts'
import { addCounts, noCounts, prepareExtraction, type SaveCounts, saveExtraction } from './save.ts'

/** Params of an EXTRACT job. */
export type ExtractParams = ExtractionScope & {
  topicId?: string | null
  /** Who reads; null: what the environment configures. Left out until the job begins: whoever is the default then. */
  agentId?: string | null
}

/** What an EXTRACT job says of itself in `Job.result`. */
interface ExtractResult extends SaveCounts {
  extractor: string
  tokensIn: number
  tokensOut: number
  /** Proposals that were not saved, by reason. */
  dropped: Record<string, number>
  /** The first batches that failed; `Job.failed` counts their messages. */
  failures: { messages: number; reason: string }[]
}

const maxFailuresListed = 20
const rateLimitMinMs = 1_000
const rateLimitMaxMs = 5 * 60_000
/** A longer wait for the provider is not worth a place among the jobs that run. */
const maxWaitInPlaceMs = 30_000
/** A key or an address that is wrong stays so until somebody acts. */
const needsPersonMs = 60_000

export interface ExtractionServices {
  database: Database
  space: EmbeddingSpace
  /** Of the space: embeds what is proposed. */
  provider: EmbeddingProvider
  extractors: Extractors
  usage: UsageLedger
  rules: ExtractionRules
  metrics: Metrics
  log: Logger
}

/**
 * Reads the messages of a job in batches along conversations and saves what comes of each, a batch at a time: a crash,
 * a stop or a cancellation between two of them loses and repeats nothing. A batch whose answer cannot be used fails
 * with its reason, and the others go on.
 */
export function extractHandler(services: ExtractionServices): JobHandler {
  return async (context) => {
    const { database, extractors, rules } = services
    const { job } = context
    const params = job.params as unknown as ExtractParams
    const agentId = await database.transaction(async (transaction) => {
      // None has failed yet in a job that is begun, or taken up again by somebody.
      if (job.failed === 0) await forgetFailures(transaction, job.id)
      const claimed = await claimMessages(transaction, job.id, params, rules.trigger)
      await setJobTotal(transaction, job, job.succeeded + job.failed + claimed)
      return settleAgent(transaction, job, params)
    })
    const reader = await patiently({ database, context }, () => extractors.open(agentId, job.id))
    try {
      await extractAll(services, context, reader)
    } finally {
      await reader.close()
    }
    return 'done'
  }
}

/** Whoever is the default one as the job begins reads all of it, also when it is taken up again. */
async function settleAgent(
  transaction: Transaction,
  job: JobRow,
  { agentId }: ExtractParams,
): Promise<string | null> {
  if (agentId !== undefined) return agentId
  const settled = (await readDefaultAgent(transaction))?.id ?? null
  await addJobParams(transaction, job, { agentId: settled })
  return settled
}

async function extractAll(services: ExtractionServices, context: JobContext, reader: Reader): Promise<void> {
  const { database, rules } = services
  const { job, log, signal } = context
  const { topicId = null } = job.params as unknown as ExtractParams
  const { extractor } = reader
  const messages = await waitUntilGrouped(services, context)
  const run = {
    ...services,
    context,
    reader,
    provider: accountEmbeddings(services.provider, {
      ...services.usage.account(services.provider, 'EMBEDDING', job.id),
      // What a model has answered is paid for: held back here, the batch would have to be read, and paid for, again.
      admit: async () => {},
    }),
    topicId,
    origin: {
      extractedBy: extractor.type.toUpperCase() as Origin['extractedBy'],
      model: extractor.model,
      jobId: job.id,
    },
    vectorType: await readVectorType(database),
    result: (job.result as unknown as ExtractResult | null) ?? {
      ...noCounts,
      extractor: `${extractor.type}/${extractor.model}`,
      tokensIn: 0,
      tokensOut: 0,
      dropped: {},
      failures: [],
    },
  }
  for (const batch of planBatches(messages, rules.batchSize)) {
    signal.throwIfAborted()
    await runBatch(run, batch)
  }
  const ended = await findJob(database, job.id)
  if (ended && ended.failed > 0 && ended.succeeded === 0) {
    throw new QuarryError(
      `No batch could be extracted: ${run.result.failures[0]?.reason ?? 'no reason was kept'}`,
    )
  }
  log.info({ ...run.result, failures: run.result.failures.length }, 'Extracted knowledge')
}

type Grouped = ClaimedMessage & { conversationId: string }

/** Batches are cut along conversations, and messages are grouped as they are embedded: wait for that. */
async function waitUntilGrouped(
  { database }: ExtractionServices,
  { job, signal }: JobContext,
): Promise<Grouped[]> {
  const bell = createBell()
  const unlisten = await database.listen(groupedChannel, bell.ring)
  try {
    for (let told = -1; ; ) {
      signal.throwIfAborted()
      const messages = await readClaimed(database, job.id)
      const grouped = messages.filter((message): message is Grouped => message.conversationId !== null)
      const left = messages.length - grouped.length
      if (left === 0) return grouped
      if (told < 0 || left < told / 2) {
        told = left
        await database.transaction((transaction) =>
          appendJobEvent(transaction, job.id, `Waiting until ${left} messages are embedded and grouped`),
        )
      }
      await bell.wait({ signal, limitMs: 1_000 })
    }
  } finally {
    await unlisten()
  }
}

interface Run extends ExtractionServices {
  context: JobContext
  reader: Reader
  topicId: string | null
  origin: Origin
  vectorType: number
  result: ExtractResult
}

async function runBatch(run: Run, messages: readonly Grouped[]): Promise<void> {
  const { database, space, provider, context, rules } = run
  const { job, signal } = context
  const batch = await readBatch(
    database,
    space,
    messages.map(({ id }) => id),
    run.vectorType,
  )
  const ids = batch.messages.map(({ id }) => id)
  try {
    const extraction = await extract(run, batch)
    const proven = proveExtraction(extraction, batch, rules.minConfidence)
    const prepared = await patiently(run, () =>
      prepareExtraction(proven, batch, provider, space.dimensions, signal),
    )
    const result = { ...run.result, dropped: addDropped(run.result.dropped, proven.dropped) }
    result.tokensIn += extraction.usage.tokensIn
    result.tokensOut += extraction.usage.tokensOut
    run.result = await database.transaction(async (transaction) => {
      const counts = await saveExtraction(transaction, space, prepared, batch, {
        origin: run.origin,
        topicId: run.topicId,
        autoApprove: rules.autoApprove,
      })
      const whole = { ...result, ...addCounts(result, counts) }
      await markExtracted(transaction, job.id, ids)
      await addJobProgress(
        transaction,
        job,
        { succeeded: ids.length, failed: 0, skipped: 0 },
        { ...whole },
        {},
      )
      return whole
    })
  } catch (error) {
    signal.throwIfAborted()
    if (!isFaultOfBatch(error)) throw error
    await failBatch(run, ids, errorMessage(error))
  }
}

/** Whether other batches may do better. */
function isFaultOfBatch(error: unknown): boolean {
  return error instanceof ProviderError && (error.failure === 'BAD_ANSWER' || error.failure === 'REFUSED')
}

async function failBatch(run: Run, ids: readonly string[], reason: string): Promise<void> {
  const { database, context } = run
  context.log.warn({ error: reason, messages: ids.length }, 'A batch could not be extracted')
  run.result.failures = [...run.result.failures, { messages: ids.length, reason }].slice(0, maxFailuresListed)
  await database.transaction(async (transaction) => {
    await markFailed(transaction, context.job.id, ids, reason)
    const counts = { succeeded: 0, failed: ids.length, skipped: 0 }
    await addJobProgress(transaction, context.job, counts, { ...run.result }, { error: reason })
  })
}

async function extract(run: Run, batch: ExtractionBatch): Promise<Extraction> {
  const { context, metrics } = run
  const { extractor, status } = run.reader
  return patiently(run, async () => {
    const endTimer = metrics.extractionRequests.startTimer()
    try {
      const extraction = await extractor.extract(batch, context.signal)
      endTimer({ outcome: 'ok' })
      await status.succeeded()
      return extraction
    } catch (error) {
      if (error instanceof ProviderError) {
        endTimer({ outcome: error.failure.toLowerCase() })
        const waitMs = waitFor(error, 0)
        if (waitMs !== null) await status.failed(error, waitMs)
      }
      throw error
    }
  })
}

/**
 * A provider that asks to wait is waited for, and so is the person who mends a wrong key or address: neither is a
 * failure, nor uses up an attempt.
 * @throws PostponeError when the wait is long, an Error that is retried when the provider is away
 */
async function patiently<Result>(
  run: Pick<Run, 'database' | 'context'>,
  ask: () => Promise<Result>,
): Promise<Result> {
  const { database, context } = run
  for (let waits = 0; ; waits++) {
    try {
      return await ask()
    } catch (error) {
      const waitMs = error instanceof ProviderError ? waitFor(error, waits) : null
      if (!(error instanceof ProviderError) || waitMs === null) throw error
      if (error.failure === 'UNAVAILABLE') throw new Error(error.message, { cause: error })
      if (waitMs > maxWaitInPlaceMs) throw new PostponeError(error.message, waitMs)
      await database.transaction((transaction) =>
        setJobWaiting(transaction, context.job, 'RUNNING', waitMs, error.message),
      )
      await delay(waitMs, undefined, { signal: context.signal })
    }
  }
}

/** Milliseconds for which the provider is left alone; null: it is not the provider that is at fault. */
function waitFor(error: ProviderError, waits: number): number | null {
  switch (error.failure) {
    case 'RATE_LIMITED':
      return error.retryAfterMs ?? Math.min(rateLimitMinMs * 2 ** waits, rateLimitMaxMs)
    case 'UNAUTHORIZED':
    case 'MISCONFIGURED':
      return needsPersonMs
    case 'UNAVAILABLE':
      return 0
    case 'REFUSED':
    case 'BAD_ANSWER':
      return null
  }
}

function addDropped(a: Record<string, number>, b: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.keys({ ...a, ...b }).map((key) => [key, (a[key] ?? 0) + (b[key] ?? 0)]))
}
