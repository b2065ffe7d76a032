import { v7 as uuidv7 } from 'uuid'
import type { Transaction } from '../db/database.ts'
import type { Revision } from '../db/generated/prisma/client.ts'
import { ConflictError, NotFoundError } from '../errors.ts'
import { storeWords } from '../words/store.ts'
import { addCitations, type Quote } from './citations.ts'

/** Values before and after; what is not named stays. */
export interface RevisionChanges {
  title?: { from: string; to: string }
  content?: { from: string; to: string }
  name?: { from: string; to: string }
  description?: { from: string; to: string }
  /** Added to what the atom cites. */
  citations?: Quote[]
}

const revisionColumns = `id, atom_id as "atomId", topic_id as "topicId", number, state, changes, job_id as "jobId",
  created_at as "createdAt", decided_at as "decidedAt"`

/**
 * Proposes a change of an atom, unless the very same was proposed before, whatever became of it: what was rejected was
 * rejected for good.
 * @returns null if there is nothing new to propose
 */
export async function proposeRevision(
  transaction: Transaction,
  atomId: string,
  changes: RevisionChanges,
  jobId: string | null,
): Promise<Revision | null> {
  const [revision] = await transaction.query<Revision>(
    `insert into revision (id, atom_id, number, changes, job_id)
     select $1, $2, coalesce(max(number), 0) + 1, $3::jsonb, $4 from revision where atom_id = $2
     having coalesce(bool_and(changes <> $3::jsonb), true)
     returning ${revisionColumns}`,
    [uuidv7(), atomId, JSON.stringify(changes), jobId],
  )
  return revision ?? null
}

/**
 * Decides on a proposal, once. Approved, its changes are made, and what they touch is embedded again (by trigger).
 * @throws NotFoundError
 * @throws ConflictError if it was decided before
 */
export async function decideRevision(
  transaction: Transaction,
  id: string,
  state: 'APPROVED' | 'REJECTED',
): Promise<Revision> {
  const [found] = await transaction.query<Revision>(
    `select ${revisionColumns} from revision where id = $1 for update`,
    [id],
  )
  if (!found) throw new NotFoundError('There is no revision with this id')
  if (found.state !== 'PENDING') {
    throw new ConflictError(
      `The revision is ${found.state} since ${found.decidedAt?.toISOString()}; that is for good`,
    )
  }
  if (state === 'APPROVED') await applyChanges(transaction, found)
  const [decided] = await transaction.query<Revision>(
    `update revision set state = $2, decided_at = now() where id = $1 returning ${revisionColumns}`,
    [id, state],
  )
  if (!decided) throw new Error(`revision ${id} is gone from under its own lock`)
  return decided
}

async function applyChanges(transaction: Transaction, revision: Revision): Promise<void> {
  const changes = revision.changes as RevisionChanges
  if (revision.atomId !== null) {
    await transaction.query(
      `update atom set title = coalesce($2, title), content = coalesce($3, content), updated_at = now() where id = $1`,
      [revision.atomId, changes.title?.to ?? null, changes.content?.to ?? null],
    )
    await storeWords(transaction, 'ATOM', [revision.atomId])
    await addCitations(transaction, revision.atomId, changes.citations ?? [])
  }
  if (revision.topicId !== null) {
    await transaction.query(
      'update topic set description = coalesce($2, description), updated_at = now() where id = $1',
      [revision.topicId, changes.description?.to ?? null],
    )
    await storeWords(transaction, 'TOPIC', [revision.topicId])
  }
}
