import { setTimeout as delay } from 'node:timers/promises'
import type { Database, Sql } from '../db/database.ts'
import { keepLooking } from '../db/keep-looking.ts'
import { errorMessage } from '../errors.ts'
import { raiseRecallAlert, resolveRecallAlert } from '../jobs/alerts.ts'
import type { Logger } from '../log.ts'
import type { Metrics } from '../metrics.ts'
import {
  type BuildLimits,
  buildMemoryBytes,
  buildResources,
  type CareDecision,
  type CareRules,
  careRules,
  decideCare,
  type HnswParameters,
} from './index-plan.ts'
import { isIndexPlanned, measureRecall } from './recall.ts'
import type { SearchSample } from './search-sample.ts'
import { type EmbeddingSpace, partitionName } from './space.ts'
import { changeOfRows, lookAfterTables, readMaintenanceMemory } from './upkeep.ts'
import {
  type CaredSpace,
  changePrecision,
  clearFailure,
  createNextIndex,
  dropNextIndex,
  dropOldIndex,
  indexCareChannel,
  readCaredSpaces,
  readVectorIndexes,
  recordBuild,
  recordFailure,
  recordMeasurement,
  setBuildResources,
  swapIndex,
  tryCareLock,
  type VectorIndex,
} from './vector-index.ts'
import { readVectorType } from './vectors.ts'

/** Below, somebody should look: too many of the nearest rows are not found. */
export const leastRecall = 0.95
/** How often it is looked whether something is to be done; requests are told of. */
const lookAgainMs = 10_000
/** An index build of millions of rows takes hours on a small machine. */
const buildLimitMs = 12 * 60 * 60_000
/** Nothing embedded for so long: what is owed is not waited for. */
const stalledAfterMs = 120_000
/** What has failed is tried again after so long. */
const retryMs = 60_000
/** Every other process has changed over to the new precision by then: it looks every ten seconds. */
const graceOfOldPrecisionSeconds = 60
/** Recall is measured again after so long if the rows have changed, and after the shorter time if they are twice as many. */
const measureAgainSeconds = { changed: 6 * 60 * 60, doubled: 10 * 60 }
const lockPollMs = 500

export const usualBuildLimits: BuildLimits = { memoryBytes: 1024 ** 3, workers: 2 }

export interface IndexCareOptions {
  database: Database
  /** The spaces as everything in this process holds them. */
  spaces: { active(): { space: EmbeddingSpace }; all(): readonly { space: EmbeddingSpace }[] }
  sample: SearchSample
  limits: BuildLimits
  metrics: Metrics
  log: Logger
  rules?: CareRules
}

/** Keeps the vector indexes whole, of the right shape and measured, until stopped. */
export function startIndexCare(options: IndexCareOptions): Promise<{ stop(): Promise<void> }> {
  let care: Awaited<ReturnType<typeof createIndexCare>> | null = null
  return keepLooking(options.database, {
    channel: indexCareChannel,
    async look(signal) {
      care ??= await createIndexCare(options, signal)
      await care.look()
    },
    lookAgainMs,
    afterFailureMs: lookAgainMs,
    trouble: 'Vector indexes could not be looked after',
    log: options.log,
  })
}

/**
 * Builds what is missing or was left invalid by an interrupted build, before anybody searches; waits for another
 * process that is at it. What is worth building only after its rows is left to index care.
 */
export async function buildMissingIndexes(
  database: Database,
  space: EmbeddingSpace,
  limits: BuildLimits,
  log: Logger,
): Promise<void> {
  for (;;) {
    const indexes = (await readOwn(database, space)).filter(({ present }) => !present?.isValid)
    const missing = indexes.filter((index) => decide(database, index, false, careRules).action === 'build')
    if (missing.length === 0) return
    const hasLock = await withCareLock(database, space, async (session) => {
      for (const index of await readOwn(session, space)) {
        if (index.present?.isValid) continue
        const decision = decide(database, index, false, careRules)
        if (decision.action === 'build') await build(database, session, index, decision, limits, log)
      }
    })
    if (!hasLock) await delay(lockPollMs)
  }
}

async function readOwn(sql: Sql, space: EmbeddingSpace): Promise<VectorIndex[]> {
  return readVectorIndexes(
    sql,
    (await readCaredSpaces(sql)).filter(({ id }) => id === space.id),
  )
}

/** What is to be done about an index; by the rules alone, whoever asks. */
export function decide(
  { engine }: Pick<Database, 'engine'>,
  index: VectorIndex,
  isStalled: boolean,
  rules: CareRules = careRules,
): CareDecision {
  const { space, rows, owed, present, rebuildRequestedAt } = index
  return decideCare(
    {
      rows,
      owed,
      isStalled,
      dimensions: space.dimensions,
      precision: space.nextPrecision ?? space.precision,
      present: present?.isValid ? present : null,
      isRequested: rebuildRequestedAt !== null,
      freezes: engine === 'embedded',
    },
    rules,
  )
}

