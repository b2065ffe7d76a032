import { describe, expect, it } from 'vitest'
import { AtomType } from '../../../../src/db/generated/prisma/enums.ts'
import { atomLinkTypes } from '../../../../src/extraction/extractor.ts'
import { defaultInstructions, examples } from '../../../../src/extraction/model/instructions.ts'
import { readAnswer } from '../../../../src/extraction/model/read.ts'

describe('the instructions', () => {
  it.each([...Object.keys(AtomType), ...atomLinkTypes])('say what %s is', (type) => {
    expect(defaultInstructions).toMatch(new RegExp(`^- ${type}: .{20,}\\.$`, 'm'))
  })

  it('hold their examples', () => {
    expect(examples).toHaveLength(2)
    for (const { answer } of examples) expect(defaultInstructions).toContain(JSON.stringify(answer))
  })
})

describe.each(examples.map((example, at) => [at + 1, example] as const))(
  'example %i',
  (_, { batch, answer }) => {
    it('is an answer that would be taken whole', () => {
      const { extraction, problems } = readAnswer(JSON.stringify(answer), batch)
      expect(problems).toEqual([])
      expect(extraction?.topics).toHaveLength(answer.topics.length)
      expect(extraction?.atoms).toHaveLength(answer.atoms.length)
      expect(extraction?.links).toHaveLength(answer.links.length)
    })

    it('keeps what the instructions ask for: exact quotes, short titles, small talk left out', () => {
      const { extraction } = readAnswer(JSON.stringify(answer), batch)
      for (const { title, citations } of extraction?.atoms ?? []) {
        expect(title.length).toBeLessThanOrEqual(80)
        for (const { messageId, quote } of citations) {
          expect(batch.messages.find(({ id }) => id === messageId)?.content).toContain(quote)
        }
      }
      const inTopics = new Set(extraction?.topics.flatMap(({ messageIds }) => messageIds))
      expect(inTopics.size).toBeLessThan(batch.messages.length)
    })
  },
)
