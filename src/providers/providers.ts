import { LRUCache } from 'lru-cache'
import type { ProviderNetwork } from '../config.ts'
import type { Database } from '../db/database.ts'
import { ConflictError, InvalidInputError, QuarryError } from '../errors.ts'
import type { ChatModel } from './chat/chat.ts'
import { createChatModel } from './chat/create.ts'
import { createEmbeddingProvider, type EmbeddingProviderConfig } from './create.ts'
import { createGuardedFetch, requireAllowedHost } from './guarded-fetch.ts'
import { type KeyRing, missingKey, ProviderKeyError, type SealedKey } from './keys.ts'
import { createProviderLimiter, limitChat, limitEmbeddings, type ProviderLimiter } from './limits.ts'
import { type EmbeddingProvider, ProviderError } from './provider.ts'
import {
  beginValidation,
  deleteProvider,
  endValidation,
  insertProvider,
  lockProvider,
  newProviderId,
  type ProviderFields,
  type ProviderRow,
  type ProviderWithKey,
  readProvider,
  readProviderWithKey,
  requireNoSpace,
  updateProvider,
  type ValidationOutcome,
} from './records.ts'
import { completeFields, isOtherConnection, requireApiKey } from './rules.ts'
import { accountChat, accountEmbeddings, type UsageLedger } from './usage.ts'
import { outcomeOf, tryOut, validationLimitMs } from './validate.ts'

export interface ProviderChange {
  fields: Partial<ProviderFields>
  /** Null: it goes; undefined: it stays. */
  apiKey?: string | null | undefined
  /** The version that was looked at; another one is refused. */
  expectedVersion?: number | null | undefined
}

/** The providers that administrators add: their rows, keys, clients and limits in this process. */
export interface Providers {
  /**
   * Stores a provider, then tries it out: one that does not work is stored in ERROR, not refused.
   * @throws InvalidInputError, also for a key where none can be stored; ConflictError
   */
  create(type: ProviderRow['type'], fields: ProviderFields, apiKey: string | null): Promise<ProviderRow>
  /**
   * Changes what is given, and tries it out where address, models or key are others.
   * @throws InvalidInputError, NotFoundError, ConflictError
   */
  update(id: string, change: ProviderChange): Promise<ProviderRow>
  /** @throws NotFoundError, ConflictError while something uses it */
  delete(id: string): Promise<void>
  /** Tries it out, within 10 s; what came of it is in the row. @throws NotFoundError */
  validate(id: string): Promise<ProviderRow>
  /**
   * Who embeds for whoever owns what comes back, and closes it.
   * @param model the provider's own unless given
   * @param dimensions where they are a choice; null: what the model gives
   * @throws NotFoundError; ProviderError MISCONFIGURED if it is not active, embeds nothing, or its key cannot be read
   */
  embedding(id: string, model?: string, dimensions?: number | null): Promise<EmbeddingProvider>
  /** The same for a chat model. */
  chat(id: string, model?: string): Promise<ChatModel>
  /** Why the key of a provider cannot be read in this process, whatever its state says; null if it can. */
  keyProblem(row: ProviderRow): string | null
  close(): Promise<void>
}

/** Other providers than these were changed long ago; the worst that happens is that a minute is counted anew. */
const maxLimiters = 1000
/** Resolvers that take longer than a form can wait; the connection checks the address again anyway. */
const resolveLimitMs = 3000