/**
 * Lends a session that holds the lock of the space: one process at a time builds. The lock goes with the session, also
 * when the process is killed.
 * @returns whether it was had; else nothing was done
 */
async function withCareLock(
  database: Database,
  space: Pick<EmbeddingSpace, 'id'>,
  work: (session: Sql) => Promise<void>,
): Promise<boolean> {
  return database.session(buildLimitMs, async (session) => {
    // The embedded engine has one process and one session for all of it: a lock would never be in anybody's way.
    if (database.engine === 'postgres' && !(await tryCareLock(session, space))) return false
    await work(session)
    return true
  })
}

/** Postgres: a parallel build needs shared memory, of which containers have little. */
const isShortOfSharedMemory = (error: unknown) =>
  error instanceof Error && 'code' in error && error.code === '53100' && /shared memory/.test(error.message)

/**
 * Builds an index and puts it in place. Under the lock of the space.
 * @returns how long it took, in seconds; null if it was built already and only had to be put in place, or waits for that
 */
async function build(
  database: Database,
  session: Sql,
  index: VectorIndex,
  { parameters, reason }: Extract<CareDecision, { action: 'build' }>,
  limits: BuildLimits,
  log: Logger,
): Promise<number | null> {
  const { space, kind, name, rows } = index
  const started = performance.now()
  const isConcurrent = database.engine === 'postgres'
  // An invalid index is of no use to anybody, and its name is needed.
  const hasPresent = index.present !== null
  // A precision that is not used yet is not put in place before the indexes of all kinds are there.
  const isChange = space.nextPrecision !== null && index.present?.isValid === true
  const precision = isChange && space.nextPrecision ? space.nextPrecision : space.precision
  const target = { ...space, precision }
  const { next } = index
  const isDone = next?.isValid && next.precision === precision && isSame(next, parameters)
  if (!isDone) {
    if (next) await dropNextIndex(session, name, isConcurrent)
    const graph = buildMemoryBytes(rows, space.dimensions, precision, parameters)
    const own = await readMaintenanceMemory(session)
    const { memoryBytes, workers } = buildResources(rows, graph, {
      ...limits,
      memoryBytes: Math.max(own, limits.memoryBytes),
    })
    if (memoryBytes < graph) {
      log.warn(
        { index: name, graphBytes: graph, memoryBytes },
        'The graph of a vector index will not fit into memory while it is built; QUARRY_INDEX_BUILD_MEMORY_MB gives it more',
      )
    }
    const make = async (processes: number) => {
      const resources = { memoryBytes: Math.max(own, memoryBytes), workers: processes }
      if (!isConcurrent) {
        await inTransaction(session, async () => {
          await setBuildResources(session, resources, 'local')
          await createNextIndex(session, target, kind, parameters, false)
        })
        return
      }
      await setBuildResources(session, resources, 'session')
      await createNextIndex(session, target, kind, parameters, true)
    }
    log.info({ index: name, reason, rows, ...parameters, workers }, 'Building a vector index')
    try {
      await make(workers)
    } catch (error) {
      if (workers === 0 || !isShortOfSharedMemory(error)) throw error
      log.warn(
        { index: name, error: errorMessage(error) },
        'A vector index is built without parallel workers',
      )
      await dropNextIndex(session, name, isConcurrent)
      await make(0)
    }
  }
  const seconds = isDone ? null : (performance.now() - started) / 1000
  if (isChange) return seconds
  await dropOldIndex(session, name, isConcurrent)
  await inTransaction(session, async () => {
    await swapIndex(session, name, hasPresent)
    await recordBuild(session, index, seconds, reason)
  })
  await dropOldIndex(session, name, isConcurrent)
  // Until then the planner guesses what is in it.
  if (rows > 0) await session.query(`analyze ${partitionName(space)}`)
  log.info({ index: name, reason, rows, seconds, ...parameters }, 'A vector index is in place')
  return seconds
}

const isSame = (a: HnswParameters, b: HnswParameters) => a.m === b.m && a.efConstruction === b.efConstruction

async function inTransaction(session: Sql, work: () => Promise<void>): Promise<void> {
  await session.query('begin')
  try {
    await work()
    await session.query('commit')
  } catch (error) {
    await session.query('rollback').catch(() => {})
    throw error
  }
}

