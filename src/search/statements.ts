import { sessionSettings } from '../db/connection.ts'
import type { Sql } from '../db/database.ts'
import { rowAsJson } from '../db/rows.ts'
import { type EmbeddingSpace, type EntityKind, indexedVector, partitionName } from '../embedding/spaces.ts'
import type { WordQuery } from '../words/query.ts'
import {
  filterConditions,
  noFilter,
  ownerTable,
  Parameters,
  type SearchFilter,
  wordConditions,
} from './filter.ts'

/** A row that one leg of a search found. */
export interface Candidate {
  kind: EntityKind
  id: string
  /** Cosine distance to the query, 0..2; null where the row has no vector yet. */
  distance: number | null
  /** How well the words fit, 0..1; null where that was not asked. */
  wordScore: number | null
  /** The row itself as JSON, where the statement was asked for it. */
  row?: Record<string, unknown> | null
  /** Of a filtered scan that brought up fewer rows of a kind than were asked for: how many of that kind there are. */
  eligible?: number | null
}

export interface Statement {
  text: string
  values: unknown[]
  /** Set where the plan may be kept, see Sql.query. */
  name?: string
}

interface SemanticOptions {
  /** Whose quotes and exclusions hold for what is found. */
  words?: WordQuery | null
  /** Also reads the rows that are found: one round trip to the database less. */
  withRows?: boolean
  /** Rows of all kinds. */
  total?: number
  /**
   * 'index' leaves the way to the planner: by the vector index, or under a narrow filter through all rows that it leaves.
   * 'exact' always goes through all these.
   */
  scan?: 'index' | 'exact'
}

/**
 * SQL: the vector of a query, for a scan that keeps as many candidates as a page of `limit` rows asks for: with fewer than
 * it needs, the scan would begin again and again, and lose some of the nearest on the way. The setting ends with the
 * statement; it is made before the scan begins, because the vector is computed first.
 */
function scanningFor(limit: number, vector: string): string {
  const wanted = Math.min(maxScanSize, Math.ceil(limit * scanMargin))
  if (wanted <= Number(sessionSettings['hnsw.ef_search'])) return vector
  return `(select ${vector} from set_config('hnsw.ef_search', '${wanted}', true))`
}

/** pgvector's limit of hnsw.ef_search. */
const maxScanSize = 1000
const scanMargin = 1.5

/**
 * The nearest rows by meaning: one index scan for each kind, merged. The order and the limit stand directly on the
 * indexed expression, or the planner would leave the index; filters stand beside it, and the scan goes on until the
 * limit is reached (hnsw.iterative_scan).
 * @param vector of the query, in pgvector's binary format
 * @param limit of each kind
 */
export function semanticStatement(
  space: EmbeddingSpace,
  kinds: readonly EntityKind[],
  filter: SearchFilter,
  vector: Buffer,
  limit: number,
  { words = null, withRows = false, total = limit, scan = 'index' }: SemanticOptions = {},
): Statement {
  const parameters = new Parameters()
  const { expression, type } = indexedVector(space, 'e.vector')
  const query = scanningFor(limit, `${parameters.add(vector)}::vector::${type}`)
  // In the text, not a parameter: a kept plan must know how few rows it is for, or it would leave the index.
  const count = Math.trunc(limit)
  const mayGiveUp = scan === 'index' && isRestricted(filter, words)
  const eligible: string[] = []
  const legs = kinds.map((kind) => {
    const { table, alias } = ownerTable[kind]
    const conditions = [
      ...filterConditions(kind, filter, parameters),
      ...(words ? wordConditions(kind, words, parameters) : []),
    ]
    // With the space, too, the few rows of a narrow filter are found by the primary key.
    const where = [`e.space_id = ${space.id}`, `e.kind = '${kind}'`, 'e.vector is not null']
    if (scan === 'exact') {
      return `(select '${kind}' as kind, e.owner_id as id, ${expression} <=> ${query} as distance
        from (select ${alias}.id from ${table} ${alias} where ${conditions.join(' and ') || 'true'} offset 0) as owner
        join ${partitionName(space)} e on e.owner_id = owner.id where ${where.join(' and ')}
        order by (${expression} <=> ${query}) + 0 limit ${count})`
    }
    const join = conditions.length > 0 ? `join ${table} ${alias} on ${alias}.id = e.owner_id` : ''
    const rows = `from ${partitionName(space)} e ${join} where ${[...where, ...conditions].join(' and ')}`
    eligible.push(`when '${kind}' then (select count(*)::int from (select ${rows} limit ${count}) as c)`)
    return `(select '${kind}' as kind, e.owner_id as id, ${expression} <=> ${query} as distance ${rows}
      order by ${expression} <=> ${query} limit ${count})`
  })
  const rows = kinds.map((kind) => `when '${kind}' then ${rowAsJson(kind, 'leg.id')}`)
  return {
    text: `select kind, leg.id, distance::float8 as distance, null as "wordScore"
      ${withRows ? `, case kind ${rows.join(' ')} end as row` : ''}
      ${mayGiveUp ? `, case when count(*) over (partition by kind) < ${count} then case kind ${eligible.join(' ')} end end as eligible` : ''}
      from (${legs.join('\nunion all\n')}) as leg order by distance, leg.id limit ${Math.trunc(total)}`,
    values: parameters.values,
    // Under a filter the best plan depends on how much it leaves.
    ...(scan === 'index' && !mayGiveUp
      ? {
          name: `search ${space.id} ${space.precision} ${kinds.join(' ')} ${count} ${total}${withRows ? ' rows' : ''}`,
        }
      : {}),
  }
}

