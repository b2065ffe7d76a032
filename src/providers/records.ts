import { v7 as uuidv7 } from 'uuid'
import type { Sql, Transaction } from '../db/database.ts'
import type { ProviderState, ProviderType } from '../db/generated/prisma/client.ts'
import { ConflictError, NotFoundError } from '../errors.ts'
import type { SealedKey } from './keys.ts'
import { providerChannel } from './status.ts'
import { budgetChannel } from './usage-records.ts'

/** What people say of a provider, its key aside. */
export interface ProviderFields {
  name: string
  /** Null for LOCAL and for the default address of OPENAI. */
  baseUrl: string | null
  /** Null: it embeds nothing. */
  embeddingModel: string | null
  /** Null: it extracts nothing. */
  extractionModel: string | null
  isActive: boolean
  /** This and the next two: 1 or more; null: no limit. */
  requestsPerMinute: number | null
  tokensPerMinute: number | null
  maxParallelRequests: number | null
  /** US dollars, 0 or more; null: not known. */
  pricePerMillionTokensIn: number | null
  pricePerMillionTokensOut: number | null
  /** US dollars for a calendar month (UTC), 0 or more; null: no budget. */
  monthlyBudget: number | null
}

/** A provider that was added by the API. It never holds the key, sealed or not: see `ProviderWithKey`. */
export interface ProviderRow extends ProviderFields {
  id: string
  type: ProviderType
  /** Null until a validation has succeeded. */
  embeddingDimensions: number | null
  state: ProviderState
  /** Why it is in ERROR. */
  error: string | null
  validatedAt: Date | null
  /** Null if it is not waited for. */
  waitingUntil: Date | null
  /** The encryption key that opens its API key; null without one. */
  keyId: string | null
  /** Per minute, as the server has said; null: it has not. */
  statedRequestsPerMinute: number | null
  statedTokensPerMinute: number | null
  /** Goes up with each change by a person. */
  version: number
  /** Goes up with a change of address, models or key: who holds a client of an earlier one needs another. */
  connectionVersion: number
}

/** A row together with its key, read at one moment: the key of today must never go to the address of yesterday. */
export interface ProviderWithKey {
  provider: ProviderRow
  /** Null without one. */
  key: SealedKey | null
}

/** What a validation has found out. */
export interface ValidationOutcome {
  /** Null: it does what it is asked. */
  error: string | null
  /** Null: not asked for, or not found out. */
  embeddingDimensions: number | null
  statedRequestsPerMinute: number | null
  statedTokensPerMinute: number | null
  /** How long the server asks to be left alone, milliseconds; null: not. */
  waitMs: number | null
}

// A validation whose process has died in the middle has left nothing behind but the wish for one.
const columns = `id, name, type, base_url as "baseUrl", embedding_model as "embeddingModel",
  embedding_dimensions as "embeddingDimensions", extraction_model as "extractionModel", is_active as "isActive",
  case when state = 'VALIDATING' and validating_until < clock_timestamp() then 'PENDING' else state end as state, error,
  validated_at as "validatedAt",
  case when waiting_until > clock_timestamp() then waiting_until end as "waitingUntil", key_id as "keyId",
  requests_per_minute as "requestsPerMinute", tokens_per_minute as "tokensPerMinute",
  max_parallel_requests as "maxParallelRequests", stated_requests_per_minute as "statedRequestsPerMinute",
  stated_tokens_per_minute as "statedTokensPerMinute",
  price_per_million_tokens_in::float8 as "pricePerMillionTokensIn",
  price_per_million_tokens_out::float8 as "pricePerMillionTokensOut",
  monthly_budget::float8 as "monthlyBudget", version,
  connection_version as "connectionVersion"`

const keyColumns = `key_ciphertext as ciphertext, key_nonce as nonce, key_tag as tag`

/** All, by name. */
export async function readProviders(sql: Sql): Promise<ProviderRow[]> {
  return sql.query<ProviderRow>(`select ${columns} from provider order by name, id`)
}

/** Those of the ids that exist, in any order. */
export async function readProvidersById(sql: Sql, ids: readonly string[]): Promise<ProviderRow[]> {
  return sql.query<ProviderRow>(`select ${columns} from provider where id = any ($1::uuid[])`, [ids])
}

/** @throws NotFoundError */
export async function readProvider(sql: Sql, id: string): Promise<ProviderRow> {
  const [row] = await readProvidersById(sql, [id])
  if (!row) throw notFound()
  return row
}

/** @throws NotFoundError */
export async function readProviderWithKey(sql: Sql, id: string): Promise<ProviderWithKey> {
  const [row] = await sql.query<ProviderRow & KeyColumns>(
    `select ${columns}, ${keyColumns} from provider where id = $1`,
    [id],
  )
  if (!row) throw notFound()
  return withKey(row)
}

/** The id of a new provider, made before its row: the key is bound to it. */
export const newProviderId = (): string => uuidv7()

