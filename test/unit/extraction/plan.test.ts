import fc from 'fast-check'
import { expect, test } from 'vitest'
import { planBatches } from '../../../src/extraction/plan.ts'

const message = (id: number, conversation: number, minute: number) => ({
  id: String(id).padStart(5, '0'),
  conversationId: String(conversation),
  sentAt: new Date(minute * 60_000),
})
const messages = fc
  .array(fc.tuple(fc.nat(12), fc.nat(500)), { maxLength: 200 })
  .map((entries) => entries.map(([conversation, minute], id) => message(id, conversation, minute)))

test('conversations stay whole and are filled up in the order of time', () => {
  const planned = planBatches([message(1, 7, 5), message(2, 3, 1), message(3, 7, 2), message(4, 5, 9)], 3)
  expect(planned.map((batch) => batch.map(({ id }) => Number(id)))).toEqual([[2, 3, 1], [4]])
})

test('every message is in one batch, no batch is too large, and only a long conversation is cut', () => {
  fc.assert(
    fc.property(messages, fc.integer({ min: 1, max: 40 }), (all, size) => {
      const batches = planBatches(all, size)
      expect(
        batches
          .flat()
          .map(({ id }) => id)
          .sort(),
      ).toEqual(all.map(({ id }) => id).sort())
      for (const batch of batches) {
        expect(batch.length).toBeGreaterThan(0)
        expect(batch.length).toBeLessThanOrEqual(size)
      }
      for (const conversation of new Set(all.map(({ conversationId }) => conversationId))) {
        const own = all.filter(({ conversationId }) => conversationId === conversation).length
        const holders = batches.filter((batch) =>
          batch.some(({ conversationId }) => conversationId === conversation),
        )
        if (own <= size) expect(holders).toHaveLength(1)
      }
    }),
  )
})
