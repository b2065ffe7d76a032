import { setTimeout as delay } from 'node:timers/promises'
import { createBell } from '../bell.ts'
import type { ExtractionRules } from '../config.ts'
import { groupedChannel } from '../conversations/group.ts'
import type { Database, Sql } from '../db/database.ts'
import { type EmbeddingSpace, partitionName } from '../embedding/spaces.ts'
import { parseVector, readVectorType } from '../embedding/vectors.ts'
import { errorMessage, QuarryError } from '../errors.ts'
import { addJobProgress, appendJobEvent, findJob, setJobTotal } from '../jobs/records.ts'
import type { JobContext, JobHandler } from '../jobs/runner.ts'
import type { Origin } from '../knowledge/topics.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'
import {
  type ClaimedMessage,
  claimMessages,
  type ExtractionScope,
  markExtracted,
  readClaimed,
  releaseFailed,
} from './claims.ts'
import type { ExtractionBatch, ExtractionMessage, Extractor } from './extractor.ts'
import { findContext } from './near.ts'
import { planBatches } from './plan.ts'
import { proveExtraction } from './prove.ts'
import { addCounts, noCounts, prepareExtraction, type SaveCounts, saveExtraction } from './save.ts'

/** Params of an EXTRACT job. */
export type ExtractParams = ExtractionScope & { topicId?: string | null }

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

/** Topics, and atoms, that an extractor is told of. */
const contextSize = 20
const maxFailuresListed = 20
/** Conversations of a batch whose themes are looked for. */
const maxContextQueries = 20
const rateLimitMinMs = 1_000
const rateLimitMaxMs = 5 * 60_000

export interface ExtractionServices {
  database: Database
  space: EmbeddingSpace
  /** Of the space: embeds what is proposed. */
  provider: EmbeddingProvider
  extractor: Extractor
  rules: ExtractionRules
}

/**
 * Reads the messages of a job in batches along conversations and saves what comes of each, a batch at a time: a crash,
 * a stop or a cancellation between two of them loses and repeats nothing. A batch whose answer cannot be used fails
 * with its reason, and the others go on.
 */
export function extractHandler(services: ExtractionServices): JobHandler {
  return async (context) => {
    const { database, extractor, rules } = services
    const { job, log } = context
    const params = job.params as unknown as ExtractParams
    const claimed = await database.transaction((transaction) =>
      claimMessages(transaction, job.id, params, rules.trigger),
    )
    await database.transaction((transaction) =>
      setJobTotal(transaction, job.id, job.succeeded + job.failed + claimed),
    )
    const messages = await waitUntilGrouped(services, context)
    const run = {
      ...services,
      context,
      topicId: params.topicId ?? null,
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
      if (await isCancelled(database, context)) return 'done'
      await runBatch(run, batch)
    }
    const ended = await findJob(database, job.id)
    if (ended && ended.failed > 0 && ended.succeeded === 0) {
      throw new QuarryError(
        `No batch could be extracted: ${run.result.failures[0]?.reason ?? 'no reason was kept'}`,
      )
    }
    log.info({ ...run.result, failures: run.result.failures.length }, 'Extracted knowledge')
    return 'done'
  }
}

async function isCancelled(database: Database, { job, signal }: JobContext): Promise<boolean> {
  signal.throwIfAborted()
  return (await findJob(database, job.id))?.state !== 'RUNNING'
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
      if (left === 0 || (await isCancelled(database, { job, signal } as JobContext))) return grouped
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
  topicId: string | null
  origin: Origin
  vectorType: number
  result: ExtractResult
}

async function runBatch(run: Run, messages: readonly Grouped[]): Promise<void> {
  const { database, space, provider, context, rules } = run
  const { job, signal } = context
  const batch = await readBatch(run, messages)
  const ids = batch.messages.map(({ id }) => id)
  try {
    const extraction = await extractPatiently(run, batch)
    const proven = proveExtraction(extraction, batch, rules.minConfidence)
    const prepared = await prepareExtraction(proven, batch, provider, space.dimensions, signal)
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
        job.id,
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
    await releaseFailed(transaction, context.job.id, ids, reason)
    const counts = { succeeded: 0, failed: ids.length, skipped: 0 }
    await addJobProgress(transaction, context.job.id, counts, { ...run.result }, { error: reason })
  })
}

/** A provider that asks to wait is waited for: that is no failure and uses up no attempt. */
async function extractPatiently(run: Run, batch: ExtractionBatch) {
  const { database, extractor, context } = run
  for (let waits = 0; ; waits++) {
    try {
      return await extractor.extract(batch, context.signal)
    } catch (error) {
      if (!(error instanceof ProviderError)) throw error
      if (error.failure === 'UNAVAILABLE') throw retryable(error)
      if (error.failure !== 'RATE_LIMITED') throw error
      const backoff = Math.min(rateLimitMinMs * 2 ** waits, rateLimitMaxMs)
      const ms = Math.max(error.retryAfterMs ?? 0, backoff)
      const until = new Date(Date.now() + ms).toISOString()
      await database.transaction((transaction) =>
        appendJobEvent(
          transaction,
          context.job.id,
          `Waiting for the provider until ${until}: ${error.message}`,
        ),
      )
      await delay(ms, undefined, { signal: context.signal })
      if (await isCancelled(database, context)) throw new QuarryError('The job was cancelled')
    }
  }
}

/** A job ends with a QuarryError and is tried again after any other error: this one may pass. */
const retryable = (error: ProviderError) => new Error(error.message, { cause: error })

function addDropped(a: Record<string, number>, b: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.keys({ ...a, ...b }).map((key) => [key, (a[key] ?? 0) + (b[key] ?? 0)]))
}

async function readBatch(run: Run, messages: readonly Grouped[]): Promise<ExtractionBatch> {
  const { database, space, vectorType } = run
  const read = await readMessages(
    database,
    space,
    messages.map(({ id }) => id),
  )
  const centres = conversationCentres(read).slice(0, maxContextQueries)
  return { messages: read, ...(await findContext(database, space, centres, vectorType, contextSize)) }
}

async function readMessages(
  sql: Sql,
  space: EmbeddingSpace,
  ids: readonly string[],
): Promise<ExtractionMessage[]> {
  const rows = await sql.query<Omit<ExtractionMessage, 'vector'> & { vector: Buffer | null }>(
    `select m.id, m.author, m.sent_at as "sentAt", m.channel, m.content, m.conversation_id as "conversationId",
       r.id as "replyToId", vector_send(e.vector) as vector
     from message m
     left join lateral (
       select id from message
       where source_id = m.source_id and channel = m.channel and external_id = m.reply_to_external_id limit 1
     ) as r on true
     left join ${partitionName(space)} e on e.space_id = ${space.id} and e.kind = 'MESSAGE' and e.owner_id = m.id
     where m.id = any ($1::uuid[])
     order by min(m.sent_at) over (partition by m.conversation_id), m.conversation_id, m.sent_at, m.id`,
    [ids],
  )
  return rows.map((row) => ({ ...row, vector: row.vector && parseVector(row.vector) }))
}

/** For each conversation the sum of its messages' vectors: of the direction of their mean, which is all that a cosine sees. */
function conversationCentres(messages: readonly ExtractionMessage[]): Float32Array[] {
  const centres = new Map<string, Float32Array>()
  for (const { conversationId, vector } of messages) {
    if (!vector) continue
    const centre = centres.get(conversationId)
    if (!centre) centres.set(conversationId, Float32Array.from(vector))
    else for (const [index, value] of vector.entries()) centre[index] = (centre[index] ?? 0) + value
  }
  return [...centres.values()]
}
