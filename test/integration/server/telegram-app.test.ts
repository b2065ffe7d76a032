import { request as httpRequest, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
import type { ProviderServerOptions } from '../../support/provider-server.ts'
import {
  postUpdate,
  telegramEdit,
  telegramMessage,
  telegramSecret,
  telegramUpdate,
} from '../../support/telegram.ts'

/*
 * The webhook in the whole app: what comes in there is stored, embedded and found.
 */

let app: Awaited<ReturnType<typeof startProviderApp>>
const provider: ProviderServerOptions = { dimensions: 64 }

beforeAll(async () => {
  app = await startProviderApp(provider, { env: { QUARRY_TELEGRAM_SECRET: telegramSecret } })
})
afterAll(() => app[Symbol.asyncDispose]())

const LiveMessagesDocument = graphql(`
  query LiveMessages {
    messages(first: 100, orderBy: { field: SENT_AT, direction: ASC }) {
      nodes { externalId channel author content embeddingStatus source { name type } }
    }
  }
`)
const liveMessages = async () => (await app.client.run(LiveMessagesDocument)).messages.nodes
const post = (update: unknown) => postUpdate(app.app.url ?? '', 'Orchard', update)

test('a message that a bot is told is stored and embedded, and so is its edit', async () => {
  const message = telegramMessage(7, 'The pump runs again')
  expect((await post(telegramUpdate(1, message))).status).toBe(200)
  const stored = {
    externalId: '7',
    channel: 'Orchard',
    author: 'Marta Quince',
    embeddingStatus: 'READY',
    source: { name: 'Orchard', type: 'telegram' },
  }
  await expect
    .poll(liveMessages, { timeout: 10_000 })
    .toEqual([{ ...stored, content: 'The pump runs again' }])
  await post(telegramEdit(2, { ...message, text: 'The pump has stopped' }, 60))
  await expect
    .poll(liveMessages, { timeout: 10_000 })
    .toEqual([{ ...stored, content: 'The pump has stopped' }])
  const metrics = await (await fetch(`${app.app.url}/metrics`)).text()
  expect(metrics).toContain('quarry_telegram_updates_total{outcome="stored"} 2')
})

test('updates are answered while the provider keeps everybody waiting', async () => {
  let answer: () => void = () => {}
  const held = new Promise<null>((resolve) => {
    answer = () => resolve(null)
  })
  provider.fault = () => held
  const updates = Array.from({ length: 40 }, (_, n) =>
    telegramUpdate(100 + n, telegramMessage(100 + n, `Row ${n}`)),
  )
  const statuses = await Promise.all(updates.map(async (update) => (await post(update)).status))
  expect(new Set(statuses)).toEqual(new Set([200]))
  await expect.poll(async () => (await liveMessages()).length, { timeout: 10_000 }).toBe(41)
  expect((await liveMessages()).filter(({ embeddingStatus }) => embeddingStatus === 'READY')).toHaveLength(1)
  answer()
  delete provider.fault
  await expect
    .poll(async () => (await liveMessages()).every(({ embeddingStatus }) => embeddingStatus === 'READY'), {
      timeout: 10_000,
    })
    .toBe(true)
})

/** As a reverse proxy hands it on, with the name by which the world knows it. */
async function throughProxy(path: string, body: unknown) {
  const { hostname, port } = new URL(app.app.url ?? '')
  const sent = httpRequest({
    hostname,
    port,
    path,
    method: 'POST',
    headers: {
      host: 'bots.example.org',
      'content-type': 'application/json',
      'x-telegram-bot-api-secret-token': telegramSecret,
    },
  })
  sent.end(JSON.stringify(body))
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve).once('error', reject)
  })
  await text(response)
  return response.statusCode
}

test('a public name of the host is fine for the webhook, and for nothing else', async () => {
  expect(await throughProxy('/telegram/Orchard', telegramUpdate(200, telegramMessage(200, 'Hello')))).toBe(
    200,
  )
  expect(await throughProxy('/graphql', { query: '{ __typename }' })).toBe(403)
})

test('without a secret the webhook is off, and says so', async () => {
  await using quiet = await startProviderApp({}, {})
  const response = await postUpdate(
    quiet.app.url ?? '',
    'Orchard',
    telegramUpdate(1, telegramMessage(1, 'Hello')),
  )
  expect([response.status, await response.json()]).toEqual([
    404,
    { errors: [{ message: 'The Telegram webhook is off. Set QUARRY_TELEGRAM_SECRET to turn it on' }] },
  ])
})
