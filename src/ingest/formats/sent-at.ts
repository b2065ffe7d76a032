const isoForm =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?(?: ?(Z|[+-]\d\d:?\d\d|[+-]\d\d))?$/i

/**
 * The moment that an ISO 8601 text names, null if it names none. A text without a zone is taken as UTC: `Date` would
 * take it as the local time of the machine, and the same file would give other moments on another server.
 */
export function isoInstant(text: string): Date | null {
  const parts = isoForm.exec(text)
  if (!parts) return null
  const [, year, month, day, hour, minute, second, fraction, zone] = parts
  const date = utcInstant(
    Number(year),
    Number(month),
    Number(day),
    [hour, minute, second].map((part) => Number(part ?? 0)),
  )
  if (!date) return null
  const offset = zone === undefined || /^z$/i.test(zone) ? 0 : offsetMinutes(zone)
  if (offset === null) return null
  const milliseconds = fraction ? Math.floor(Number(`0.${fraction}`) * 1000) : 0
  return new Date(date.getTime() - offset * 60_000 + milliseconds)
}

/** The moment in UTC; null where the calendar has no such day or the clock no such time (`Date` would roll over). */
export function utcInstant(year: number, month: number, day: number, clock: readonly number[]): Date | null {
  const [hour = 0, minute = 0, second = 0] = clock
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second))
  const sound =
    date.getUTCFullYear() === year &&
    date.getUTCMonth() === month - 1 &&
    hour < 24 &&
    minute < 60 &&
    second < 60
  return sound ? date : null
}

function offsetMinutes(zone: string): number | null {
  const hours = Number(zone.slice(1, 3))
  const minutes = Number(zone.slice(3).replace(':', ''))
  if (hours > 23 || minutes > 59) return null
  return (zone.startsWith('-') ? -1 : 1) * (hours * 60 + minutes)
}
