import { type Judgement, ok, skipped, warning, wrong } from './finding.ts'

/** How far another clock is from that of this process. */
export interface ClockReading {
  /** Whose, for people. */
  of: string
  /** Milliseconds; above 0: the other one is ahead. */
  offsetMs: number
  /** How far it may be from that, milliseconds: how long the answer took, and what the other one rounds. */
  uncertaintyMs: number
}

/** Network time (NTP) keeps machines well within a second: further off, it is not at work. */
const warnAfterMs = 5_000
/** Whole conversations fit into a minute: the order of what is created is wrong for people, too. */
const wrongAfterMs = 60_000

const why = 'ids are made by it (UUIDv7), so what is created stands in the wrong order in every list'
const remedy = 'Let both be kept by network time (NTP): timedatectl set-ntp true.'

/** @param sentMs when the question left, and @param receivedMs when the answer was there, milliseconds since 1970 */
export function readingOf(
  of: string,
  otherMs: number,
  sentMs: number,
  receivedMs: number,
  roundedMs = 0,
): ClockReading {
  return {
    of,
    // Rounded down, it stands for any moment of what follows.
    offsetMs: otherMs + roundedMs / 2 - (sentMs + receivedMs) / 2,
    uncertaintyMs: (receivedMs - sentMs + roundedMs) / 2,
  }
}

/** The reading that is worst decides; a difference counts as far as it is certain. */
export function judgeClock(readings: readonly ClockReading[]): Judgement {
  const [worst] = [...readings].sort((a, b) => certainMs(b) - certainMs(a))
  if (!worst) return skipped('no other clock has answered that this one could be compared with')
  const found = describe(worst)
  if (certainMs(worst) > wrongAfterMs) return wrong(`${found}: ${why}`, remedy)
  if (certainMs(worst) > warnAfterMs) return warning(`${found}: ${why}`, remedy)
  const others = [...new Set(readings.map(({ of }) => of))].join(', ')
  return ok(`compared with ${others}: less than ${warnAfterMs / 1000} s apart`)
}

const certainMs = ({ offsetMs, uncertaintyMs }: ClockReading) =>
  Math.max(0, Math.abs(offsetMs) - uncertaintyMs)

function describe({ of, offsetMs }: ClockReading): string {
  const seconds = Math.round(Math.abs(offsetMs) / 1000)
  return `this machine's clock is ${seconds} s ${offsetMs > 0 ? 'behind' : 'ahead of'} that of ${of}`
}

/** As `fetch`, and tells what the `Date` of each answer says of the clock; its resolution is a second (RFC 9110, 5.6.7). */
export function observeDates(
  inner: typeof fetch,
  of: string,
  onReading: (reading: ClockReading) => void,
): typeof fetch {
  return async (input, init) => {
    const sentMs = Date.now()
    const response = await inner(input, init)
    const dateMs = Date.parse(response.headers.get('date') ?? '')
    if (!Number.isNaN(dateMs)) onReading(readingOf(of, dateMs, sentMs, Date.now(), 1000))
    return response
  }
}
