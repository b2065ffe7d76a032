import type { Sql, Transaction } from '../db/database.ts'
import { advisoryLock } from '../db/locks.ts'
import type { HnswParameters } from './index-plan.ts'
import {
  type EmbeddingSpace,
  type EntityKind,
  entityKinds,
  indexedVector,
  partitionName,
  type VectorPrecision,
} from './space.ts'

/** Channel on which is said that somebody has asked for something. */
export const indexCareChannel = 'quarry_index_care'

/** An embedding space with what it is to become. */
export interface CaredSpace extends EmbeddingSpace {
  /** Precision that is being indexed beside the one that searches use; null if none is. */
  nextPrecision: VectorPrecision | null
}

/** An index as it stands in the catalogue. */
export interface StoredIndex extends HnswParameters {
  precision: VectorPrecision
  bytes: number
  /** Whether it can be used: not while it is being built, nor when its build was broken off. */
  isValid: boolean
}

/** What is known of the vector index of a kind in a space. */
export interface VectorIndex {
  space: CaredSpace
  kind: EntityKind
  /** The one that searches use; the two others are there for a while only. */
  name: string
  present: StoredIndex | null
  /** Built, or being built, to take its place. */
  next: StoredIndex | null
  /** Replaced, and not dropped yet. */
  isOldThere: boolean
  /** Vectors. */
  rows: number
  /** Texts whose vector is owed. */
  owed: number
  /** Share of the build under way that is done, 0..1; null if none is. */
  progress: number | null
  /** Rows of the partition, of all kinds together: deleted and not cleared away. An estimate of Postgres. */
  deadRows: number
  rebuildRequestedAt: Date | null
  measureRequestedAt: Date | null
  builtAt: Date | null
  /** By the clock of the database, as all moments here. */
  secondsSinceBuilt: number | null
  buildSeconds: number | null
  buildReason: string | null
  recall: number | null
  recallQueries: number
  recallSource: RecallSource | null
  measuredAt: Date | null
  secondsSinceMeasured: number | null
  measuredRows: number | null
  lastError: string | null
}

/** What recall was measured with: vectors of searches, or of rows where there were too few. */
export type RecallSource = 'SEARCHES' | 'STORED'

export const indexName = (space: Pick<EmbeddingSpace, 'id'>, kind: EntityKind) =>
  `${partitionName(space)}_${kind.toLowerCase()}_vector`
const nextName = (name: string) => `${name}_next`
const oldName = (name: string) => `${name}_old`

/** What pgvector takes where an index does not say. */
const usualParameters: HnswParameters = { m: 16, efConstruction: 64 }

/** The spaces that are filled or used. */
export async function readCaredSpaces(sql: Sql): Promise<CaredSpace[]> {
  return sql.query<CaredSpace>(
    `select id, provider, provider_id as "providerId", model, dimensions, state, precision,
       meaning_share as "meaningShare", meaning_share_long as "meaningShareLong", duplicate,
       next_precision as "nextPrecision"
     from embedding_space where state in ('BUILDING', 'ACTIVE') order by id desc`,
  )
}

/** SQL: an index of the partition by its name, as columns that begin with `prefix`. */
const storedIndex = (prefix: string, name: string) => `left join lateral (
  select c.oid, jsonb_build_object('isValid', i.indisvalid, 'options', c.reloptions, 'opclass', o.opcname,
    'bytes', pg_relation_size(c.oid)) as stored
  from pg_class c join pg_index i on i.indexrelid = c.oid join pg_opclass o on o.oid = i.indclass[0]
  where i.indrelid = to_regclass(p.partition) and c.relname = ${name}) as ${prefix} on true`

interface CatalogueEntry {
  isValid: boolean
  options: string[] | null
  opclass: string
  bytes: number
}

