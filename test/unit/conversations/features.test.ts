import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { aliasesOf, traitsOf } from '../../../src/conversations/features.ts'

describe('names in a text', () => {
  test.each([
    ['anna: try this', 'anna', 'ADDRESSED', true],
    ['Anna, try this', 'anna', 'ADDRESSED', false],
    ['anna try this', 'anna', 'ADDRESSED', false],
    ['(anna): try this', 'anna', 'ADDRESSED', true],
    ['thanks @anna!', 'anna', 'ADDRESSED', true],
    ['ask anna.', 'anna', 'MENTIONED', false],
    ['see annabel', 'anna', undefined, false],
    ['an anna-like thing', 'anna', undefined, false],
    ['Анна: попробуй так', 'анна', 'ADDRESSED', true],
    ['спасибо, @Борис', 'борис', 'ADDRESSED', true],
    ['你好 @小明', '小明', 'ADDRESSED', true],
    ['小明：你好', '小明', undefined, false],
    ['小明： 你好', '小明', 'ADDRESSED', true],
    ['@Anna Petrova look', 'annapetrova', 'ADDRESSED', true],
    ['later: anna: no', 'anna', 'MENTIONED', false],
  ] as const)('%s', (text, name, use, isMarked) => {
    const { tokens, markedNames } = traitsOf(text)
    expect(tokens.get(name)).toBe(use)
    expect(markedNames.includes(name)).toBe(isMarked)
  })
})

test.each([
  ['Bob', ['bob']],
  ['bob_', ['bob_', 'bob']],
  ['|bob|42', ['|bob|42', 'bob']],
  ['@bob', ['bob']],
  ['Anna Petrova', ['annapetrova', 'anna_petrova', 'anna.petrova', 'anna']],
  ['Борис', ['борис']],
  ['मीरा', ['मीरा']],
  ['x', []],
])('%s is called %j', (author, aliases) => {
  expect(aliasesOf(author)).toEqual(aliases)
})

test.each([
  ['Where is it?', true],
  ['it is there', false],
  ['¿Dónde', true],
  ['πού είναι\u037e', true],
  ['أين؟', true],
  ['在哪里？', true],
  ['a; b', false],
])('%s is a question: %s', (text, isQuestion) => {
  expect(traitsOf(text).isQuestion).toBe(isQuestion)
})

test('words are cut to their beginnings, so that forms of a word agree', () => {
  expect(traitsOf('настройки Настройками настройку').words).toEqual(['настро'])
  expect(traitsOf('настройки Настройками настройку').length).toBe(3)
})

test('a script without spaces gives pairs of characters', () => {
  expect(traitsOf('打印机坏了').words).toEqual(['打印', '印机', '机坏', '坏了'])
})

test('any text can be read, and a long one gives no more than a page', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.integer({ min: 1, max: 200 }),
      (text, times) => {
        const traits = traitsOf(`${text} `.repeat(times))
        expect(traits.words.length).toBeLessThanOrEqual(64)
        expect(traits.tokens.size).toBeLessThanOrEqual(2000)
        for (const name of traits.markedNames) expect(traits.tokens.get(name)).toBe('ADDRESSED')
      },
    ),
  )
})

test('any author can be called something, never by an empty name', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', minLength: 1 }), (author) => {
      const aliases = aliasesOf(author)
      expect(new Set(aliases).size).toBe(aliases.length)
      for (const alias of aliases) expect(alias.length).toBeGreaterThan(1)
    }),
  )
})
