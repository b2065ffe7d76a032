import type pg from 'pg'
import { type EmbeddingSpace, indexedVector, partitionName } from '../../src/embedding/spaces.ts'
import type { Statement } from '../../src/search/statements.ts'

/** Holds what PostGraphile shows: one function. */
export const postgraphileSchema = 'bench_postgraphile'
/** The rows and vectors of the messages under the columns that LangChain's PGVectorStore expects. */
export const langchainView = 'bench_langchain'

/**
 * The function that PostGraphile serves, around the statement of the search itself, so that the plan is the same. It gets
 * the vector of a query from a table, as the other servers get it from their memory: as text in each request it would be
 * 5 KB more to read.
 * @param statement without rows, its only parameter the vector
 * @param filtered the same with a second one, the channel
 */
export async function createPostgraphileFunction(
  client: pg.Client,
  queries: readonly { text: string; vector: Buffer }[],
  statement: Statement,
  filtered: Statement,
  pageSize: number,
): Promise<void> {
  const search = (inner: string) =>
    `select s.id, 1 - s.distance / 2, m.content, m.author from (${inner}) as s join message m on m.id = s.id
       order by s.distance, s.id limit ${pageSize}`
  await client.query(`drop schema if exists ${postgraphileSchema} cascade`)
  await client.query(`create schema ${postgraphileSchema}`)
  await client.query('drop table if exists bench_query')
  await client.query('create table bench_query (text text primary key, vector vector not null)')
  for (const { text, vector } of queries) {
    await client.query('insert into bench_query values ($1, $2::vector)', [text, vector])
  }
  await client.query('analyze bench_query')
  await client.query(
    `create type ${postgraphileSchema}.hit as (id uuid, similarity float8, content text, author text)`,
  )
  await client.query(
    `create function ${postgraphileSchema}.search(query text, channels text[])
       returns setof ${postgraphileSchema}.hit language plpgsql stable as $$
     #variable_conflict use_column
     declare wanted vector;
     begin
       select q.vector into strict wanted from bench_query q where q.text = search.query;
       if channels is null then
         return query ${search(statement.text.replaceAll('$1', 'wanted'))};
       else
         -- Planned for each call, as Quarry has it: a kept plan does not know how much the filter leaves.
         return query execute $filtered$${search(filtered.text)}$filtered$ using wanted, channels[1];
       end if;
     end $$`,
  )
}

/**
 * Over the tables and the index that all the others use: a table of LangChain's own would hold every vector twice, and
 * the two would push each other out of the database's memory.
 */
export async function createLangChainView(client: pg.Client, space: EmbeddingSpace): Promise<void> {
  const { expression } = indexedVector(space, 'e.vector')
  await client.query(`drop view if exists ${langchainView}`)
  await client.query(
    `create view ${langchainView} as
     select m.id, m.content as text, jsonb_build_object('channel', m.channel, 'author', m.author) as metadata,
       ${expression} as embedding
     from ${partitionName(space)} e join message m on m.id = e.owner_id
     where e.kind = 'MESSAGE' and e.vector is not null`,
  )
}
