import { isEnded, type JobKind, type JobState } from '../jobs/records.ts'
import type { Progress } from './progress-text.ts'
import { addSample, ratePerSecond, type Sample, secondsLeft } from './rate.ts'

/** A job event as the API sends it. */
export interface JobEvent {
  seq: string
  at: string
  message: string | null
  data: JobEventData | null
}

interface JobEventData {
  state: JobState
  total: number | null
  succeeded: number
  failed: number
  skipped: number
  error: string | null
  waitingUntil?: string | null
  /** Of an import: how far the file has been read. */
  bytesRead?: number | undefined
  bytes?: number | undefined
}

/** What is known of a job from its events. */
export interface JobView {
  /** When the last event happened, by the clock of the database. */
  atMs: number
  message: string | null
  data: JobEventData
  samples: readonly Sample[]
  /** When it was begun, and what was done by then: what it has done since tells its speed. Null: that was not seen. */
  began: Sample | null
}

/** How a job is called while it runs, and what it is. */
export const jobWords: Record<JobKind, { doing: string; noun: string }> = {
  IMPORT: { doing: 'Importing', noun: 'import' },
  EMBED: { doing: 'Embedding', noun: 'embedding' },
  BACKFILL: { doing: 'Embedding', noun: 'backfill' },
  EXTRACT: { doing: 'Extracting', noun: 'extraction' },
  MIGRATE_EMBEDDINGS: { doing: 'Migrating embeddings', noun: 'migration' },
}

export const jobKinds = Object.keys(jobWords)
export const jobStates = ['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED'] satisfies JobState[]

/** What a job's next event makes of what was known. */
export function nextView(view: JobView | null, event: JobEvent): JobView | null {
  if (!event.data) return view
  const { data, message } = event
  const sample = { atMs: Date.parse(event.at), done: doneOf(data) }
  // The time in the queue and between two attempts is nobody's speed.
  const begins = data.state === 'RUNNING' && view?.data.state !== 'RUNNING'
  return {
    atMs: sample.atMs,
    message,
    // Only events of the reading tell how far that is.
    data: { bytes: view?.data.bytes, bytesRead: view?.data.bytesRead, ...data },
    samples:
      data.state === 'RUNNING'
        ? addSample(begins ? [] : (view?.samples ?? []), sample)
        : (view?.samples ?? []),
    began: begins && view ? sample : (view?.began ?? null),
  }
}

/** A job must be silent for so long before it is said that nothing happens. */
const silenceMs = 1_000

/**
 * How far a job is. Null: there is nothing to show yet.
 * @param nowMs now, by the clock of the database
 */
export function jobProgress(view: JobView, nowMs: number): Progress | null {
  const { data, message, samples, began, atMs } = view
  const { state, failed, error, bytes, bytesRead } = data
  const done = doneOf(data)
  // How many records a file has shows at its end; until then its bytes say how far the import is.
  const estimate = bytes && bytesRead && done > 0 ? Math.ceil((done * bytes) / bytesRead) : null
  const total = data.total ?? estimate
  const waitingMs = data.waitingUntil ? Date.parse(data.waitingUntil) : 0
  const waitingUntil = waitingMs > nowMs && !isEnded(state) ? new Date(waitingMs) : null
  const tookSeconds = isEnded(state) && began ? (atMs - began.atMs) / 1000 : null
  const rate = state === 'RUNNING' ? ratePerSecond(samples, nowMs) : overallRate(view, tookSeconds)
  const hasCounts = total !== null || done > 0
  const isSilent = nowMs - atMs >= silenceMs
  let trouble = ''
  if (state === 'QUEUED' && !waitingUntil) trouble = error ?? (isSilent ? 'queued' : '')
  if (state === 'RUNNING' && isSilent && !hasCounts) trouble = message ?? ''
  if (!hasCounts && !waitingUntil && !trouble) return null
  return {
    done,
    total,
    isEstimate: data.total === null && total !== null,
    failed,
    ratePerSecond: rate,
    secondsLeft: secondsLeft(done, total, rate),
    waitingUntil,
    trouble,
    tookSeconds,
  }
}

/** Over less than a second, it would be chance. */
function overallRate({ began, data }: JobView, tookSeconds: number | null): number | null {
  return began && tookSeconds !== null && tookSeconds >= 1 ? (doneOf(data) - began.done) / tookSeconds : null
}

const doneOf = ({ succeeded, failed, skipped }: JobEventData) => succeeded + failed + skipped
