import { clock, cut, duration, percent, rate, timeLeft } from './wording.ts'

/** How far a piece of work is, as it is shown. */
export interface Progress {
  /** What has ended, well or not. */
  done: number
  /** Null: not known yet. */
  total: number | null
  /** Whether the total is only estimated. */
  isEstimate: boolean
  /** Those of `done` that did not work out. */
  failed: number
  ratePerSecond: number | null
  secondsLeft: number | null
  /** Until when a provider has asked to wait; null unless that is still to come. */
  waitingUntil: Date | null
  /** Why it does not get on; empty if it does. */
  trouble: string
  /** How long all of it took; null before the end. */
  tookSeconds: number | null
}

/** What there is to say before anything has happened. */
export const noProgress: Progress = {
  done: 0,
  total: null,
  isEstimate: false,
  failed: 0,
  ratePerSecond: null,
  secondsLeft: null,
  waitingUntil: null,
  trouble: '',
  tookSeconds: null,
}

const barColumns = { least: 8, most: 30 }
const mostLabelColumns = 32

/** Progress in one line without a bar: `Importing chat.jsonl 1234/~2400 (51 %), 312/s, 4 s left, 3 failed`. */
export function plainLine(label: string, progress: Progress, now: Date): string {
  const { done, total, tookSeconds } = progress
  const share = total === null || tookSeconds !== null ? '' : ` (${percent(done, total)} %)`
  return [`${label} ${counts(progress)}${share}`, ...notes(progress, now)].join(', ')
}

/**
 * Progress in one line of a terminal: `Importing chat.jsonl █████░░░░░  51% 1234/~2400, 312/s, 4 s left`. The bar gives way
 * to what is said behind it, and what does not fit even so is cut off.
 * @param columns how wide the terminal is
 */
export function barLine(label: string, progress: Progress, now: Date, columns: number): string {
  const { done, total } = progress
  const head = cut(label, mostLabelColumns)
  const share = total === null ? '    ' : `${percent(done, total)}%`.padStart(4)
  const tail = [`${share} ${counts(progress)}`, ...notes(progress, now)].join(', ')
  // The last column stays free: some terminals go to the next line as soon as it is written.
  const room = columns - 1 - head.length - tail.length - 2
  const size = Math.min(barColumns.most, Math.max(barColumns.least, room))
  return cut(`${head} ${bar(done, total, size)} ${tail}`, columns - 1)
}

/** A bar of so many columns, empty while the total is not known; full only when all is done. */
export function bar(done: number, total: number | null, columns: number): string {
  const share = total === null ? 0 : total <= 0 ? 1 : Math.min(1, done / total)
  const full = Math.floor(share * columns)
  return '█'.repeat(full) + '░'.repeat(columns - full)
}

/** `1234/2400`, of an estimated total `1234/~2400`, of an unknown one `1234`. */
export function counts({ done, total, isEstimate }: Progress): string {
  return total === null ? String(done) : `${done}/${isEstimate ? '~' : ''}${total}`
}

/** How fast it goes, how long it will take, and what is in its way. */
export function notes(progress: Progress, now: Date): string[] {
  const { done, total, failed, ratePerSecond, secondsLeft, waitingUntil, trouble, tookSeconds } = progress
  const said: string[] = []
  if (tookSeconds !== null) {
    // What was over at once took no time that anybody wants to know.
    if (tookSeconds >= 0.1) said.push(duration(tookSeconds))
    if (ratePerSecond) said.push(rate(ratePerSecond))
  } else if (waitingUntil) {
    said.push(waiting(waitingUntil, now))
  } else if (total === null || done < total) {
    if (ratePerSecond) said.push(rate(ratePerSecond))
    if (secondsLeft !== null) said.push(`${timeLeft(secondsLeft)} left`)
  }
  if (failed > 0) said.push(`${failed} failed`)
  if (trouble) said.push(trouble)
  return said
}

/** What is said of work that a provider has asked to wait. */
export function waiting(until: Date, now: Date): string {
  return `waiting for the provider until ${clock(until, now)}`
}
