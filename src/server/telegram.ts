import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Bot, BotError, webhookCallback } from 'grammy'
import type { Update } from 'grammy/types'
import pg from 'pg'
import type { Database, Sql } from '../db/database.ts'
import { errorMessage, InvalidInputError } from '../errors.ts'
import { requireText, sourceNameLimit } from '../graphql/input.ts'
import { isJsonObject } from '../ingest/formats/json-stream.ts'
import { botInfo, botToken } from '../ingest/telegram/message.ts'
import { storeTelegramUpdate } from '../ingest/telegram/updates.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'

export interface TelegramWebhook {
  /** Answers a request. Never rejects. @param requestLog writes the id of the request, if it has one */
  handle(request: IncomingMessage, response: ServerResponse, requestLog?: Logger): Promise<void>
  close(): Promise<void>
}

export interface TelegramWebhookOptions {
  /** What Telegram sends with each update; null: the webhook is off. */
  secret: string | null
  database: Database
  metrics: Metrics
  log: Logger
}

const pathPrefix = '/telegram/'
/** In lower case, as Node has it. */
const secretHeader = 'x-telegram-bot-api-secret-token'
/** An update holds one message and the one that it answers, each of 32,768 characters (rich text) or fewer. */
const maxBodyBytes = 1024 * 1024
/** Telegram gives up a request after about a minute, and repeats it; what is stored by then is known again. */
const storeLimitMs = 10_000
/** One statement of a millisecond or two for each update; Telegram sends up to 40 at once. */
const ownConnections = 2

/** Whether a request is one for the webhook. It brings a secret, and so needs no check of its host and origin. */
export const isTelegramPath = (url: string | undefined): boolean => url?.startsWith(pathPrefix) ?? false

/** A request that is answered with its status and message. */
class Refusal extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/**
 * The webhook of Telegram bots, `POST /telegram/<name of the source>`: stores the update and answers. It calls nobody,
 * and what becomes of the update is the task's work (src/ingest/telegram/updates.ts), so it answers at once however
 * much there is to do. An answer of 200 says that the update is stored; Telegram repeats what was not answered so.
 */
export function telegramWebhook({ secret, database, metrics, log }: TelegramWebhookOptions): TelegramWebhook {
  const own = ownPool(database, log)

  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    requireAllowed(request, secret)
    const source = sourceOf(request.url ?? '')
    const body = await readBody(request)
    const update = parseUpdate(body)
    const bot = new Bot(botToken, { botInfo })
    bot.use(async () => {
      const isNew = await storeTelegramUpdate(own.sql, source, update.update_id, body)
      metrics.telegramUpdates.inc({ outcome: isNew ? 'stored' : 'duplicate' })
    })
    const answer = () => response.writeHead(200).end()
    // grammY's own check of the secret would tell its length: it compares the lengths first.
    await webhookCallback(bot, () => ({ update, respond: answer, end: answer, unauthorized: answer }), {
      timeoutMilliseconds: storeLimitMs,
    })()
  }

  return {
    async handle(request, response, requestLog = log) {
      try {
        await receive(request, response)
      } catch (thrown) {
        const error = asRefusal(thrown instanceof BotError ? thrown.error : thrown)
        if (error instanceof Refusal) {
          metrics.telegramUpdates.inc({ outcome: 'refused' })
          requestLog.debug({ status: error.status, reason: error.message }, 'Refused an update of Telegram')
          if (error.status === 405) response.setHeader('allow', 'POST')
          answerError(response, error.status, error.message)
        } else if (!request.destroyed || request.complete) {
          metrics.telegramUpdates.inc({ outcome: 'failed' })
          requestLog.error(
            { error: errorMessage(error) },
            'An update of Telegram could not be stored; it will be repeated',
          )
          answerError(response, 503, 'The update could not be stored; send it again')
        }
      }
    },
    close: own.close,
  }
}

