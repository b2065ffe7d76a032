import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Answer } from '../../../../src/extraction/model/answer.ts'
import { readAnswer } from '../../../../src/extraction/model/read.ts'
import { batchOf, knownAtom, knownTopic, messagesOf, uuid } from './batches.ts'

const batch = batchOf({
  messages: messagesOf('the build fails', 'clear the cache', 'works'),
  topics: [knownTopic(1), knownTopic(2)],
  atoms: [knownAtom(1)],
})

type Topic = Answer['topics'][number]
type Atom = Answer['atoms'][number]
type Link = Answer['links'][number]

const topic = (fields: Partial<Topic> = {}): Topic => ({
  key: 'n1',
  name: 'Build',
  description: 'Building it.',
  keywords: ['build'],
  confidence: 0.9,
  messages: ['m1', 'm2'],
  ...fields,
})
const atom = (fields: Partial<Atom> = {}): Atom => ({
  key: 'x1',
  topic: null,
  citations: [{ message: 'm1', quote: 'the build fails' }],
  type: 'PROBLEM',
  title: 'The build fails',
  content: 'The build fails.',
  confidence: 0.8,
  ...fields,
})
const link = (fields: Partial<Link> = {}): Link => ({
  from: 'x1',
  type: 'RELATES_TO',
  to: 'a1',
  strength: 0.5,
  ...fields,
})
const read = (answer: Partial<Answer>) =>
  readAnswer(JSON.stringify({ topics: [], atoms: [], links: [], ...answer }), batch)

describe('an answer that keeps the rules', () => {
  it('is mapped back to ids and to keys of our own', () => {
    const { extraction, problems } = read({
      topics: [topic(), topic({ key: 't2', name: 'renamed', keywords: [], messages: ['m3'] })],
      atoms: [atom({ topic: 'n1' }), atom({ key: 'x2', topic: 't2', type: 'SOLUTION' })],
      links: [
        link({ from: 'x2', to: 'x1', type: 'SOLVES', strength: null }),
        link({ from: 'x1', to: 'a1', type: 'REFINES' }),
      ],
    })
    expect(problems).toEqual([])
    expect(extraction).toEqual({
      topics: [
        {
          key: 'topic-1',
          name: 'Build',
          description: 'Building it.',
          keywords: ['build'],
          confidence: 0.9,
          messageIds: [uuid('message', 1), uuid('message', 2)],
        },
        {
          key: uuid('topic', 2),
          name: 'Topic 2',
          description: 'All of Topic 2.',
          keywords: ['word'],
          confidence: 0.9,
          messageIds: [uuid('message', 3)],
        },
      ],
      atoms: [
        {
          key: 'atom-1',
          type: 'PROBLEM',
          title: 'The build fails',
          content: 'The build fails.',
          confidence: 0.8,
          topicKey: 'topic-1',
          citations: [{ messageId: uuid('message', 1), quote: 'the build fails' }],
        },
        expect.objectContaining({ key: 'atom-2', type: 'SOLUTION', topicKey: uuid('topic', 2) }),
      ],
      links: [
        { from: 'atom-2', to: 'atom-1', type: 'SOLVES', strength: null },
        { from: 'atom-1', to: uuid('atom', 1), type: 'REFINES', strength: 0.5 },
      ],
    })
  })

  it('may say nothing', () => {
    expect(read({})).toEqual({ extraction: { topics: [], atoms: [], links: [] }, problems: [] })
  })

  it('brings a known topic along that only atoms name', () => {
    const { extraction, problems } = read({
      atoms: [
        atom({ topic: 't1', confidence: 0.4 }),
        atom({
          key: 'x2',
          topic: 't1',
          citations: [
            { message: 'm3', quote: 'works' },
            { message: 'm1', quote: 'fails' },
          ],
        }),
      ],
    })
    expect(problems).toEqual([])
    expect(extraction?.topics).toEqual([
      {
        key: uuid('topic', 1),
        name: 'Topic 1',
        description: 'All of Topic 1.',
        keywords: ['word'],
        confidence: 0.8,
        messageIds: [uuid('message', 1), uuid('message', 3)],
      },
    ])
    expect(extraction?.atoms.map(({ topicKey }) => topicKey)).toEqual([uuid('topic', 1), uuid('topic', 1)])
  })

  it('keeps quotes as they are, also invented ones, and names messages and links once', () => {
    const quote = '  never said\n'
    const { extraction, problems } = read({
      topics: [topic({ messages: ['m2', 'm1', 'm2'], keywords: [' a ', 'a', ''] })],
      atoms: [atom({ citations: [{ message: 'm2', quote }] })],
      links: [link(), link({ strength: 0.1 })],
    })
    expect(problems).toEqual([])
    expect(extraction?.atoms[0]?.citations).toEqual([{ messageId: uuid('message', 2), quote }])
    expect(extraction?.topics[0]).toMatchObject({
      keywords: ['a'],
      messageIds: [uuid('message', 2), uuid('message', 1)],
    })
    expect(extraction?.links).toHaveLength(1)
  })

  it('loses characters that Postgres cannot store', () => {
    expect(read({ atoms: [atom({ title: 'a\0b' })] }).extraction?.atoms[0]?.title).toBe('ab')
  })

  it('has every message mapped to itself, in any order and number', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(199), { minLength: 1 }),
        fc.integer({ min: 200, max: 300 }),
        (chosen, size) => {
          const large = batchOf({
            messages: messagesOf(...Array.from({ length: size }, (_, at) => `text ${at}`)),
          })
          const citations = chosen.map((at) => ({ message: `m${at + 1}`, quote: `text ${at}` }))
          const answer = { topics: [], links: [], atoms: [atom({ citations })] }
          const { extraction, problems } = readAnswer(JSON.stringify(answer), large)
          expect(problems).toEqual([])
          for (const { messageId, quote } of extraction?.atoms[0]?.citations ?? []) {
            expect(large.messages.find(({ id }) => id === messageId)?.content).toBe(quote)
          }
          expect(extraction?.atoms[0]?.citations).toHaveLength(chosen.length)
        },
      ),
    )
  })
})

