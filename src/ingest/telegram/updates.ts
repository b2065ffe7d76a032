import type { Update } from 'grammy/types'
import type { ScoreRules } from '../../config.ts'
import type { Database, Sql, Transaction } from '../../db/database.ts'
import { errorMessage, InvalidInputError } from '../../errors.ts'
import type { Task } from '../../jobs/runner.ts'
import type { MessageDraft } from '../formats/format.ts'
import { ensureSource, storeMessages } from '../messages.ts'
import { findViolation } from '../normalise.ts'
import { accountPrefix, type ChatMessage, type ChatPlace, draftOf, placeOf, readUpdate } from './message.ts'

/** A batch is one transaction. On the embedded database others wait for its end, also the webhook: it must be short. */
const batchSize = 50
/** After so many batches the task goes to the end of the queue, so that a process that stops need not wait for long. */
const batchesPerRun = 20
const clearedAtOnce = 1_000
/** Telegram keeps what was not answered for 24 hours, and may repeat it as long. */
const leastDaysKept = 2

/**
 * Stores an update and puts the task into the queue, both or neither.
 * @param body the update as JSON, with this number
 * @returns false if it is there already
 * @throws InvalidInputError if the database can hold no such JSON
 */
export async function storeTelegramUpdate(
  sql: Sql,
  source: string,
  updateId: number,
  body: string,
): Promise<boolean> {
  try {
    const [row] = await sql.query<{ isNew: boolean }>('select store_telegram_update($1, $2, $3) as "isNew"', [
      source,
      updateId,
      body,
    ])
    return row?.isNew ?? false
  } catch (error) {
    throw isAboutData(error)
      ? new InvalidInputError(`The update cannot be stored: ${errorMessage(error)}`)
      : error
  }
}

/**
 * Deletes updates that were worked on so many days ago, and at least two.
 * @returns how many
 */
export async function clearTelegramUpdates(sql: Sql, days: number): Promise<number> {
  let cleared = 0
  for (let deleted = clearedAtOnce; deleted === clearedAtOnce; cleared += deleted) {
    const rows = await sql.query(
      `delete from telegram_update where (source, update_id) in (
         select source, update_id from telegram_update where processed_at < now() - make_interval(days => $1)
         order by processed_at limit ${clearedAtOnce})
       returning 1`,
      [Math.max(days, leastDaysKept)],
    )
    deleted = rows.length
  }
  return cleared
}

/**
 * The task `telegram_updates`: brings the messages of a source's stored updates into the source of type `telegram` of
 * that name. Messages and what became of the updates are written together, so it may be stopped or repeated anywhere.
 */
export function telegramTask(database: Database, scoring: ScoreRules): Task {
  return async (payload) => {
    const { source } = payload as { source: string }
    for (let batch = 1; ; batch++) {
      const isDone = await database.transaction(async (transaction) => {
        // Until there is nothing left, also nothing that came in meanwhile: its own entry may have to wait for the poll.
        if ((await processBatch(transaction, scoring, source)) === 0) return true
        if (batch < batchesPerRun) return false
        await transaction.query('select queue_telegram_updates($1)', [source])
        return true
      })
      if (isDone) return
    }
  }
}

interface OwedUpdate {
  id: string
  message: ChatMessage | null
  outcome: 'STORED' | 'SUPERSEDED' | 'LEFT_OUT' | 'FAILED'
  error: string | null
}

interface UsableUpdate extends OwedUpdate {
  message: ChatMessage
}

/** @returns how many updates it has worked on; 0 if none are owed */
async function processBatch(transaction: Transaction, scoring: ScoreRules, source: string): Promise<number> {
  // The queue runs one task of a source at a time. One that others took for dead and that goes on must not mix with the
  // next: the older of two versions of a message might be stored last.
  await transaction.query(`select pg_advisory_xact_lock(hashtextextended('telegram ' || $1, 0))`, [source])
  const updates = await readOwed(transaction, source)
  const usable = updates.filter(isUsable)
  if (usable.length > 0) {
    const { id: sourceId } = await ensureSource(transaction, source, 'telegram')
    const places = await findPlaces(transaction, source, sourceId, usable)
    const latest = await withoutSuperseded(transaction, source, usable)
    await storeLatest(transaction, scoring, sourceId, latest, places)
  }
  await writeOutcomes(transaction, source, updates)
  return updates.length
}

