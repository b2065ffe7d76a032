import type { Database, Sql, Transaction } from '../db/database.ts'
import { SetupError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { EmbeddingProvider } from '../providers/provider.ts'
import { buildMissingIndexes, usualBuildLimits } from './index-care.ts'
import type { BuildLimits } from './index-plan.ts'
import {
  type EmbeddingSpace,
  entityKinds,
  maxFullDimensions,
  partitionName,
  type VectorPrecision,
} from './space.ts'
import { requestPrecision } from './vector-index.ts'

export {
  type EmbeddingSpace,
  type EntityKind,
  entityKinds,
  indexedVector,
  partitionName,
  type VectorPrecision,
} from './space.ts'

const spaceLock = 72707370
const requiredTriggers = entityKinds
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
  requireSameModel(space, provider)
  if (precision !== null) {
    requirePossible(precision, space.dimensions)
    await requestPrecision(database, space.id, precision === space.precision ? null : precision)
  }
  await requireTriggers(database)
  // Before the indexes: whether one is worth building now depends on what is owed.
  const owed = await oweMissingRows(database, space.id)
  if (owed > 0) log.warn({ owed }, 'Rows without an embedding record were found; they are queued now')
  await buildMissingIndexes(database, space, limits, log)
  return space
}

function requirePossible(precision: VectorPrecision, dimensions: number): void {
  if (precision === 'HALF' || dimensions <= maxFullDimensions) return
  throw new SetupError(
    `QUARRY_EMBEDDING_PRECISION is full, but the vectors have ${dimensions} dimensions and an index of full precision ` +
      `holds ${maxFullDimensions} at the most. Set it to half, or leave it out.`,
  )
}

const spaceColumns = `id, provider, model, dimensions, state, precision, meaning_share as "meaningShare",
  meaning_share_long as "meaningShareLong", duplicate`

export async function findActiveSpace(sql: Sql): Promise<EmbeddingSpace | null> {
  const [space] = await sql.query<EmbeddingSpace>(
    `select ${spaceColumns} from embedding_space where state = 'ACTIVE'`,
  )
  return space ?? null
}

async function createActiveSpace(
  database: Database,
  provider: EmbeddingProvider,
  precision: VectorPrecision | null,
): Promise<EmbeddingSpace> {
  const dimensions = await provider.dimensions()
  if (precision !== null) requirePossible(precision, dimensions)
  return database.transaction(async (transaction) => {
    // Processes that start together on a new database must agree on one space.
    await transaction.query('select pg_advisory_xact_lock($1)', [spaceLock])
    const other = await findActiveSpace(transaction)
    if (other) return other
    const [space] = await transaction.query<EmbeddingSpace>(
      `insert into embedding_space (provider, model, dimensions, state, precision, meaning_share, meaning_share_long, duplicate)
       values ($1, $2, $3, 'ACTIVE', $4, $5, $6, $7) returning ${spaceColumns}`,
      [
        provider.type.toUpperCase(),
        provider.model,
        dimensions,
        precision ?? (dimensions <= maxFullDimensions ? 'FULL' : 'HALF'),
        provider.calibration.meaningShare,
        provider.calibration.meaningShareLong,
        provider.calibration.duplicate,
      ],
    )
    if (!space) throw new Error('insert into embedding_space returned no row')
    await createPartition(transaction, space)
    return space
  })
}

async function createPartition(transaction: Transaction, space: EmbeddingSpace): Promise<void> {
  const partition = partitionName(space)
  await transaction.query(`create table ${partition} partition of embedding for values in (${space.id})`)
  // Out-of-line storage makes an exact scan fetch each vector separately: three times slower.
  await transaction.query(`alter table ${partition} alter column vector set storage plain`)
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

function requireSameModel(space: EmbeddingSpace, provider: EmbeddingProvider): void {
  const isSameModel = space.provider === provider.type.toUpperCase() && space.model === provider.model
  const dimensions = provider.knownDimensions
  // Unknown dimensions are not asked for: a provider that is down must not keep a search by words from working. The
  // pipeline refuses vectors of another length.
  if (isSameModel && (dimensions === null || dimensions === space.dimensions)) return
  const configured = `${provider.type}/${provider.model}${dimensions ? ` with ${dimensions} dimensions` : ''}`
  throw new SetupError(
    `This database was embedded by ${space.provider.toLowerCase()}/${space.model} with ${space.dimensions} dimensions, ` +
      `but the configuration asks for ${configured}. Vectors of two models cannot be compared. ` +
      'Set QUARRY_EMBEDDING_PROVIDER and its model back, or use another database or QUARRY_DATA_DIR.',
  )
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
