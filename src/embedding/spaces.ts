import type { Database, Sql, Transaction } from '../db/database.ts'
import { SetupError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { Calibration, EmbeddingProvider, ProviderType } from '../providers/provider.ts'

export const entityKinds = ['MESSAGE', 'ATOM', 'TOPIC'] as const
export type EntityKind = (typeof entityKinds)[number]

/** One model at one dimension: vectors are comparable only inside one space. */
export interface EmbeddingSpace extends Calibration {
  id: number
  provider: Uppercase<ProviderType>
  model: string
  dimensions: number
  state: 'BUILDING' | 'ACTIVE' | 'RETIRED'
}

/** pgvector's own limit for an index over `vector`; above, half precision is indexed (up to 4000). */
const maxIndexedVectorDimensions = 2000
const spaceLock = 72707370
const indexLimitMs = 6 * 60 * 60_000
const requiredTriggers = entityKinds
  .flatMap((kind) =>
    ['insert', 'update', 'delete'].map((event) => `${kind.toLowerCase()}_embedding_${event}`),
  )
  .concat(['embedding_inserted', 'embedding_updated', 'embedding_deleted'])

/**
 * The active space, made at the first start from what the provider is. Also mends and checks what search depends on:
 * the partition, the vector index of every kind, the triggers that make embeddings owed.
 * @throws SetupError if the data was embedded by another model than the configured one, or a trigger is missing
 */
export async function ensureActiveSpace(
  database: Database,
  provider: EmbeddingProvider,
  log: Logger,
): Promise<EmbeddingSpace> {
  const existing = await findActiveSpace(database)
  const space = existing ?? (await createActiveSpace(database, provider))
  requireSameModel(space, provider)
  await requireTriggers(database)
  await ensureVectorIndexes(database, space, log)
  const owed = await oweMissingRows(database, space.id)
  if (owed > 0) log.warn({ owed }, 'Rows without an embedding record were found; they are queued now')
  return space
}

const spaceColumns = `id, provider, model, dimensions, state, meaning_share::float8 as "meaningShare", duplicate::float8 as duplicate`

export async function findActiveSpace(sql: Sql): Promise<EmbeddingSpace | null> {
  const [space] = await sql.query<EmbeddingSpace>(
    `select ${spaceColumns} from embedding_space where state = 'ACTIVE'`,
  )
  return space ?? null
}

async function createActiveSpace(database: Database, provider: EmbeddingProvider): Promise<EmbeddingSpace> {
  const dimensions = await provider.dimensions()
  return database.transaction(async (transaction) => {
    // Processes that start together on a new database must agree on one space.
    await transaction.query('select pg_advisory_xact_lock($1)', [spaceLock])
    const other = await findActiveSpace(transaction)
    if (other) return other
    const [space] = await transaction.query<EmbeddingSpace>(
      `insert into embedding_space (provider, model, dimensions, state, meaning_share, duplicate)
       values ($1, $2, $3, 'ACTIVE', $4, $5) returning ${spaceColumns}`,
      [
        provider.type.toUpperCase(),
        provider.model,
        dimensions,
        provider.calibration.meaningShare,
        provider.calibration.duplicate,
      ],
    )
    if (!space) throw new Error('insert into embedding_space returned no row')
    await createPartition(transaction, space)
    return space
  })
}

/** Names of partitions and indexes follow the space's number, so that a reader of `\d` can tell them apart. */
export const partitionName = (space: EmbeddingSpace) => `embedding_${space.id}`
const vectorIndexName = (space: EmbeddingSpace, kind: EntityKind) =>
  `${partitionName(space)}_${kind.toLowerCase()}_vector`

async function createPartition(transaction: Transaction, space: EmbeddingSpace): Promise<void> {
  const partition = partitionName(space)
  await transaction.query(`create table ${partition} partition of embedding for values in (${space.id})`)
  // Out-of-line storage makes an exact scan fetch each vector separately: three times slower.
  await transaction.query(`alter table ${partition} alter column vector set storage plain`)
}

/** The expression that is indexed; a search must use the same one, or the planner leaves the index. */
export function indexedVector(
  space: EmbeddingSpace,
  column: string,
): { expression: string; type: string; opclass: string } {
  const type = space.dimensions <= maxIndexedVectorDimensions ? 'vector' : 'halfvec'
  return {
    expression: `(${column}::${type}(${space.dimensions}))`,
    type: `${type}(${space.dimensions})`,
    opclass: `${type}_cosine_ops`,
  }
}

/** Builds the vector index of each kind that is missing or was left invalid by an interrupted build. */
async function ensureVectorIndexes(database: Database, space: EmbeddingSpace, log: Logger): Promise<void> {
  const present = await database.query<{ name: string; isValid: boolean }>(
    `select c.relname as name, i.indisvalid as "isValid" from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = $1::regclass`,
    [partitionName(space)],
  )
  for (const kind of entityKinds) {
    const name = vectorIndexName(space, kind)
    const index = present.find((candidate) => candidate.name === name)
    if (index?.isValid) continue
    const { expression, opclass } = indexedVector(space, 'vector')
    const started = Date.now()
    await database.transaction(async (transaction) => {
      await transaction.query('select pg_advisory_xact_lock($1)', [spaceLock])
      await transaction.query(`set local statement_timeout = ${indexLimitMs}`)
      if (index) await transaction.query(`drop index if exists ${name}`)
      await transaction.query(
        `create index if not exists ${name} on ${partitionName(space)}
           using hnsw (${expression} ${opclass}) where kind = '${kind}' and vector is not null`,
      )
    })
    log.info({ index: name, ms: Date.now() - started }, 'Built a vector index')
  }
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
