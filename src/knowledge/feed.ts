import type { Database, Sql } from '../db/database.ts'
import { createFeed, type Feed } from '../db/feed.ts'
import type { Logger } from '../log.ts'

/** Channel on which a trigger tells the ids of new atoms that nobody wrote by hand. */
const extractedChannel = 'quarry_atom_extracted'

/** Atoms as they are extracted; they can be chosen by their topics. */
export function createAtomFeed(database: Database, log: Logger): Feed {
  return createFeed({
    database,
    log,
    channel: extractedChannel,
    isState: false,
    readIds: (payload) => payload.split(' '),
    readSince: (seconds, limit) => atomsSince(database, seconds, limit),
    readGroups: (ids) => topicsOfAtoms(database, ids),
  })
}

/** By the database's clock: the time in an id is that of the process that made it, which may be an hour off. */
async function atomsSince(sql: Sql, seconds: number, limit: number): Promise<string[]> {
  const atoms = await sql.query<{ id: string }>(
    `select id from atom
     where extracted_by is not null and created_at >= clock_timestamp() - make_interval(secs => $1)
     order by created_at, id limit $2`,
    [seconds, limit],
  )
  return atoms.map(({ id }) => id)
}

async function topicsOfAtoms(sql: Sql, ids: readonly string[]): Promise<{ id: string; group: string }[]> {
  return sql.query(
    'select atom_id as id, topic_id as "group" from atom_topic where atom_id = any ($1::uuid[])',
    [ids],
  )
}