/** All vector indexes of these spaces, whether they are there or not: MESSAGE, ATOM, TOPIC of each. */
export async function readVectorIndexes(sql: Sql, spaces: readonly CaredSpace[]): Promise<VectorIndex[]> {
  const places = spaces.flatMap((space) =>
    entityKinds.map((kind) => ({ space, kind, name: indexName(space, kind) })),
  )
  const rows = await sql.query<
    Omit<VectorIndex, 'space' | 'present' | 'next'> & {
      spaceId: number
      present: CatalogueEntry | null
      next: CatalogueEntry | null
    }
  >(
    `with place as (
       select * from unnest($1::int[], $2::entity_kind[], $3::text[], $4::text[]) with ordinality
         as p(space_id, kind, name, partition, place)
     ), counted as (
       select space_id, kind, coalesce(sum(n) filter (where status in ('READY', 'STALE')), 0)::float8 as rows,
         coalesce(sum(n) filter (where status in ('PENDING', 'STALE')), 0)::float8 as owed,
         coalesce(sum(n) filter (where status <> 'PENDING'), 0)::float8 as ended
       from embedding_count group by 1, 2
     ), coming as (
       -- Of a space that is being made: as many as are in the active one, though their rows may not be made yet.
       select s.id as space_id, a.kind, a.rows as n from embedding_space s
       join embedding_space active on active.state = 'ACTIVE' join counted a on a.space_id = active.id
       where s.state = 'BUILDING' and s.activated_at is null
     )
     select p.space_id as "spaceId", p.kind, p.name, present.stored as present, next.stored as next,
       to_regclass(p.name || '_old') is not null as "isOldThere",
       coalesce(n.rows, 0) as rows, greatest(coalesce(n.owed, 0), coalesce(coming.n - n.ended, coming.n, 0)) as owed,
       coalesce(s.n_dead_tup, 0)::float8 as "deadRows",
       (select coalesce(b.blocks_done::float8 / nullif(b.blocks_total, 0), 0) from pg_stat_progress_create_index b
        where b.index_relid in (present.oid, next.oid) limit 1) as progress,
       v.rebuild_requested_at as "rebuildRequestedAt", v.measure_requested_at as "measureRequestedAt",
       v.built_at as "builtAt", extract(epoch from now() - v.built_at)::float8 as "secondsSinceBuilt",
       extract(epoch from now() - v.measured_at)::float8 as "secondsSinceMeasured", v.build_seconds::float8 as "buildSeconds", v.build_reason as "buildReason",
       v.recall::float8 as recall, coalesce(v.recall_queries, 0) as "recallQueries", v.recall_source as "recallSource",
       v.measured_at as "measuredAt", v.measured_rows as "measuredRows", v.last_error as "lastError"
     from place p
     ${storedIndex('present', 'p.name')}
     ${storedIndex('next', `p.name || '_next'`)}
     left join counted n using (space_id, kind)
     left join coming using (space_id, kind)
     left join pg_stat_user_tables s on s.relid = to_regclass(p.partition)
     left join vector_index v using (space_id, kind)
     order by p.place`,
    [
      places.map(({ space }) => space.id),
      places.map(({ kind }) => kind),
      places.map(({ name }) => name),
      places.map(({ space }) => partitionName(space)),
    ],
  )
  return rows.flatMap(({ spaceId, present, next, ...row }) => {
    const space = spaces.find(({ id }) => id === spaceId)
    return space
      ? [{ ...row, space, present: present && toStored(present), next: next && toStored(next) }]
      : []
  })
}

function toStored({ isValid, options, opclass, bytes }: CatalogueEntry): StoredIndex {
  const option = (name: string) => {
    const value = options?.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1)
    return value === undefined ? null : Number(value)
  }
  return {
    m: option('m') ?? usualParameters.m,
    efConstruction: option('ef_construction') ?? usualParameters.efConstruction,
    precision: opclass.startsWith('halfvec') ? 'HALF' : 'FULL',
    bytes,
    isValid,
  }
}

/** Takes the lock of a space for the session, unless another process has it: one at a time builds. */
export async function tryCareLock(session: Sql, space: Pick<EmbeddingSpace, 'id'>): Promise<boolean> {
  const [lock] = await session.query<{ isMine: boolean }>(
    `select pg_try_advisory_lock(${advisoryLock.indexCare}, $1) as "isMine"`,
    [space.id],
  )
  return lock?.isMine ?? false
}

/** What a session is given for a build. `local`: until the end of its transaction. */
export async function setBuildResources(
  session: Sql,
  { memoryBytes, workers }: { memoryBytes: number; workers: number },
  scope: 'session' | 'local',
): Promise<void> {
  const set = async (name: string, value: string) => {
    await session.query(`set ${scope} ${name} = '${value}'`)
  }
  await set('maintenance_work_mem', `${Math.ceil(memoryBytes / 1024)}kB`)
  if (scope === 'local') return
  await set('max_parallel_maintenance_workers', String(workers))
  // How many of them Postgres takes follows from the table's size, by steps of three times this. As a setting of the
  // session, where `alter table ... set (parallel_workers)` would outlive a build that is killed, and change scans, too.
  await set('min_parallel_table_scan_size', workers > 0 ? '64kB' : '8MB')
  // A build whose process was killed ends soon, too, and with it the lock.
  await set('client_connection_check_interval', '5s')
}

/** Builds the index that is to take the place of the present one; nothing uses it yet by name. */
export async function createNextIndex(
  session: Sql,
  space: EmbeddingSpace,
  kind: EntityKind,
  { m, efConstruction }: HnswParameters,
  isConcurrent: boolean,
): Promise<void> {
  const { expression, opclass } = indexedVector(space, 'vector')
  await session.query(
    `create index ${isConcurrent ? 'concurrently ' : ''}${nextName(indexName(space, kind))} on ${partitionName(space)}
       using hnsw (${expression} ${opclass}) with (m = ${m}, ef_construction = ${efConstruction})
       where kind = '${kind}' and vector is not null`,
  )
}

/** Drops what a build that was broken off, or is no longer wanted, has left. */
export async function dropNextIndex(session: Sql, name: string, isConcurrent: boolean): Promise<void> {
  await session.query(`drop index ${isConcurrent ? 'concurrently ' : ''}if exists ${nextName(name)}`)
}

