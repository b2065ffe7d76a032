import { LRUCache } from 'lru-cache'
import { createBell } from '../bell.ts'
import type { Database } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { ChatModel } from './chat/chat.ts'
import { costOf } from './estimate.ts'
import { type EmbeddingProvider, type OnCall, type ProviderCall, ProviderError } from './provider.ts'
import {
  type AccountTerms,
  addUsage,
  type Budget,
  budgetChannel,
  readAccountTerms,
  readJobBudget,
  type UsageEntry,
  type UsageKind,
} from './usage-records.ts'

/**
 * Whoever raises a budget wakes those that wait for it; this long they wait where the word of that was lost, and for the
 * next month.
 */
const budgetWaitMs = 3_600_000
/** Sums are written so often: what a process that is killed has not written is lost. */
const flushMs = 1000
/** What others have spent meanwhile is not seen for so long. */
const staleMs = 2000

/** A budget is used up: the work waits until it is raised, or until the next month. */
const overBudget = (message: string) =>
  new ProviderError('RATE_LIMITED', message, { retryAfterMs: budgetWaitMs, isOverBudget: true })

/** Accounts, and jobs, of which the budget is kept in memory; of others it is read again. */
const maxKnown = 1000

/** For whom requests are made. */
export interface UsageAccount {
  /**
   * To be asked before each request. Queries and validations are let through whatever was spent: a search must go on, and
   * neither costs much.
   * @throws ProviderError with `isOverBudget`
   */
  admit(): Promise<void>
  /** To be told of each request. */
  record: OnCall
}

/**
 * Accounts for every request to a provider, in memory first, and written behind: a request waits for no statement.
 * Nothing is lost when a process stops politely; one that is killed takes the last second with it, and what a database
 * that was away has not got yet.
 */
export interface UsageLedger {
  /** @param jobIds shares of the job or jobs that the requests are for; `null` stands for none */
  account(
    of: Pick<EmbeddingProvider | ChatModel, 'accountId' | 'type'>,
    kind: UsageKind,
    jobIds?: string | null | ReadonlyMap<string | null, number>,
  ): UsageAccount
  /** Jobs that have used up their budgets, as far as this process has asked for them. */
  jobsOverBudget(): string[]
  /** Resolves when a budget or a price may have been changed, at the limit, or when aborted. */
  budgetChange(options: { signal: AbortSignal; limitMs: number }): Promise<void>
  /** Writes what is not written yet. */
  flush(): Promise<void>
  stop(): Promise<void>
}

interface Known<Value> {
  value: Value | null
  readAt: number
}

export async function startUsageLedger(database: Database, log: Logger): Promise<UsageLedger> {
  const pending = new Map<string, UsageEntry>()
  const accounts = new LRUCache<string, Known<AccountTerms>>({ max: maxKnown })
  const jobs = new LRUCache<string, Known<Budget>>({ max: maxKnown })
  const bell = createBell()
  let timer: NodeJS.Timeout | null = null
  let writing: Promise<void> = Promise.resolve()
  let isStopped = false

  const unlisten = await database.listen(budgetChannel, () => {
    accounts.clear()
    jobs.clear()
    bell.ring()
  })

  function add(entry: UsageEntry): void {
    const key = `${entry.accountId} ${entry.kind} ${entry.jobId}`
    const sum = pending.get(key)
    pending.set(key, sum ? sumOf(sum, entry) : entry)
    if (timer === null && !isStopped) {
      timer = setTimeout(() => {
        flush().catch((error) => log.warn({ error: errorMessage(error) }, 'Usage could not be written yet'))
      }, flushMs)
      timer.unref()
    }
  }

  function flush(): Promise<void> {
    writing = writing.catch(() => {}).then(write)
    return writing
  }

  async function write(): Promise<void> {
    if (timer) clearTimeout(timer)
    timer = null
    const entries = [...pending.values()]
    if (entries.length === 0) return
    pending.clear()
    try {
      await addUsage(database, entries)
    } catch (error) {
      for (const entry of entries) add(entry)
      throw error
    }
  }

  /** What is not written yet counts as well. */
  function spend(entry: UsageEntry): void {
    const account = accounts.get(entry.accountId)?.value
    if (!account || entry.isFree) return
    const cost = costOf(entry, account) ?? 0
    account.spent += cost
    const job = entry.jobId === null ? null : jobs.get(entry.jobId)?.value
    if (job) job.spent += cost
  }

  /** As it was a moment ago, while there is something left; else as it is now. */
  async function current<Value extends Budget>(
    cache: LRUCache<string, Known<Value>>,
    id: string,
    read: (id: string) => Promise<Value | null>,
  ): Promise<Value | null> {
    const known = cache.get(id)
    if (known) {
      const hasLimit = known.value !== null && known.value.limit !== null
      const isFresh = performance.now() - known.readAt < staleMs
      if (!hasLimit || (isFresh && !isUsedUp(known.value))) return known.value
    }
    await flush()
    const value = await read(id)
    cache.set(id, { value, readAt: performance.now() })
    return value
  }

  async function admit(accountId: string, jobIds: Iterable<string | null>): Promise<void> {
    const account = await current(accounts, accountId, (id) => readAccountTerms(database, id))
    if (account && isUsedUp(account)) {
      throw overBudget(
        `Provider ${account.name} has used up its budget of ${account.limit} USD for ${account.month} (spent: ${dollars(account.spent)} USD). ` +
          'Raise its monthlyBudget, or wait for the next month.',
      )
    }
    for (const jobId of jobIds) {
      const job = jobId === null ? null : await current(jobs, jobId, (id) => readJobBudget(database, id))
      if (job && isUsedUp(job)) {
        throw overBudget(
          `The job has used up its budget of ${job.limit} USD (spent: ${dollars(job.spent)} USD). Raise it by setJobBudget, or cancel the job.`,
        )
      }
    }
  }

  return {
    account({ accountId, type }, kind, jobIds = null) {
      const shares = typeof jobIds === 'string' || jobIds === null ? new Map([[jobIds, 1]]) : jobIds
      const isFree = type === 'local'
      return {
        async admit() {
          if (kind === 'EMBEDDING' || kind === 'EXTRACTION') await admit(accountId, shares.keys())
        },
        record(call) {
          for (const [jobId, part] of shareOut(call, shares)) {
            const entry = { accountId, kind, jobId, isFree, ...part }
            spend(entry)
            add(entry)
          }
        },
      }
    },
    jobsOverBudget() {
      // After the wait they are looked at anew: by whoever asks for them next.
      const since = performance.now() - budgetWaitMs
      return [...jobs].flatMap(([id, { value, readAt }]) => (isUsedUp(value) && readAt > since ? [id] : []))
    },
    budgetChange: (options) => bell.wait(options),
    flush,
    async stop() {
      isStopped = true
      await unlisten()
      await flush()
    },
  }
}

