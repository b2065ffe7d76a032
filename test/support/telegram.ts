import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { runOnce, Logger as WorkerLogger } from 'graphile-worker'
import { parseConfig } from '../../src/config.ts'
import type { Database } from '../../src/db/database.ts'
import { telegramTask } from '../../src/ingest/telegram/updates.ts'
import { createLogger } from '../../src/log.ts'
import { createMetrics } from '../../src/metrics.ts'
import { telegramWebhook } from '../../src/server/telegram.ts'

/*
 * Updates in the form in which the Bot API sends them, and a webhook without the rest of the app.
 */

export const telegramSecret = 'a-secret-of-the-tests'

/** A message or a part of an update, as JSON. */
export type TelegramJson = Record<string, unknown>

export const marta = { id: 11, is_bot: false, first_name: 'Marta', last_name: 'Quince', language_code: 'en' }
export const orchard = { id: -1_000_000_004_242, type: 'supergroup', title: 'Orchard' }

/** A message of a supergroup, written at 2026-05-04T09:00:00Z. */
export function telegramMessage(id: number, text: string, fields: TelegramJson = {}): TelegramJson {
  return { message_id: id, from: marta, chat: orchard, date: 1777885200, text, ...fields }
}

/** The update with this number that brings a message. */
export function telegramUpdate(id: number, message: TelegramJson, kind = 'message'): TelegramJson {
  return { update_id: id, [kind]: message }
}

/** The update that brings a message as it is after an edit, so many seconds after it was sent. */
export function telegramEdit(id: number, message: TelegramJson, afterSeconds: number): TelegramJson {
  const edited = { ...message, edit_date: Number(message.date) + afterSeconds }
  return telegramUpdate(id, edited, 'edited_message')
}

/** Sends an update as Telegram does. */
export function postUpdate(
  url: string,
  source: string,
  update: unknown,
  init: RequestInit = {},
): Promise<Response> {
  return fetch(`${url}/telegram/${encodeURIComponent(source)}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-telegram-bot-api-secret-token': telegramSecret },
    body: typeof update === 'string' ? update : JSON.stringify(update),
    ...init,
  })
}

/** The webhook on a port of its own; `await using` closes it. */
export async function startWebhook(database: Database, secret: string | null = telegramSecret) {
  const metrics = createMetrics()
  const webhook = telegramWebhook({ secret, database, metrics, log: createLogger('silent') })
  const server = createServer((request, response) => void webhook.handle(request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    post: (source: string, update: unknown, init?: RequestInit) => postUpdate(url, source, update, init),
    /** How many updates came to this end. */
    async counted(outcome: string): Promise<number> {
      const { values } = await metrics.telegramUpdates.get()
      return values.find(({ labels }) => labels.outcome === outcome)?.value ?? 0
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await webhook.close()
    },
  }
}

/** Runs the queued tasks of the webhook until there is nothing to do, or what there is failed and waits. */
export async function runTelegramTasks(database: Database): Promise<void> {
  const task = telegramTask(database, parseConfig({}).scoring)
  let due: object[]
  do {
    await runOnce({
      pgPool: database.pool,
      noPreparedStatements: database.engine === 'embedded',
      noHandleSignals: true,
      logger: new WorkerLogger(() => () => {}),
      taskList: { telegram_updates: task },
    })
    // The queue frees a name beside looking for the next job, and may end for not having found it.
    due = await database.query(
      `select from graphile_worker.jobs where task_identifier = 'telegram_updates' and run_at <= now()
         and attempts < max_attempts and locked_at is null`,
    )
  } while (due.length > 0)
}

export interface StoredMessage {
  channel: string
  externalId: string
  author: string
  content: string
  sentAt: Date
  threadId: string | null
  replyTo: string | null
}

/** The messages of a source, in the order of their numbers. */
export function storedMessages(database: Database, source: string): Promise<StoredMessage[]> {
  return database.query<StoredMessage>(
    `select channel, external_id as "externalId", author, content, sent_at as "sentAt", thread_id as "threadId",
       reply_to_external_id as "replyTo"
     from message join source on source.id = source_id where source.name = $1 and source.type = 'telegram'
     order by channel, length(external_id), external_id`,
    [source],
  )
}
