import type { Database, Sql } from '../db/database.ts'
import { createFeed, type Feed } from '../db/feed.ts'
import type { Logger } from '../log.ts'

/** Channel on which a trigger tells the ids of new messages. */
const ingestedChannel = 'quarry_message_ingested'

/** New messages, however they came; they can be chosen by their source. */
export function createMessageFeed(database: Database, log: Logger): Feed {
  return createFeed({
    database,
    log,
    channel: ingestedChannel,
    isState: false,
    readIds: (payload) => payload.split(' '),
    readSince: (seconds, limit) => messagesSince(database, seconds, limit),
    readGroups: (ids) => sourcesOfMessages(database, ids),
  })
}

/** By the database's clock: the time in an id is that of the process that made it, which may be an hour off. */
async function messagesSince(sql: Sql, seconds: number, limit: number): Promise<string[]> {
  const messages = await sql.query<{ id: string }>(
    `select id from message where created_at >= clock_timestamp() - make_interval(secs => $1)
     order by created_at, sent_at, id limit $2`,
    [seconds, limit],
  )
  return messages.map(({ id }) => id)
}

async function sourcesOfMessages(sql: Sql, ids: readonly string[]): Promise<{ id: string; group: string }[]> {
  return sql.query('select id, source_id as "group" from message where id = any ($1::uuid[])', [ids])
}
