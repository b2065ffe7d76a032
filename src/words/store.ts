import type { Sql, Transaction } from '../db/database.ts'
import { type EntityKind, entityKinds } from '../embedding/spaces.ts'
import { indexWords } from './tokens.ts'

/** Channel on which the triggers say that a text has no words yet. */
export const wordlessChannel = 'quarry_words_owed'

export const tableOf: Record<EntityKind, string> = { MESSAGE: 'message', ATOM: 'atom', TOPIC: 'topic' }

/** SQL: what of a row is searched. Of an atom whose title only begins its content, words must not count twice. */
const textOf: Record<EntityKind, string> = {
  MESSAGE: 'content',
  ATOM: `case when starts_with(content, rtrim(title, '… ')) then content else atom_text(title, content) end`,
  TOPIC: 'topic_text(name, description, keywords)',
}

/** Cuts the texts of these rows into words, where that is not done; in the transaction that wrote them. */
export async function storeWords(
  transaction: Transaction,
  kind: EntityKind,
  ids: readonly string[],
): Promise<void> {
  const rows = await transaction.query<Wordless>(
    `select id, ${textOf[kind]} as text from ${tableOf[kind]} where id = any ($1::uuid[]) and words is null`,
    [ids],
  )
  await writeWords(transaction, kind, rows)
}

/**
 * Cuts texts into words that have come into the database by another way than ours, or before there were words.
 * @returns how many; less than `limit` when no more were left
 */
export async function storeMissingWords(
  transaction: Transaction,
  kind: EntityKind,
  limit: number,
): Promise<number> {
  const rows = await transaction.query<Wordless>(
    `select id, ${textOf[kind]} as text from ${tableOf[kind]} where words is null order by id limit $1 for update skip locked`,
    [limit],
  )
  await writeWords(transaction, kind, rows)
  return rows.length
}

interface Wordless {
  id: string
  text: string
}

async function writeWords(
  transaction: Transaction,
  kind: EntityKind,
  rows: readonly Wordless[],
): Promise<void> {
  if (rows.length === 0) return
  const indexed = rows.map(({ text }) => indexWords(text))
  await transaction.query(
    `update ${tableOf[kind]} as t set words = w.words::tsvector, word_count = w.count
     from unnest($1::uuid[], $2::text[], $3::int[]) as w(id, words, count) where t.id = w.id`,
    [rows.map(({ id }) => id), indexed.map(({ vector }) => vector), indexed.map(({ count }) => count)],
  )
}

/** How many texts of each kind have no words yet: a search by words cannot find them. */
export async function countWordless(sql: Sql): Promise<Record<EntityKind, number>> {
  const counts = entityKinds.map(
    (kind) => `(select count(*)::int from ${tableOf[kind]} where words is null) as "${kind}"`,
  )
  const [row] = await sql.query<Record<EntityKind, number>>(`select ${counts.join(', ')}`)
  if (!row) throw new Error('the count of texts without words returned no row')
  return row
}
