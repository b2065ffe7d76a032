import { join } from 'node:path'
import { expect, test } from 'vitest'
import { TestClient } from '../support/client.ts'
import { preparedFolder } from '../support/databases.ts'
import type { TelegramCrashMessagesQuery } from '../support/generated/graphql.ts'
import { graphql } from '../support/generated/index.ts'
import { startQuarry } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'
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
  await using folder = await preparedFolder()
  await using provider = await ProviderServer.start({ dimensions: 64 })
  const env = {
    QUARRY_DATA_DIR: join(folder.path, 'data'),
    PORT: '0',
    QUARRY_TELEGRAM_SECRET: telegramSecret,
    QUARRY_EMBEDDING_PROVIDER: 'openai',
    QUARRY_AUTO_EXTRACT: 'off',
    OPENAI_BASE_URL: `${provider.url}/v1`,
    OPENAI_API_KEY: 'test',
    OPENAI_EMBEDDING_DIMENSIONS: '64',
  }
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
    await using server = startQuarry(['serve'], env)
    const [, url = ''] = await server.line(/"url":"(http:[^"]+)\/graphql"/)
    await deliver(url, left, () => server.child.kill('SIGKILL'))
    await server.exit()
  }

  await using server = startQuarry(['serve'], env)
  const [, url = ''] = await server.line(/"url":"(http:[^"]+)\/graphql"/)
  await deliver(url, 0, () => {})
  expect(unanswered.size).toBe(0)
  const client = new TestClient(url)
  const expected = new Map(Array.from({ length: count }, (_, n) => [String(n + 1), [`Edit ${n + 1}`]]))
  await expect.poll(() => allMessages(client), { timeout: 60_000, interval: 500 }).toEqual(expected)
  await client.close()
})
