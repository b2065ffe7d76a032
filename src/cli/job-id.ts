import { InvalidInputError, NotFoundError, QuarryError } from '../errors.ts'
import type { JobKind, JobState } from '../jobs/records.ts'
import type { ApiClient } from './client.ts'

/** Of a UUIDv7 the end is random, the beginning is the time: jobs of the same minute share it. */
const shownDigits = 8
const leastDigits = 4
const pageSize = 100
/** How far back a short id is looked for. */
const mostJobs = 1_000

/** What is needed of a job to choose it. */
export interface JobRef {
  id: string
  kind: JobKind
  state: JobState
}

/**
 * The database id behind a global one, which is what the logs show, so that one search finds a job in both. An id that
 * looks otherwise is shown as it is.
 */
export function databaseId(globalId: string): string {
  const text = Buffer.from(globalId, 'base64').toString('latin1')
  return /^Job:([0-9a-f-]{36})$/.exec(text)?.[1] ?? globalId
}

/** The end of a job's id: what tables show and `chooseJob` takes. */
export function shortId(globalId: string): string {
  return databaseId(globalId).slice(-shownDigits)
}

/** The jobs that a text names: by global id, database id, or the end of that, at least four digits. */
export function matchingJobs<Job extends { id: string }>(jobs: readonly Job[], text: string): Job[] {
  const wanted = text.toLowerCase()
  const isPart = /^[0-9a-f-]+$/.test(wanted) && wanted.length >= leastDigits
  return jobs.filter(({ id }) => id === text || (isPart && databaseId(id).endsWith(wanted)))
}

/**
 * Finds the job that a person means, among the newest thousand.
 * @throws NotFoundError, InvalidInputError (more than one ends so)
 */
export async function chooseJob(client: ApiClient, text: string): Promise<JobRef> {
  const found: JobRef[] = []
  let after: string | null = null
  for (let read = 0; read < mostJobs; read += pageSize) {
    const { jobs }: JobPage = await client.request<JobPage>(
      `query Jobs($first: Int!, $after: String) {
         jobs(first: $first, after: $after) { nodes { id kind state } pageInfo { hasNextPage endCursor } }
       }`,
      { first: pageSize, after },
    )
    found.push(...matchingJobs(jobs.nodes, text))
    if (found.some(({ id }) => id === text || databaseId(id) === text)) break
    if (!jobs.pageInfo.hasNextPage) break
    after = jobs.pageInfo.endCursor
  }
  const [only, ...others] = found
  if (only && others.length === 0) return only
  if (only) {
    const listed = found.map(({ id, kind, state }) => `  ${databaseId(id)}  ${kind} ${state}`)
    throw new InvalidInputError(
      `${found.length} jobs end in ${text}; give more of the id:\n${listed.join('\n')}`,
    )
  }
  return older(client, text)
}

interface JobPage {
  jobs: { nodes: JobRef[]; pageInfo: { hasNextPage: boolean; endCursor: string | null } }
}

/** A whole id names a job however old it is. */
async function older(client: ApiClient, text: string): Promise<JobRef> {
  const isUuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)
  const id = isUuid ? Buffer.from(`Job:${text.toLowerCase()}`).toString('base64') : text
  const answer = await client
    .request<{ node: Partial<JobRef> | null }>(
      'query Job($id: ID!) { node(id: $id) { ... on Job { id kind state } } }',
      { id },
    )
    .catch((error: unknown) => {
      // The server refuses what is no id at all. That it cannot be reached would have shown before.
      if (error instanceof QuarryError) return { node: null }
      throw error
    })
  const { id: found, kind, state } = answer.node ?? {}
  if (found && kind && state) return { id: found, kind, state }
  throw new NotFoundError(
    `No job has the id ${text}, or ends in it. quarry jobs lists them; ended ones are cleared after some time.`,
  )
}
