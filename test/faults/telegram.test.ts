import { expect, test } from 'vitest'
import type { TestClient } from '../support/client.ts'
import { startFleet } from '../support/fleet.ts'
import type { TelegramCrashMessagesQuery } from '../support/generated/graphql.ts'
import { graphql } from '../support/generated/index.ts'
import {
  postUpdate,
  type TelegramJson,
  telegramEdit,
  telegramMessage,
  telegramSecret,
  telegramUpdate,
} from '../support/telegram.ts'

const TelegramCrashMessagesDocument = graphql(`
  query TelegramCrashMessages($after: String) {
    messages(first: 100, after: $after) {
      nodes { externalId content }
      pageInfo { hasNextPage endCursor }
    }
  }
`)

async function allMessages(client: TestClient): Promise<Map<string, string[]>> {
  const contents = new Map<string, string[]>()
  let after: string | null = null
  do {
    const { messages }: TelegramCrashMessagesQuery = await client.run(TelegramCrashMessagesDocument, {
      after,
    })
    for (const { externalId, content } of messages.nodes) {
      contents.set(externalId, [...(contents.get(externalId) ?? []), content])
    }
    after = messages.pageInfo.hasNextPage ? (messages.pageInfo.endCursor ?? null) : null
  } while (after)
  return contents
}

test('a server that is killed again and again loses no update that it has answered, and doubles none', async () => {
  await using fleet = await startFleet({ env: { QUARRY_TELEGRAM_SECRET: telegramSecret } })
  const count = 200
  const updates = Array.from({ length: count }, (_, n) => {
    const message = telegramMessage(n + 1, `Message ${n + 1}`)
    return [
      telegramUpdate(2 * n, message),
      telegramEdit(2 * n + 1, { ...message, text: `Edit ${n + 1}` }, 60),
    ]
  }).flat()
  const unanswered = new Set<TelegramJson>(updates)

  /**
   * As Telegram does: several at once, in the order of their numbers, each again and again until it is answered. Ends
   * early when so many are left, and the others are under way.
   */
  async function deliver(url: string, left: number, onLeft: () => void): Promise<void> {
    const next = [...unanswered]
    let isOver = false
    const lane = async () => {
      for (let update = next.shift(); update && !isOver; update = next.shift()) {
        const response = await postUpdate(url, 'Orchard', update).catch(() => null)
        if (response?.status === 200) unanswered.delete(update)
        if (unanswered.size > left || isOver) continue
        isOver = true
        onLeft()
      }
    }
    await Promise.all(Array.from({ length: 8 }, lane))
  }

  for (const left of [270, 100]) {
    const server = fleet.start('serve')
    const { origin } = new URL((await server.client()).url)
    let killed: Promise<void> | null = null
    await deliver(origin, left, () => {
      killed = server.kill()
    })
    await killed
  }

  const client = await fleet.start('serve').client()
  await deliver(new URL(client.url).origin, 0, () => {})
  expect(unanswered.size).toBe(0)
  const expected = new Map(Array.from({ length: count }, (_, n) => [String(n + 1), [`Edit ${n + 1}`]]))
  await expect.poll(() => allMessages(client), { timeout: 60_000, interval: 500 }).toEqual(expected)
  await fleet.expectTruth(60_000)
})