export function createProviders(options: {
  database: Database
  keys: KeyRing
  network: ProviderNetwork
  usage: UsageLedger
}): Providers {
  const { database, keys, network, usage } = options
  const guarded = createGuardedFetch(network)
  const limiters = new LRUCache<string, ProviderLimiter>({ max: maxLimiters })

  /** One for all clients of a provider in this process; limits that are changed hold at once, and count anew. */
  function limiterOf(row: ProviderRow): ProviderLimiter {
    const { requestsPerMinute, tokensPerMinute, maxParallelRequests } = row
    const name = `${row.id} ${requestsPerMinute} ${tokensPerMinute} ${maxParallelRequests}`
    const limiter = limiters.get(name) ?? createProviderLimiter(row.name, row)
    limiters.set(name, limiter)
    return limiter
  }

  /** @throws InvalidInputError without an encryption key */
  function seal(apiKey: string, id: string): SealedKey {
    try {
      return keys.seal(apiKey, id)
    } catch (error) {
      throw error instanceof ProviderKeyError ? new InvalidInputError(error.message, ['apiKey']) : error
    }
  }

  /** @throws ProviderError */
  function openForUse({ provider, key }: ProviderWithKey): string {
    const refuse = (why: string) => new ProviderError('MISCONFIGURED', `Provider ${provider.name}: ${why}`)
    if (!provider.isActive) throw refuse('it is not active. Set isActive to true, or use another.')
    try {
      return openKey(keys, provider.id, key)
    } catch (error) {
      throw error instanceof ProviderKeyError ? refuse(error.message) : error
    }
  }

  async function validate(id: string): Promise<ProviderRow> {
    // A little longer than it takes, for the statements.
    const found = await beginValidation(database, id, validationLimitMs + 5000)
    const outcome = await tryStored(found, { keys, fetch: guarded.fetch, usage })
    await endValidation(database, found.provider, outcome)
    return readProvider(database, id)
  }

  async function checkHost({ baseUrl }: ProviderFields): Promise<void> {
    if (baseUrl === null) return
    const controller = new AbortController()
    const timer = setTimeout(() => controller.abort(), resolveLimitMs)
    await requireAllowedHost(baseUrl, network, ['baseUrl'], controller.signal).finally(() =>
      clearTimeout(timer),
    )
  }

  return {
    async create(type, fields, apiKey) {
      if (apiKey !== null) requireApiKey(apiKey)
      const complete = completeFields(type, fields, apiKey !== null, network)
      await checkHost(complete)
      const id = newProviderId()
      await insertProvider(database, id, type, complete, apiKey === null ? null : seal(apiKey, id))
      return validate(id)
    },
    async update(id, { fields, apiKey, expectedVersion }) {
      if (apiKey != null) requireApiKey(apiKey)
      // Outside of the transaction, which must not wait for a resolver; inside, the same fields are worked out again.
      await checkHost(changed(await readProvider(database, id), fields, apiKey, network))
      const isOther = await database.transaction(async (transaction) => {
        const before = await lockProvider(transaction, id)
        if (expectedVersion != null && expectedVersion !== before.version) {
          throw new ConflictError(
            `The provider was changed meanwhile: it has version ${before.version}, expected ${expectedVersion}. Read it again and decide anew`,
          )
        }
        const after = changed(before, fields, apiKey, network)
        if (before.isActive && !after.isActive) await requireNoSpace(transaction, id)
        const key = apiKey == null ? apiKey : seal(apiKey, id)
        const isOther = apiKey !== undefined || isOtherConnection(before, after)
        await updateProvider(transaction, id, after, key, isOther)
        return isOther
      })
      return isOther ? validate(id) : readProvider(database, id)
    },
    delete: (id) => deleteProvider(database, id),
    validate,
    async embedding(id, model, dimensions = null) {
      const found = await readProviderWithKey(database, id)
      const { provider } = found
      const apiKey = openForUse(found)
      const name = model ?? provider.embeddingModel
      if (name === null) {
        throw new ProviderError(
          'MISCONFIGURED',
          `Provider ${provider.name}: it embeds nothing. Set embeddingModel.`,
        )
      }
      const config = embeddingConfig(provider, name, dimensions, apiKey)
      const { maxParallelRequests } = provider
      const limits = maxParallelRequests === null ? {} : { maxParallelRequests }
      const client = createEmbeddingProvider(config, { fetch: guarded.fetch, limits })
      return limitEmbeddings(client, limiterOf(provider), provider.id)
    },
    async chat(id, model) {
      const found = await readProviderWithKey(database, id)
      const { provider } = found
      const apiKey = openForUse(found)
      const name = model ?? provider.extractionModel
      if (name === null || provider.type === 'LOCAL') {
        throw new ProviderError(
          'MISCONFIGURED',
          `Provider ${provider.name}: it has no chat model. Set extractionModel.`,
        )
      }
      const client = createChatModel(chatConfig(provider, name, apiKey), { fetch: guarded.fetch })
      return limitChat(client, limiterOf(provider), provider.id)
    },
    keyProblem: ({ keyId }) => (keyId === null || keys.has(keyId) ? null : missingKey(keyId)),
    close: () => guarded.close(),
  }
}

const openKey = (keys: Pick<KeyRing, 'open'>, id: string, key: SealedKey | null) =>
  key === null ? '' : keys.open(key, id)

/**
 * Really asks a provider for all that it is stored to do, within 10 s; stores nothing of what comes.
 * @param usage where the requests are accounted; null: nowhere
 */
