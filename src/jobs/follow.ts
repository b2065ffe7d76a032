import { LRUCache } from 'lru-cache'
import type { Database, Sql } from '../db/database.ts'
import { listenOnDemand } from '../db/listen-on-demand.ts'
import { oneAtATime } from '../db/one-at-a-time.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import { isEnded, type JobState, jobChannel } from './records.ts'

export interface JobEvent {
  jobId: string
  /** Numbered from 1 within the job, without gaps. */
  seq: bigint
  at: Date
  message: string | null
  data: Record<string, unknown> | null
}

/** The events of jobs, to any number of followers in this process: however many follow a job, it is read once. */
export interface JobEvents {
  /** Whether there is such a job. */
  exists(jobId: string): Promise<boolean>
  /**
   * All events after a number, then live ones.
   * @param onNews called when `next` is worth asking
   */
  follow(jobId: string, afterSeq: bigint, onNews: () => void): Promise<JobFollower>
}

export interface JobFollower {
  /**
   * The next events, in order; null if there are none now; 'ended' if the job has ended (or is no longer kept) and all
   * have been given.
   */
  next(): Promise<readonly JobEvent[] | 'ended' | null>
  /** Changes with each read: what is read about the job for one follower holds for all until then. */
  readonly version: object
  end(): void
}

/** What a job has of its newest events in memory for all who follow it. */
interface Followed {
  followers: Set<() => void>
  /** Without gaps. */
  newest: JobEvent[]
  lastSeq: bigint
  /** Whether it has ended, or is no longer kept. */
  isEnded: boolean
  version: object
  /** Reads what is new; whoever asks while a read is under way gets the next one, which sees all from before. */
  refresh(): Promise<void>
}

/** Events of a job that are kept in memory: at seven a second, those of the last half minute. */
const keptEvents = 256
/** Older ones are read in pages, by whoever needs them. */
const pageSize = 100
/** Pages that are kept for followers that begin at the same place. */
const keptPages = 32
/** A notification can be lost, an event cannot. */
const lookAgainMs = 5_000
const retryMs = 1_000

export function createJobEvents(database: Database, log: Logger): JobEvents {
  const jobs = new Map<string, Followed>()
  const pages = new LRUCache<string, Promise<JobEvent[]>>({ max: keptPages })
  const listener = listenOnDemand(database, [jobChannel], (payload) => {
    if (payload === null) lookAtAll()
    else look(payload.slice(0, payload.indexOf(' ')))
  })
  let timer: NodeJS.Timeout | null = null

  function look(jobId: string): void {
    jobs
      .get(jobId)
      ?.refresh()
      // It is looked at again soon, see lookAgainMs.
      .catch((error) =>
        log.warn({ error: errorMessage(error), jobId }, 'The events of a job could not be read yet'),
      )
  }

  function lookAtAll(): void {
    for (const jobId of jobs.keys()) look(jobId)
  }

  function begin(jobId: string): Followed {
    const job: Followed = {
      followers: new Set(),
      newest: [],
      lastSeq: 0n,
      isEnded: false,
      version: {},
      refresh: oneAtATime(async () => {
        const found = await readNewest(database, jobId, job.lastSeq)
        job.version = {}
        job.isEnded = !found || isEnded(found.state)
        if (found) keep(job, found)
        for (const onNews of job.followers) onNews()
      }),
    }
    jobs.set(jobId, job)
    timer ??= setInterval(lookAtAll, lookAgainMs).unref()
    return job
  }

  function page(jobId: string, afterSeq: bigint): Promise<JobEvent[]> {
    const key = `${jobId} ${afterSeq}`
    const known = pages.get(key)
    if (known) return known
    const reading = readPage(database, jobId, afterSeq)
    pages.set(key, reading)
    reading.catch(() => pages.delete(key))
    return reading
  }

  return {
    async exists(jobId) {
      return jobs.has(jobId) || (await jobExists(database, jobId))
    },
    async follow(jobId, afterSeq, onNews) {
      const leave = await listener.join()
      const known = jobs.get(jobId)
      const job = known ?? begin(jobId)
      job.followers.add(onNews)
      function end() {
        leave()
        if (!job.followers.delete(onNews) || job.followers.size > 0) return
        jobs.delete(jobId)
        if (jobs.size > 0 || !timer) return
        clearInterval(timer)
        timer = null
      }
      try {
        // One that had ended may have been taken up again a moment ago.
        if (!known || job.isEnded || job.lastSeq === 0n) await job.refresh()
      } catch (error) {
        end()
        throw error
      }
      let position = afterSeq

      /** Null while the database is away: asking is worth it again after a moment. */
      async function readPageOrWait(after: bigint): Promise<readonly JobEvent[] | null> {
        try {
          return await page(jobId, after)
        } catch (error) {
          log.warn({ error: errorMessage(error), jobId }, 'Earlier events of a job could not be read yet')
          setTimeout(onNews, retryMs).unref()
          return null
        }
      }

      return {
        end,
        get version() {
          return job.version
        },
        async next() {
          for (;;) {
            if (position >= job.lastSeq) return job.isEnded ? 'ended' : null
            const [oldest] = job.newest
            const isKept = !oldest || position >= oldest.seq - 1n
            const events = isKept ? eventsAfter(job.newest, position) : await readPageOrWait(position)
            if (events === null) return null
            position = events.at(-1)?.seq ?? (isKept ? job.lastSeq : oldest.seq - 1n)
            if (events.length > 0) return events
          }
        },
      }
    },
  }
}

