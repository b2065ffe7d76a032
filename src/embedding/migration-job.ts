import { setTimeout as delay } from 'node:timers/promises'
import type { Database, Sql } from '../db/database.ts'
import { QuarryError } from '../errors.ts'
import type { JobHandler } from '../jobs/runner.ts'
import { requestBackfill } from './requests.ts'
import { type EntityKind, entityKinds, spacesChannel } from './space.ts'
import { findSpace } from './spaces.ts'

/** Rows that are made in one transaction: some milliseconds, in which nobody can change their texts. */
const batchSize = 2000
const lockedAgainMs = 100

/** SQL: the texts of each kind as they are embedded; see the view `embeddable`, whose rows cannot be locked. */
const textsOf: Record<EntityKind, string> = {
  MESSAGE: 'select id, content as text from message',
  ATOM: 'select id, atom_text(title, content) as text from atom',
  TOPIC: 'select id, topic_text(name, description, keywords) as text from topic',
}

/**
 * Fills a new space: makes a row for all that is there and waits until the last one is embedded. What comes meanwhile is
 * added by the triggers. Safe to repeat: a job that goes on after a crash, or is taken up again, finds what is left.
 */
export function migrationHandler(database: Database): JobHandler {
  return async ({ job, signal }) => {
    const { spaceId, isRetry } = job.params as unknown as { spaceId: number; isRetry?: boolean }
    await oweAll(database, spaceId, signal)
    const space = await findSpace(database, spaceId)
    if (!space || space.state === 'RETIRED')
      throw new QuarryError('The embedding space of this migration is retired: there is nothing left to fill')
    await database.transaction(async (transaction) => {
      await requestBackfill(transaction, job.id, spaceId, entityKinds, isRetry === true)
      // Not before: what was embedded until then the job would not count.
      await transaction.query(
        'update embedding_space set is_filled = true where id = $1 and retired_at is null',
        [spaceId],
      )
      await transaction.query(`select pg_notify('${spacesChannel}', '')`)
    })
    return 'waiting'
  }
}

/**
 * Makes an embedding row for everything that has none in a space, a batch at a time: no transaction is long, and none
 * waits for a row that somebody else is changing.
 */
export async function oweAll(database: Database, spaceId: number, signal: AbortSignal): Promise<void> {
  for (const kind of entityKinds) {
    while (await oweKind(database, spaceId, kind, signal)) {
      // Somebody is changing some of them: they are made when that has ended.
      await delay(lockedAgainMs, undefined, { signal })
    }
  }
}

/** @returns whether some were left out because somebody has them locked */
async function oweKind(
  database: Database,
  spaceId: number,
  kind: EntityKind,
  signal: AbortSignal,
): Promise<boolean> {
  let after: string | null = null
  let isLeft = false
  do {
    signal.throwIfAborted()
    const batch = await database.transaction((transaction) => oweBatch(transaction, spaceId, kind, after))
    after = batch.last
    isLeft ||= batch.isLeft
  } while (after !== null)
  return isLeft
}

/**
 * The next batch in the order of ids. The texts are locked while their rows are made: one that is changed at the same
 * moment would otherwise be entered with the hash of its old text, by a trigger that does not see the row yet.
 */
async function oweBatch(
  sql: Sql,
  spaceId: number,
  kind: EntityKind,
  after: string | null,
): Promise<{ last: string | null; isLeft: boolean }> {
  const [batch] = await sql.query<{ last: string | null; isLeft: boolean }>(
    `with page as materialized (
       select id, exists (select from embedding e where e.space_id = $1 and e.kind = '${kind}' and e.owner_id = id) as "isMade"
       from (${textsOf[kind]}) as o where $2::uuid is null or id > $2 order by id limit ${batchSize}
     ), locked as materialized (
       ${textsOf[kind]} where id in (select id from page where not "isMade") for share skip locked
     ), made as (
       insert into embedding (space_id, kind, owner_id, status, content_hash)
       select $1, '${kind}', id, (case when is_blank(text) then 'SKIPPED' else 'PENDING' end)::embedding_status, text_hash(text)
       from locked on conflict do nothing
     )
     select case when count(*) = ${batchSize} then (array_agg(id order by id desc))[1] end as last,
       count(*) filter (where not "isMade") > (select count(*) from locked) as "isLeft"
     from page`,
    [spaceId, after],
  )
  if (!batch) throw new Error('a batch of embedding rows gave no answer')
  return batch
}
