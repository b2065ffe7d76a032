/** Retries after the first attempt, of a job and of a text: over about an hour, then it is given up. */
export const maxRetries = 6

/**
 * How long to wait before a retry: 10 s, 30 s, 90 s, 4.5 min, 13.5 min, 40 min, each up to a fifth shorter or longer,
 * so that what failed together does not come back together.
 * @param failures before this one, 0 or more
 * @returns milliseconds
 */
export const retryDelayMs = (failures: number): number =>
  firstDelayMs * 3 ** failures * (0.8 + Math.random() * 0.4)

const firstDelayMs = 10_000

/**
 * SQL: the longest that retryDelayMs() can be, as an interval, given the SQL of `failures`. Whatever is to wait longer
 * was put off by a clock that was ahead and has been set right.
 */
export const longestRetryDelay = (failures: string): string =>
  `make_interval(secs => ${(firstDelayMs * 1.2) / 1000} * 3.0 ^ (${failures}))`
