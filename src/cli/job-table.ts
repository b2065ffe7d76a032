import { stripVTControlCharacters } from 'node:util'
import { isEnded, type JobKind, type JobState } from '../jobs/records.ts'
import { shortId } from './job-id.ts'
import { waiting } from './progress-text.ts'
import { paint, table } from './terminal.ts'
import { age, cut, duration } from './wording.ts'

/** A job in a list. */
export interface Job {
  id: string
  kind: JobKind
  state: JobState
  total: number | null
  succeeded: number
  failed: number
  skipped: number
  error: string | null
  createdAt: string
  startedAt: string | null
  finishedAt: string | null
  waitingUntil: string | null
}

export const jobFields =
  'id kind state total succeeded failed skipped error createdAt startedAt finishedAt waitingUntil'

const noteTitle = 'NOTE'
const head = ['ID', 'KIND', 'STATE', 'DONE', 'FAILED', 'AGE', 'TOOK', noteTitle]
const leastNoteColumns = 12

/**
 * Jobs as a table. On a terminal a long note is cut off, elsewhere it is whole.
 * @param columns how wide the terminal is; null: there is none
 */
export function jobTable(jobs: readonly Job[], now: Date, columns: number | null): string {
  const rows = jobs.map((job) => jobRow(job, now))
  if (columns === null) return table(head, rows)
  // The notes begin where they would without being cut; the last column stays free.
  const [titles = ''] = stripVTControlCharacters(table(head, rows)).split('\n')
  const room = Math.max(leastNoteColumns, columns - 1 - titles.indexOf(noteTitle))
  return table(
    head,
    rows.map((row) => [...row.slice(0, -1), cut(String(row.at(-1)), room)]),
  )
}

function jobRow(job: Job, now: Date): (string | number)[] {
  const done = job.succeeded + job.failed + job.skipped
  return [
    shortId(job.id),
    job.kind,
    stateColour(job.state)(job.state),
    job.total === null ? String(done) : `${done}/${job.total}`,
    job.failed,
    age((now.getTime() - Date.parse(job.createdAt)) / 1000),
    took(job, now),
    jobNote(job, now),
  ]
}

/** How long it has run, from its first begin. */
function took({ startedAt, finishedAt }: Job, now: Date): string {
  if (!startedAt) return ''
  const end = finishedAt ? Date.parse(finishedAt) : now.getTime()
  return duration((end - Date.parse(startedAt)) / 1000)
}

/** In one line: an error may have several. */
function jobNote({ error, waitingUntil, state }: Job, now: Date): string {
  const until = waitingUntil ? new Date(waitingUntil) : null
  const isWaiting = until !== null && until > now && !isEnded(state)
  return [isWaiting ? waiting(until, now) : '', error ?? ''].filter(Boolean).join('; ').replace(/\s+/g, ' ')
}

/** What went wrong is red, what is under way blue, what waits yellow. */
export function stateColour(state: JobState): (text: string) => string {
  const colours = {
    QUEUED: paint.yellow,
    RUNNING: paint.cyan,
    SUCCEEDED: paint.green,
    FAILED: paint.red,
    CANCELLED: paint.dim,
  }
  return colours[state]
}
