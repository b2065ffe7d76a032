import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'
import type { Atom, AtomType, ReviewState } from '../db/generated/prisma/client.ts'
import { atomColumns } from '../db/rows.ts'
import { NotFoundError } from '../errors.ts'
import { storeWords } from '../words/store.ts'
import type { Origin } from './topics.ts'

export interface AtomFields {
  type: AtomType
  title: string
  content: string
}

/** @throws NotFoundError if one of the topics does not exist */
export async function createAtom(
  transaction: Transaction,
  fields: AtomFields & { confidence: number | null; reviewState: ReviewState; topicIds: readonly string[] },
  origin: Origin | null,
): Promise<Atom> {
  const [atom] = await transaction.query<Atom>(
    `insert into atom (id, type, title, content, confidence, review_state, extracted_by, extraction_model, job_id)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning ${atomColumns}`,
    [
      uuidv7(),
      fields.type,
      fields.title,
      fields.content,
      fields.confidence,
      fields.reviewState,
      origin?.extractedBy ?? null,
      origin?.model ?? null,
      origin?.jobId ?? null,
    ],
  )
  if (!atom) throw new Error('insert into atom returned no row')
  await storeWords(transaction, 'ATOM', [atom.id])
  await setAtomTopics(transaction, atom.id, fields.topicIds)
  return atom
}

/**
 * Changes the given fields; null leaves one as it is.
 * @throws NotFoundError if the atom or one of the topics does not exist
 */
export async function updateAtom(
  transaction: Transaction,
  id: string,
  change: { [Field in keyof AtomFields]: AtomFields[Field] | null } & { topicIds: readonly string[] | null },
): Promise<Atom> {
  const [atom] = await transaction.query<Atom>(
    `update atom set type = coalesce($2, type), title = coalesce($3, title), content = coalesce($4, content),
       updated_at = now() where id = $1 returning ${atomColumns}`,
    [id, change.type, change.title, change.content],
  )
  if (!atom) throw new NotFoundError('There is no atom with this id')
  await storeWords(transaction, 'ATOM', [id])
  if (change.topicIds) await setAtomTopics(transaction, id, change.topicIds)
  return atom
}

async function setAtomTopics(
  transaction: Transaction,
  atomId: string,
  topicIds: readonly string[],
): Promise<void> {
  await requireTopics(transaction, topicIds)
  await transaction.query('delete from atom_topic where atom_id = $1 and topic_id <> all ($2::uuid[])', [
    atomId,
    topicIds,
  ])
  await addAtomTopics(transaction, atomId, topicIds)
}

export async function addAtomTopics(
  transaction: Transaction,
  atomId: string,
  topicIds: readonly string[],
): Promise<void> {
  await transaction.query(
    'insert into atom_topic (atom_id, topic_id) select $1, t from unnest($2::uuid[]) as t on conflict do nothing',
    [atomId, topicIds],
  )
}

async function requireTopics(sql: Sql, ids: readonly string[]): Promise<void> {
  const rows = await sql.query<{ id: string }>(
    'select id from topic where id = any ($1::uuid[]) for key share',
    [ids],
  )
  const missing = new Set(ids).size - rows.length
  if (missing > 0) throw new NotFoundError(`${missing} of the topics in topicIds do not exist`)
}

/**
 * What a person says to an atom. May be said anew.
 * @param note why; kept with a rejection
 * @throws NotFoundError
 */
export async function reviewAtom(
  sql: Sql,
  id: string,
  state: 'APPROVED' | 'REJECTED',
  note: string | null,
): Promise<Atom> {
  const [atom] = await sql.query<Atom>(
    `update atom set review_state = $2, review_note = $3, updated_at = now() where id = $1 returning ${atomColumns}`,
    [id, state, note],
  )
  if (!atom) throw new NotFoundError('There is no atom with this id')
  return atom
}

/** Puts an atom aside, or takes it into use again. @throws NotFoundError */
export async function archiveAtom(sql: Sql, id: string, isArchived: boolean): Promise<Atom> {
  const [atom] = await sql.query<Atom>(
    `update atom set archived_at = case when $2 then coalesce(archived_at, now()) end, updated_at = now()
     where id = $1 returning ${atomColumns}`,
    [id, isArchived],
  )
  if (!atom) throw new NotFoundError('There is no atom with this id')
  return atom
}

/** Deletes atoms with their citations, links and revisions. @returns the ids that were there */
export async function deleteAtoms(sql: Sql, ids: readonly string[]): Promise<string[]> {
  const rows = await sql.query<{ id: string }>('delete from atom where id = any ($1::uuid[]) returning id', [
    ids,
  ])
  return rows.map((row) => row.id)
}
