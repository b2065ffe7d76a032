import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Extraction, ExtractionBatch } from '../../../src/extraction/extractor.ts'
import { proveExtraction } from '../../../src/extraction/prove.ts'

const batch: ExtractionBatch = {
  messages: [
    ['m1', 'The build is red: the cache is full.'],
    ['m2', 'I cleared the cache, it is green again.'],
  ].map(([id = '', content = '']) => ({
    id,
    content,
    author: 'anna',
    sentAt: new Date(0),
    channel: '',
    conversationId: 'c',
    replyToId: null,
    vector: null,
  })),
  topics: [{ id: 't-known', name: 'Builds', description: '', keywords: [], vector: null }],
  atoms: [{ id: 'a-known', type: 'PROBLEM', title: 'Red build', content: 'The build is red.' }],
}

const atom = (key: string, quote: string, confidence = 0.9, messageId = 'm1') => ({
  key,
  type: 'PROBLEM' as const,
  title: 'Title',
  content: 'Content',
  confidence,
  topicKey: null,
  citations: [{ messageId, quote }],
})
const answer = (parts: Partial<Extraction>): Extraction => ({
  topics: [],
  atoms: [],
  links: [],
  usage: { tokensIn: 0, tokensOut: 0 },
  ...parts,
})

describe('of an answer is kept', () => {
  test('an atom whose quote stands in its message, with the place', () => {
    const { atoms } = proveExtraction(answer({ atoms: [atom('a', ' the cache is full ')] }), batch, 0.7)
    expect(atoms).toMatchObject([
      { key: 'a', quotes: [{ messageId: 'm1', quote: 'the cache is full', start: 18 }] },
    ])
  })

  test('a proven quote beside an invented one', () => {
    const both = { ...atom('a', 'the cache is full') }
    both.citations.push({ messageId: 'm2', quote: 'the disk is full' })
    const { atoms, dropped } = proveExtraction(answer({ atoms: [both] }), batch, 0.7)
    expect(atoms[0]?.quotes).toHaveLength(1)
    expect(dropped).toMatchObject({ inventedQuotes: 1, unprovenAtoms: 0 })
  })

  test('a known topic, however unsure, with the messages of the batch only', () => {
    const topic = {
      key: 't-known',
      name: '',
      description: '',
      keywords: [],
      confidence: 0.1,
      messageIds: ['m1', 'x'],
    }
    const { topics } = proveExtraction(answer({ topics: [topic, { ...topic, key: 'new' }] }), batch, 0.7)
    expect(topics).toEqual([{ ...topic, messageIds: ['m1'] }])
  })

  test('a link between what is kept, or to a known atom', () => {
    const links = (['b', 'a-known', 'gone', 'a'] as const).map((to) => ({
      from: 'a',
      to,
      type: 'SOLVES' as const,
      strength: null,
    }))
    const atoms = [atom('a', 'cache'), atom('b', 'build'), atom('gone', 'cache', 0.5)]
    const proven = proveExtraction(answer({ atoms, links }), batch, 0.7)
    expect(proven.links.map(({ to }) => to)).toEqual(['b', 'a-known'])
    expect(proven.dropped).toMatchObject({ unsureAtoms: 1, brokenLinks: 2 })
  })
})

test.each([
  ['invented', 'The build is green', 'm1'],
  ['of another message', 'I cleared the cache', 'm1'],
  ['of a message that was not given', 'cache', 'm9'],
  ['in other letters', 'THE CACHE IS FULL', 'm1'],
  ['empty', '', 'm1'],
  ['blank', '  ', 'm1'],
])('an atom whose only quote is %s is dropped', (_name, quote, messageId) => {
  const { atoms, dropped } = proveExtraction(
    answer({ atoms: [atom('a', quote, 0.9, messageId)] }),
    batch,
    0.7,
  )
  expect(atoms).toEqual([])
  expect(dropped).toMatchObject({ inventedQuotes: 1, unprovenAtoms: 1 })
})

test('whatever is kept is proven, and everything else is counted and told', () => {
  const quotes = fc.oneof(fc.string(), fc.constantFrom('cache', 'The build', 'green again.'))
  const proposals = fc.array(
    fc.tuple(quotes, fc.double({ min: 0, max: 1, noNaN: true }), fc.constantFrom('m1', 'm2', 'm3')),
  )
  fc.assert(
    fc.property(proposals, (entries) => {
      const atoms = entries.map(([quote, confidence, id], index) => atom(`k${index}`, quote, confidence, id))
      const proven = proveExtraction(answer({ atoms }), batch, 0.7)
      for (const { quotes: kept, confidence } of proven.atoms) {
        expect(confidence).toBeGreaterThanOrEqual(0.7)
        for (const { messageId, quote, start } of kept) {
          const content = batch.messages.find(({ id }) => id === messageId)?.content ?? ''
          expect(content.slice(start, start + quote.length)).toBe(quote)
        }
      }
      const { unsureAtoms, unprovenAtoms } = proven.dropped
      expect(proven.atoms.length + unsureAtoms + unprovenAtoms).toBe(atoms.length)
      const told = (kind: string) => proven.rejections.filter((rejection) => rejection.kind === kind).length
      expect(told('ATOM')).toBe(unsureAtoms + unprovenAtoms)
      expect(told('CITATION')).toBe(proven.dropped.inventedQuotes)
    }),
  )
})
