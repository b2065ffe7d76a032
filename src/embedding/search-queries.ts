import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'
import type { EntityKind } from './space.ts'

/** Queries of searches that are kept by themselves: the newest. */
const maxRecent = 200

/** What is a right answer to a query, in the eyes of people. */
export interface Judgement {
  kind: EntityKind
  ownerId: string
  /** 1 helps, 2 answers, 3 is the best. */
  grade: number
}

/** A query that two spaces are compared with. */
export interface SampleQuery {
  id: string
  query: string
  isSaved: boolean
  /** Of owners that exist; empty if nobody has judged it. */
  judgements: Judgement[]
}

/** Keeps queries of searches that were asked just now, and the newest of those before. */
export async function insertRecentQueries(sql: Sql, queries: readonly string[]): Promise<void> {
  await sql.query(
    `insert into search_query (id, query, is_saved)
     select * from unnest($1::uuid[], $2::text[], $3::bool[])
     on conflict (text_hash(query)) do update set asked_at = now()`,
    [queries.map(() => uuidv7()), queries, queries.map(() => false)],
  )
  await sql.query(
    `delete from search_query where not is_saved and asked_at < (
       select asked_at from search_query where not is_saved order by asked_at desc offset ${maxRecent - 1} limit 1)`,
  )
}

/** Keeps a query until it is forgotten; its judgements are those that are given, and no others. */
export async function saveQuery(
  transaction: Transaction,
  query: string,
  judgements: readonly Judgement[],
): Promise<void> {
  const [row] = await transaction.query<{ id: string }>(
    `insert into search_query (id, query, is_saved) values ($1, $2, true)
     on conflict (text_hash(query)) do update set is_saved = true returning id`,
    [uuidv7(), query],
  )
  if (!row) throw new Error('insert into search_query returned no row')
  await transaction.query('delete from search_judgement where query_id = $1', [row.id])
  await transaction.query(
    `insert into search_judgement (query_id, kind, owner_id, grade)
     select $1, * from unnest($2::entity_kind[], $3::uuid[], $4::int[])`,
    [
      row.id,
      judgements.map(({ kind }) => kind),
      judgements.map(({ ownerId }) => ownerId),
      judgements.map(({ grade }) => grade),
    ],
  )
}

/** @returns how many of the queries were saved */
export async function forgetQueries(sql: Sql, queries: readonly string[]): Promise<number> {
  const rows = await sql.query(
    'delete from search_query where is_saved and text_hash(query) in (select text_hash(q) from unnest($1::text[]) as q) returning 1',
    [queries],
  )
  return rows.length
}

/** Saved ones first, then the newest, at most so many. */
export async function readSampleQueries(sql: Sql, limit: number): Promise<SampleQuery[]> {
  return sql.query<SampleQuery>(
    `select q.id, q.query, q.is_saved as "isSaved", coalesce((
       select jsonb_agg(jsonb_build_object('kind', j.kind, 'ownerId', j.owner_id, 'grade', j.grade) order by j.owner_id)
       from search_judgement j join embeddable o on o.kind = j.kind and o.owner_id = j.owner_id
       where j.query_id = q.id), '[]') as judgements
     from search_query q order by q.is_saved desc, q.asked_at desc, q.id limit $1`,
    [limit],
  )
}
