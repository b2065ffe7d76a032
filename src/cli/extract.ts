import { InvalidInputError } from '../errors.ts'
import { findAgent } from './agents.ts'
import type { Session } from './connect.ts'
import { waitForEmbeddings } from './embeddings.ts'
import { type FinishedJob, followJob, goesOn, requireSuccess } from './follow.ts'
import { Interrupted } from './interrupt.ts'
import { paint, paintWarning, say, warn } from './terminal.ts'

/** What to extract: the time up to now, or from one moment to another. */
export interface ExtractOptions {
  last: string | null
  from: string | null
  to: string | null
}

/**
 * Starts an extraction and follows it. Returns the ended job.
 * @param agent name of the agent that reads; null: the default one, or what the environment configures
 */
export async function extract(
  session: Session,
  period: ExtractOptions,
  agent: string | null,
): Promise<FinishedJob> {
  const agentId = agent === null ? null : await findAgent(session.client, agent)
  const { extractKnowledge } = await session.client.request<{
    extractKnowledge: { job?: { id: string }; message?: string }
  }>(
    `mutation Extract($period: PeriodInput!, $agentId: ID) {
       extractKnowledge(input: { period: $period, agentId: $agentId }) {
         ... on ExtractKnowledgePayload { job { id } }
         ... on UserError { message }
       }
     }`,
    { period, agentId },
  )
  const { job, message } = extractKnowledge
  if (!job) throw new InvalidInputError(message ?? 'The extraction was refused')
  return followExtraction(session, job.id)
}

/** Follows an extraction to its end. Returns the ended job. */
export async function followExtraction(session: Session, jobId: string): Promise<FinishedJob> {
  // Conversations are found by meaning, too: the extraction waits for the embeddings, and so does the reader.
  const ref = { id: jobId, kind: 'EXTRACT' } as const
  await waitForEmbeddings(session).catch((error: unknown) => {
    throw error instanceof Interrupted ? goesOn(error, ref, session) : error
  })
  const job = await followJob(session, ref)
  reportExtraction(job)
  return job
}

/** Says what came of an extraction. */
export function reportExtraction(job: FinishedJob): void {
  const result = job.result as {
    topicsCreated?: number
    atomsCreated?: number
    linksCreated?: number
    revisionsProposed?: number
    failures?: { messages: number; reason: string }[]
  } | null
  if (job.state === 'SUCCEEDED' && job.total === 0) say('Nothing new to extract.')
  else {
    const { topicsCreated = 0, atomsCreated = 0, linksCreated = 0, revisionsProposed = 0 } = result ?? {}
    const counts = `${topicsCreated} topics, ${atomsCreated} atoms, ${linksCreated} links, ${revisionsProposed} revisions`
    say(`${paint.bold(counts)} from ${job.succeeded} messages`)
  }
  for (const { messages, reason } of result?.failures ?? []) {
    warn(paintWarning.yellow(`${messages} messages could not be read: ${reason}`))
  }
  requireSuccess(job)
}