/** @throws ConflictError if the name is taken */
export async function insertProvider(
  sql: Sql,
  id: string,
  type: ProviderType,
  fields: ProviderFields,
  key: SealedKey | null,
): Promise<void> {
  const [row] = await sql.query(
    `with written as (
       insert into provider (name, base_url, embedding_model, extraction_model, is_active, requests_per_minute,
         tokens_per_minute, max_parallel_requests, price_per_million_tokens_in, price_per_million_tokens_out,
         monthly_budget, key_ciphertext, key_nonce, key_tag, key_id, id, type)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
       on conflict (name) do nothing returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [...valuesOf(fields), ...valuesOfKey(key), id, type],
  )
  if (!row) throw nameTaken(fields.name)
}

/**
 * Locks the row, so that the change that is worked out from it is the next one.
 * @throws NotFoundError
 */
export async function lockProvider(transaction: Transaction, id: string): Promise<ProviderRow> {
  const [row] = await transaction.query<ProviderRow>(
    `select ${columns} from provider where id = $1 for update`,
    [id],
  )
  if (!row) throw notFound()
  return row
}

/**
 * Writes the fields of a row that is locked.
 * @param key undefined: it stays; null: it goes
 * @param isOtherConnection whether address, models or key change: what was found out before does not count any more
 * @throws ConflictError if the name is taken
 */
export async function updateProvider(
  transaction: Transaction,
  id: string,
  fields: ProviderFields,
  key: SealedKey | null | undefined,
  isOtherConnection: boolean,
): Promise<void> {
  const writing = transaction.query(
    `update provider set name = $1, base_url = $2, embedding_model = $3, extraction_model = $4, is_active = $5,
       requests_per_minute = $6, tokens_per_minute = $7, max_parallel_requests = $8, price_per_million_tokens_in = $9,
       price_per_million_tokens_out = $10, monthly_budget = $11,
       version = version + 1, connection_version = connection_version + case when $13 then 1 else 0 end,
       state = case when $13 then 'PENDING' else state end,
       error = case when $13 then null else error end,
       waiting_until = case when $13 then null else waiting_until end,
       embedding_dimensions = case when $13 then null else embedding_dimensions end,
       stated_requests_per_minute = case when $13 then null else stated_requests_per_minute end,
       stated_tokens_per_minute = case when $13 then null else stated_tokens_per_minute end,
       updated_at = now()
     where id = $12`,
    [...valuesOf(fields), id, isOtherConnection],
  )
  await writing.catch((error: unknown) => {
    throw hasCode(error, uniqueViolation) ? nameTaken(fields.name) : error
  })
  if (key !== undefined) await storeSealedKey(transaction, id, key)
  await transaction.query(`select pg_notify('${providerChannel}', ''), pg_notify('${budgetChannel}', '')`)
}

/**
 * @throws NotFoundError
 * @throws ConflictError while something refers to it: the tables that do have a foreign key to this one
 */
export async function deleteProvider(sql: Sql, id: string): Promise<void> {
  const rows = await sql
    .query(
      `with deleted as (delete from provider where id = $1 returning 1)
       select pg_notify('${providerChannel}', '') from deleted`,
      [id],
    )
    .catch(async (error: unknown) => {
      const user = referringTable(error)
      throw user === null ? error : inUse(user, await readUserNames(sql, user, id))
    })
  if (rows.length === 0) throw notFound()
}

function readUserNames(sql: Sql, table: string, id: string): Promise<string[]> {
  return table === 'agent' ? readAgentNames(sql, id) : readSpaceNames(sql, id)
}

/**
 * Of the embedding spaces that a provider embeds, such as `openai/e5 with 768 dimensions`; also of those that are retired
 * whose vectors are still being dropped.
 */
async function readSpaceNames(sql: Sql, id: string): Promise<string[]> {
  const rows = await sql.query<{ name: string }>(
    `select format('%s/%s with %s dimensions', lower(provider::text), model, dimensions) as name
     from embedding_space where provider_id = $1 and dropped_at is null order by id limit 10`,
    [id],
  )
  return rows.map(({ name }) => name)
}

/**
 * For a provider that is to be used no more; its row is locked.
 * @throws ConflictError while an embedding space is embedded by it: searches in it would fail
 */
export async function requireNoSpace(transaction: Transaction, id: string): Promise<void> {
  const names = await readSpaceNames(transaction, id)
  if (names.length === 0) return
  const spaces = names.map((name) => JSON.stringify(name)).join(', ')
  throw new ConflictError(
    `The provider embeds the embedding space ${spaces}: move to another model and retire that space first (retireEmbeddingSpace)`,
  )
}

/** Of the agents that use a provider; at most as many as an error can list. */
async function readAgentNames(sql: Sql, id: string): Promise<string[]> {
  const rows = await sql.query<{ name: string }>(
    'select name from agent where provider_id = $1 order by name limit 10',
    [id],
  )
  return rows.map(({ name }) => name)
}

/**
 * Says that a validation is under way.
 * @param ms it takes at most so long
 * @returns what is to be validated
 * @throws NotFoundError
 */
export async function beginValidation(sql: Sql, id: string, ms: number): Promise<ProviderWithKey> {
  const [row] = await sql.query<ProviderRow & KeyColumns>(
    `with written as (
       update provider set state = 'VALIDATING',
         validating_until = clock_timestamp() + make_interval(secs => $2::float8 / 1000)
       where id = $1 returning *)
     select ${columns}, ${keyColumns}, pg_notify('${providerChannel}', '') from written`,
    [id, ms],
  )
  if (!row) throw notFound()
  return withKey(row)
}

/** Stores what was found out about a provider, unless its address, models or key have been changed since. */
export async function endValidation(
  sql: Sql,
  { id, connectionVersion }: ProviderRow,
  outcome: ValidationOutcome,
): Promise<void> {
  const { error, embeddingDimensions, statedRequestsPerMinute, statedTokensPerMinute, waitMs } = outcome
  await sql.query(
    `with written as (
       update provider set validating_until = null, error = $3,
         state = case when $3::text is null then 'CONNECTED' else 'ERROR' end::provider_state,
         validated_at = case when $3::text is null then now() else validated_at end,
         embedding_dimensions = coalesce($4, embedding_dimensions),
         stated_requests_per_minute = case when $3::text is null then $5 else stated_requests_per_minute end,
         stated_tokens_per_minute = case when $3::text is null then $6 else stated_tokens_per_minute end,
         waiting_until = clock_timestamp() + make_interval(secs => $7::float8 / 1000)
       where id = $1 and connection_version = $2 returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [
      id,
      connectionVersion,
      error,
      embeddingDimensions,
      statedRequestsPerMinute,
      statedTokensPerMinute,
      waitMs,
    ],
  )
}

/** Of those whose API key is sealed under another encryption key than this one, by name. */
export async function readProvidersToRotate(
  sql: Sql,
  sealingKeyId: string,
): Promise<{ id: string; name: string }[]> {
  return sql.query('select id, name from provider where key_id <> $1 order by name', [sealingKeyId])
}

/** The API key as it is stored, of a row that stays locked until the end of the transaction; null without one. */
export async function lockSealedKey(transaction: Transaction, id: string): Promise<SealedKey | null> {
  const [row] = await transaction.query<SealedKey>(
    `select ${keyColumns}, key_id as "keyId" from provider where id = $1 and key_id is not null for update`,
    [id],
  )
  return row ?? null
}

/** @param key null: the row has none from now on */
export async function storeSealedKey(
  transaction: Transaction,
  id: string,
  key: SealedKey | null,
): Promise<void> {
  await transaction.query(
    'update provider set key_ciphertext = $1, key_nonce = $2, key_tag = $3, key_id = $4 where id = $5',
    [...valuesOfKey(key), id],
  )
}

type KeyColumns = { [Column in 'ciphertext' | 'nonce' | 'tag']: Buffer | null }

/** Takes the key out of the row, which goes where no key should. */
function withKey({ ciphertext, nonce, tag, ...row }: ProviderRow & KeyColumns): ProviderWithKey {
  const { keyId } = row
  const isWhole = ciphertext !== null && nonce !== null && tag !== null && keyId !== null
  return { provider: row, key: isWhole ? { ciphertext, nonce, tag, keyId } : null }
}

const valuesOf = (fields: ProviderFields) => [
  fields.name,
  fields.baseUrl,
  fields.embeddingModel,
  fields.extractionModel,
  fields.isActive,
  fields.requestsPerMinute,
  fields.tokensPerMinute,
  fields.maxParallelRequests,
  fields.pricePerMillionTokensIn,
  fields.pricePerMillionTokensOut,
  fields.monthlyBudget,
]

const valuesOfKey = (key: SealedKey | null) => [
  key?.ciphertext ?? null,
  key?.nonce ?? null,
  key?.tag ?? null,
  key?.keyId ?? null,
]

const uniqueViolation = '23505'
const foreignKeyViolation = '23503'

const hasCode = (error: unknown, code: string) =>
  error instanceof Error && 'code' in error && error.code === code

/** The table whose foreign key forbids it; empty if the error does not say which. */
function referringTable(error: unknown): string | null {
  if (!hasCode(error, foreignKeyViolation)) return null
  return String(Object(error).table ?? '')
}

function inUse(table: string, names: readonly string[]): ConflictError {
  const what = table.replaceAll('_', ' ')
  const user =
    table === ''
      ? 'something'
      : names.length === 0
        ? `rows of ${what}`
        : `${what} ${names.map((name) => JSON.stringify(name)).join(', ')}`
  return new ConflictError(
    table === 'embedding_space'
      ? `The provider is used by ${user}: move to another model and retire that space first (retireEmbeddingSpace)`
      : `The provider is used by ${user}: give these another provider first, or set isActive to false`,
  )
}

const nameTaken = (name: string) =>
  new ConflictError(`There is a provider named ${JSON.stringify(name)} already; take another name`)

const notFound = () => new NotFoundError('There is no provider with this id')
