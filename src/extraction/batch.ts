import type { Sql } from '../db/database.ts'
import { type EmbeddingSpace, leftJoinEmbedding } from '../embedding/spaces.ts'
import { parseVector } from '../embedding/vectors.ts'
import type { ExtractionBatch, ExtractionMessage } from './extractor.ts'
import { findContext } from './near.ts'

/** Topics, and atoms, that an extractor is told of. */
export const contextSize = 20
/** Conversations of a batch whose themes are looked for. */
const maxContextQueries = 20

/**
 * Messages as an extractor reads them, with what is known about their themes. One that is not grouped yet is a
 * conversation by itself.
 * @param vectorType see readVectorType
 */
export async function readBatch(
  sql: Sql,
  space: EmbeddingSpace,
  messageIds: readonly string[],
  vectorType: number,
): Promise<ExtractionBatch> {
  const messages = await readMessages(sql, space, messageIds)
  const centres = conversationCentres(messages).slice(0, maxContextQueries)
  return { messages, ...(await findContext(sql, space, centres, vectorType, contextSize)) }
}

async function readMessages(
  sql: Sql,
  space: EmbeddingSpace,
  ids: readonly string[],
): Promise<ExtractionMessage[]> {
  const rows = await sql.query<Omit<ExtractionMessage, 'vector'> & { vector: Buffer | null }>(
    `select m.id, m.author, m.sent_at as "sentAt", m.channel, m.content, coalesce(m.conversation_id, m.id) as "conversationId",
       r.id as "replyToId", vector_send(e.vector) as vector
     from message m
     left join lateral (
       select id from message
       where source_id = m.source_id and channel = m.channel and external_id = m.reply_to_external_id limit 1
     ) as r on true
     ${leftJoinEmbedding(space, `'MESSAGE'`, 'm.id')}
     where m.id = any ($1::uuid[])
     order by min(m.sent_at) over (partition by m.conversation_id), m.conversation_id, m.sent_at, m.id`,
    [ids],
  )
  return rows.map((row) => ({ ...row, vector: row.vector && parseVector(row.vector) }))
}

/** For each conversation the sum of its messages' vectors: of the direction of their mean, which is all that a cosine sees. */
function conversationCentres(messages: readonly ExtractionMessage[]): Float32Array[] {
  const centres = new Map<string, Float32Array>()
  for (const { conversationId, vector } of messages) {
    if (!vector) continue
    const centre = centres.get(conversationId)
    if (!centre) centres.set(conversationId, Float32Array.from(vector))
    else for (const [index, value] of vector.entries()) centre[index] = (centre[index] ?? 0) + value
  }
  return [...centres.values()]
}
