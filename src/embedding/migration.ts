import type { Database, Sql, Transaction } from '../db/database.ts'
import { ConflictError, NotFoundError } from '../errors.ts'
import { cancelJob } from '../jobs/control.ts'
import { enqueueJob } from '../jobs/queue.ts'
import type { EmbeddingProvider } from '../providers/provider.ts'
import { readCoverage } from './coverage.ts'
import { type GateCondition, judgeGate, leastReady, type SpaceComparison } from './gate.ts'
import { nameOfSpace, partitionName, spacesChannel } from './space.ts'
import {
  createPartition,
  findActiveSpace,
  findSpace,
  insertSpace,
  lockSpaces,
  newSpaceId,
  readSpaces,
  type SpaceRecord,
  withSpaceLock,
} from './spaces.ts'
import { countArriving } from './stats.ts'
import { indexCareChannel, readCaredSpaces, readVectorIndexes } from './vector-index.ts'

/** Who is to embed everything, and how. */
export interface MigrationTarget {
  /** Null: the provider of the environment. */
  providerId: string | null
  /** Says type, model and calibration. */
  client: Pick<EmbeddingProvider, 'type' | 'model' | 'calibration'>
  dimensions: number
  /** Whether the length was chosen, and is asked for with each request. */
  hasChosenDimensions: boolean
}

/**
 * Makes a space beside the active one, which the triggers feed from then on, and queues the job that fills it.
 * @throws ConflictError while another is being built, if there is one of this kind already, or if the provider may not be
 *   used any more
 */
export async function startMigration(
  database: Database,
  target: MigrationTarget,
): Promise<{ spaceId: number; jobId: string }> {
  return withSpaceLock(database, async (session) => {
    await refuseSecond(database, target)
    await dropOrphans(database, session)
    const id = await newSpaceId(database)
    // Before the space itself: a writer that sees the space must find where its rows go.
    await database.transaction((transaction) => createPartition(transaction, id))
    const jobId = await database.transaction(async (transaction) => {
      await requireActiveProvider(transaction, target.providerId)
      await insertSpace(transaction, {
        id,
        provider: target.client,
        providerId: target.providerId,
        dimensions: target.dimensions,
        hasChosenDimensions: target.hasChosenDimensions,
        state: 'BUILDING',
        precision: null,
      })
      const job = await enqueueJob(transaction, 'MIGRATE_EMBEDDINGS', { spaceId: id })
      await transaction.query('update embedding_space set job_id = $2 where id = $1', [id, job])
      await notifySpaces(transaction)
      return job
    })
    return { spaceId: id, jobId }
  })
}

async function notifySpaces(sql: Sql): Promise<void> {
  await sql.query(`select pg_notify('${spacesChannel}', ''), pg_notify('${indexCareChannel}', '')`)
}

/** @throws ConflictError */
async function refuseSecond(sql: Sql, target: MigrationTarget): Promise<void> {
  const spaces = await readSpaces(sql)
  const building = spaces.find(({ state, activatedAt }) => state === 'BUILDING' && activatedAt === null)
  if (building) {
    throw new ConflictError(
      `${nameOfSpace(building)} is being built already: activate it, take up its job again, or retire it first`,
    )
  }
  const type = target.client.type.toUpperCase()
  const same = spaces.find(
    ({ state, provider, providerId, model, dimensions }) =>
      state !== 'RETIRED' &&
      provider === type &&
      providerId === target.providerId &&
      model === target.client.model &&
      dimensions === target.dimensions,
  )
  if (!same) return
  throw new ConflictError(
    same.state === 'ACTIVE'
      ? `Searches use ${nameOfSpace(same)} of this provider already: there is nothing to move`
      : `There is a space of ${nameOfSpace(same)} of this provider, which is in step: activate it, or retire it first`,
  )
}

/** @throws ConflictError; the row stays as it is until the end of the transaction */
async function requireActiveProvider(transaction: Transaction, id: string | null): Promise<void> {
  if (id === null) return
  const [row] = await transaction.query<{ isActive: boolean }>(
    'select is_active as "isActive" from provider where id = $1 for share',
    [id],
  )
  if (row?.isActive) return
  throw new ConflictError(
    row ? 'The provider is not active: set isActive to true, or take another' : 'The provider was deleted',
  )
}

/** What a start that was killed has left: partitions without a space. Under the lock, nobody is about to make theirs. */
async function dropOrphans(database: Database, session: Sql): Promise<void> {
  const rows = await session.query<{ name: string }>(
    `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'embedding'::regclass
       and not exists (select from embedding_space s where c.relname = 'embedding_' || s.id)`,
  )
  for (const { name } of rows) {
    if (database.engine === 'postgres')
      await session.query(`alter table embedding detach partition ${name} concurrently`)
    await session.query(`drop table ${name}`)
  }
}

/** What stands between a space and its activation, met or not. @throws NotFoundError */
export async function readGate(sql: Sql, spaceId: number): Promise<GateCondition[]> {
  const space = await requireSpace(sql, spaceId)
  const [coverage, arriving, indexes, comparison] = [
    (await readCoverage(sql, spaceId)).coverage,
    await countArriving(sql, spaceId),
    await readIndexes(sql, spaceId),
    await readCurrentComparison(sql, spaceId),
  ]
  return judgeGate({ coverage, arriving, indexes, comparison, wasActive: space.activatedAt !== null })
}

async function readIndexes(sql: Sql, spaceId: number) {
  const cared = (await readCaredSpaces(sql)).filter(({ id }) => id === spaceId)
  return (await readVectorIndexes(sql, cared)).map(({ kind, present }) => ({
    kind,
    isUsable: present?.isValid === true,
  }))
}

