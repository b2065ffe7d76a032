import type { Database } from '../db/database.ts'
import { oneAtATime } from '../db/one-at-a-time.ts'
import { errorMessage, QuarryError } from '../errors.ts'
import type { ProcessRecord } from '../jobs/processes.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import { type EmbeddingProvider, environmentAccount, ProviderError } from '../providers/provider.ts'
import type { Providers } from '../providers/providers.ts'
import { providerChannel } from '../providers/status.ts'
import type { UsageLedger } from '../providers/usage.ts'
import { type EmbeddingPipeline, startEmbeddingPipeline } from './pipeline.ts'
import { type EmbeddingSpace, nameOfSpace, spacesChannel } from './space.ts'
import { createSpaceStatus } from './space-status.ts'
import { dropRetiredSpaces, enterSpaceUse, leaveSpaceUse, readSpaceUse } from './space-use.ts'
import { isSameModel, readSpaces, type SpaceRecord } from './spaces.ts'

/** A space that this process works with, for as long as it is not retired. */
export interface LiveSpace {
  /** The same object all the time; state and precision are changed in it. */
  readonly space: EmbeddingSpace
  /** Who embeds for it now: ask for it each time, as another address or key makes it another one. */
  readonly provider: EmbeddingProvider
}

/** The spaces of the database as they come, change and go, each with who embeds it, in this process. */
export interface LiveSpaces {
  /** The one that searches use. Whoever begins something asks once, and stays with it to the end. */
  active(): LiveSpace
  /** All that are filled or used. */
  all(): readonly LiveSpace[]
  /** Does something that needs the vectors of a space: they are not dropped before its end. */
  use<Result>(live: LiveSpace, work: () => Promise<Result>): Promise<Result>
  /** Follows at once what has just been changed. */
  refresh(): Promise<void>
  /** Why this process does not embed, or follow, as it should; null if it does. */
  problem(): string | null
  stop(): Promise<void>
}

/** A notification can be lost; what stands in the database cannot. */
const lookAgainMs = 5_000
/** No request to a provider takes longer: a client that was replaced is closed when nothing can be under way in it. */
const requestLimitMs = 60_000
/**
 * For so long after searches have changed over, an operation may be between two of its statements in the space of
 * before: its vectors stay.
 */
const afterSwitchMs = 5_000

export interface LiveSpacesOptions {
  database: Database
  /** For whoever embeds. */
  background: Database
  process: ProcessRecord
  /** Those that are added by the API. */
  providers: Pick<Providers, 'embedding'>
  /** Makes the one that the environment configures; it is closed when no space is embedded by it any more. */
  openEnvironment(): EmbeddingProvider
  usage: UsageLedger
  metrics: Metrics
  log: Logger
}

interface Held extends LiveSpace {
  provider: EmbeddingProvider
  record: SpaceRecord
  /** Names what the client was made of; null: it has to be made. */
  madeOf: string | null
  /** Why nobody embeds it in this process; null if somebody does. */
  error: string | null
  pipeline: EmbeddingPipeline | null
  uses: number
  lastActiveAt: number
}

