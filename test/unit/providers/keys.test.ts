import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  createKeyRing,
  generateEncryptionKey,
  ProviderKeyError,
  type SealedKey,
} from '../../../src/providers/keys.ts'

const [oldKey, newKey, strangeKey] = [randomBytes(32), randomBytes(32), randomBytes(32)]
const ring = createKeyRing([oldKey])
const id = '0199d0c0-0000-7000-8000-000000000001'

const visibleText = fc.string({
  unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1,
})

test('what is sealed opens again', () => {
  fc.assert(
    fc.property(visibleText, fc.uuid(), (apiKey, providerId) => {
      expect(ring.open(ring.seal(apiKey, providerId), providerId)).toBe(apiKey)
    }),
  )
})

test('the same text is never sealed alike, and never shown', () => {
  const apiKey = 'sk-a-key-that-is-long-enough'
  const [a, b] = [ring.seal(apiKey, id), ring.seal(apiKey, id)]
  expect(a.nonce).not.toEqual(b.nonce)
  expect(a.ciphertext).not.toEqual(b.ciphertext)
  expect(a.ciphertext.toString('latin1')).not.toContain('sk-')
})

describe('does not open', () => {
  const parts = ['ciphertext', 'nonce', 'tag'] as const
  test.each(parts)('when a bit of its %s is another', (part) => {
    fc.assert(
      fc.property(visibleText, fc.nat(), fc.integer({ min: 0, max: 7 }), (apiKey, at, bit) => {
        const sealed = ring.seal(apiKey, id)
        const bytes = Buffer.from(sealed[part])
        const index = at % bytes.length
        bytes[index] = (bytes[index] ?? 0) ^ (1 << bit)
        expect(() => ring.open({ ...sealed, [part]: bytes }, id)).toThrow(ProviderKeyError)
      }),
    )
  })

  test.each([
    ['a shorter tag', (sealed: SealedKey) => ({ ...sealed, tag: sealed.tag.subarray(0, 4) })],
    ['no tag', (sealed: SealedKey) => ({ ...sealed, tag: Buffer.alloc(0) })],
    ['a shorter text', (sealed: SealedKey) => ({ ...sealed, ciphertext: sealed.ciphertext.subarray(1) })],
  ])('with %s', (_what, tamper) => {
    expect(() => ring.open(tamper(ring.seal('sk-1', id)), id)).toThrow(ProviderKeyError)
  })

  test('in the row of another provider', () => {
    const sealed = ring.seal('sk-1', id)
    expect(() => ring.open(sealed, id.replace(/1$/, '2'))).toThrow('belongs to another provider')
  })

  test('without its encryption key, and says which and what to do', () => {
    const sealed = ring.seal('sk-1', id)
    const other = createKeyRing([strangeKey])
    expect(other.has(sealed.keyId)).toBe(false)
    expect(() => other.open(sealed, id)).toThrow(
      `under the encryption key ${sealed.keyId}, which QUARRY_ENCRYPTION_KEY does not hold`,
    )
  })

  test('under a key that only pretends to be its own', () => {
    const other = createKeyRing([strangeKey])
    const sealed = { ...ring.seal('sk-1', id), keyId: other.sealingKeyId ?? '' }
    expect(() => other.open(sealed, id)).toThrow('cannot be opened')
  })
})

test('of several keys the first seals and all open', () => {
  const both = createKeyRing([newKey, oldKey])
  expect(both.open(ring.seal('sk-old', id), id)).toBe('sk-old')
  const sealed = both.seal('sk-new', id)
  expect(createKeyRing([newKey]).open(sealed, id)).toBe('sk-new')
  expect(() => ring.open(sealed, id)).toThrow(ProviderKeyError)
})

test('without a key nothing is sealed, and the error says how to make one', () => {
  const none = createKeyRing([])
  expect(none.sealingKeyId).toBeNull()
  expect(() => none.seal('sk-1', id)).toThrow('QUARRY_ENCRYPTION_KEY is not set')
  expect(() => none.seal('sk-1', id)).toThrow('keys generate')
})

test('a generated key is one', () => {
  const key = Buffer.from(generateEncryptionKey(), 'base64')
  expect(key).toHaveLength(32)
  expect(createKeyRing([key]).open(createKeyRing([key]).seal('x', id), id)).toBe('x')
})
