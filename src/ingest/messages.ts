import { v7 as uuidv7 } from 'uuid'
import type { ScoreRules } from '../config.ts'
import type { Sql, Transaction } from '../db/database.ts'
import type { Message, Source } from '../db/generated/prisma/client.ts'
import { messageColumns } from '../db/rows.ts'
import { NotFoundError } from '../errors.ts'
import { storeWords } from '../words/store.ts'
import { indexWords } from '../words/tokens.ts'
import type { MessageDraft } from './formats/format.ts'
import { type Score, scoreMessage, type TopicTerms, topicTerms } from './score.ts'

export interface IngestOutcome {
  created: number
  updated: number
  unchanged: number
}

/** The source of this name and type; made if it is new. */
export async function ensureSource(transaction: Transaction, name: string, type: string): Promise<Source> {
  await transaction.query(
    'insert into source (id, name, type) values ($1, $2, $3) on conflict (type, name) do nothing',
    [uuidv7(), name, type],
  )
  const [source] = await transaction.query<Source>(
    'select id, name, type, created_at as "createdAt" from source where type = $1 and name = $2',
    [type, name],
  )
  if (!source) throw new Error(`source ${type}/${name} is not there after it was made`)
  return source
}

/**
 * Stores messages of one source, whose identity is (source, channel, externalId): a new one is created, one that
 * differs is updated (and so owed an embedding, by trigger), the same again is left as it is. Of several with the same
 * identity the last one holds, as if they had come one by one. All are scored.
 * @param drafts must have passed `findViolation`
 */
export async function storeMessages(
  transaction: Transaction,
  rules: ScoreRules,
  sourceId: string,
  drafts: readonly MessageDraft[],
): Promise<IngestOutcome> {
  const latest = new Map<string, MessageDraft>()
  let repeatedSame = 0
  let repeatedNew = 0
  for (const draft of drafts) {
    const key = identityKey(draft)
    const earlier = latest.get(key)
    if (earlier && isSame(earlier, draft)) repeatedSame++
    else if (earlier) repeatedNew++
    latest.set(key, draft)
  }
  const rows = [...latest.values()]
  const context = { now: new Date(), terms: await readTopicTerms(transaction) }
  const scores = rows.map((row) => scoreMessage(row, rules, context))
  const indexed = rows.map((row) => indexWords(row.content))
  const [stored] = await transaction.query<{ created: number; updated: number }>(
    `with stored as (
       insert into message (id, source_id, channel, external_id, thread_id, reply_to_external_id, author, content, sent_at,
         importance, noise, words, word_count)
       select i.id, $1, i.channel, i.external_id, i.thread_id, i.reply_to, i.author, i.content, i.sent_at, i.importance, i.noise,
         i.words::tsvector, i.word_count
       from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[],
           $10::real[], $11::noise[], $12::text[], $13::int[])
         as i(id, channel, external_id, thread_id, reply_to, author, content, sent_at, importance, noise, words,
           word_count)
       -- Two that store the same messages at once would otherwise wait for each other.
       order by i.channel, i.external_id
       on conflict (source_id, channel, external_id) do update set
         thread_id = excluded.thread_id, reply_to_external_id = excluded.reply_to_external_id,
         author = excluded.author, content = excluded.content, sent_at = excluded.sent_at,
         importance = excluded.importance, noise = excluded.noise, words = excluded.words,
         word_count = excluded.word_count, updated_at = now()
       where (message.thread_id, message.reply_to_external_id, message.author, message.content, message.sent_at)
         is distinct from
         (excluded.thread_id, excluded.reply_to_external_id, excluded.author, excluded.content, excluded.sent_at)
       returning xmax = 0 as is_new
     )
     select count(*) filter (where is_new)::int as created, count(*) filter (where not is_new)::int as updated from stored`,
    [
      sourceId,
      rows.map(() => uuidv7()),
      rows.map((row) => row.channel ?? ''),
      rows.map((row) => row.externalId),
      rows.map((row) => row.threadId),
      rows.map((row) => row.replyToExternalId),
      rows.map((row) => row.author),
      rows.map((row) => row.content),
      rows.map((row) => row.sentAt),
      scores.map((score) => score.importance),
      scores.map((score) => score.noise),
      indexed.map(({ vector }) => vector),
      indexed.map(({ count }) => count),
    ],
  )
  const { created, updated } = stored ?? { created: 0, updated: 0 }
  return {
    created,
    updated: updated + repeatedNew,
    unchanged: rows.length - created - updated + repeatedSame,
  }
}

/** What a message is held against to see whether it belongs to a topic. */
async function readTopicTerms(sql: Sql): Promise<TopicTerms> {
  const topics = await sql.query<{ name: string; keywords: string[] }>(
    'select name, keywords from topic where archived_at is null',
  )
  return topicTerms(topics)
}

const identityKey = (draft: MessageDraft) => `${draft.channel ?? ''}\0${draft.externalId}`

function isSame(a: MessageDraft, b: MessageDraft): boolean {
  return (
    a.content === b.content &&
    a.author === b.author &&
    a.sentAt.getTime() === b.sentAt.getTime() &&
    a.threadId === b.threadId &&
    a.replyToExternalId === b.replyToExternalId
  )
}

/** The messages of a source with these identities, in the order asked for; what is missing is left out. */
export async function findByIdentity(
  sql: Sql,
  identities: readonly { sourceId: string; channel: string; externalId: string }[],
): Promise<Message[]> {
  return sql.query<Message>(
    `select ${messageColumns} from (
       select m.*, i.position from unnest($1::uuid[], $2::text[], $3::text[]) with ordinality
         as i(source_id, channel, external_id, position)
       join message m on m.source_id = i.source_id and m.channel = i.channel and m.external_id = i.external_id
     ) as found order by position`,
    [
      identities.map((identity) => identity.sourceId),
      identities.map((identity) => identity.channel),
      identities.map((identity) => identity.externalId),
    ],
  )
}

/**
 * Changes the given fields, null leaves one as it is, and scores the message again.
 * @throws NotFoundError
 */
export async function updateMessage(
  transaction: Transaction,
  rules: ScoreRules,
  id: string,
  change: { content: string | null; author: string | null },
): Promise<Message> {
  const [changed] = await transaction.query<{ author: string; content: string; sentAt: Date }>(
    `update message set content = coalesce($2, content), author = coalesce($3, author), updated_at = now()
     where id = $1 returning author, content, sent_at as "sentAt"`,
    [id, change.content, change.author],
  )
  if (!changed) throw new NotFoundError('There is no message with this id')
  await storeWords(transaction, 'MESSAGE', [id])
  const context = { now: new Date(), terms: await readTopicTerms(transaction) }
  return storeScore(transaction, id, scoreMessage(changed, rules, context))
}

async function storeScore(transaction: Transaction, id: string, score: Score): Promise<Message> {
  const [message] = await transaction.query<Message>(
    `update message set importance = $2, noise = $3 where id = $1 returning ${messageColumns}`,
    [id, score.importance, score.noise],
  )
  if (!message) throw new Error(`message ${id} is gone from under its own lock`)
  return message
}

/**
 * Deletes messages with everything that was derived from them alone.
 * @returns the ids that were there
 */
export async function deleteMessages(sql: Sql, ids: readonly string[]): Promise<string[]> {
  const rows = await sql.query<{ id: string }>(
    'delete from message where id = any ($1::uuid[]) returning id',
    [ids],
  )
  return rows.map((row) => row.id)
}
