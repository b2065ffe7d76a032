import type { Database } from '../db/database.ts'
import { estimateEmbedding } from '../providers/estimate.ts'
import { type ProviderRow, readProvider } from '../providers/records.ts'
import { readTextsToEmbed } from './migration.ts'
import type { OpenTarget } from './target.ts'
import { embedTexts } from './texts.ts'

/** What it takes to move everything to another model. */
export interface MigrationPlan {
  model: string
  dimensions: number
  /** Messages, atoms and topics. */
  rows: number
  tokens: number
  requests: number
  /** US dollars; null where nobody said a price. */
  cost: number | null
  /** Null where nothing could be measured. */
  seconds: number | null
  /** What the figures rest on, for people. */
  assumptions: string[]
}

const sampleSize = 1000
/** One request with texts of this database, to see how long it takes. */
const probeLimitMs = 10_000

/** @throws ProviderError if it does not embed texts of this database */
export async function planMigration(database: Database, target: OpenTarget): Promise<MigrationPlan> {
  const { client } = target
  const row = target.providerId === null ? null : await readProvider(database, target.providerId)
  const { rows, texts, sample } = await readTextsToEmbed(database, sampleSize)
  const counts = sample.map((text) => client.countTokens(text))
  const perText = sample.length === 0 ? 0 : counts.reduce((sum, count) => sum + count, 0) / sample.length
  const tokens = Math.round(perText * texts)
  const probe = sample.slice(0, client.limits.maxTextsPerRequest)
  const msPerRequest = probe.length === 0 ? null : await timeOf(target, probe)
  const estimate = estimateEmbedding({ texts, tokens }, client.limits, {
    requestsPerMinute: row?.requestsPerMinute ?? null,
    tokensPerMinute: row?.tokensPerMinute ?? null,
    pricePerMillionTokensIn: row?.pricePerMillionTokensIn ?? null,
    msPerRequest,
  })
  return {
    model: client.model,
    dimensions: target.dimensions,
    rows,
    tokens,
    requests: estimate.requests,
    cost: estimate.cost,
    seconds: estimate.seconds,
    assumptions: assumptionsOf({
      row,
      texts,
      rows,
      sample: sample.length,
      perText,
      msPerRequest,
      probe,
      client,
    }),
  }
}

/** Milliseconds that one request takes now; null if it is not answered in time. */
async function timeOf({ client, dimensions }: OpenTarget, texts: readonly string[]): Promise<number | null> {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(), probeLimitMs)
  const begun = performance.now()
  try {
    await embedTexts(client, dimensions, texts, controller.signal)
    return performance.now() - begun
  } catch (error) {
    if (controller.signal.aborted) return null
    throw error
  } finally {
    clearTimeout(timer)
  }
}

function assumptionsOf(known: {
  row: ProviderRow | null
  texts: number
  rows: number
  sample: number
  perText: number
  msPerRequest: number | null
  probe: readonly string[]
  client: OpenTarget['client']
}): string[] {
  const { row, texts, rows, sample, perText, msPerRequest, probe, client } = known
  const { maxParallelRequests } = client.limits
  return [
    `${rows} rows have ${texts} different texts; equal ones are embedded once. What is written meanwhile comes on top, in both spaces.`,
    `Tokens are estimated from ${sample} texts, ${Math.round(perText)} each on average.`,
    row?.pricePerMillionTokensIn == null
      ? 'The provider has no price: set pricePerMillionTokensIn to see the cost.'
      : `A million tokens cost ${row.pricePerMillionTokensIn} US dollars.`,
    msPerRequest === null
      ? `How long a request takes is not known: none was answered within ${probeLimitMs / 1000} s.`
      : `One request with ${probe.length} texts took ${Math.round(msPerRequest)} ms; ${maxParallelRequests} of one process are under way at once, and more processes are faster.`,
    'Without pauses that the provider asks for, and without the build of the vector indexes afterwards.',
  ]
}