async function readOwed(sql: Sql, source: string): Promise<OwedUpdate[]> {
  const rows = await sql.query<{ id: string; body: Update }>(
    `select update_id::text as id, body from telegram_update where source = $1 and processed_at is null
     order by update_id limit ${batchSize}`,
    [source],
  )
  return rows.map(({ id, body }) => {
    try {
      const message = readUpdate(body)
      return { id, message, outcome: message ? 'STORED' : 'LEFT_OUT', error: null }
    } catch (error) {
      return { id, message: null, outcome: 'FAILED', error: `not understood: ${errorMessage(error)}` }
    }
  })
}

/** Whether it brings a message that can be stored. One that breaks a rule is FAILED with that. */
function isUsable(update: OwedUpdate): update is UsableUpdate {
  const { message } = update
  if (!message) return false
  const violation = findViolation(draftOf(message, placeOf(message.chat, true)))
  if (violation) setFailed(update, `${violation.field} ${violation.problem}`)
  return !violation
}

/** Where the messages of each chat go, decided now for chats that are new in the source. */
async function findPlaces(
  transaction: Transaction,
  source: string,
  sourceId: string,
  updates: readonly UsableUpdate[],
): Promise<ReadonlyMap<number, ChatPlace>> {
  const chats = new Map(updates.map(({ message: { chat } }) => [chat.id, chat]))
  const known = await transaction.query<ChatPlace & { chatId: string }>(
    `select chat_id::text as "chatId", channel, id_prefix as "idPrefix" from telegram_chat
     where source = $1 and chat_id = any ($2::bigint[])`,
    [source, [...chats.keys()]],
  )
  const places = new Map<number, ChatPlace>(known.map((row) => [Number(row.chatId), row]))
  for (const chat of chats.values()) {
    if (places.has(chat.id)) continue
    const [found] = await transaction.query<{ isQualified: boolean }>(
      `select exists (select from telegram_chat where source = $1 and channel = $2 and id_prefix = '')
         or exists (select from message where source_id = $3 and channel = $2 and starts_with(external_id, $4))
         as "isQualified"`,
      [source, chat.name, sourceId, accountPrefix(chat.id)],
    )
    const place = placeOf(chat, found?.isQualified ?? false)
    await transaction.query(
      'insert into telegram_chat (source, chat_id, channel, id_prefix) values ($1, $2, $3, $4)',
      [source, chat.id, place.channel, place.idPrefix],
    )
    places.set(chat.id, place)
  }
  return places
}

/**
 * The last version of each message, unless a later one was stored before: updates come out of order when one had to be
 * repeated, and an original must not undo its edit. Of two versions of the same second the later update holds.
 */
async function withoutSuperseded(
  sql: Sql,
  source: string,
  updates: readonly UsableUpdate[],
): Promise<UsableUpdate[]> {
  const latest = await readLatest(sql, source, updates)
  for (const { id, message } of updates) {
    const version = { writtenAt: message.writtenAt, updateId: Number(id) }
    const other = latest.get(messageKey(message.chat.id, message.id))
    if (!other || isLater(version, other)) latest.set(messageKey(message.chat.id, message.id), version)
  }
  return updates.filter((update) => {
    const { chat, id } = update.message
    const isLatest = latest.get(messageKey(chat.id, id))?.updateId === Number(update.id)
    if (!isLatest) update.outcome = 'SUPERSEDED'
    return isLatest
  })
}

interface Version {
  writtenAt: Date
  updateId: number
}

const messageKey = (chatId: number | string, messageId: number | string) => `${chatId} ${messageId}`

