import type { Sql, Transaction } from '../db/database.ts'
import type { Atom } from '../db/generated/prisma/client.ts'
import { atomColumns } from '../db/rows.ts'

/** A piece of a message that proves an atom. */
export interface Quote {
  messageId: string
  quote: string
  /** Where it begins in the message, in UTF-16 units. */
  start: number
}

/** Adds what the atom does not cite yet; returns how many were new. */
export async function addCitations(
  transaction: Transaction,
  atomId: string,
  quotes: readonly Quote[],
): Promise<number> {
  const added = await transaction.query(
    `insert into citation (atom_id, message_id, start, quote)
     select $1, q.message_id, q.start, q.quote from unnest($2::uuid[], $3::int[], $4::text[]) as q(message_id, start, quote)
     join message m on m.id = q.message_id
     on conflict do nothing returning 1`,
    [
      atomId,
      quotes.map((quote) => quote.messageId),
      quotes.map((quote) => quote.start),
      quotes.map((quote) => quote.quote),
    ],
  )
  return added.length
}

/** Where the quote stands in the text now: where it was if it still does, else its first place. Null if nowhere. */
export function locateQuote(
  content: string,
  quote: string,
  start: number,
): { start: number; end: number } | null {
  const at = content.startsWith(quote, start) ? start : content.indexOf(quote)
  return at < 0 ? null : { start: at, end: at + quote.length }
}

/** The newest atoms that cite each message, a page of each, in one statement. */
export async function readCitingAtoms(
  sql: Sql,
  messageIds: readonly string[],
  page: { after: string | null; limit: number },
): Promise<(Atom & { ownerId: string })[]> {
  return sql.query(
    `select o.id as "ownerId", citing.* from unnest($1::uuid[]) as o(id) cross join lateral (
       select ${atomColumns} from atom
       where id in (select atom_id from citation where message_id = o.id) and ($2::uuid is null or id < $2)
       order by id desc limit $3
     ) as citing order by citing.id desc`,
    [messageIds, page.after, page.limit],
  )
}
