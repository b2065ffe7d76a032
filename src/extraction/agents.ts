import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'
import { advisoryLock } from '../db/locks.ts'
import { ConflictError, InvalidInputError, NotFoundError } from '../errors.ts'

/** By what an agent reads. */
export interface AgentReading {
  providerId: string
  /** A chat model, as its server names it. */
  model: string
  /** Null: those that ship. */
  instructions: string | null
  /** 0..2. */
  temperature: number
  /** Tokens of an answer, 1 or more; null: up to the provider. */
  maxOutputTokens: number | null
}

/** What people say of an agent. */
export interface AgentFields extends AgentReading {
  name: string
  description: string
  isActive: boolean
  /** Reads wherever nobody names an agent; at most one is. */
  isDefault: boolean
}

export interface AgentRow extends AgentFields {
  id: string
  /** Goes up with each change by a person. */
  version: number
  createdAt: Date
  updatedAt: Date
}

const columns = `id, name, description, provider_id as "providerId", model, instructions, temperature,
  max_output_tokens as "maxOutputTokens", is_active as "isActive", is_default as "isDefault", version,
  created_at as "createdAt", updated_at as "updatedAt"`

/** All, by name. */
export async function readAgents(sql: Sql): Promise<AgentRow[]> {
  return sql.query<AgentRow>(`select ${columns} from agent order by name, id`)
}

/** Those of the ids that exist, in any order. */
export async function readAgentsById(sql: Sql, ids: readonly string[]): Promise<AgentRow[]> {
  return sql.query<AgentRow>(`select ${columns} from agent where id = any ($1::uuid[])`, [ids])
}

/** The one that reads where nobody names an agent; null: what the environment configures does. */
export async function readDefaultAgent(sql: Sql): Promise<AgentRow | null> {
  const [row] = await sql.query<AgentRow>(`select ${columns} from agent where is_default`)
  return row ?? null
}

/** @throws NotFoundError */
export async function readAgent(sql: Sql, id: string): Promise<AgentRow> {
  const [row] = await readAgentsById(sql, [id])
  if (!row) throw notFound()
  return row
}

/**
 * Stores a new agent; one that is to be the default one takes that from whoever was.
 * @throws InvalidInputError, NotFoundError (no such provider), ConflictError (the name is taken)
 */
export async function createAgent(transaction: Transaction, fields: AgentFields): Promise<AgentRow> {
  requirePossible(fields)
  const id = uuidv7()
  if (fields.isDefault) await clearDefault(transaction, id)
  const [row] = await transaction
    .query<AgentRow>(
      `insert into agent (name, description, provider_id, model, instructions, temperature, max_output_tokens, is_active,
         is_default, id)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning ${columns}`,
      [...valuesOf(fields), id],
    )
    .catch((error: unknown) => refuse(error, fields))
  if (!row) throw new Error('insert into agent returned no row')
  return row
}

/**
 * Changes what is given.
 * @param expectedVersion the version that was looked at; another one is refused
 * @throws InvalidInputError, NotFoundError, ConflictError
 */
export async function updateAgent(
  transaction: Transaction,
  id: string,
  change: Partial<AgentFields>,
  expectedVersion: number | null | undefined,
): Promise<AgentRow> {
  // Before the row: whoever takes the default from it locks in this order, too.
  if (change.isDefault) await clearDefault(transaction, id)
  const [before] = await transaction.query<AgentRow>(
    `select ${columns} from agent where id = $1 for update`,
    [id],
  )
  if (!before) throw notFound()
  if (expectedVersion != null && expectedVersion !== before.version) {
    throw new ConflictError(
      `The agent was changed meanwhile: it has version ${before.version}, expected ${expectedVersion}. Read it again and decide anew`,
    )
  }
  const fields = { ...before, ...change }
  requirePossible(fields)
  const [row] = await transaction
    .query<AgentRow>(
      `update agent set name = $1, description = $2, provider_id = $3, model = $4, instructions = $5, temperature = $6,
         max_output_tokens = $7, is_active = $8, is_default = $9, version = version + 1, updated_at = now()
       where id = $10 returning ${columns}`,
      [...valuesOf(fields), id],
    )
    .catch((error: unknown) => refuse(error, fields))
  if (!row) throw notFound()
  return row
}

/** Jobs that were to read by it fail with that reason. @throws NotFoundError */
export async function deleteAgent(sql: Sql, id: string): Promise<void> {
  const rows = await sql.query('delete from agent where id = $1 returning 1', [id])
  if (rows.length === 0) throw notFound()
}

async function clearDefault(transaction: Transaction, exceptId: string): Promise<void> {
  await transaction.query('select pg_advisory_xact_lock($1)', [advisoryLock.defaultAgent])
  await transaction.query(
    'update agent set is_default = false, version = version + 1, updated_at = now() where is_default and id <> $1',
    [exceptId],
  )
}

function requirePossible({ isActive, isDefault }: AgentFields): void {
  if (isActive || !isDefault) return
  throw new InvalidInputError(
    'isActive is false, but this is the default agent: make another one the default, or set isDefault to false as well, and what the environment configures reads instead',
    ['isActive'],
  )
}

function valuesOf(fields: AgentFields): unknown[] {
  const { name, description, providerId, model, instructions, temperature, maxOutputTokens } = fields
  const { isActive, isDefault } = fields
  return [
    name,
    description,
    providerId,
    model,
    instructions,
    temperature,
    maxOutputTokens,
    isActive,
    isDefault,
  ]
}

const uniqueViolation = '23505'
const foreignKeyViolation = '23503'

function refuse(error: unknown, { name }: AgentFields): never {
  const code = error instanceof Error && 'code' in error ? error.code : null
  if (code === uniqueViolation) {
    throw new ConflictError(`There is an agent named ${JSON.stringify(name)} already; take another name`)
  }
  if (code === foreignKeyViolation) throw new NotFoundError('There is no provider with this id')
  throw error
}

const notFound = () => new NotFoundError('There is no agent with this id')