/** Drops an index that was replaced. Concurrently: a plain drop would hold up every search that comes after it. */
export async function dropOldIndex(session: Sql, name: string, isConcurrent: boolean): Promise<void> {
  await session.query(`drop index ${isConcurrent ? 'concurrently ' : ''}if exists ${oldName(name)}`)
}

/**
 * Puts the index that was built in the place of the present one, which is kept under another name: searches that are
 * under way go on with it, and a rename waits for none of them.
 */
export async function swapIndex(
  transaction: Transaction | Sql,
  name: string,
  hasPresent: boolean,
): Promise<void> {
  if (hasPresent) await transaction.query(`alter index ${name} rename to ${oldName(name)}`)
  await transaction.query(`alter index ${nextName(name)} rename to ${name}`)
}

/** Searches use the next precision from here on. */
export async function changePrecision(transaction: Sql, spaceId: number): Promise<void> {
  await transaction.query(
    'update embedding_space set precision = next_precision, next_precision = null where id = $1 and next_precision is not null',
    [spaceId],
  )
}

/** Asks for another precision of a space; its indexes are built beside those that are used. Null: none is asked for. */
export async function requestPrecision(
  sql: Sql,
  spaceId: number,
  precision: VectorPrecision | null,
): Promise<void> {
  await sql.query(
    'update embedding_space set next_precision = $2 where id = $1 and next_precision is distinct from $2',
    [spaceId, precision],
  )
}

/**
 * That an index was built, and with that what was asked for before.
 * @param begunSecondsAgo what was asked for since is still to be done
 */
export async function recordBuild(
  sql: Sql,
  { space, kind }: Pick<VectorIndex, 'space' | 'kind'>,
  seconds: number | null,
  reason: string,
  begunSecondsAgo = seconds ?? 0,
): Promise<void> {
  await sql.query(
    `insert into vector_index (space_id, kind, built_at, build_seconds, build_reason) values ($1, $2, now(), $3, $4)
     on conflict (space_id, kind) do update set built_at = excluded.built_at, build_seconds = excluded.build_seconds,
       build_reason = excluded.build_reason, last_error = null,
       rebuild_requested_at = case when vector_index.rebuild_requested_at > now() - make_interval(secs => $5)
         then vector_index.rebuild_requested_at end`,
    [space.id, kind, seconds, reason, begunSecondsAgo],
  )
}

export async function recordFailure(
  sql: Sql,
  { space, kind }: Pick<VectorIndex, 'space' | 'kind'>,
  error: string,
): Promise<void> {
  await sql.query(
    `insert into vector_index (space_id, kind, last_error) values ($1, $2, $3)
     on conflict (space_id, kind) do update set last_error = excluded.last_error`,
    [space.id, kind, error],
  )
}

/** Takes back what had gone wrong, if it was this. */
export async function clearFailure(
  sql: Sql,
  { space, kind }: Pick<VectorIndex, 'space' | 'kind'>,
  error: string,
): Promise<void> {
  await sql.query(
    'update vector_index set last_error = null where space_id = $1 and kind = $2 and last_error = $3',
    [space.id, kind, error],
  )
}

/** @param measured null where there was nothing to measure with */
export async function recordMeasurement(
  sql: Sql,
  { space, kind, rows }: Pick<VectorIndex, 'space' | 'kind' | 'rows'>,
  measured: { recall: number; queries: number; source: RecallSource } | null,
): Promise<void> {
  await sql.query(
    `insert into vector_index (space_id, kind, recall, recall_queries, recall_source, measured_at, measured_rows)
     values ($1, $2, $3, $4, $5, now(), $6)
     on conflict (space_id, kind) do update set recall = excluded.recall, recall_queries = excluded.recall_queries,
       recall_source = excluded.recall_source, measured_at = excluded.measured_at,
       measured_rows = excluded.measured_rows, measure_requested_at = null`,
    [space.id, kind, measured?.recall ?? null, measured?.queries ?? 0, measured?.source ?? null, rows],
  )
}

/** Asks whoever works to build the indexes of these kinds anew, in all spaces. */
export async function requestRebuild(sql: Sql, kinds: readonly EntityKind[]): Promise<void> {
  await sql.query(
    `insert into vector_index (space_id, kind, rebuild_requested_at)
     select s.id, k.kind, now() from embedding_space s, unnest($1::entity_kind[]) as k(kind) where s.state in ('BUILDING', 'ACTIVE')
     on conflict (space_id, kind) do update set rebuild_requested_at = excluded.rebuild_requested_at, last_error = null`,
    [kinds],
  )
}

/** Asks whoever works to measure the recall of these kinds now. */
export async function requestMeasure(sql: Sql, kinds: readonly EntityKind[]): Promise<void> {
  await sql.query(
    `insert into vector_index (space_id, kind, measure_requested_at)
     select s.id, k.kind, now() from embedding_space s, unnest($1::entity_kind[]) as k(kind) where s.state in ('BUILDING', 'ACTIVE')
     on conflict (space_id, kind) do update set measure_requested_at = excluded.measure_requested_at`,
    [kinds],
  )
}
