import type { Database, Sql, Transaction } from '../db/database.ts'
import { advisoryLock } from '../db/locks.ts'
import { SetupError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { EmbeddingProvider } from '../providers/provider.ts'
import { buildMissingIndexes, usualBuildLimits } from './index-care.ts'
import type { BuildLimits } from './index-plan.ts'
import {
  type EmbeddingSpace,
  entityKinds,
  maxFullDimensions,
  nameOfSpace,
  partitionName,
  type VectorPrecision,
} from './space.ts'
import { requestPrecision } from './vector-index.ts'

export {
  type EmbeddingSpace,
  type EntityKind,
  entityKinds,
  indexedVector,
  leftJoinEmbedding,
  nameOfSpace,
  partitionName,
  spacesChannel,
  type VectorPrecision,
} from './space.ts'

const spaceLockLimitMs = 30_000
/** Without these, texts would not be embedded and counts would be wrong: a start refuses a database that lacks one. */
export const requiredTriggers: readonly string[] = entityKinds
  .flatMap((kind) =>
    ['insert', 'update', 'delete'].map((event) => `${kind.toLowerCase()}_embedding_${event}`),
  )
  .concat(['embedding_inserted', 'embedding_updated', 'embedding_deleted'])

export interface SpaceOptions {
  /** In what precision vectors are indexed; null: as they are, in a new space FULL where that is possible. */
  precision: VectorPrecision | null
  limits: BuildLimits
}

/**
 * The active space, made at the first start from what the provider is. Also mends and checks what search depends on:
 * the partition, the vector index of every kind, the triggers that make embeddings owed. Another precision than the one
 * that is used is asked for here, and index care brings it about.
 * @throws SetupError if the data was embedded by another model than the configured one, or a trigger is missing
 */
export async function ensureActiveSpace(
  database: Database,
  provider: EmbeddingProvider,
  log: Logger,
  { precision, limits }: SpaceOptions = { precision: null, limits: usualBuildLimits },
): Promise<EmbeddingSpace> {
  const existing = await findActiveSpace(database)
  const space = existing ?? (await createActiveSpace(database, provider, precision))
  // One that a provider of the API embeds has nothing to do with what the environment says.
  if (space.providerId === null) requireSameModel(space, provider)
  if (precision !== null && isPossibleFor(precision, space)) {
    await requestPrecision(database, space.id, precision === space.precision ? null : precision)
  }
  await requireTriggers(database)
  // Before the indexes: whether one is worth building now depends on what is owed.
  const owed = await oweMissingRows(database, space.id)
  if (owed > 0) log.warn({ owed }, 'Rows without an embedding record were found; they are queued now')
  await buildMissingIndexes(database, space, limits, log)
  return space
}

/**
 * A space that was made by the API takes what is possible for it: whoever configures a start does not choose its length.
 * @throws SetupError if it is the environment's and it is not possible
 */
function isPossibleFor(precision: VectorPrecision, { providerId, dimensions }: EmbeddingSpace): boolean {
  if (providerId === null) requirePossible(precision, dimensions)
  return precision === 'HALF' || dimensions <= maxFullDimensions
}

function requirePossible(precision: VectorPrecision, dimensions: number): void {
  if (precision === 'HALF' || dimensions <= maxFullDimensions) return
  throw new SetupError(
    `QUARRY_EMBEDDING_PRECISION is full, but the vectors have ${dimensions} dimensions and an index of full precision ` +
      `holds ${maxFullDimensions} at the most. Set it to half, or leave it out.`,
  )
}

const spaceColumns = `s.id, s.provider, s.provider_id as "providerId", s.model, s.dimensions, s.state, s.precision,
  s.meaning_share as "meaningShare", s.meaning_share_long as "meaningShareLong", s.duplicate`

/** All that is stored of a space. */
export interface SpaceRecord extends EmbeddingSpace {
  /** Whether the length of the vectors was chosen, and is asked for with each request. */
  hasChosenDimensions: boolean
  /** Whether what is owed is embedded: not before its job has asked for it, nor while that is cancelled. */
  isFilled: boolean
  createdAt: Date
  /** When searches last changed over to it; null: never. */
  activatedAt: Date | null
  retiredAt: Date | null
  /** When its vectors were dropped. */
  droppedAt: Date | null
  jobId: string | null
  /** Goes up with each change of its provider; null for the environment's. */
  providerVersion: number | null
  /** Goes up with each change of its address, models or key; null for the environment's. */
  connectionVersion: number | null
}

const recordColumns = `${spaceColumns}, s.has_chosen_dimensions as "hasChosenDimensions", s.is_filled as "isFilled",
  s.created_at as "createdAt", s.activated_at as "activatedAt", s.retired_at as "retiredAt",
  s.dropped_at as "droppedAt", s.job_id as "jobId", p.version as "providerVersion",
  p.connection_version as "connectionVersion"`

/** All spaces, also the retired, newest first. */
export async function readSpaces(sql: Sql): Promise<SpaceRecord[]> {
  return sql.query<SpaceRecord>(
    `select ${recordColumns} from embedding_space s left join provider p on p.id = s.provider_id order by s.id desc`,
  )
}

/** @returns null if there is none of that number */
export async function findSpace(sql: Sql, id: number): Promise<SpaceRecord | null> {
  const [space] = await sql.query<SpaceRecord>(
    `select ${recordColumns} from embedding_space s left join provider p on p.id = s.provider_id where s.id = $1`,
    [id],
  )
  return space ?? null
}

export async function findActiveSpace(sql: Sql): Promise<EmbeddingSpace | null> {
  const [space] = await sql.query<EmbeddingSpace>(
    `select ${spaceColumns} from embedding_space s where s.state = 'ACTIVE'`,
  )
  return space ?? null
}

async function createActiveSpace(
  database: Database,
  provider: EmbeddingProvider,
  precision: VectorPrecision | null,
): Promise<EmbeddingSpace> {
  const dimensions = await provider.dimensions()
  return database.transaction(async (transaction) => {
    // Processes that start together on a new database must agree on one space.
    await lockSpaces(transaction)
    const other = await findActiveSpace(transaction)
    if (other) return other
    const id = await newSpaceId(transaction)
    await createPartition(transaction, id)
    return insertSpace(transaction, {
      id,
      provider,
      providerId: null,
      dimensions,
      hasChosenDimensions: false,
      state: 'ACTIVE',
      precision,
    })
  })
}

/** What a new space is. */
export interface NewSpace {
  /** See newSpaceId; its partition must be there. */
  id: number
  /** Says type, model and calibration. */
  provider: Pick<EmbeddingProvider, 'type' | 'model' | 'calibration'>
  providerId: string | null
  dimensions: number
  hasChosenDimensions: boolean
  state: 'BUILDING' | 'ACTIVE'
  /** Null: FULL where that is possible. */
  precision: VectorPrecision | null
}

/** For the transaction, what withSpaceLock is for longer. */
export async function lockSpaces(transaction: Transaction): Promise<void> {
  await transaction.query('select pg_advisory_xact_lock($1)', [advisoryLock.spaces])
}

/** The number of a space that is to be made: its partition has to be there before it. */
export async function newSpaceId(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ id: number }>(
    `select nextval(pg_get_serial_sequence('embedding_space', 'id'))::int as id`,
  )
  if (!row) throw new Error('embedding_space gave no number')
  return row.id
}

