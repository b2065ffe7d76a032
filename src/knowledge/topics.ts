import { v7 as uuidv7 } from 'uuid'
import type { Sql } from '../db/database.ts'
import type { Topic } from '../db/generated/prisma/client.ts'
import { topicColumns } from '../db/rows.ts'
import { ConflictError, NotFoundError } from '../errors.ts'

export interface TopicFields {
  name: string
  description: string
  keywords: string[]
  color: string
  icon: string
}

/** @throws ConflictError if the name is taken */
export async function createTopic(sql: Sql, fields: TopicFields): Promise<Topic> {
  const [topic] = await sql.query<Topic>(
    `insert into topic (id, name, description, keywords, color, icon) values ($1, $2, $3, $4, $5, $6)
     on conflict (name) do nothing returning ${topicColumns}`,
    [uuidv7(), fields.name, fields.description, fields.keywords, fields.color, fields.icon],
  )
  if (!topic) throw nameTaken(fields.name)
  return topic
}

/**
 * Changes the given fields; null leaves one as it is.
 * @throws NotFoundError
 * @throws ConflictError if the new name is taken
 */
export async function updateTopic(
  sql: Sql,
  id: string,
  change: { [Field in keyof TopicFields]: TopicFields[Field] | null },
): Promise<Topic> {
  try {
    const [topic] = await sql.query<Topic>(
      `update topic set name = coalesce($2, name), description = coalesce($3, description),
         keywords = coalesce($4, keywords), color = coalesce($5, color), icon = coalesce($6, icon), updated_at = now()
       where id = $1 returning ${topicColumns}`,
      [id, change.name, change.description, change.keywords, change.color, change.icon],
    )
    if (!topic) throw new NotFoundError('There is no topic with this id')
    return topic
  } catch (error) {
    if (change.name !== null && isUniqueViolation(error)) throw nameTaken(change.name)
    throw error
  }
}

const nameTaken = (name: string) =>
  new ConflictError(`There is a topic named ${JSON.stringify(name)} already; use that one or another name`)

/** SQLSTATE 23505, unique_violation. */
function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23505'
}
