import { InvalidInputError } from '../errors.ts'
import type { Session } from './connect.ts'
import { type FinishedJob, followJob, requireSuccess } from './follow.ts'
import { paint, say } from './terminal.ts'

/** Starts a backfill and follows it. Returns the ended job. */
export async function backfill(
  session: Session,
  kinds: string[] | null,
  retryFailed: boolean,
): Promise<FinishedJob> {
  const { backfillEmbeddings } = await session.client.request<{
    backfillEmbeddings: { job?: { id: string }; message?: string }
  }>(
    `mutation Backfill($kinds: [EntityKind!], $retryFailed: Boolean) {
       backfillEmbeddings(input: { kinds: $kinds, retryFailed: $retryFailed }) {
         ... on BackfillEmbeddingsPayload { job { id } }
         ... on UserError { message }
       }
     }`,
    { kinds, retryFailed },
  )
  const { job, message } = backfillEmbeddings
  if (!job) throw new InvalidInputError(message ?? 'The backfill was refused')
  const ended = await followJob(session, { id: job.id, kind: 'BACKFILL' })
  reportEmbedding(ended)
  return ended
}

/** Says what came of a job that embeds. */
export function reportEmbedding(job: FinishedJob): void {
  say(paint.bold(`${job.succeeded} embedded, ${job.failed} failed, ${job.skipped} skipped`))
  requireSuccess(job)
}