function isLater(a: Version, b: Version): boolean {
  const apart = a.writtenAt.getTime() - b.writtenAt.getTime()
  return apart > 0 || (apart === 0 && a.updateId > b.updateId)
}

/** The version that is stored of each of these messages. */
async function readLatest(
  sql: Sql,
  source: string,
  updates: readonly UsableUpdate[],
): Promise<Map<string, Version>> {
  const rows = await sql.query<{ chatId: string; messageId: string; updateId: string; writtenAt: Date }>(
    `select distinct on (chat_id, message_id) chat_id::text as "chatId", message_id::text as "messageId",
       update_id::text as "updateId", written_at as "writtenAt"
     from telegram_update join unnest($2::bigint[], $3::bigint[]) as wanted(chat_id, message_id)
       using (chat_id, message_id)
     where source = $1 and outcome = 'STORED'
     order by chat_id, message_id, written_at desc, update_id desc`,
    [source, updates.map(({ message }) => message.chat.id), updates.map(({ message }) => message.id)],
  )
  return new Map(
    rows.map(({ chatId, messageId, updateId, writtenAt }) => [
      messageKey(chatId, messageId),
      { updateId: Number(updateId), writtenAt },
    ]),
  )
}

/** All at once; if the database refuses what one of them holds, one by one, so that it stands alone. */
async function storeLatest(
  transaction: Transaction,
  scoring: ScoreRules,
  sourceId: string,
  updates: readonly UsableUpdate[],
  places: ReadonlyMap<number, ChatPlace>,
): Promise<void> {
  const drafts = updates.flatMap(({ message }) => {
    const place = places.get(message.chat.id)
    return place ? draftOf(message, place) : []
  })
  const refusal = await refusalOf(transaction, scoring, sourceId, drafts)
  if (refusal === null) return
  for (const [index, draft] of drafts.entries()) {
    const reason = drafts.length === 1 ? refusal : await refusalOf(transaction, scoring, sourceId, [draft])
    const update = updates[index]
    if (update && reason !== null) setFailed(update, `refused by the database: ${reason}`)
  }
}

/** Stores messages. Null, or why the database refuses what they hold: then none is stored. */
async function refusalOf(
  transaction: Transaction,
  scoring: ScoreRules,
  sourceId: string,
  drafts: readonly MessageDraft[],
): Promise<string | null> {
  await transaction.query('savepoint telegram_messages')
  try {
    await storeMessages(transaction, scoring, sourceId, drafts)
    await transaction.query('release savepoint telegram_messages')
    return null
  } catch (error) {
    if (!isAboutData(error)) throw error
    await transaction.query('rollback to savepoint telegram_messages')
    return errorMessage(error)
  }
}

/**
 * Whether an error is the data's fault and so comes again with the same data; others pass (a lost connection, a
 * deadlock). SQLSTATE classes: 22 data exception, 23 constraint violation, 54 program limit exceeded.
 */
function isAboutData(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^(?:22|23|54)/.test(String(error.code))
}

function setFailed(update: OwedUpdate, error: string): void {
  update.outcome = 'FAILED'
  update.error = error
}

async function writeOutcomes(sql: Sql, source: string, updates: readonly OwedUpdate[]): Promise<void> {
  await sql.query(
    `update telegram_update u set processed_at = now(), outcome = d.outcome, error = d.error,
       chat_id = d.chat_id, message_id = d.message_id, written_at = d.written_at
     from unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[])
       as d(update_id, outcome, error, chat_id, message_id, written_at)
     where u.source = $1 and u.update_id = d.update_id`,
    [
      source,
      updates.map(({ id }) => id),
      updates.map(({ outcome }) => outcome),
      updates.map(({ error }) => error?.replaceAll('\0', '') ?? null),
      updates.map(({ message }) => message?.chat.id ?? null),
      updates.map(({ message }) => message?.id ?? null),
      updates.map(({ message }) => message?.writtenAt ?? null),
    ],
  )
}