const isUsedUp = (budget: Budget | null): boolean =>
  budget !== null && budget.limit !== null && budget.spent >= budget.limit

const dollars = (amount: number) => amount.toFixed(4).replace(/0{1,2}$/, '')

function sumOf(a: UsageEntry, b: UsageEntry): UsageEntry {
  return {
    ...a,
    requests: a.requests + b.requests,
    failedRequests: a.failedRequests + b.failedRequests,
    tokensIn: a.tokensIn + b.tokensIn,
    tokensOut: a.tokensOut + b.tokensOut,
    ms: a.ms + b.ms,
  }
}

type Part = Pick<UsageEntry, 'requests' | 'failedRequests' | 'tokensIn' | 'tokensOut' | 'ms'>

/**
 * One request that was made for several jobs: its tokens go to each by its share, to whole tokens; the request itself, its
 * time and what is left by rounding to the one with the largest share. Nothing is counted twice, nothing is lost.
 * @param shares above 0 each, in any unit
 */
export function shareOut<Job>(call: ProviderCall, shares: ReadonlyMap<Job, number>): Map<Job, Part> {
  const bySize = [...shares].sort(([, a], [, b]) => b - a)
  const total = bySize.reduce((sum, [, share]) => sum + share, 0)
  const parts = new Map<Job, Part>()
  let { tokensIn, tokensOut } = call
  for (const [job, share] of bySize.slice(1)) {
    const own = {
      tokensIn: Math.floor((call.tokensIn * share) / total),
      tokensOut: Math.floor((call.tokensOut * share) / total),
    }
    tokensIn -= own.tokensIn
    tokensOut -= own.tokensOut
    if (own.tokensIn + own.tokensOut > 0) parts.set(job, { requests: 0, failedRequests: 0, ms: 0, ...own })
  }
  const [largest] = bySize
  if (largest) {
    parts.set(largest[0], {
      requests: 1,
      failedRequests: call.isFailed ? 1 : 0,
      tokensIn,
      tokensOut,
      ms: call.ms,
    })
  }
  return parts
}

/** The provider, with what it is asked told to an account. */
export function accountEmbeddings(provider: EmbeddingProvider, account: UsageAccount): EmbeddingProvider {
  return {
    type: provider.type,
    accountId: provider.accountId,
    model: provider.model,
    limits: provider.limits,
    calibration: provider.calibration,
    get knownDimensions() {
      return provider.knownDimensions
    },
    dimensions: (signal) => provider.dimensions(signal, account.record),
    countTokens: (text) => provider.countTokens(text),
    async embed(texts, signal) {
      await account.admit()
      return provider.embed(texts, signal, account.record)
    },
    close: () => provider.close(),
  }
}

/** The same for a chat model. */
export function accountChat(chat: ChatModel, account: UsageAccount): ChatModel {
  return {
    ...chat,
    async ask(request, signal) {
      // To go on with an answer that was paid for, such as to have it repaired, is let through: else it would be lost.
      const isBegun = request.messages.some(({ role }) => role === 'assistant')
      if (!isBegun) await account.admit()
      return chat.ask(request, signal, account.record)
    },
  }
}
