/** How much of a piece of work was done at a moment, by one clock. */
export interface Sample {
  atMs: number
  done: number
}

/** Short enough to follow a provider that becomes slower, long enough not to jump with each batch. */
const windowMs = 10_000
/** Work that tells of itself more seldom than the window is long is measured over this many of its steps. */
const leastSteps = 3
/** Over less than this, a rate is chance. */
const leastSpanMs = 1_000

/**
 * The samples that a rate needs, with a new one: what lies before the window is let go, so that hours of work cost no
 * memory. Work that has gone back (a job that was taken up again) is measured anew.
 */
export function addSample(samples: readonly Sample[], sample: Sample): Sample[] {
  const newest = samples.at(-1)
  if (newest && (sample.done < newest.done || sample.atMs < newest.atMs)) return [sample]
  const all = [...samples, sample]
  return all.slice(Math.max(0, baseIndex(all, sample.atMs)))
}

/**
 * Work done a second, over the last ten seconds, or over the last three steps where those took longer. It falls while
 * nothing comes, because the time since the last step counts. Null: not known yet.
 * @param nowMs now, by the clock of the samples
 */
export function ratePerSecond(samples: readonly Sample[], nowMs: number): number | null {
  const newest = samples.at(-1)
  const base = samples[Math.max(0, baseIndex(samples, nowMs))]
  if (!newest || !base) return null
  const spanMs = Math.max(nowMs, newest.atMs) - base.atMs
  return spanMs < leastSpanMs ? null : (1000 * (newest.done - base.done)) / spanMs
}

/** Seconds until all is done, at this rate; 0 when it is. Null: nobody knows. */
export function secondsLeft(done: number, total: number | null, rate: number | null): number | null {
  if (total === null) return null
  if (done >= total) return 0
  return rate === null || rate <= 0 ? null : (total - done) / rate
}

/** The newest sample that is as old as the window and as many steps ago as a rate needs; -1: there is none. */
function baseIndex(samples: readonly Sample[], nowMs: number): number {
  return samples.findLastIndex(
    ({ atMs }, index) => nowMs - atMs >= windowMs && samples.length - 1 - index >= leastSteps,
  )
}
