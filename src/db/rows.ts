import type { Sql } from './database.ts'
import type { Atom, Message, Topic } from './generated/prisma/client.ts'

/*
 * Columns under the names of Prisma's models, so that rows of hand-written SQL are the same objects to the API as
 * those that Prisma reads.
 */

export const messageColumns = `id, source_id as "sourceId", channel, external_id as "externalId",
  thread_id as "threadId", reply_to_external_id as "replyToExternalId", author, content, sent_at as "sentAt",
  topic_id as "topicId", importance, noise, conversation_id as "conversationId", created_at as "createdAt",
  updated_at as "updatedAt"`

export const atomColumns = `id, type, title, content, confidence, review_state as "reviewState",
  archived_at as "archivedAt", created_at as "createdAt", updated_at as "updatedAt", extracted_by as "extractedBy",
  extraction_model as "extractionModel", job_id as "jobId", review_note as "reviewNote"`

export const topicColumns = `id, name, key, description, keywords, color, icon, archived_at as "archivedAt",
  created_at as "createdAt", updated_at as "updatedAt", extracted_by as "extractedBy", job_id as "jobId"`

/** SQL: the row of a kind as JSON under these names, for statements that find rows of several kinds at once. */
export function rowAsJson(kind: keyof typeof readers, id: string): string {
  const { table, columns } = jsonSources[kind]
  return `(select row_to_json(r) from (select ${columns} from ${table} where id = ${id}) as r)`
}

const jsonSources = {
  MESSAGE: { table: 'message', columns: messageColumns },
  ATOM: { table: 'atom', columns: atomColumns },
  TOPIC: { table: 'topic', columns: topicColumns },
}

const dateFields = ['sentAt', 'createdAt', 'updatedAt', 'archivedAt'] as const

export type SearchRow = Message | Atom | Topic

/** The row that `rowAsJson` gave: JSON has no dates. */
export function rowFromJson(json: Record<string, unknown>): SearchRow {
  for (const field of dateFields) {
    const value = json[field]
    if (typeof value === 'string') json[field] = new Date(value)
  }
  return json as unknown as SearchRow
}

const readers = {
  MESSAGE: (sql: Sql, ids: readonly string[]) =>
    sql.query<Message>(`select ${messageColumns} from message where id = any ($1::uuid[])`, [ids]),
  ATOM: (sql: Sql, ids: readonly string[]) =>
    sql.query<Atom>(`select ${atomColumns} from atom where id = any ($1::uuid[])`, [ids]),
  TOPIC: (sql: Sql, ids: readonly string[]) =>
    sql.query<Topic>(`select ${topicColumns} from topic where id = any ($1::uuid[])`, [ids]),
}

/** Rows of any kind by id: one statement a kind, in no order; what does not exist is left out. */
export async function readRows(
  sql: Sql,
  owners: readonly { kind: keyof typeof readers; id: string }[],
): Promise<Map<string, SearchRow>> {
  const kinds = Object.keys(readers) as (keyof typeof readers)[]
  const rows = await Promise.all(
    kinds.map((kind): Promise<SearchRow[]> => {
      const ids = owners.filter((owner) => owner.kind === kind).map((owner) => owner.id)
      return ids.length > 0 ? readers[kind](sql, ids) : Promise.resolve([])
    }),
  )
  return new Map(rows.flat().map((row) => [row.id, row]))
}
