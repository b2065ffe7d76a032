import fc from 'fast-check'
import { expect, test } from 'vitest'
import { InvalidInputError } from '../../../src/errors.ts'
import { decodeCursor, encodeCursor, searchFingerprint, shownKey } from '../../../src/search/cursor.ts'

const shown = fc.array(fc.uuid().map(shownKey), { minLength: 1, maxLength: 500 })

test('what is encoded comes back', () => {
  fc.assert(
    fc.property(shown, fc.string(), (keys, search) => {
      const fingerprint = searchFingerprint(search)
      expect(decodeCursor(encodeCursor(keys, fingerprint), fingerprint)).toEqual(keys)
    }),
  )
})

test('a cursor of another search is refused by name', () => {
  const cursor = encodeCursor(['0123456789ab'], searchFingerprint(['one']))
  expect(() => decodeCursor(cursor, searchFingerprint(['two']))).toThrow(/belongs to another search/)
})

test('any other string is refused as no cursor, and never a crash', () => {
  const bytes = fc
    .uint8Array({ maxLength: 40 })
    .filter(({ length }) => length <= 12 || length % 6 !== 0)
    .map((array) => Buffer.from(array).toString('base64url'))
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), bytes), (text) => {
      expect(() => decodeCursor(text, searchFingerprint('search'))).toThrow(InvalidInputError)
    }),
  )
})

test('a search has one name, and another search another', () => {
  expect(searchFingerprint(['a', null, new Date(0)])).toBe(searchFingerprint(['a', null, new Date(0)]))
  expect(searchFingerprint(['a', null, new Date(0)])).not.toBe(searchFingerprint(['a', null, new Date(1)]))
})
