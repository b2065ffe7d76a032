import { describe, expect, test } from 'vitest'
import type { KnownTopic } from '../../../../src/extraction/extractor.ts'
import { createLocalExtractor } from '../../../../src/extraction/local/extractor.ts'
import { similarity } from '../../../../src/extraction/local/topics.ts'
import { batchOf, type Said } from './chats.ts'

const extractor = createLocalExtractor()
const topicsOf = async (said: readonly Said[], known: readonly KnownTopic[] = []) =>
  extractor.extract(batchOf(said, known), new AbortController().signal)

const backup = (conversation: string, vector: number[]): Said[] => [
  {
    author: 'ada',
    content: 'The nightly backup of the mail server fails with a timeout',
    conversation,
    vector,
  },
  {
    author: 'ben',
    content: 'The nightly backup runs while the mail server sends newsletters',
    conversation,
    vector,
  },
  { author: 'ada', content: 'We could start the nightly backup two hours earlier', conversation, vector },
]
const labels = (conversation: string, vector: number[]): Said[] => [
  {
    author: 'cy',
    content: 'The label printer in the warehouse prints every address twice',
    conversation,
    vector,
  },
  { author: 'ben', content: 'The label printer has a new driver since last week', conversation, vector },
  { author: 'cy', content: 'I can go back to the old driver of the label printer', conversation, vector },
]

const known = (fields: Partial<KnownTopic>): KnownTopic => ({
  id: '01920000-0000-7000-8000-000000000001',
  name: 'Storage',
  description: 'Where files are kept.',
  keywords: ['storage'],
  vector: null,
  ...fields,
})

describe('conversations', () => {
  test('near each other are one topic, others are not', async () => {
    const { topics } = await topicsOf([
      ...backup('one', [1, 0.1, 0]),
      ...labels('two', [-0.5, 1, 0.3]),
      ...backup('three', [1, 0, 0.1]),
    ])
    expect(topics.map(({ messageIds }) => messageIds.toSorted()).sort((a, b) => b.length - a.length)).toEqual(
      [
        ['m0', 'm1', 'm2', 'm6', 'm7', 'm8'],
        ['m3', 'm4', 'm5'],
      ],
    )
  })

  test('give their topic a name, keywords and a sentence', async () => {
    const { topics, atoms } = await topicsOf([...backup('one', [1, 0, 0]), ...labels('two', [0, 1, 0])])
    expect(topics.map(({ name }) => name).sort()).toEqual(['Label printer', 'Nightly backup'])
    for (const { keywords, description, confidence } of topics) {
      expect(keywords.length).toBeGreaterThanOrEqual(3)
      expect(keywords.length).toBeLessThanOrEqual(8)
      expect(description).toMatch(/^[A-Z].*[.?!…]$/)
      expect(confidence).toBeGreaterThan(0.7)
    }
    const [name] = topics.filter(({ key }) => key === atoms[0]?.topicKey).map((topic) => topic.name)
    expect(name).toBe('Nightly backup')
  })

  test('of chatter make none', async () => {
    const { topics } = await topicsOf([
      { author: 'ada', content: 'good morning' },
      { author: 'ben', content: 'morning! coffee?' },
      { author: 'ada', content: 'yes' },
    ])
    expect(topics).toEqual([])
  })

  test('without vectors stay apart', async () => {
    const said = [...backup('one', []), ...labels('two', [])].map(({ vector: _, ...rest }) => rest)
    const { topics } = await topicsOf(said)
    expect(topics).toHaveLength(2)
  })

  test('in a language without parts of speech are named by words that come again', async () => {
    const { topics } = await topicsOf([
      { author: 'ada', content: 'Резервное копирование почты снова упало ночью' },
      { author: 'ben', content: 'Копирование почты идёт одновременно с рассылкой' },
      { author: 'ada', content: 'Тогда копирование надо запускать раньше рассылки' },
    ])
    expect(topics[0]?.name.toLowerCase()).toContain('копирование')
  })

  test('never take their name from those who write', async () => {
    const { topics } = await topicsOf([
      { author: 'Winston', content: 'The importer of Winston skips the last line' },
      { author: 'ada', content: 'Winston knows the importer best' },
      { author: 'Winston', content: 'The importer reads lines and Winston reads books' },
    ])
    expect(topics[0]?.name).not.toMatch(/winston/i)
  })
})

describe('a topic that exists', () => {
  test('is meant by what is near to it', async () => {
    const topic = known({ vector: Float32Array.of(1, 0, 0) })
    const { topics, atoms } = await topicsOf(backup('one', [1, 0.1, 0]), [topic])
    expect(topics.map(({ key, name }) => [key, name])).toEqual([[topic.id, 'Storage']])
    expect(atoms.every(({ topicKey }) => topicKey === topic.id)).toBe(true)
  })

  test('is meant by its name', async () => {
    const topic = known({ name: 'Nightly backups', vector: Float32Array.of(0, 0, 1) })
    const { topics } = await topicsOf(backup('one', [1, 0, 0]), [topic])
    expect(topics.map(({ key }) => key)).toEqual([topic.id])
  })

  test('is not meant by what is far from it', async () => {
    const { topics } = await topicsOf(backup('one', [1, 0, 0]), [known({ vector: Float32Array.of(0, 0, 1) })])
    expect(topics.map(({ name }) => name)).toEqual(['Nightly backup'])
  })
})

test.each([
  [[1, 0], [1, 0], 1],
  [[1, 0], [0, 2], 0.5],
  [[1, 0], [-3, 0], 0],
  [[0, 0], [1, 0], 0.5],
  [[1], [1, 0], 0.5],
])('similarity of %j and %j is %d', (one, other, expected) => {
  expect(similarity(Float32Array.from(one), Float32Array.from(other))).toBeCloseTo(expected)
  expect(similarity(Float32Array.from(one), null)).toBe(0.5)
})