/** @throws SetupError if the precision is not possible */
export async function insertSpace(transaction: Transaction, space: NewSpace): Promise<EmbeddingSpace> {
  const { provider, dimensions, precision } = space
  if (precision !== null) requirePossible(precision, dimensions)
  const [row] = await transaction.query<EmbeddingSpace>(
    `insert into embedding_space as s (id, provider, provider_id, model, dimensions, has_chosen_dimensions, state,
       precision, meaning_share, meaning_share_long, duplicate, activated_at, is_filled)
     overriding system value
     values ($1, $2, $3, $4, $5, $6, $7::space_state, $8, $9, $10, $11,
       case when $7::space_state = 'ACTIVE' then now() end, $7::space_state = 'ACTIVE')
     returning ${spaceColumns}`,
    [
      space.id,
      provider.type.toUpperCase(),
      space.providerId,
      provider.model,
      dimensions,
      space.hasChosenDimensions,
      space.state,
      precision ?? (dimensions <= maxFullDimensions ? 'FULL' : 'HALF'),
      provider.calibration.meaningShare,
      provider.calibration.meaningShareLong,
      provider.calibration.duplicate,
    ],
  )
  if (!row) throw new Error('insert into embedding_space returned no row')
  return row
}

/**
 * Makes the partition of a space that is not there yet. Attached instead of made as a part of the whole, which would
 * need `embedding` for itself: every write that comes would wait for every statement that is under way.
 */
