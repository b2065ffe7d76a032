import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { poolVectors, splitText } from '../../../src/embedding/parts.ts'

const words = (text: string) => text.split(/\s+/).filter(Boolean).length
const characters = (text: string) => text.length
/** About four letters a token, and signs of their own, as real tokenizers have it. */
const pieces = (text: string) => (text.match(/\w{1,4}|[^\w\s]/gu) ?? []).length

const texts = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 400 }),
  fc
    .array(fc.constantFrom('word', ' ', '\n', 'longerthanthelimit', '😀', '🏳️‍🌈', '中文', '\u00a0'), {
      maxLength: 200,
    })
    .map((list) => list.join('')),
)
// Two UTF-16 units are the least that holds any character.
const limits = fc.integer({ min: 2, max: 50 })
const counters = fc.constantFrom(words, characters, pieces)

const withoutSpace = (text: string) => text.replace(/\s/g, '')

describe('the parts of a text', () => {
  test('are the text again but for white space', () => {
    fc.assert(
      fc.property(texts, limits, counters, (text, limit, count) => {
        const joined = splitText(text, limit, count).map((part) => part.text)
        expect(withoutSpace(joined.join(''))).toBe(withoutSpace(text))
      }),
    )
  })

  test('are within the limit, counted truly, and never blank', () => {
    fc.assert(
      fc.property(texts, limits, counters, (text, limit, count) => {
        for (const part of splitText(text, limit, count)) {
          expect(part.tokens).toBe(count(part.text))
          expect(part.tokens).toBeLessThanOrEqual(limit)
          expect(part.text.trim()).not.toBe('')
        }
      }),
    )
  })

  test('never hold half of a character', () => {
    fc.assert(
      fc.property(texts, limits, counters, (text, limit, count) => {
        expect(splitText(text, limit, count).filter((part) => !part.text.isWellFormed())).toEqual([])
      }),
    )
  })

  test('end between words where there are any', () => {
    const parts = splitText('one two three four five six seven', 3, words).map((part) => part.text.trim())
    expect(parts.join(' ')).toBe('one two three four five six seven')
    expect(parts.length).toBeGreaterThan(1)
  })

  test('are one where the text is within the limit, unchanged', () => {
    expect(splitText(' a b ', 5, words)).toEqual([{ text: ' a b ', tokens: 2 }])
  })

  test('are none of a blank text', () => {
    expect(splitText(' \n ', 5, words)).toEqual([])
    expect(splitText('', 5, words)).toEqual([])
  })

  test.each([
    ['of words', 'lorem ipsum dolor sit amet '.repeat(40_000)],
    ['without white space', 'x'.repeat(1_000_000)],
    ['of emoji', '😀'.repeat(500_000)],
  ])('of a megabyte %s are counted in proportion to its length', (_name, text) => {
    let counted = 0
    const parts = splitText(text, 100, (part) => {
      counted += part.length
      return Math.ceil(part.length / 4)
    })
    expect(withoutSpace(parts.map((part) => part.text).join(''))).toBe(withoutSpace(text))
    expect(counted).toBeLessThan(text.length * 20)
  })
})

describe('the vector of a text', () => {
  const vector = (...values: number[]) => Float32Array.from(values)
  const parts = [
    { text: 'a', tokens: 3 },
    { text: 'b', tokens: 1 },
  ]

  test('of one part is that of the part', () => {
    expect(poolVectors([{ text: 'a', tokens: 1 }], [vector(3, 4)])).toEqual(vector(3, 4))
  })

  test('of several parts is their mean by tokens, at unit length', () => {
    const norm = Math.hypot(3, 1)
    expect(poolVectors(parts, [vector(1, 0), vector(0, 1)])).toEqual(vector(3 / norm, 1 / norm))
  })

  test('leaves out parts in which the model saw nothing', () => {
    expect(poolVectors(parts, [null, vector(0, 2)])).toEqual(vector(0, 1))
  })

  test('is none where the model saw nothing at all', () => {
    expect(poolVectors(parts, [null, null])).toBeNull()
    expect(poolVectors([], [])).toBeNull()
  })

  test('is none where the parts cancel each other out', () => {
    const equal = parts.map((part) => ({ ...part, tokens: 1 }))
    expect(poolVectors(equal, [vector(1, 0), vector(-1, 0)])).toBeNull()
  })
})