describe('an answer of the wrong shape', () => {
  it.each([
    ['nothing', ' \n', 'It is empty.'],
    ['prose', 'Sure! Here is the JSON.', 'It is no JSON: '],
    ['JSON that was cut off', '{"topics":[', 'It is no JSON: '],
    ['a list', '[]', 'The answer: Invalid input: expected object, received array.'],
    ['lists that are missing', '{"topics":[],"links":[]}', 'atoms: Invalid input: expected array'],
    [
      'a type that does not exist',
      JSON.stringify({ topics: [], links: [], atoms: [{ ...atom(), type: 'FACT' }] }),
      'atoms[0].type: Invalid option: expected one of "PROBLEM"',
    ],
  ])('is refused whole: %s', (_, text, problem) => {
    const { extraction, problems } = readAnswer(text, batch)
    expect(extraction).toBeNull()
    expect(problems[0]).toContain(problem)
  })
})

describe('an item that breaks a rule', () => {
  const good = atom({ key: 'good' })

  it.each<[string, Partial<Answer>, string]>([
    [
      'an unknown message',
      { atoms: [atom({ citations: [{ message: 'm4', quote: 'x' }] })] },
      'atoms[0].citations[0].message: "m4" is no message. The messages are m1 to m3.',
    ],
    [
      'an id for a key',
      { atoms: [atom({ citations: [{ message: uuid('message', 1), quote: 'x' }] })] },
      'is no message',
    ],
    ['no citation', { atoms: [atom({ citations: [] })] }, 'atoms[0].citations: found none'],
    [
      'a blank quote',
      { atoms: [atom({ citations: [{ message: 'm1', quote: ' ' }] })] },
      'atoms[0].citations[0].quote: is blank.',
    ],
    ['a blank title', { atoms: [atom({ title: ' ' })] }, 'atoms[0].title: is blank.'],
    ['a blank content', { atoms: [atom({ content: '' })] }, 'atoms[0].content: is blank.'],
    [
      'a long title',
      { atoms: [atom({ title: 'x'.repeat(121) })] },
      'atoms[0].title: has 121 characters, expected at most 120.',
    ],
    [
      'a confidence of 95',
      { atoms: [atom({ confidence: 95 })] },
      'atoms[0].confidence: found 95, expected 0 to 1.',
    ],
    [
      'the key of a known atom',
      { atoms: [atom({ key: 'a1' })] },
      'atoms[0].key: "a1" is an atom that exists already.',
    ],
    ['a blank key', { atoms: [atom({ key: '' })] }, 'atoms[0].key: is blank.'],
    [
      'a key that is long',
      { atoms: [atom({ key: 'a1', citations: [{ message: 'm'.repeat(50), quote: 'x' }] })] },
      'a key of 50 characters is no message.',
    ],
  ])('is left out and named: an atom with %s', (_, answer, problem) => {
    const { extraction, problems } = read({ atoms: [...(answer.atoms ?? []), good] })
    expect(problems.join('\n')).toContain(problem)
    expect(extraction?.atoms.map(({ key }) => key)).toEqual(['atom-2'])
  })

  it.each<[string, Topic, string]>([
    [
      'a confidence below 0',
      topic({ key: 'n2', confidence: -1 }),
      'topics[1].confidence: found -1, expected 0 to 1.',
    ],
    ['a blank name', topic({ key: 'n2', name: ' ' }), 'topics[1].name: is blank.'],
    ['a blank key', topic({ key: ' ' }), 'topics[1].key: is blank.'],
    ['the key of another', topic(), 'topics[1].key: "n1" is there twice.'],
  ])('is left out and named: a topic with %s', (_, bad, problem) => {
    const { extraction, problems } = read({ topics: [topic(), bad] })
    expect(problems).toEqual([problem])
    expect(extraction?.topics.map(({ key }) => key)).toEqual(['topic-1'])
  })

  it.each<[string, Link, string]>([
    ['an unknown start', link({ from: 'x9' }), 'links[0].from: "x9" is no atom'],
    ['an unknown end', link({ to: 'a2' }), 'links[0].to: "a2" is no atom'],
    ['a topic as its end', link({ to: 't1' }), 'links[0].to: "t1" is no atom'],
    ['one end', link({ to: 'x1' }), 'links[0]: leads from "x1" to itself.'],
    ['a strength above 1', link({ strength: 1.5 }), 'links[0].strength: found 1.5, expected 0 to 1 or null.'],
  ])('is left out and named: a link with %s', (_, bad, problem) => {
    const { extraction, problems } = read({ atoms: [atom()], links: [bad, link()] })
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(problem)
    expect(extraction?.links).toHaveLength(1)
  })

  it('takes with it only what needs it', () => {
    const { extraction, problems } = read({
      topics: [topic({ confidence: 7 }), topic({ key: 'n2', messages: ['m1', 'm9'] })],
      atoms: [
        atom({ key: 'x1', title: '' }),
        atom({ key: 'x2', topic: 'n1' }),
        atom({ key: 'x3', topic: 'n9' }),
        atom({
          key: 'x4',
          topic: 'n2',
          citations: [
            { message: 'm9', quote: 'x' },
            { message: 'm2', quote: 'clear' },
          ],
        }),
      ],
      links: [link({ from: 'x1', to: 'x2' }), link({ from: 'x2', to: 'x3' })],
    })
    expect(problems).toHaveLength(5)
    expect(extraction?.topics).toEqual([
      expect.objectContaining({ key: 'topic-2', messageIds: [uuid('message', 1)] }),
    ])
    expect(
      extraction?.atoms.map(({ key, topicKey, citations }) => [key, topicKey, citations.length]),
    ).toEqual([
      ['atom-2', null, 1],
      ['atom-3', null, 1],
      ['atom-4', 'topic-2', 1],
    ])
    expect(extraction?.links).toEqual([expect.objectContaining({ from: 'atom-2', to: 'atom-3' })])
  })

  it('makes the answer worthless where nothing else is there', () => {
    expect(read({ topics: [topic()], atoms: [atom({ title: '' })] }).extraction).toBeNull()
    expect(read({ topics: [topic({ confidence: 2 })], atoms: [atom()] }).extraction).toBeNull()
  })
})

