const minute = 60
const hour = 60 * minute
const day = 24 * hour
const units = [
  { seconds: day, name: 'd' },
  { seconds: hour, name: 'h' },
  { seconds: minute, name: 'min' },
  { seconds: 1, name: 's' },
]

/** Seconds as people say them, in at most two units: `0.4 s`, `45 s`, `3 min 12 s`, `2 h 5 min`. */
export function duration(seconds: number): string {
  const tenths = Math.round(Math.max(0, seconds) * 10) / 10
  if (tenths < 10) return `${tenths} s`
  const whole = Math.round(seconds)
  const first = units.findIndex((unit) => whole >= unit.seconds)
  const [large, small] = [units[first], units[first + 1]]
  if (!large) return `${whole} s`
  // What is smaller than the two units is left out, not rounded up: that could make 60 of the smaller one.
  const rest = small ? Math.floor((whole % large.seconds) / small.seconds) : 0
  const head = `${Math.floor(whole / large.seconds)} ${large.name}`
  return small && rest > 0 ? `${head} ${rest} ${small.name}` : head
}

/** What is left of a piece of work, rounded up: `31 s`, `4 min`, `3 h`. A promise that is too short would be broken. */
export function timeLeft(seconds: number): string {
  const { seconds: unit, name } = coarseUnit(seconds)
  return `${Math.ceil(seconds / unit)} ${name}`
}

/** How long ago something was, rounded down: `31 s`, `4 min`, `3 h`, `2 d`. */
export function age(seconds: number): string {
  const { seconds: unit, name } = coarseUnit(Math.max(0, seconds))
  return `${Math.floor(Math.max(0, seconds) / unit)} ${name}`
}

/** The largest unit of which there are at least two: one number then says enough. */
function coarseUnit(seconds: number): { seconds: number; name: string } {
  return units.find((unit) => seconds >= 2 * unit.seconds) ?? { seconds: 1, name: 's' }
}

/** Work in a time that makes the number readable: `312/s`, `4.2/s`, `30/min`. */
export function rate(perSecond: number): string {
  if (perSecond === 0) return '0/s'
  if (perSecond >= 9.95) return `${Math.round(perSecond)}/s`
  if (perSecond >= 1) return `${perSecond.toFixed(1)}/s`
  const perMinute = perSecond * minute
  return `${perMinute >= 9.95 ? Math.round(perMinute) : Number(perMinute.toFixed(1))}/min`
}

/** A moment on the clock of this machine's place: `14:03:10`, on another day `2026-11-23 14:03:10`. */
export function clock(moment: Date, now: Date): string {
  const two = (value: number) => String(value).padStart(2, '0')
  const time = [moment.getHours(), moment.getMinutes(), moment.getSeconds()].map(two).join(':')
  if (moment.toDateString() === now.toDateString()) return time
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ${time}`
}

/** Per cent of the whole, rounded down: 100 only when all is done. */
export function percent(done: number, total: number): number {
  return total <= 0 ? 100 : Math.floor((100 * Math.min(done, total)) / total)
}

/** Text that fits into so many columns, with an ellipsis where something was left out. */
export function cut(text: string, columns: number): string {
  const characters = [...text]
  return characters.length <= columns ? text : `${characters.slice(0, Math.max(0, columns - 1)).join('')}…`
}