export async function tryStored(
  { provider, key }: ProviderWithKey,
  options: {
    keys: Pick<KeyRing, 'open'>
    fetch: typeof fetch
    usage: Pick<UsageLedger, 'account'> | null
  },
): Promise<ValidationOutcome> {
  const { keys, usage } = options
  const stated: StatedLimits = { statedRequestsPerMinute: null, statedTokensPerMinute: null }
  const observed: typeof fetch = async (input, init) => {
    const response = await options.fetch(input, init)
    noteLimits(stated, response.headers)
    return response
  }
  const clients: (EmbeddingProvider | ChatModel)[] = []
  const own = <Client extends EmbeddingProvider | ChatModel>(client: Client) => {
    clients.push(client)
    return client
  }
  // A client by itself goes to the account of the environment.
  const account =
    usage?.account(
      { accountId: provider.id, type: provider.type === 'LOCAL' ? 'local' : 'openai' },
      'VALIDATION',
    ) ?? null
  try {
    const apiKey = openKey(keys, provider.id, key)
    const { embeddingModel, extractionModel } = provider
    const embedding =
      embeddingModel === null
        ? null
        : own(
            createEmbeddingProvider(embeddingConfig(provider, embeddingModel, null, apiKey), {
              fetch: observed,
            }),
          )
    const chat =
      extractionModel === null
        ? null
        : own(createChatModel(chatConfig(provider, extractionModel, apiKey), { fetch: observed }))
    const tried = {
      embedding: embedding && account ? accountEmbeddings(embedding, account) : embedding,
      chat: chat && account ? accountChat(chat, account) : chat,
    }
    return outcomeOf(await tryOut(tried, validationLimitMs), stated)
  } catch (error) {
    // A key that cannot be read, a model that does not have the dimensions: nothing was asked.
    if (!(error instanceof QuarryError)) throw error
    return { error: error.message, embeddingDimensions: null, ...stated, waitMs: null }
  } finally {
    await Promise.all(clients.map((client) => client.close()))
  }
}

/**
 * The fields after a change, complete.
 * @throws InvalidInputError
 */
function changed(
  before: ProviderRow,
  change: Partial<ProviderFields>,
  apiKey: string | null | undefined,
  network: ProviderNetwork,
): ProviderFields {
  const hasApiKey = apiKey === undefined ? before.keyId !== null : apiKey !== null
  const after = completeFields(before.type, { ...before, ...change }, hasApiKey, network)
  // Else whoever may change a provider could have its key sent to a server of their own, and read it there.
  if (before.keyId !== null && apiKey === undefined && after.baseUrl !== before.baseUrl) {
    throw new InvalidInputError(
      'apiKey is not given, but baseUrl is another: a stored key is not sent to another address. Give the key again, or null to remove it',
      ['apiKey'],
    )
  }
  return after
}

function embeddingConfig(
  { type, baseUrl }: ProviderRow,
  model: string,
  dimensions: number | null,
  apiKey: string,
): EmbeddingProviderConfig {
  switch (type) {
    case 'LOCAL':
      return { type: 'local', threads: 1 }
    case 'OPENAI':
      return { type: 'openai', apiKey, baseUrl, model, dimensions }
    case 'OLLAMA':
      return { type: 'ollama', baseUrl: baseUrl ?? '', model, apiKey }
  }
}

function chatConfig({ type, baseUrl }: ProviderRow, model: string, apiKey: string) {
  return type === 'OLLAMA'
    ? ({ type: 'ollama', baseUrl: baseUrl ?? '', model, apiKey } as const)
    : ({ type: 'openai', apiKey, baseUrl, model } as const)
}

type StatedLimits = Pick<ValidationOutcome, 'statedRequestsPerMinute' | 'statedTokensPerMinute'>

/**
 * What OpenAI and servers like it say of the limits of a key with each answer ("Rate limits in headers" of its docs). Of
 * several models the lowest counts.
 */
function noteLimits(stated: StatedLimits, headers: Headers): void {
  const lowest = (known: number | null, header: string) => {
    const text = headers.get(header) ?? ''
    // What does not fit into the column is no limit.
    return /^[1-9]\d{0,8}$/.test(text) ? Math.min(Number(text), known ?? Number(text)) : known
  }
  stated.statedRequestsPerMinute = lowest(stated.statedRequestsPerMinute, 'x-ratelimit-limit-requests')
  stated.statedTokensPerMinute = lowest(stated.statedTokensPerMinute, 'x-ratelimit-limit-tokens')
}