/** Adds what was read to what is kept; if others came between, only the new is. */
function keep(job: Followed, { events, lastSeq }: { events: JobEvent[]; lastSeq: bigint }): void {
  const [first] = events
  if (first) {
    const before = first.seq === job.lastSeq + 1n ? job.newest : []
    job.newest = [...before, ...events].slice(-keptEvents)
  }
  job.lastSeq = lastSeq
}

function eventsAfter(events: readonly JobEvent[], seq: bigint): readonly JobEvent[] {
  let at = events.length
  // From the end: most have all but the last ones.
  while (at > 0 && (events[at - 1]?.seq ?? 0n) > seq) at--
  return events.slice(at)
}

async function jobExists(sql: Sql, jobId: string): Promise<boolean> {
  const jobs = await sql.query('select from job where id = $1', [jobId])
  return jobs.length > 0
}

const eventColumns = `e.job_id as "jobId", e.seq::text as seq, e.at, e.message, e.data`

type EventRow = Omit<JobEvent, 'seq'> & { seq: string }
const toEvent = (row: EventRow): JobEvent => ({
  jobId: row.jobId,
  seq: BigInt(row.seq),
  at: row.at,
  message: row.message,
  data: row.data,
})

/**
 * The state of a job and its newest events after a number, of one moment: when it has ended, its end is among its
 * events. Null if there is no such job.
 */
async function readNewest(
  sql: Sql,
  jobId: string,
  afterSeq: bigint,
): Promise<{ state: JobState; lastSeq: bigint; events: JobEvent[] } | null> {
  const rows = await sql.query<EventRow & { state: JobState; lastSeq: string; seq: string | null }>(
    `select j.state, j.last_seq::text as "lastSeq", ${eventColumns}
     from job j left join job_event e on e.job_id = j.id and e.seq > greatest($2::bigint, j.last_seq - ${keptEvents})
     where j.id = $1 order by e.seq`,
    [jobId, String(afterSeq)],
  )
  const [first] = rows
  if (!first) return null
  return {
    state: first.state,
    lastSeq: BigInt(first.lastSeq),
    events: rows.flatMap((row) => (row.seq === null ? [] : [toEvent(row)])),
  }
}

async function readPage(sql: Sql, jobId: string, afterSeq: bigint): Promise<JobEvent[]> {
  const rows = await sql.query<EventRow>(
    `select ${eventColumns} from job_event e where e.job_id = $1 and e.seq > $2 order by e.seq limit ${pageSize}`,
    [jobId, String(afterSeq)],
  )
  return rows.map(toEvent)
}