export async function createPartition(transaction: Transaction, spaceId: number): Promise<void> {
  const partition = partitionName({ id: spaceId })
  await transaction.query(
    `create table ${partition} (like embedding including defaults including constraints including indexes)`,
  )
  // Out-of-line storage makes an exact scan fetch each vector separately: three times slower.
  await transaction.query(`alter table ${partition} alter column vector set storage plain`)
  await transaction.query(`alter table embedding attach partition ${partition} for values in (${spaceId})`)
}

async function requireTriggers(sql: Sql): Promise<void> {
  const rows = await sql.query<{ name: string }>(
    `select t.tgname as name from pg_trigger t join pg_class c on c.oid = t.tgrelid
     where c.relname in ('message', 'atom', 'topic', 'embedding') and c.relnamespace = current_schema()::regnamespace
       and not t.tgisinternal and t.tgenabled in ('O', 'A')`,
  )
  const missing = requiredTriggers.filter((name) => !rows.some((row) => row.name === name))
  if (missing.length > 0) {
    throw new SetupError(
      `The database lacks the triggers that make embeddings owed: ${missing.join(', ')} (dropped or disabled). ` +
        'Enable them (alter table ... enable trigger ...) or restore them from prisma/migrations; without them, new texts would never be found by meaning.',
    )
  }
}

/** Whether a provider embeds as a space was embedded, as far as it says so without being asked. */
export function isSameModel(
  space: EmbeddingSpace,
  provider: Pick<EmbeddingProvider, 'type' | 'model' | 'knownDimensions'>,
): boolean {
  const { type, model, knownDimensions } = provider
  // Unknown dimensions are not asked for: a provider that is down must not keep a search by words from working. The
  // pipeline refuses vectors of another length.
  const isSameLength = knownDimensions === null || knownDimensions === space.dimensions
  return space.provider === type.toUpperCase() && space.model === model && isSameLength
}

function requireSameModel(space: EmbeddingSpace, provider: EmbeddingProvider): void {
  const difference = modelDifference(space, provider)
  if (difference !== null) throw new SetupError(difference)
}

/** Why vectors of this provider do not fit into the space, and what to do; null if they do, as far as is known. */
export function modelDifference(
  space: EmbeddingSpace,
  provider: Pick<EmbeddingProvider, 'type' | 'model' | 'knownDimensions'>,
): string | null {
  if (isSameModel(space, provider)) return null
  const dimensions = provider.knownDimensions
  const configured = `${provider.type}/${provider.model}${dimensions ? ` with ${dimensions} dimensions` : ''}`
  return (
    `This database was embedded by ${nameOfSpace(space)}, but the configuration asks for ${configured}. ` +
    'Vectors of two models cannot be compared. ' +
    'Set QUARRY_EMBEDDING_PROVIDER and its model back, or use another database or QUARRY_DATA_DIR. To move what is ' +
    'embedded to another model while searches go on, start with the model of before, add the other as a provider ' +
    '(createProvider) and start a migration (startEmbeddingMigration); see docs/migration.md.'
  )
}

/** Holds the lock of all spaces while `work` lasts; whoever else makes or drops one waits. */
export async function withSpaceLock<Result>(
  database: Database,
  work: (session: Sql) => Promise<Result>,
): Promise<Result> {
  return database.session(spaceLockLimitMs, async (session) => {
    // The embedded engine lends its one session to one at a time.
    if (database.engine === 'postgres')
      await session.query('select pg_advisory_lock($1)', [advisoryLock.spaces])
    return work(session)
  })
}

/**
 * Rows for owners that have none in this space: data that was loaded while triggers were off. Triggers make this
 * empty; a start that finds any says so.
 * @returns how many were missing
 */
export async function oweMissingRows(sql: Sql, spaceId: number): Promise<number> {
  const rows = await sql.query<{ owed: number }>(
    `with owed as (
       insert into embedding (space_id, kind, owner_id, status, content_hash)
       select $1, o.kind, o.owner_id, (case when is_blank(o.text) then 'SKIPPED' else 'PENDING' end)::embedding_status, text_hash(o.text)
       from embeddable o
       where not exists (select from embedding e where e.space_id = $1 and e.kind = o.kind and e.owner_id = o.owner_id)
       on conflict do nothing returning 1)
     select count(*)::int as owed from owed`,
    [spaceId],
  )
  return rows[0]?.owed ?? 0
}
