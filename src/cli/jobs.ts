import { QuarryError } from '../errors.ts'
import { isEnded, type JobKind } from '../jobs/records.ts'
import { reportEmbedding } from './backfill.ts'
import type { ApiClient } from './client.ts'
import type { Session } from './connect.ts'
import { reportExtraction } from './extract.ts'
import { type FinishedJob, followJob, readJob, requireSuccess } from './follow.ts'
import { reportImport } from './import.ts'
import { chooseJob, type JobRef, shortId } from './job-id.ts'
import { type Job, jobFields, jobTable } from './job-table.ts'
import { paint, say } from './terminal.ts'

export interface JobListOptions {
  states: string[] | null
  kinds: string[] | null
  first: number
}

/** Prints the newest jobs. */
export async function listJobs(client: ApiClient, { states, kinds, first }: JobListOptions): Promise<void> {
  const { jobs } = await client.request<{ jobs: { nodes: Job[]; pageInfo: { hasNextPage: boolean } } }>(
    `query Jobs($filter: JobFilter, $first: Int!) {
       jobs(filter: $filter, first: $first) { nodes { ${jobFields} } pageInfo { hasNextPage } }
     }`,
    { filter: { ...(states ? { states } : {}), ...(kinds ? { kinds } : {}) }, first },
  )
  if (jobs.nodes.length === 0) {
    say(states || kinds ? 'There are no such jobs.' : 'There are no jobs.')
    return
  }
  say(jobTable(jobs.nodes, new Date(), process.stdout.isTTY ? process.stdout.columns || 80 : null))
  if (jobs.pageInfo.hasNextPage && process.stdout.isTTY)
    say(paint.dim('There are older ones; -n shows up to 100.'))
}

interface ChangedJob {
  job?: Job
  message?: string
}

/** Ends a job where it is. */
export async function cancelJob(client: ApiClient, text: string): Promise<void> {
  const { id, kind } = await chooseJob(client, text)
  const { cancelJob: answer } = await client.request<{ cancelJob: ChangedJob }>(
    `mutation Cancel($id: ID!) {
       cancelJob(input: { jobId: $id }) {
         ... on CancelJobPayload { job { ${jobFields} } }
         ... on UserError { message }
       }
     }`,
    { id },
  )
  const job = requireJob(answer, { id, kind })
  const done = job.succeeded + job.failed + job.skipped
  say(
    `${paint.bold('Cancelled')}: ${kind} ${shortId(id)}, ${done}${job.total === null ? '' : ` of ${job.total}`} done`,
  )
}

/** Takes up a job again, and follows it if asked to. */
export async function retryJob(session: Session, text: string, isFollowed: boolean): Promise<void> {
  const ref = await chooseJob(session.client, text)
  const { retryJob: answer } = await session.client.request<{ retryJob: ChangedJob }>(
    `mutation Retry($id: ID!) {
       retryJob(input: { jobId: $id }) {
         ... on RetryJobPayload { job { ${jobFields} } }
         ... on UserError { message }
       }
     }`,
    { id: ref.id },
  )
  requireJob(answer, ref)
  say(`${paint.bold('Taken up again')}: ${ref.kind} ${shortId(ref.id)}`)
  if (isFollowed) report(await followJob(session, ref, { isOld: true }))
}

/** Follows a job to its end and says what came of it. */
export async function watchJob(session: Session, text: string): Promise<void> {
  const ref = await chooseJob(session.client, text)
  if (!isEnded(ref.state)) return report(await followJob(session, ref, { isOld: true }))
  say(`${ref.kind} ${shortId(ref.id)} has ended: ${ref.state}`)
  report(await readJob(session.client, ref.id))
}

function requireJob({ job, message }: ChangedJob, { id, kind }: Pick<JobRef, 'id' | 'kind'>): Job {
  if (job) return job
  throw new QuarryError(`${kind} ${shortId(id)}: ${message ?? 'the server has refused that'}`)
}

const reports: Record<JobKind, (job: FinishedJob) => void> = {
  IMPORT: reportImport,
  EMBED: reportEmbedding,
  BACKFILL: reportEmbedding,
  EXTRACT: reportExtraction,
  MIGRATE_EMBEDDINGS: requireSuccess,
}

function report(job: FinishedJob): void {
  reports[job.kind](job)
}
