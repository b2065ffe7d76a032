import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'
import type { AtomLink, AtomLinkType } from '../db/generated/prisma/client.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'

const linkColumns = `id, from_id as "fromId", to_id as "toId", type, strength, created_at as "createdAt"`

export interface LinkFields {
  fromId: string
  toId: string
  type: AtomLinkType
  /** 0..1; null where nobody can say. */
  strength: number | null
}

/**
 * @throws InvalidInputError for a link from an atom to itself
 * @throws NotFoundError if one of the atoms does not exist
 * @throws ConflictError if this very link exists
 */
export async function linkAtoms(transaction: Transaction, fields: LinkFields): Promise<AtomLink> {
  if (fields.fromId === fields.toId)
    throw new InvalidInputError('An atom cannot be linked to itself', ['toId'])
  const atoms = await transaction.query('select id from atom where id = any ($1::uuid[]) for key share', [
    [fields.fromId, fields.toId],
  ])
  if (atoms.length < 2) throw new NotFoundError(`${2 - atoms.length} of the two atoms do not exist`)
  const link = await addLink(transaction, fields)
  if (!link) throw new ConflictError(`The first atom ${fields.type} the second one already`)
  return link
}

/** Null if this very link exists. */
export async function addLink(transaction: Transaction, fields: LinkFields): Promise<AtomLink | null> {
  const [link] = await transaction.query<AtomLink>(
    `insert into atom_link (id, from_id, to_id, type, strength) values ($1, $2, $3, $4, $5)
     on conflict do nothing returning ${linkColumns}`,
    [uuidv7(), fields.fromId, fields.toId, fields.type, fields.strength],
  )
  return link ?? null
}

/** @throws NotFoundError */
export async function unlinkAtoms(sql: Sql, id: string): Promise<void> {
  const rows = await sql.query('delete from atom_link where id = $1 returning id', [id])
  if (rows.length === 0) throw new NotFoundError('There is no link with this id')
}

export interface LinksPage {
  /** From the atom, to it, or both. */
  direction: 'OUT' | 'IN' | 'BOTH'
  types: readonly AtomLinkType[] | null
  /** Only links that are older than the one with this id. */
  after: string | null
  limit: number
}

/** The newest links of each atom, a page of each, in one statement. */
export async function readLinks(
  sql: Sql,
  atomIds: readonly string[],
  page: LinksPage,
): Promise<(AtomLink & { ownerId: string })[]> {
  const columns = linkColumns.replace('id,', 'l.id,')
  const ends = { OUT: 'from_id = o.id', IN: 'to_id = o.id', BOTH: '(from_id = o.id or to_id = o.id)' }
  return sql.query(
    `select o.id as "ownerId", ${columns} from unnest($1::uuid[]) as o(id) cross join lateral (
       select * from atom_link where ${ends[page.direction]}
         and ($2::text[] is null or type::text = any ($2)) and ($3::uuid is null or atom_link.id < $3)
       order by atom_link.id desc limit $4
     ) as l order by l.id desc`,
    [atomIds, page.types, page.after, page.limit],
  )
}
