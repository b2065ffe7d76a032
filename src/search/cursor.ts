import { createHash } from 'node:crypto'
import { InvalidInputError } from '../errors.ts'

/*
 * A cursor holds what has been shown of a search, not a place in it: rows come and go, and with them the scores of all
 * others, so that no place stays where it was. A page that leaves out what was shown repeats nothing and skips nothing.
 */

const fingerprintBytes = 12
/** Of an id: the end of a UUID, which is random. That two of 500 are the same happens once in two billion searches. */
const keyBytes = 6

/**
 * A short name of a search: query, mode, kinds, filter, threshold and embedding space. A cursor carries it, because what
 * was shown of one search says nothing of another.
 */
export function searchFingerprint(search: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify(search))
    .digest()
    .subarray(0, fingerprintBytes)
    .toString('base64url')
}

/** By what a cursor knows a row again. */
export const shownKey = (id: string): string => id.slice(-2 * keyBytes)

/** @param shown keys of the rows of all pages so far, up to the one that the cursor stands behind */
export function encodeCursor(shown: readonly string[], fingerprint: string): string {
  return Buffer.concat([
    Buffer.from(fingerprint, 'base64url'),
    ...shown.map((key) => Buffer.from(key, 'hex')),
  ]).toString('base64url')
}

/**
 * @returns the keys of the rows that were shown, in their order
 * @throws InvalidInputError if it is no cursor, or one of another search
 */
export function decodeCursor(text: string, fingerprint: string): string[] {
  const bytes = Buffer.from(text, 'base64url')
  const keys = bytes.subarray(fingerprintBytes)
  if (bytes.toString('base64url') !== text || keys.length === 0 || keys.length % keyBytes !== 0) {
    throw new InvalidInputError('after is not a cursor of a search; take it from pageInfo.endCursor', [
      'after',
    ])
  }
  if (bytes.subarray(0, fingerprintBytes).toString('base64url') !== fingerprint) {
    throw new InvalidInputError(
      'after belongs to another search (other query, kinds, mode, filter, threshold or embedding space); begin without it',
      ['after'],
    )
  }
  return Array.from({ length: keys.length / keyBytes }, (_, index) =>
    keys.subarray(index * keyBytes, (index + 1) * keyBytes).toString('hex'),
  )
}
