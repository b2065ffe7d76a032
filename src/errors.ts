/**
 * Errors that a caller can act on. Everything else that is thrown is a bug or an outage: it is logged whole and
 * masked before it leaves the process.
 */
export class QuarryError extends Error {
  override readonly name: string = this.constructor.name
}

/** The configuration, the database or the data folder is not usable; the message says what to do. */
export class SetupError extends QuarryError {}

/** What the caller sent breaks a rule. `path` leads to the value, e.g. `['messages', '3', 'content']`. */
export class InvalidInputError extends QuarryError {
  readonly path: readonly string[]
  constructor(message: string, path: readonly string[] = []) {
    super(message)
    this.path = path
  }
}

/** The thing that the caller named does not exist. */
export class NotFoundError extends QuarryError {}

/** The call contradicts what is stored, e.g. a name that is taken. */
export class ConflictError extends QuarryError {}

/** The text of whatever was thrown, for logs and `lastError` columns. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
