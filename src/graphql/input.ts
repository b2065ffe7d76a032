import { InvalidInputError } from '../errors.ts'

/** UTF-8 bytes of a source's name and type. */
export const sourceNameLimit = 500

/**
 * Checks a text that people give; returns it unchanged.
 * @param limit greatest number of UTF-8 bytes
 * @throws InvalidInputError
 */
export function requireText(
  value: string,
  path: readonly string[],
  limit: number,
  mayBeBlank = false,
): string {
  const name = path.join('.')
  if (!mayBeBlank && value.trim() === '') throw new InvalidInputError(`${name} is empty`, path)
  if (value.includes('\0'))
    throw new InvalidInputError(`${name} has a NUL character, which cannot be stored`, path)
  if (!value.isWellFormed())
    throw new InvalidInputError(`${name} has half of a character (a lone surrogate)`, path)
  const bytes = Buffer.byteLength(value)
  if (bytes > limit)
    throw new InvalidInputError(`${name} has ${bytes} bytes; at most ${limit} are allowed`, path)
  return value
}

/** @throws InvalidInputError unless least <= count <= most */
export function requireCount(count: number, path: readonly string[], least: number, most: number): void {
  if (count >= least && count <= most) return
  throw new InvalidInputError(`${path.join('.')} has ${count} entries; it must have ${least}..${most}`, path)
}

/** @throws InvalidInputError unless it is not given, or least <= value <= most */
export function requireRange(
  value: number | null | undefined,
  field: string,
  least: number,
  most: number,
): void {
  if (value == null || (value >= least && value <= most)) return
  throw new InvalidInputError(`${field} is ${value}; it must be ${least}..${most}`, [field])
}

/** Of a job or of a provider's month, US dollars. */
export const maxBudget = 10_000_000

/** @throws InvalidInputError */
export function requireBudget(value: number | null | undefined, field = 'budget'): void {
  requireRange(value, field, 0, maxBudget)
}