/** Whether a search leaves out rows that it would look at by itself. */
export const isRestricted = (filter: SearchFilter, words: WordQuery | null): boolean =>
  filter !== noFilter || Boolean(words?.required.length || words?.excluded.length)

export interface Neighbour extends Candidate {
  ownerId: string
}

/**
 * For each owner of one kind the nearest rows of a kind but itself, by the stored vectors: one index scan an owner, all
 * in one statement. Owners without a vector have no rows.
 */
export function neighboursStatement(
  space: EmbeddingSpace,
  of: EntityKind,
  kind: EntityKind,
  filter: SearchFilter,
  ownerIds: readonly string[],
  limit: number,
): Statement {
  const parameters = new Parameters()
  const owners = parameters.add(ownerIds)
  const { table, alias } = ownerTable[kind]
  const { expression } = indexedVector(space, 'e.vector')
  const { expression: own } = indexedVector(space, 'o.vector')
  const conditions = filterConditions(kind, filter, parameters)
  const join = conditions.length > 0 ? `join ${table} ${alias} on ${alias}.id = e.owner_id` : ''
  const where = [
    `e.kind = '${kind}'`,
    'e.vector is not null',
    'e.owner_id <> o.owner_id',
    ...conditions,
  ].join(' and ')
  return {
    text: `select o.owner_id as "ownerId", '${kind}' as kind, n.id, n.distance::float8 as distance, null as "wordScore"
      from ${partitionName(space)} o cross join lateral (
        select e.owner_id as id, ${expression} <=> ${own} as distance
        from ${partitionName(space)} e ${join} where ${where} order by ${expression} <=> ${own} limit ${parameters.add(limit)}
      ) as n
      where o.space_id = ${space.id} and o.kind = '${of}' and o.owner_id = any (${owners}::uuid[]) and o.vector is not null
      order by o.owner_id, n.distance, n.id`,
    values: parameters.values,
  }
}

export interface FilteredCoverage {
  eligible: number
  ready: number
  pending: number
  stale: number
  failed: number
}

/** How much of the filtered set is embedded; rows with nothing to embed are not eligible. */
export async function readFilteredCoverage(
  sql: Sql,
  space: EmbeddingSpace,
  kinds: readonly EntityKind[],
  filter: SearchFilter,
): Promise<FilteredCoverage> {
  const parameters = new Parameters()
  const legs = kinds.map((kind) => {
    const { table, alias } = ownerTable[kind]
    const conditions = filterConditions(kind, filter, parameters)
    const join = conditions.length > 0 ? `join ${table} ${alias} on ${alias}.id = e.owner_id` : ''
    return `select e.status from ${partitionName(space)} e ${join} where ${[`e.kind = '${kind}'`, ...conditions].join(' and ')}`
  })
  if (legs.length === 0) return { eligible: 0, ready: 0, pending: 0, stale: 0, failed: 0 }
  const [row] = await sql.query<FilteredCoverage>(
    `select count(*) filter (where status <> 'SKIPPED')::int as eligible,
       count(*) filter (where status = 'READY')::int as ready, count(*) filter (where status = 'PENDING')::int as pending,
       count(*) filter (where status = 'STALE')::int as stale, count(*) filter (where status = 'FAILED')::int as failed
     from (${legs.join(' union all ')}) as leg`,
    parameters.values,
  )
  if (!row) throw new Error('the coverage query returned no row')
  return row
}
