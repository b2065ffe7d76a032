import { expect, test } from 'vitest'
import type { GoldChannel } from '../../../eval/conversation-data.ts'
import { fitWeights } from '../../../eval/conversation-fit.ts'
import { oneToOneOverlap } from '../../../eval/conversation-metrics.ts'
import { createLinker } from '../../../src/conversations/link.ts'

/** Pairs of people who speak to each other by name, crossing; another pair after every tenth message. */
function channelOf(name: string, seed: number): GoldChannel {
  const messages = Array.from({ length: 120 }, (_, index) => {
    const pair = Math.floor(index / 20) * 2 + ((index * seed) % 3 === 0 ? 1 : 0)
    const [author, other] = index % 2 ? [`ann${pair}`, `bob${pair}`] : [`bob${pair}`, `ann${pair}`]
    return {
      message: {
        id: `${name}${index}`,
        author,
        content: `${other}: ${'word '.repeat((index * seed) % 5)}`,
        sentAt: new Date(Date.UTC(2026, 0, 1) + index * 10_000),
        threadId: null,
        replyToId: null,
        vector: null,
      },
      cluster: `${pair}`,
      answers: null,
    }
  })
  return { collection: 'made', name, messages }
}

test('weights fitted to some channels find the conversations of another, and are the same every time', () => {
  const weights = fitWeights([channelOf('a', 1), channelOf('b', 5)])
  expect(fitWeights([channelOf('a', 1), channelOf('b', 5)])).toEqual(weights)
  const { messages } = channelOf('c', 7)
  const linker = createLinker([], weights)
  const found = messages.map(({ message }) => {
    const conversationId = linker.link(message).conversationId ?? message.id
    linker.remember({ ...message, conversationId })
    return conversationId
  })
  expect(
    oneToOneOverlap(
      messages.map(({ cluster }) => cluster),
      found,
    ),
  ).toBeGreaterThan(0.9)
})