describe('whatever a model answers', () => {
  const key = fc.constantFrom(
    'm1',
    'm3',
    'm4',
    't1',
    't3',
    'a1',
    'a2',
    'n1',
    'n2',
    'x1',
    'x2',
    '',
    '__proto__',
  )
  const share = fc.constantFrom(0, 0.5, 1, 2, -1)
  const text = fc.constantFrom('', 'words', 'x'.repeat(121))
  const list = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 4 })
  const answers: fc.Arbitrary<Answer> = fc.record({
    topics: list(
      fc.record({
        key,
        name: text,
        description: text,
        keywords: list(text),
        confidence: share,
        messages: list(key),
      }),
    ),
    atoms: list(
      fc.record({
        key,
        topic: fc.option(key),
        citations: list(fc.record({ message: key, quote: text })),
        type: fc.constantFrom('PROBLEM', 'IDEA'),
        title: text,
        content: text,
        confidence: share,
      }),
    ),
    links: list(
      fc.record({
        from: key,
        type: fc.constantFrom('SOLVES', 'REFINES'),
        to: key,
        strength: fc.option(share),
      }),
    ),
  })

  it('what is taken keeps all rules', () => {
    const ids = new Set(batch.messages.map(({ id }) => id))
    fc.assert(
      fc.property(answers, (answer) => {
        const { extraction, problems } = readAnswer(JSON.stringify(answer), batch)
        if (extraction === null) {
          expect(problems).not.toEqual([])
          return
        }
        const topicKeys = extraction.topics.map((proposed) => proposed.key)
        expect(new Set(topicKeys).size).toBe(topicKeys.length)
        for (const proposed of extraction.topics) {
          expect(proposed.name).not.toBe('')
          expect(proposed.messageIds.every((id) => ids.has(id))).toBe(true)
        }
        const ends = new Set([...extraction.atoms.map((proposed) => proposed.key), uuid('atom', 1)])
        expect(ends.size).toBe(extraction.atoms.length + 1)
        for (const proposed of extraction.atoms) {
          expect(proposed.topicKey === null || topicKeys.includes(proposed.topicKey)).toBe(true)
          expect(proposed.citations.length).toBeGreaterThan(0)
          expect(proposed.citations.every(({ messageId, quote }) => ids.has(messageId) && quote !== '')).toBe(
            true,
          )
          expect(proposed.confidence).toBeGreaterThanOrEqual(0)
          expect(proposed.confidence).toBeLessThanOrEqual(1)
          expect(proposed.title.length).toBeLessThanOrEqual(120)
        }
        for (const { from, to, strength } of extraction.links) {
          expect(ends.has(from) && ends.has(to) && from !== to).toBe(true)
          expect(strength === null || (strength >= 0 && strength <= 1)).toBe(true)
        }
        const isWhole =
          extraction.atoms.length === answer.atoms.length && extraction.topics.length >= answer.topics.length
        if (problems.length === 0) expect(isWhole).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })
})
