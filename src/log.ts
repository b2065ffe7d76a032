import { type Logger as PinoLogger, pino } from 'pino'

/** What the code may say: structured fields first, then one sentence. Child loggers carry request and job ids. */
export type Logger = Pick<PinoLogger, 'error' | 'warn' | 'info' | 'debug'> & {
  child(fields: Record<string, unknown>): Logger
}

/**
 * Writes one JSON object a line to standard error, so that a command's own answer on standard output stays clean.
 * @param level the least important level that is written
 */
export function createLogger(level: 'silent' | 'error' | 'warn' | 'info' | 'debug'): Logger {
  return pino({ level, base: undefined, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination(2))
}