/**
 * Connections beside the pool of everything else: those may all be waiting for slow statements. They are opened when
 * they are needed, and closed when they have had nothing to do for ten seconds.
 */
function ownPool(database: Database, log: Logger): { sql: Sql; close(): Promise<void> } {
  const pool = new pg.Pool({
    ...database.pool.options,
    max: ownConnections,
    min: 0,
    idleTimeoutMillis: 10_000,
    connectionTimeoutMillis: storeLimitMs,
    query_timeout: storeLimitMs,
  })
  const onError = (error: Error) =>
    log.warn({ error: error.message }, 'A connection of the Telegram webhook broke')
  // Without a handler a broken connection would end the process; the pool replaces it.
  pool.on('error', onError)
  pool.on('connect', (client) => client.on('error', onError))
  return {
    sql: {
      async query<Row extends object>(text: string, values: readonly unknown[] = []) {
        return (await pool.query<Row>(text, [...values])).rows
      },
    },
    close: () => pool.end(),
  }
}

/** What the sender can act on, as the refusal that says so. */
const asRefusal = (error: unknown): unknown =>
  error instanceof InvalidInputError ? new Refusal(400, error.message) : error

/** @throws Refusal unless it is an update that Telegram sends */
function requireAllowed(request: IncomingMessage, secret: string | null): void {
  if (secret === null) {
    throw new Refusal(404, 'The Telegram webhook is off. Set QUARRY_TELEGRAM_SECRET to turn it on')
  }
  if (request.method !== 'POST') throw new Refusal(405, 'Only POST is answered here')
  const given = request.headers[secretHeader]
  // Of the same length whatever was sent, and compared in the same time.
  if (!timingSafeEqual(digest(typeof given === 'string' ? given : ''), digest(secret))) {
    throw new Refusal(401, 'Unauthorized')
  }
  const type = request.headers['content-type'] ?? ''
  if (!/^application\/json\s*(?:;|$)/i.test(type)) {
    throw new Refusal(415, `The content type is ${JSON.stringify(type)}; it must be application/json`)
  }
}

const digest = (text: string) => createHash('sha256').update(text).digest()

/** @throws Refusal, InvalidInputError */
function sourceOf(url: string): string {
  const [path = ''] = url.slice(pathPrefix.length).split('?')
  if (path === '' || path.includes('/')) {
    throw new Refusal(404, `Name the source in the address: ${pathPrefix}<name>`)
  }
  return requireText(decodePath(path), ['source'], sourceNameLimit)
}

/** @throws Refusal */
function decodePath(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    throw new Refusal(400, 'The name of the source is not encoded as UTF-8 in percent signs')
  }
}

/** @throws Refusal as soon as there is more than is allowed */
async function readBody(request: IncomingMessage): Promise<string> {
  const tooLarge = () =>
    new Refusal(413, `The update has more than the ${maxBodyBytes} bytes that are allowed`)
  if (Number(request.headers['content-length'] ?? 0) > maxBodyBytes) throw tooLarge()
  const chunks: Buffer[] = []
  let size = 0
  // Destroyed, as loops do with streams that they leave, it could not be answered any more.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += (chunk as Buffer).length
    if (size > maxBodyBytes) throw tooLarge()
    chunks.push(chunk as Buffer)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
  } catch {
    throw new Refusal(400, 'The update is not valid UTF-8')
  }
}

/** @throws Refusal */
function parseUpdate(body: string): Update {
  let update: unknown
  try {
    update = JSON.parse(body)
  } catch {
    throw new Refusal(400, 'The update is not valid JSON')
  }
  if (!isJsonObject(update) || !Number.isSafeInteger(update.update_id)) {
    throw new Refusal(400, 'The update is no JSON object with an update_id')
  }
  return update as unknown as Update
}

function answerError(response: ServerResponse, status: number, message: string): void {
  if (response.headersSent) return
  response
    .writeHead(status, { 'content-type': 'application/json' })
    .end(JSON.stringify({ errors: [{ message }] }))
}