/** The last comparison of a space, whatever has happened since; null if there was none. */
export async function readComparison(sql: Sql, spaceId: number): Promise<SpaceComparison | null> {
  const [row] = await sql.query<{ comparison: SpaceComparison | null }>(
    'select comparison from embedding_space where id = $1',
    [spaceId],
  )
  return row?.comparison ?? null
}

/** The comparison with the space that is active now, made when it was READY; null if there is none. */
export async function readCurrentComparison(sql: Sql, spaceId: number): Promise<SpaceComparison | null> {
  const comparison = await readComparison(sql, spaceId)
  const active = await findActiveSpace(sql)
  return comparison && comparison.activeSpaceId === active?.id && comparison.ready >= leastReady
    ? comparison
    : null
}

export async function writeComparison(sql: Sql, spaceId: number, comparison: SpaceComparison): Promise<void> {
  await sql.query('update embedding_space set comparison = $2 where id = $1', [
    spaceId,
    JSON.stringify(comparison),
  ])
}

/** @throws NotFoundError */
export async function requireSpace(sql: Sql, id: number): Promise<SpaceRecord> {
  const space = await findSpace(sql, id)
  if (!space) throw new NotFoundError('There is no embedding space with this id')
  return space
}

/** @throws ConflictError unless searches can change over to it */
export function requireActivatable(space: SpaceRecord): void {
  if (space.state === 'ACTIVE') throw new ConflictError(`Searches use ${nameOfSpace(space)} already`)
  if (space.state === 'RETIRED') {
    throw new ConflictError(
      `${nameOfSpace(space)} is retired and no longer in step: start a migration to its model anew`,
    )
  }
}

/**
 * Searches change over to a space; the one before stays in step. Every process is told.
 * @param isForced whether the gate is left open whatever it says
 * @throws NotFoundError; ConflictError with each condition of the gate that is not met
 */
export async function activateSpace(
  transaction: Transaction,
  spaceId: number,
  isForced: boolean,
): Promise<void> {
  await lockSpaces(transaction)
  const space = await requireSpace(transaction, spaceId)
  requireActivatable(space)
  if (!isForced) {
    const unmet = (await readGate(transaction, spaceId)).filter(({ isMet }) => !isMet)
    if (unmet.length > 0) {
      const list = unmet.map(({ name, text }) => `${name}: ${text}.`).join(' ')
      throw new ConflictError(
        `Searches do not change over to ${nameOfSpace(space)} yet. ${list} With force they do all the same`,
      )
    }
  }
  // One after the other: at no moment two may be active.
  await transaction.query(`update embedding_space set state = 'BUILDING' where state = 'ACTIVE'`)
  await transaction.query(
    `update embedding_space set state = 'ACTIVE', activated_at = now(), is_filled = true where id = $1`,
    [spaceId],
  )
  await notifySpaces(transaction)
}

/**
 * A space is no longer filled or used, nor is what fills it; its vectors are dropped when no process uses them any more.
 * @throws NotFoundError; ConflictError for the active one, and for one that is retired already
 */
export async function retireSpace(transaction: Transaction, spaceId: number): Promise<void> {
  await lockSpaces(transaction)
  const space = await requireSpace(transaction, spaceId)
  if (space.state === 'ACTIVE')
    throw new ConflictError(`Searches use ${nameOfSpace(space)}: activate another space first`)
  if (space.state === 'RETIRED') throw new ConflictError(`${nameOfSpace(space)} is retired already`)
  for (const { id } of await transaction.query<{ id: string }>(
    `select id from job where state in ('QUEUED', 'RUNNING')
       and (id = $2 or id in (select job_id from embedding_request where space_id = $1)) order by id`,
    [spaceId, space.jobId],
  )) {
    await cancelJob(transaction, id)
  }
  await transaction.query(
    `update embedding_space set state = 'RETIRED', retired_at = now(), is_filled = false, provider_error = null,
       provider_waiting_until = null where id = $1`,
    [spaceId],
  )
  await notifySpaces(transaction)
}

/** Texts of a space that are embedded, and a sample of them. */
export interface TextsToEmbed {
  /** Messages, atoms and topics that have something to embed. */
  rows: number
  /** Different texts among them: equal ones are embedded once. */
  texts: number
  sample: string[]
}

/** What is to be embedded anew, as the active space has it. @param limit of the sample */
export async function readTextsToEmbed(sql: Sql, limit: number): Promise<TextsToEmbed> {
  const active = await findActiveSpace(sql)
  if (!active) return { rows: 0, texts: 0, sample: [] }
  const [counted] = await sql.query<{ rows: number; texts: number }>(
    `select count(*)::float8 as rows, count(distinct content_hash)::float8 as texts from ${partitionName(active)}
     where status <> 'SKIPPED'`,
  )
  const { rows = 0, texts = 0 } = counted ?? {}
  // By page, so that a large table is not read whole; several times as many as needed, because pages differ.
  const percent = Math.min(100, (100 * 5 * limit) / Math.max(1, rows))
  const sample = await sql.query<{ text: string }>(
    `select o.text from (
       select kind, owner_id from ${partitionName(active)} tablesample system (${percent})
       where status <> 'SKIPPED' order by md5(owner_id::text) limit $1
     ) as e join embeddable o using (kind, owner_id)`,
    [limit],
  )
  return { rows, texts, sample: sample.map(({ text }) => text) }
}
