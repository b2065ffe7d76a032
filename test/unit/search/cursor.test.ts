import fc from 'fast-check'
import { expect, test } from 'vitest'
import { InvalidInputError } from '../../../src/errors.ts'
import { decodeCursor, encodeCursor, searchFingerprint } from '../../../src/search/cursor.ts'

const cursors = fc.record({
  score: fc.double({ noNaN: true, noDefaultInfinity: true }).filter((score) => !Object.is(score, -0)),
  id: fc.uuid(),
  rank: fc.integer({ min: 1, max: 500 }),
})

test('what is encoded comes back', () => {
  fc.assert(
    fc.property(cursors, fc.string(), (cursor, search) => {
      const fingerprint = searchFingerprint(search)
      expect(decodeCursor(encodeCursor(cursor, fingerprint), fingerprint)).toMatchObject(cursor)
    }),
  )
})

test('a cursor of another search is refused by name', () => {
  const cursor = encodeCursor({ score: 0.5, id: 'a', rank: 1 }, searchFingerprint(['one']))
  expect(() => decodeCursor(cursor, searchFingerprint(['two']))).toThrow(/belongs to another search/)
})

test('any other string is refused as no cursor, and never a crash', () => {
  const json = fc.json().map((text) => Buffer.from(text).toString('base64url'))
  const shape = fc
    .oneof(
      fc
        .tuple(fc.constant('f'), fc.jsonValue(), fc.jsonValue(), fc.jsonValue())
        .filter(
          ([, score, id, rank]) => typeof score !== 'number' || typeof id !== 'string' || Number(rank) < 1,
        ),
      fc.constantFrom(['f', 1, 'id'], ['f', 1, 'id', 1, 1], ['f', 1, 'id', 1.5], { 0: 'f', length: 4 }),
    )
    .map((value) => Buffer.from(JSON.stringify(value)).toString('base64url'))
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), json, shape), (text) => {
      expect(() => decodeCursor(text, 'f')).toThrow(InvalidInputError)
    }),
  )
})

test('a search has one name, and another search another', () => {
  expect(searchFingerprint(['a', null, new Date(0)])).toBe(searchFingerprint(['a', null, new Date(0)]))
  expect(searchFingerprint(['a', null, new Date(0)])).not.toBe(searchFingerprint(['a', null, new Date(1)]))
})
