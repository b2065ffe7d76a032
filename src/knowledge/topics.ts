import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'
import type { ProviderType, Topic } from '../db/generated/prisma/client.ts'
import { topicColumns } from '../db/rows.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'
import { storeWords } from '../words/store.ts'
import { topicKey } from './topic-key.ts'

export interface TopicFields {
  name: string
  description: string
  keywords: string[]
  color: string
  icon: string
}

/** As many as the API takes. */
const maxKeywords = 50

/** Who made something; null for a person. */
export interface Origin {
  extractedBy: ProviderType
  /** The model's name; `rules` for the local extractor. */
  model: string
  jobId: string
}

/** @throws ConflictError if the name, or one that differs only in case, accents or plural, is taken */
export async function createTopic(
  transaction: Transaction,
  fields: TopicFields,
  origin: Origin | null,
): Promise<Topic> {
  const key = topicKey(fields.name)
  const [topic] = await transaction.query<Topic>(
    `insert into topic (id, name, key, description, keywords, color, icon, extracted_by, job_id)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing returning ${topicColumns}`,
    [
      uuidv7(),
      fields.name,
      key,
      fields.description,
      fields.keywords,
      fields.color,
      fields.icon,
      origin?.extractedBy ?? null,
      origin?.jobId ?? null,
    ],
  )
  if (!topic) throw nameTaken(fields.name)
  await storeWords(transaction, 'TOPIC', [topic.id])
  // An earlier name of another topic is free to be used again.
  await transaction.query('delete from topic_alias where key = $1', [key])
  return topic
}

/**
 * Changes the given fields; null leaves one as it is. Under its old name the topic is still found.
 * @throws NotFoundError
 * @throws ConflictError if the new name is taken
 */
export async function updateTopic(
  transaction: Transaction,
  id: string,
  change: { [Field in keyof TopicFields]: TopicFields[Field] | null },
): Promise<Topic> {
  const [before] = await transaction.query<{ key: string }>(
    'select key from topic where id = $1 for update',
    [id],
  )
  if (!before) throw new NotFoundError('There is no topic with this id')
  const key = change.name === null ? before.key : topicKey(change.name)
  if (change.name !== null) await requireFreeName(transaction, id, change.name, key)
  if (key !== before.key) {
    await transaction.query('delete from topic_alias where key = $1', [key])
    await addAlias(transaction, before.key, id)
  }
  const [topic] = await transaction.query<Topic>(
    `update topic set name = coalesce($2, name), key = $3, description = coalesce($4, description),
       keywords = coalesce($5, keywords), color = coalesce($6, color), icon = coalesce($7, icon), updated_at = now()
     where id = $1 returning ${topicColumns}`,
    [id, change.name, key, change.description, change.keywords, change.color, change.icon],
  )
  if (!topic) throw new Error(`topic ${id} is gone from under its own lock`)
  await storeWords(transaction, 'TOPIC', [id])
  return topic
}

async function requireFreeName(sql: Sql, id: string, name: string, key: string): Promise<void> {
  const taken = await sql.query('select from topic where (name = $2 or key = $3) and id <> $1', [
    id,
    name,
    key,
  ])
  if (taken.length > 0) throw nameTaken(name)
}

const nameTaken = (name: string) =>
  new ConflictError(
    `There is a topic named like ${JSON.stringify(name)} already (case, accents and plural do not count); use that one or another name`,
  )

/** The topic of this name, be it an earlier one or that of a topic that was merged into it. */
export async function findTopicByName(sql: Sql, name: string): Promise<Topic | null> {
  const [topic] = await sql.query<Topic>(
    `select ${topicColumns} from topic where key = $1
     union all
     select ${topicColumns} from topic where id = (select topic_id from topic_alias where key = $1)
     limit 1`,
    [topicKey(name)],
  )
  return topic ?? null
}

async function addAlias(transaction: Transaction, key: string, topicId: string): Promise<void> {
  await transaction.query(
    'insert into topic_alias (key, topic_id) values ($1, $2) on conflict (key) do update set topic_id = excluded.topic_id',
    [key, topicId],
  )
}

/** Puts a topic aside, or takes it into use again. @throws NotFoundError */
export async function archiveTopic(sql: Sql, id: string, isArchived: boolean): Promise<Topic> {
  const [topic] = await sql.query<Topic>(
    `update topic set archived_at = case when $2 then coalesce(archived_at, now()) end, updated_at = now()
     where id = $1 returning ${topicColumns}`,
    [id, isArchived],
  )
  if (!topic) throw new NotFoundError('There is no topic with this id')
  return topic
}

/**
 * Merges topics into one: their messages and atoms move, and under their names the one that remains is found.
 * @throws NotFoundError if one of them does not exist
 * @throws InvalidInputError if a topic is to be merged into itself
 */
export async function mergeTopics(
  transaction: Transaction,
  intoId: string,
  fromIds: readonly string[],
): Promise<Topic> {
  if (fromIds.includes(intoId)) {
    throw new InvalidInputError('A topic cannot be merged into itself', ['ids'])
  }
  const locked = await transaction.query<Topic>(
    `select ${topicColumns} from topic where id = any ($1::uuid[]) order by id for update`,
    [[intoId, ...fromIds]],
  )
  const into = locked.find((topic) => topic.id === intoId)
  const missing = new Set([intoId, ...fromIds]).size - locked.length
  if (!into || missing > 0) throw new NotFoundError(`${missing} of the topics do not exist`)
  await transaction.query('update message set topic_id = $1 where topic_id = any ($2::uuid[])', [
    intoId,
    fromIds,
  ])
  await transaction.query(
    `insert into atom_topic (atom_id, topic_id) select distinct atom_id, $1::uuid from atom_topic
     where topic_id = any ($2::uuid[]) on conflict do nothing`,
    [intoId, fromIds],
  )
  await transaction.query('update topic_alias set topic_id = $1 where topic_id = any ($2::uuid[])', [
    intoId,
    fromIds,
  ])
  await transaction.query('delete from topic where id = any ($1::uuid[])', [fromIds])
  const merged = locked.filter((topic) => topic !== into)
  for (const topic of merged) await addAlias(transaction, topic.key, intoId)
  // Whoever looks for an old name finds the topic by it: keywords are embedded and searched.
  const keywords = [...new Set([...into.keywords, ...merged.map(({ name }) => name)])].slice(0, maxKeywords)
  return updateTopic(transaction, intoId, {
    name: null,
    description: null,
    keywords,
    color: null,
    icon: null,
  })
}