/** What index care does each time that it looks; `signal` breaks off what is under way. */
export async function createIndexCare(
  options: IndexCareOptions,
  signal: AbortSignal,
): Promise<{ look(): Promise<void> }> {
  const { database, sample, limits, metrics, log, rules = careRules } = options
  const vectorType = await readVectorType(database)
  /** When rows were last seen to become more, by the name of the index. */
  const growth = changeOfRows(stalledAfterMs)
  const failedAt = new Map<string, number>()
  /** How long the indexes took that this process has built, seconds: those of the next precision wait to be put in place. */
  const beside = new Map<string, number>()
  const told = new Map<string, string>()

  async function look(): Promise<void> {
    const spaces = await readCaredSpaces(database)
    follow(spaces)
    await sample.store(database, vectorType)
    for (const cared of spaces) {
      if (signal.aborted) return
      await lookAtSpace(cared)
    }
    if (signal.aborted) return
    await lookAfterTables(database, spaces, log)
    for (const cared of spaces) {
      await lookAtPlans(cared)
      await measureDue(cared)
    }
  }

  /** Searches of this process use what is in place by now. */
  function follow(spaces: readonly CaredSpace[]): void {
    for (const { space } of options.spaces.all()) {
      const own = spaces.find(({ id }) => id === space.id)
      if (!own || own.precision === space.precision) continue
      space.precision = own.precision
      log.info(
        { space: space.id, precision: own.precision },
        'Searches use vector indexes of another precision from here on',
      )
    }
  }

  const decideNow = (index: VectorIndex) =>
    decide(database, index, growth.isStalled(index.name, index.rows, index.owed), rules)

  /** Whether something is to be done under the lock. */
  function needsWork(index: VectorIndex): boolean {
    const decision = decideNow(index)
    if (decision.action === 'defer' || decision.action === 'wait') tellOnce(index, decision)
    else told.delete(index.name)
    return decision.action === 'build' || index.next !== null || isOldDue(index)
  }

  function tellOnce(index: VectorIndex, decision: Extract<CareDecision, { reason: string }>): void {
    const text =
      decision.action === 'defer'
        ? 'A vector index is built after its rows; until then searches compare with every row'
        : 'A vector index should be built anew, but that would hold up the embedded database: ask for it (quarry index --rebuild) when that suits'
    if (told.get(index.name) === text) return
    told.set(index.name, text)
    log.warn({ index: index.name, rows: index.rows, ...decision }, text)
  }

  /** An index of the precision of before is used by other processes for some seconds still. */
  const isOldDue = ({ isOldThere, secondsSinceBuilt }: VectorIndex) =>
    isOldThere && (secondsSinceBuilt === null || secondsSinceBuilt > graceOfOldPrecisionSeconds)

  async function lookAtSpace(cared: CaredSpace): Promise<void> {
    const indexes = await readVectorIndexes(database, [cared])
    const due = indexes.filter((index) => needsWork(index) && !isResting(index))
    if (due.length === 0) return
    let pid: number | null = null
    const cancel = () => {
      if (pid !== null) database.query('select pg_cancel_backend($1)', [pid]).catch(() => {})
    }
    signal.addEventListener('abort', cancel)
    try {
      await withCareLock(database, cared, async (session) => {
        if (database.engine === 'postgres') {
          const [backend] = await session.query<{ pid: number }>('select pg_backend_pid() as pid')
          pid = backend?.pid ?? null
        }
        if (signal.aborted) return
        await work(session, cared)
      })
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  const isResting = ({ name }: VectorIndex) => performance.now() - (failedAt.get(name) ?? -retryMs) < retryMs

  /** Under the lock: another process may have done it meanwhile, so all is read again. */
  async function work(session: Sql, cared: CaredSpace): Promise<void> {
    for (const index of await readVectorIndexes(session, [cared])) {
      if (signal.aborted || isResting(index)) continue
      try {
        await workOn(session, index)
        failedAt.delete(index.name)
      } catch (error) {
        if (signal.aborted) return
        failedAt.set(index.name, performance.now())
        log.error(
          { index: index.name, err: error },
          'A vector index could not be built; tried again in a minute',
        )
        await recordFailure(database, index, errorMessage(error))
      }
    }
    await changeOver(session, cared)
  }

  async function workOn(session: Sql, index: VectorIndex): Promise<void> {
    const isConcurrent = database.engine === 'postgres'
    if (isOldDue(index)) await dropOldIndex(session, index.name, isConcurrent)
    const decision = decideNow(index)
    if (decision.action === 'build') {
      const seconds = await build(database, session, index, decision, limits, log)
      if (seconds === null) return
      metrics.indexBuilds.observe({ kind: index.kind }, seconds)
      beside.set(index.name, seconds)
    } else if (index.next && !isAwaited(index)) {
      await dropNextIndex(session, index.name, isConcurrent)
    }
  }

  /** One of the next precision waits for those of the other kinds. */
  const isAwaited = ({ next, space: { nextPrecision } }: VectorIndex) =>
    next?.isValid === true && nextPrecision !== null && next.precision === nextPrecision

  /** Puts the indexes of the next precision in place when those of all kinds are there. */
  async function changeOver(session: Sql, cared: CaredSpace): Promise<void> {
    if (cared.nextPrecision === null || signal.aborted) return
    const indexes = (await readVectorIndexes(session, [cared])).filter(({ present }) => present?.isValid)
    if (!indexes.every(isAwaited)) return
    for (const index of indexes) {
      if (index.isOldThere) await dropOldIndex(session, index.name, database.engine === 'postgres')
    }
    await inTransaction(session, async () => {
      for (const index of indexes) {
        await swapIndex(session, index.name, true)
        await recordBuild(
          session,
          index,
          beside.get(index.name) ?? null,
          `it is to be of ${cared.nextPrecision?.toLowerCase()} precision`,
          0,
        )
      }
      await changePrecision(session, cared.id)
    })
    follow(await readCaredSpaces(session))
    await session.query(`analyze ${partitionName(cared)}`)
  }

  /** The planner leaves an index when what it knows of the table is out of date. */
  async function lookAtPlans(space: CaredSpace): Promise<void> {
    for (const index of await readOwn(database, space)) {
      if (!index.present?.isValid || index.rows < leastRowsToPlan || signal.aborted) continue
      if (await isIndexPlanned(database, space, index.kind, index.name)) {
        if (index.lastError === unplanned) await clearFailure(database, index, unplanned)
        continue
      }
      await database.session(buildLimitMs, (session) => session.query(`analyze ${partitionName(space)}`))
      if (await isIndexPlanned(database, space, index.kind, index.name)) {
        log.info(
          { index: index.name },
          'The planner had left a vector index; after an analyze it uses it again',
        )
      } else if (index.lastError !== unplanned) {
        log.error({ index: index.name }, unplanned)
        await recordFailure(database, index, unplanned)
      }
    }
  }

  async function measureDue(space: CaredSpace): Promise<void> {
    if (!(await readOwn(database, space)).some(isMeasureDue)) return
    // Under the lock, so that of several processes one measures.
    await withCareLock(database, space, async (session) => {
      for (const index of (await readOwn(session, space)).filter(isMeasureDue)) {
        const measured =
          index.present?.isValid && index.rows > 0
            ? await measureRecall(database, space, index.kind, index.rows, signal)
            : null
        if (signal.aborted) return
        await recordMeasurement(database, index, measured)
        if (measured) await judge(index, measured)
      }
    })
  }

  async function judge(
    { space, kind, name, rows }: VectorIndex,
    { recall, queries, source }: { recall: number; queries: number; source: string },
  ): Promise<void> {
    const place = { spaceId: space.id, kind }
    log.info({ index: name, rows, recall, queries, source }, 'Measured the recall of a vector index')
    if (recall >= leastRecall) {
      if (await resolveRecallAlert(database, place))
        log.info({ index: name }, 'Recall is as it should be again')
      return
    }
    const text =
      `Of the ten nearest ${kind.toLowerCase()}s the vector index finds ${(100 * recall).toFixed(1)} %; ` +
      `${100 * leastRecall} % are expected. Build it anew: quarry index --rebuild ${kind.toLowerCase()}`
    const isNew = await database.transaction((transaction) => raiseRecallAlert(transaction, place, text))
    if (isNew) log.error({ index: name, recall, queries, source }, `Alert: ${text}`)
  }

  return { look }
}

const unplanned = 'The planner does not use this index: searches compare with every row'
/** Of fewer rows an exact scan takes milliseconds, and the planner rightly prefers it: up to some thousands, measured. */
const leastRowsToPlan = 10_000
/** An index of fewer is not measured unless somebody asks. */
const leastRowsToMeasure = 1_000

/** When it is asked for, after a build, and now and then while rows come and go. */
function isMeasureDue(index: VectorIndex): boolean {
  const { present, rows, builtAt, measuredAt, measuredRows, secondsSinceMeasured } = index
  if (index.measureRequestedAt !== null) return true
  if (!present?.isValid || rows < leastRowsToMeasure) return false
  if (measuredAt === null || measuredRows === null || secondsSinceMeasured === null) return true
  if (builtAt !== null && builtAt > measuredAt) return true
  if (rows > 2 * measuredRows || rows < measuredRows / 2)
    return secondsSinceMeasured > measureAgainSeconds.doubled
  return rows !== measuredRows && secondsSinceMeasured > measureAgainSeconds.changed
}
