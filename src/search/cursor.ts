import { createHash } from 'node:crypto'
import { InvalidInputError } from '../errors.ts'

/** Where a page of search results ended: the last hit's score and id, its rank, and the search that it belongs to. */
export interface SearchCursor {
  score: number
  id: string
  rank: number
}

/**
 * A short name of a search: query, mode, kinds, filter, threshold and embedding space. A cursor carries it, because a
 * score means nothing in another search.
 */
export function searchFingerprint(search: unknown): string {
  return createHash('sha256').update(JSON.stringify(search)).digest('base64url').slice(0, 16)
}

export function encodeCursor(cursor: SearchCursor, fingerprint: string): string {
  return Buffer.from(JSON.stringify([fingerprint, cursor.score, cursor.id, cursor.rank])).toString(
    'base64url',
  )
}

/** @throws InvalidInputError if it is no cursor, or one of another search */
export function decodeCursor(text: string, fingerprint: string): SearchCursor {
  const cursor = parse(text)
  if (!cursor)
    throw new InvalidInputError('after is not a cursor of a search; take it from pageInfo.endCursor', [
      'after',
    ])
  if (cursor.fingerprint !== fingerprint) {
    throw new InvalidInputError(
      'after belongs to another search (other query, kinds, mode, filter, threshold or embedding space); begin without it',
      ['after'],
    )
  }
  return cursor
}

function parse(text: string): (SearchCursor & { fingerprint: string }) | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
    if (!Array.isArray(value) || value.length !== 4) return null
    const [fingerprint, score, id, rank] = value as unknown[]
    if (typeof fingerprint !== 'string' || typeof score !== 'number' || typeof id !== 'string') return null
    if (typeof rank !== 'number' || !Number.isInteger(rank) || rank < 1) return null
    return { fingerprint, score, id, rank }
  } catch {
    return null
  }
}