/** Follows the spaces until stopped. There must be an active one. */
export async function followSpaces(options: LiveSpacesOptions): Promise<LiveSpaces> {
  const { database, process, log } = options
  const held = new Map<number, Held>()
  const replaced = new Set<{ client: EmbeddingProvider; timer: NodeJS.Timeout }>()
  let active: Held | null = null
  let failure: string | null = null
  let isStopping = false
  // A local one begins to load its model: mostly it is needed, and the start is shorter.
  let environment: EmbeddingProvider | null = options.openEnvironment()

  /** The client that embeds a space. @throws ProviderError */
  async function open(record: SpaceRecord): Promise<EmbeddingProvider> {
    const { providerId, model, dimensions, hasChosenDimensions } = record
    if (providerId !== null) {
      return options.providers.embedding(providerId, model, hasChosenDimensions ? dimensions : null)
    }
    environment ??= options.openEnvironment()
    if (isSameModel(record, environment)) return environment
    throw new ProviderError(
      'MISCONFIGURED',
      `This space was embedded by ${nameOfSpace(record)}, but the environment names ${environment.type}/${environment.model} now: set that back, or retire the space.`,
    )
  }

  async function enter(record: SpaceRecord): Promise<Held | null> {
    if (!(await enterSpaceUse(database, process.id, record.id))) return null
    const entered: Held = {
      record,
      space: { ...record },
      provider: unavailable(record, new ProviderError('UNAVAILABLE', 'It is being opened.')),
      madeOf: null,
      error: null,
      pipeline: null,
      uses: 0,
      lastActiveAt: Number.NEGATIVE_INFINITY,
    }
    held.set(record.id, entered)
    return entered
  }

  /** Makes the client of a space, and whoever embeds with it, be those of its row. */
  async function follow(one: Held, record: SpaceRecord): Promise<void> {
    const madeOf = `${record.providerId} ${record.providerVersion}`
    if (one.madeOf !== madeOf) {
      await endPipeline(one)
      if (one.madeOf !== null) replace(one.provider)
      one.madeOf = null
      try {
        one.provider = await open(record)
        one.madeOf = madeOf
        one.error = null
      } catch (error) {
        if (!(error instanceof QuarryError)) throw error
        await cannotOpen(one, record, error)
      }
    }
    if (record.isFilled && one.madeOf !== null && one.pipeline === null) {
      one.pipeline = await startEmbeddingPipeline({
        ...options,
        database: options.background,
        space: one.space,
        provider: one.provider,
        status: createSpaceStatus(database, record, log),
      })
    } else if (!record.isFilled) await endPipeline(one)
  }

  /** Searches by meaning fail with the reason until it can be; the rows wait. */
  async function cannotOpen(one: Held, record: SpaceRecord, error: QuarryError): Promise<void> {
    const failed = error instanceof ProviderError ? error : new ProviderError('MISCONFIGURED', error.message)
    one.provider = unavailable(record, failed)
    if (one.error === failed.message) return
    one.error = failed.message
    log.error({ space: record.id, error: failed.message }, 'Nobody embeds a space in this process')
    await createSpaceStatus(database, record, log).failed(failed, lookAgainMs)
  }

  function replace(client: EmbeddingProvider): void {
    if (client === environment) return
    const old = {
      client,
      timer: setTimeout(() => {
        replaced.delete(old)
        void close(client)
      }, requestLimitMs).unref(),
    }
    replaced.add(old)
  }

  const close = (client: EmbeddingProvider) =>
    client
      .close()
      .catch((error) => log.warn({ error: errorMessage(error) }, 'A provider did not end cleanly'))

  async function endPipeline(one: Held): Promise<void> {
    const { pipeline } = one
    one.pipeline = null
    await pipeline?.stop()
  }

  /** @returns whether it was left: not while something is under way in it */
  async function leave(one: Held): Promise<boolean> {
    await endPipeline(one)
    const graceMs = one.lastActiveAt + afterSwitchMs - performance.now()
    if (graceMs > 0) setTimeout(refreshLater, graceMs).unref()
    if (one.uses > 0 || graceMs > 0) return false
    await leaveSpaceUse(database, process.id, one.space.id)
    held.delete(one.space.id)
    if (one.madeOf !== null) replace(one.provider)
    return true
  }

  function changeOver(to: Held): void {
    if (active === to) return
    const before = active
    if (before) before.lastActiveAt = performance.now()
    active = to
    if (before) {
      log.info(
        { from: nameOfSpace(before.space), to: nameOfSpace(to.space) },
        'Searches use another embedding space from here on',
      )
    }
  }

  async function look(): Promise<void> {
    if (isStopping) return
    const records = await readSpaces(database)
    const live = records.filter(({ state }) => state !== 'RETIRED')
    for (const record of records) {
      const one = held.get(record.id)
      if (!one) continue
      one.record = record
      one.space.state = record.state
      one.space.precision = record.precision
    }
    // Before anything that takes time: the others have changed over by now.
    const next = live.find(({ state }) => state === 'ACTIVE')
    const nextHeld = next && (held.get(next.id) ?? (await enter(next)))
    if (nextHeld?.madeOf) changeOver(nextHeld)
    // Others have taken this process for dead, and it has entered again under another number.
    const entered = await readSpaceUse(database, process.id)
    for (const record of live) {
      const known = held.get(record.id)
      if (known && !entered.includes(record.id)) await enterSpaceUse(database, process.id, record.id)
      const one = known ?? (await enter(record))
      if (one && !isStopping) await follow(one, record)
    }
    if (nextHeld) changeOver(nextHeld)
    for (const one of [...held.values()]) {
      if (!live.some(({ id }) => id === one.space.id) && one !== active) await leave(one)
    }
    if (environment && ![...held.values()].some(({ space }) => space.providerId === null)) {
      // A local one has the model in memory.
      const unused = environment
      environment = null
      await close(unused)
    }
    dropLater()
  }

  let dropping: Promise<void> | null = null
  /** Not in a look: it may wait for statements of others, and nobody should be followed late for that. */
  function dropLater(): void {
    dropping ??= dropRetiredSpaces(database, log)
      .catch((error) =>
        log.warn({ error: errorMessage(error) }, 'Retired embedding spaces could not be seen'),
      )
      .finally(() => {
        dropping = null
      })
  }

  const refresh = oneAtATime(async () => {
    try {
      await look()
      failure = null
    } catch (error) {
      failure = errorMessage(error)
      throw error
    }
  })
  const refreshLater = () => {
    refresh().catch((error) => {
      if (!isStopping) log.warn({ error: errorMessage(error) }, 'The embedding spaces could not be followed')
    })
  }

  await refresh()
  if (!active) throw new Error('the database has no active embedding space')
  const unlistens = await Promise.all([
    database.listen(spacesChannel, refreshLater),
    database.listen(providerChannel, () => {
      if ([...held.values()].some(({ madeOf }) => madeOf === null)) refreshLater()
    }),
  ])
  const timer = setInterval(refreshLater, lookAgainMs)
  // What came between the first look and the listeners.
  refreshLater()

  return {
    active() {
      if (!active) throw new Error('the database has no active embedding space')
      return active
    },
    all: () => [...held.values()].filter(({ space }) => space.state !== 'RETIRED'),
    async use(live, work) {
      const one = held.get(live.space.id)
      if (!one) return work()
      one.uses++
      try {
        return await work()
      } finally {
        one.uses--
      }
    },
    refresh,
    problem() {
      if (failure !== null) return `The embedding spaces cannot be followed: ${failure}`
      const reasons = [...held.values()].flatMap(({ pipeline }) => pipeline?.problem() ?? [])
      return active?.error ?? reasons[0] ?? null
    },
    async stop() {
      isStopping = true
      clearInterval(timer)
      await Promise.all(unlistens.map((unlisten) => unlisten()))
      await refresh().catch(() => {})
      await dropping
      await Promise.all([...held.values()].map(endPipeline))
      for (const { timer } of replaced) clearTimeout(timer)
      const clients = [...held.values()].flatMap(({ madeOf, provider }) => (madeOf === null ? [] : provider))
      const all = [
        ...clients,
        ...[...replaced].map(({ client }) => client),
        ...(environment ? [environment] : []),
      ]
      await Promise.all([...new Set(all)].map(close))
      // Its places go with its row among the processes.
      held.clear()
    },
  }
}

/** Stands for who embeds a space while nobody can: whatever is asked of it fails with the reason. */
function unavailable(space: SpaceRecord, error: ProviderError): EmbeddingProvider {
  const { provider, model, dimensions } = space
  return {
    accountId: space.providerId ?? environmentAccount,
    type: provider.toLowerCase() as EmbeddingProvider['type'],
    model,
    limits: { maxTextsPerRequest: 1, maxTokensPerRequest: 1, maxTokensPerText: 1e9, maxParallelRequests: 1 },
    knownDimensions: dimensions,
    calibration: space,
    dimensions: () => Promise.resolve(dimensions),
    countTokens: () => 1,
    embed: () => Promise.reject(error),
    close: () => Promise.resolve(),
  }
}
