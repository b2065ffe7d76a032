import type { Sql } from '../db/database.ts'
import { type EmbeddingSpace, indexedVector, partitionName } from '../embedding/spaces.ts'
import { parseVector, vectorArrayBytes, vectorBytes } from '../embedding/vectors.ts'
import { similarityOf } from '../search/rank.ts'
import type { KnownAtom, KnownTopic } from './extractor.ts'

export interface Near {
  id: string
  /** 0..1. */
  similarity: number
}

/** The nearest atoms or topics to a vector, archived and rejected ones too, nearest first: twins are looked for here. */
export async function findNear(
  sql: Sql,
  space: EmbeddingSpace,
  kind: 'ATOM' | 'TOPIC',
  vector: Float32Array,
  limit: number,
): Promise<Near[]> {
  const { expression, type } = indexedVector(space, 'vector')
  const rows = await sql.query<{ id: string; distance: number }>(
    `select owner_id as id, (${expression} <=> $1::vector::${type})::float8 as distance from ${partitionName(space)}
     where kind = '${kind}' and vector is not null order by ${expression} <=> $1::vector::${type} limit ${Math.trunc(limit)}`,
    [vectorBytes(vector)],
  )
  return rows.map(({ id, distance }) => ({ id, similarity: similarityOf(distance) }))
}

const nearEach = 5

/**
 * The topics in use and the approved atoms that are near to any of the vectors, nearest first: what an extractor should
 * know of.
 * @param vectorType see readVectorType
 */
export async function findContext(
  sql: Sql,
  space: EmbeddingSpace,
  vectors: readonly Float32Array[],
  vectorType: number,
  limit: number,
): Promise<{ topics: KnownTopic[]; atoms: KnownAtom[] }> {
  if (vectors.length === 0) return { topics: [], atoms: [] }
  const queries = vectorArrayBytes(vectors, vectorType)
  const [topics, atoms] = await Promise.all([
    sql.query<Omit<KnownTopic, 'vector'> & { vector: Buffer }>(
      `select t.id, t.name, t.description, t.keywords, vector_send(n.vector) as vector
       from (${nearestOfEach(space, 'TOPIC', 'join topic t on t.id = e.owner_id and t.archived_at is null')}) as n
       join topic t on t.id = n.id order by n.distance limit $2`,
      [queries, limit],
    ),
    sql.query<KnownAtom>(
      `select a.id, a.type, a.title, a.content
       from (${nearestOfEach(
         space,
         'ATOM',
         `join atom a on a.id = e.owner_id and a.review_state = 'APPROVED' and a.archived_at is null`,
       )}) as n
       join atom a on a.id = n.id order by n.distance limit $2`,
      [queries, limit],
    ),
  ])
  return { topics: topics.map((topic) => ({ ...topic, vector: parseVector(topic.vector) })), atoms }
}

function nearestOfEach(space: EmbeddingSpace, kind: 'ATOM' | 'TOPIC', join: string): string {
  const { expression, type } = indexedVector(space, 'e.vector')
  return `select distinct on (near.id) near.id, near.distance, near.vector
    from unnest($1::vector[]) as query(vector) cross join lateral (
      select e.owner_id as id, e.vector, ${expression} <=> query.vector::${type} as distance
      from ${partitionName(space)} e ${join}
      where e.kind = '${kind}' and e.vector is not null order by ${expression} <=> query.vector::${type} limit ${nearEach}
    ) as near order by near.id, near.distance`
}
