import { setTimeout as delay } from 'node:timers/promises'
import { NotFoundError, QuarryError, SetupError } from '../errors.ts'
import { isEnded, type JobKind, type JobState } from '../jobs/records.ts'
import type { ApiClient } from './client.ts'
import type { Session } from './connect.ts'
import { Interrupted } from './interrupt.ts'
import { type JobRef, shortId } from './job-id.ts'
import { type JobEvent, type JobView, jobProgress, jobWords, nextView } from './job-progress.ts'
import { startProgress } from './progress.ts'
import { noProgress, type Progress } from './progress-text.ts'

/** A job as it is reported at its end. */
export interface FinishedJob {
  kind: JobKind
  state: JobState
  error: string | null
  total: number | null
  succeeded: number
  failed: number
  skipped: number
  result: Record<string, unknown> | null
}

/** What is said while the server cannot be reached. */
export const outageNote = 'no connection to the server, trying again'
/** When nothing comes at first, there may be something to say of that. */
const silenceMs = 1_100
const oddEndMs = 500

export interface FollowOptions {
  /** How the bar is headed, such as `Importing chat.jsonl`. */
  doing?: string
  /** Whether the job is older than this command: what it told long ago is left out. */
  isOld?: boolean
}

/**
 * Follows a job to its end with a progress bar, through restarts of the server. Returns the job.
 * @throws NotFoundError; QuarryError if the server stays away; Interrupted, which says what becomes of the job
 */
export async function followJob(
  session: Session,
  job: Pick<JobRef, 'id' | 'kind'>,
  { doing = jobWords[job.kind].doing, isOld = false }: FollowOptions = {},
): Promise<FinishedJob> {
  const { client, isServer } = session
  let view: JobView | null = null
  let seen = '0'
  let receivedMs = 0
  function take(event: JobEvent): void {
    seen = event.seq
    view = nextView(view, event)
    receivedMs = performance.now()
  }
  const read = (): Progress | null => {
    // Now, by the clock of the database: this machine's may be wrong.
    const shown = view && jobProgress(view, view.atMs + performance.now() - receivedMs)
    return client.outage ? { ...(shown ?? noProgress), trouble: outageNote } : shown
  }
  const progress = startProgress(doing, read)
  const unwatch = client.onOutage(progress.changed)
  const silence = setTimeout(progress.changed, silenceMs)
  try {
    if (isOld) for (const event of await newestEvents(client, job.id)) take(event)
    progress.changed()
    for (;;) {
      const events = client.subscribe<{ jobEvents: JobEvent }>(
        `subscription Follow($id: ID!, $afterSeq: String) {
           jobEvents(jobId: $id, afterSeq: $afterSeq) { seq at message data }
         }`,
        { id: job.id, afterSeq: seen },
        { seqOf: ({ jobEvents }) => jobEvents.seq },
      )
      for await (const { jobEvents } of events) {
        take(jobEvents)
        progress.changed()
      }
      const ended = await readJob(client, job.id)
      if (isEnded(ended.state)) return ended
      // Taken up again by somebody at the moment of its end, or a server that ends its subscriptions before itself.
      await delay(oddEndMs)
    }
  } catch (error) {
    if (error instanceof Interrupted) throw goesOn(error, job, session)
    if (error instanceof SetupError && isServer) {
      throw new QuarryError(
        `${error.message}\n${nameOf(job)} goes on when it is back: quarry jobs watch ${shortId(job.id)}`,
      )
    }
    throw error
  } finally {
    clearTimeout(silence)
    unwatch()
    progress.stop()
  }
}

/** @throws NotFoundError */
export async function readJob(client: ApiClient, id: string): Promise<FinishedJob> {
  const { node } = await client.read<{ node: FinishedJob | null }>(
    `query Job($id: ID!) {
       node(id: $id) { ... on Job { kind state error total succeeded failed skipped result } }
     }`,
    { id },
  )
  if (!node) throw new NotFoundError('The job is gone: ended ones are cleared after some time')
  return node
}

/** Enough of them to tell how fast it goes. */
async function newestEvents(client: ApiClient, id: string): Promise<JobEvent[]> {
  const { node } = await client.read<{ node: { events: { nodes: JobEvent[] } } | null }>(
    `query Events($id: ID!) {
       node(id: $id) { ... on Job { events(last: 100) { nodes { seq at message data } } } }
     }`,
    { id },
  )
  return node?.events.nodes ?? []
}

/** Throws unless the job has done what it was to do. */
export function requireSuccess(job: FinishedJob): void {
  if (job.state === 'SUCCEEDED') return
  const { noun } = jobWords[job.kind]
  throw new QuarryError(
    job.state === 'CANCELLED'
      ? `The ${noun} was cancelled`
      : `The ${noun} has failed: ${job.error ?? 'no reason was kept'}`,
  )
}

/** The interrupt, with what becomes of a job that was followed. */
export function goesOn(
  { signal }: Interrupted,
  job: Pick<JobRef, 'id' | 'kind'>,
  { isServer }: Session,
): Interrupted {
  const id = shortId(job.id)
  return new Interrupted(
    signal,
    isServer
      ? `${nameOf(job)} goes on in the server. To follow or to end it:\n  quarry jobs watch ${id}\n  quarry jobs cancel ${id}`
      : `No server runs, so this command did the work itself.\n${nameOf(job)} is handed back: quarry serve, or the next command, goes on with it.`,
  )
}

const nameOf = ({ id, kind }: Pick<JobRef, 'id' | 'kind'>) =>
  `The ${jobWords[kind].noun} (job ${shortId(id)})`
