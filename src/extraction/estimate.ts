import type { Config, ExtractionRules } from '../config.ts'
import type { Sql } from '../db/database.ts'
import { estimateWork, type WorkEstimate } from '../providers/estimate.ts'
import { extractionAccount } from '../providers/provider.ts'
import { readProvider } from '../providers/records.ts'
import { estimateAll } from '../providers/remote.ts'
import { readPace } from '../providers/usage-records.ts'
import { type AgentRow, readAgent, readDefaultAgent } from './agents.ts'
import { contextSize } from './batch.ts'
import { type ExtractionScope, readScopeSample } from './claims.ts'
import type { ExtractionBatch, KnownAtom, KnownTopic } from './extractor.ts'
import { defaultInstructions } from './model/instructions.ts'
import { dataLines, promptOf } from './model/prompt.ts'

export interface ExtractionEstimate extends WorkEstimate {
  messages: number
  /** Who would read; null: what the environment configures. */
  agent: AgentRow | null
}

/** Enough for a mean; a whole year of a chat would take seconds to count. */
const sampleSize = 500
/** As long as the one that is drawn for each request. */
const nonce = '0'.repeat(32)

/**
 * What an extraction would take, asked of nobody: its requests are put together from a sample of the messages, and
 * counted by the same estimate that the limits go by, rather too high. Answers that have to be repaired, and the embedding
 * of what is found, come on top.
 * @param agentId undefined: the default agent, if there is one
 * @throws NotFoundError
 */
export async function estimateExtraction(
  sql: Sql,
  scope: ExtractionScope,
  agentId: string | undefined,
  rules: ExtractionRules,
  environment: Config['extraction']['extractor'],
): Promise<ExtractionEstimate> {
  const agent = agentId === undefined ? await readDefaultAgent(sql) : await readAgent(sql, agentId)
  const { count, messages: sample } = await readScopeSample(sql, scope, rules.trigger, sampleSize)
  if (agent === null && environment.type === 'local') {
    // Rules ask nobody; how long they take depends on this machine.
    return { messages: count, agent, requests: 0, tokensIn: 0, tokensOut: 0, cost: 0, seconds: null }
  }
  const requests = Math.ceil(count / rules.batchSize)
  const instructions = agent?.instructions ?? defaultInstructions
  const frame = promptOf({ messages: [], ...(await readContext(sql)) }, instructions, nonce)
  const perRequest = estimateAll(frame.map(({ content }) => content))
  const perMessage = sample.length === 0 ? 0 : estimateAll(dataLines(alone(sample))) / sample.length
  const tokensIn = Math.ceil(requests * perRequest + count * perMessage)

  const provider = agent && (await readProvider(sql, agent.providerId))
  const pace = await readPace(sql, provider?.id ?? extractionAccount, ['EXTRACTION'])
  const { tokensOutPerTokenIn: share, msPerRequest } = pace
  const tokensOut = share === null ? null : Math.ceil(tokensIn * share)
  const estimate = estimateWork(
    { requests, tokensIn, tokensOut },
    {
      requestsPerMinute: provider?.requestsPerMinute ?? null,
      tokensPerMinute: provider?.tokensPerMinute ?? null,
      // A job asks for one batch after the other.
      parallelRequests: 1,
      pricePerMillionTokensIn: provider?.pricePerMillionTokensIn ?? null,
      pricePerMillionTokensOut: provider?.pricePerMillionTokensOut ?? null,
      msPerRequest,
    },
  )
  return { messages: count, agent, ...estimate }
}

const alone = (messages: ExtractionBatch['messages']): ExtractionBatch => ({
  messages,
  topics: [],
  atoms: [],
})

/** As many topics and atoms as a request can carry as context, the newest. */
async function readContext(sql: Sql): Promise<{ topics: KnownTopic[]; atoms: KnownAtom[] }> {
  const [topics, atoms] = await Promise.all([
    sql.query<KnownTopic>(
      `select id, name, description, keywords, null as vector from topic
       where archived_at is null order by id desc limit $1`,
      [contextSize],
    ),
    sql.query<KnownAtom>(
      `select id, type, title, content from atom
       where review_state = 'APPROVED' and archived_at is null order by id desc limit $1`,
      [contextSize],
    ),
  ])
  return { topics, atoms }
}
