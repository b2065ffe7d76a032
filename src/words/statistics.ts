import type { Sql, Transaction } from '../db/database.ts'
import { advisoryLock } from '../db/locks.ts'
import { type EntityKind, entityKinds } from '../embedding/spaces.ts'
import { tableOf } from './store.ts'

/** Counted from so many texts of a kind at most: frequencies need no more, and an embedded database does nothing else meanwhile. */
const maxSample = 50_000
/**
 * SQL: how many texts there must be with a word, of `total`, for the count that is kept to be believed. That of a rarer
 * word is soon wrong by half, and quick to make when it is asked for.
 */
export const leastTrusted = (total: string): string => `greatest(100, ${total} / 1000)`
/** Counted again when there are so many more or fewer texts, as a share. */
const growth = 0.1
/** Words of a text of a kind of which there is none yet; as the migration has it. */
const guessedLength = 20

/** Whether the texts have become so many more or fewer that what is known of their words is out of date. */
export async function areStatisticsDue(sql: Sql): Promise<boolean> {
  const [row] = await sql.query<{ isDue: boolean }>(
    `select coalesce(bool_or(s.kind is null or abs(n.documents - s.documents) > ${growth} * s.documents), false) as "isDue"
     from (${sizes}) as n left join word_statistics s using (kind) where n.documents > 0 or s.documents > 0`,
  )
  return row?.isDue ?? false
}

/** SQL: how many texts there are of each kind, from the counts that are kept. */
const sizes = `select kind, sum(n)::int as documents from embedding_count
  where space_id = (select id from embedding_space where state = 'ACTIVE') group by kind`

/**
 * Counts in how many texts each word is that is in more than one, and how long the texts are.
 * @returns whether it was done; not while another process is at it
 */
export async function countWords(transaction: Transaction): Promise<boolean> {
  const [lock] = await transaction.query<{ isMine: boolean }>(
    'select pg_try_advisory_xact_lock($1) as "isMine"',
    [advisoryLock.wordStatistics],
  )
  if (!lock?.isMine) return false
  const known = await transaction.query<{ kind: EntityKind; documents: number }>(sizes)
  const samples = entityKinds.map((kind) => {
    const documents = known.find((size) => size.kind === kind)?.documents ?? 0
    const percent = (100 * maxSample) / Math.max(documents, 1)
    const sample = percent < 100 ? ` tablesample system (${percent}) repeatable (1)` : ''
    return { kind, documents, rows: `${tableOf[kind]}${sample}` }
  })
  const scales = new Map<EntityKind, number>()
  for (const { kind, documents, rows } of samples) {
    const [size] = await transaction.query<{ sampled: number; length: number | null }>(
      `select count(*)::int as sampled, avg(word_count)::float8 as length from ${rows} where words is not null`,
    )
    const sampled = size?.sampled ?? 0
    scales.set(kind, sampled > 0 ? Math.max(1, documents / sampled) : 1)
    await transaction.query(
      `insert into word_statistics (kind, documents, average_length) values ($1, $2, $3)
       on conflict (kind) do update set documents = excluded.documents, average_length = excluded.average_length`,
      [kind, documents, Math.max(size?.length ?? guessedLength, 1)],
    )
  }
  const counts = samples.map(
    ({ kind, rows }) =>
      `select word, ndoc as found, ndoc * ${scales.get(kind) ?? 1} as n from ts_stat('select words from ${rows}')`,
  )
  await transaction.query('delete from word_frequency')
  await transaction.query(
    `insert into word_frequency (word, documents)
     select word, round(sum(n))::int from (${counts.join(' union all ')}) as counted
     group by word having sum(found) > 1`,
  )
  return true
}
