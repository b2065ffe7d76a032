import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { bytesText } from '../bytes.ts'
import { type Config, type ConfigMistake, findConfigMistakes, parseConfig } from '../config.ts'
import type { Sql } from '../db/database.ts'
import { type MigrationState, readMigrationState, readServer } from '../db/migrate.ts'
import { readCoverage } from '../embedding/coverage.ts'
import { readSpaces, type SpaceRecord } from '../embedding/spaces.ts'
import { readOldestOwedSeconds } from '../embedding/stats.ts'
import { readCaredSpaces, readVectorIndexes } from '../embedding/vector-index.ts'
import { errorMessage, NotFoundError, QuarryError } from '../errors.ts'
import { deadAfterSeconds } from '../jobs/processes.ts'
import { readQueueDepth } from '../jobs/stats.ts'
import { createLogger } from '../log.ts'
import { createKeyRing, type KeyRing, ProviderKeyError } from '../providers/keys.ts'
import { type ProviderWithKey, readProviders, readProviderWithKey } from '../providers/records.ts'
import { countWordless } from '../words/store.ts'
import { type ClockReading, judgeClock, readingOf } from './clock.ts'
import { freeBytesAt, judgeDataDisk, judgeUploadDisk } from './disk.ts'
import { type Finding, type Judgement, named, skipped, unknown, wrong } from './finding.ts'
import {
  isNew,
  isUpToDate,
  judgeConfiguration,
  judgeCoverage,
  judgeIndex,
  judgeJobs,
  judgeKeys,
  judgeMigrations,
  judgeNode,
  judgeNoSpace,
  judgeQueue,
  judgeRows,
  judgeSpace,
  judgeTriggers,
  judgeVariables,
  judgeVector,
  judgeWords,
  type StoredKey,
} from './judge.ts'
import { findPlace, type Limits, type Place, usualLimits } from './place.ts'
import {
  type EnvironmentEmbedding,
  tryEnvironmentEmbedding,
  tryEnvironmentExtraction,
  tryStoredProviders,
} from './providers.ts'
import { judgeReadiness, judgeStanding, type Readiness, type ServedStanding } from './served.ts'
import {
  countLivingProcesses,
  countMissingRows,
  countOrphanedRows,
  countOutdatedRows,
  isPartitionThere,
  readClock,
  readCommonestFailure,
  readDatabaseSize,
  readFailingJobs,
  readTriggers,
} from './statements.ts'
import { findUnknownVariables } from './variables.ts'

/** A running server, asked over HTTP. Each rejects with a QuarryError if it does not answer, within seconds. */
export interface ServerClient {
  /** What `/ready` answers. @param onReading told of the server's clock */
  readiness(url: string, onReading: (reading: ClockReading) => void): Promise<Readiness>
  /** What the API answers to `doctorQuery`. */
  standing(url: string): Promise<ServedStanding>
}

export interface DoctorOptions {
  env: Readonly<Record<string, string | undefined>>
  server: ServerClient
  /** The usual ones unless given. */
  limits?: Partial<Limits>
}

const log = createLogger('silent')

/** What needs the tables of this version. */
const tableChecks = [
  'triggers',
  'embedding space',
  'vector indexes',
  'embeddings',
  'embedding rows',
  'words',
  'jobs',
  'job queue',
  'encryption keys',
  'added providers',
] as const
const databaseChecks = ['migrations', 'pgvector', ...tableChecks] as const

/**
 * Looks at everything in turn, and tells each finding as soon as it is there. Changes nothing: makes no folder, migrates
 * and mends nothing, and stores nothing of what providers answer. Goes on after a failure with whatever can still be
 * looked at, and says of the rest why it cannot.
 */
export async function* examine({
  env,
  server,
  limits: given,
}: DoctorOptions): AsyncGenerator<Finding, void, undefined> {
  const limits = { ...usualLimits, ...given }
  const settings = readSettings(env)
  yield named('configuration', judgeConfiguration(settings.mistakes))
  yield named('variables', judgeVariables(findUnknownVariables(env)))
  yield named('Node.js', judgeNode(process.version, await readEngine()))

  const readings: ClockReading[] = []
  const note = (reading: ClockReading) => void readings.push(reading)
  const doubt = settings.doubtAbout('DATABASE_URL', 'QUARRY_URL')
  const place: Place =
    doubt === null
      ? await findPlace(settings.config, log, limits)
      : {
          kind: 'nowhere',
          cause: doubt,
          isNothingThere: false,
          judgement: unknown(`not looked for: ${doubt}`),
        }
  let databaseBytes: number | null = null
  try {
    if (place.judgement) yield named('database', place.judgement)
    if (place.kind === 'server') yield* examineServer(place, server, note)
    else databaseBytes = yield* examineHere(place, settings, note)
  } finally {
    if (place.kind === 'database') {
      // One that does not answer any more does not part politely either.
      await Promise.race([
        place.database.close().catch(() => {}),
        delay(limits.closeMs, null, { ref: false }),
      ])
    }
  }
  yield* examineDisks(settings.config, place, databaseBytes)
  yield named('clock', judgeClock(readings))
}

interface Settings {
  /** Without the variables that have mistakes. */
  config: Config
  mistakes: readonly ConfigMistake[]
  /** Why nothing can be said that depends on one of these variables; null if it can. */
  doubtAbout(...variables: readonly string[]): string | null
}

/** As far as the environment can be read: what does not depend on a mistake is looked at all the same. */
function readSettings(env: DoctorOptions['env']): Settings {
  const mistakes = findConfigMistakes(env)
  const mistaken = new Set(mistakes.flatMap(({ variables }) => variables))
  const sound = Object.fromEntries(Object.entries(env).filter(([name]) => !mistaken.has(name)))
  return {
    config: parseConfig(sound),
    mistakes,
    doubtAbout(...variables) {
      const names = variables.filter((name) => mistaken.has(name))
      return names.length === 0 ? null : `${names.join(', ')} cannot be read (see configuration)`
    },
  }
}

async function readEngine(): Promise<string> {
  const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { engines: { node: string } }).engines.node
}

async function* examineServer(
  { url, howToSeeMore }: Extract<Place, { kind: 'server' }>,
  server: ServerClient,
  note: (reading: ClockReading) => void,
): AsyncGenerator<Finding, void, undefined> {
  try {
    yield named('server', judgeReadiness(await server.readiness(url, note), url))
  } catch (error) {
    yield named('server', judgeFailure(error))
    yield* notLookedAt([...databaseChecks, 'providers'], 'the server does not answer')
    return
  }
  let standing: ServedStanding
  try {
    standing = await server.standing(url)
  } catch (error) {
    yield named('API', judgeFailure(error))
    yield* notLookedAt([...databaseChecks, 'providers'], 'the API does not answer')
    return
  }
  yield* judgeStanding(standing, howToSeeMore)
}

/** @returns the bytes that the database takes; null if they are not known */
async function* examineHere(
  place: Exclude<Place, { kind: 'server' }>,
  settings: Settings,
  note: (reading: ClockReading) => void,
): AsyncGenerator<Finding, number | null, undefined> {
  const { config } = settings
  const embeddingDoubt = settings.doubtAbout(
    'QUARRY_EMBEDDING_PROVIDER',
    ...variablesOf[config.embedding.type],
  )
  const { extractor } = config.extraction
  const extractionDoubt = settings.doubtAbout('QUARRY_EXTRACTION_PROVIDER', ...variablesOf[extractor.type])
  // Begun now, read when it is their turn: one that does not answer takes ten seconds, in which the rest is looked at.
  const embedding = embeddingDoubt === null ? tryEnvironmentEmbedding(config.embedding, note) : null
  const extraction = extractionDoubt === null ? tryEnvironmentExtraction(extractor, note) : null
  try {
    const seen =
      place.kind === 'database' ? yield* examineDatabase(place, settings, embedding, note) : nothingSeen
    if (place.kind === 'nowhere') {
      yield* place.isNothingThere
        ? nothingThere(databaseChecks, place.cause)
        : notLookedAt(databaseChecks, place.cause)
    }
    yield (await embedding?.trial.finding) ??
      named('provider for embedding', unknown(`not asked: ${embeddingDoubt}`))
    if (extraction) yield await extraction.finding
    else {
      yield named(
        'provider for extraction',
        extractionDoubt === null
          ? skipped('the environment has rules extract, which need nobody')
          : unknown(`not asked: ${extractionDoubt}`),
      )
    }
    yield* examineStored(seen.stored, settings, note)
    return seen.databaseBytes
  } finally {
    await embedding?.close()
  }
}

/** Which variables describe a provider of the environment. */
const variablesOf = {
  local: ['QUARRY_EMBEDDING_THREADS'],
  openai: ['OPENAI_API_KEY', 'OPENAI_BASE_URL', 'OPENAI_EMBEDDING_DIMENSIONS'],
  ollama: ['OLLAMA_BASE_URL'],
} as const

interface Stored {
  row: ProviderWithKey
  /** Why its API key cannot be opened; null if it can, or there is none. */
  keyProblem: string | null
}

interface Seen {
  /** Null: not known. */
  databaseBytes: number | null
  stored: readonly Stored[]
}

const nothingSeen: Seen = { databaseBytes: null, stored: [] }

async function* examineDatabase(
  { database, sql }: Extract<Place, { kind: 'database' }>,
  settings: Settings,
  embedding: EnvironmentEmbedding | null,
  note: (reading: ClockReading) => void,
): AsyncGenerator<Finding, Seen, undefined> {
  const check = createCheck()
  const seen: {
    migrations?: MigrationState
    spaces?: readonly SpaceRecord[]
    stored?: Stored[]
    bytes?: number
  } = {}
  yield await check('migrations', async () => {
    seen.migrations = await readMigrationState(sql)
    return judgeMigrations(seen.migrations)
  })
  yield await check('pgvector', async () => judgeVector(await readServer(sql)))
  if (!seen.migrations || !isUpToDate(seen.migrations)) {
    yield* seen.migrations && isNew(seen.migrations)
      ? nothingThere(tableChecks, 'there are no tables yet')
      : notLookedAt(tableChecks, 'the tables are not those of this version (see migrations)')
    return nothingSeen
  }

  // Whoever has opened a folder is alone in it, also if a row tells of a process that was killed a moment ago.
  const living =
    database.engine === 'embedded' ? async () => [] : () => countLivingProcesses(sql, deadAfterSeconds)
  const isSomebodyWorking = async () => (await living()).length > 0

  yield await check('triggers', async () => judgeTriggers(await readTriggers(sql)))
  yield* examineSpaces()
  yield* examineIndexes()
  yield* examineEmbeddings()
  yield await check('words', async () => judgeWords(await countWordless(sql), await isSomebodyWorking()))
  yield await check('jobs', async () => judgeJobs(await readFailingJobs(sql)))
  yield await check('job queue', async () =>
    judgeQueue(database.engine, await readQueueDepth(sql), await living()),
  )
  yield await check('encryption keys', async () => {
    const { encryptionKeys } = settings.config.providers
    const keys = createKeyRing(encryptionKeys)
    seen.stored = await readStored(sql, keys)
    const doubt = settings.doubtAbout('QUARRY_ENCRYPTION_KEY')
    if (doubt !== null) return unknown(`not tried: ${doubt}`)
    return judgeKeys(
      encryptionKeys.length,
      seen.stored.flatMap((each) => storedKey(each, keys)),
    )
  })
  if (!seen.stored) yield* notLookedAt(['added providers'], 'they could not be read (see encryption keys)')

  // Of no check of their own: the disk and the clock tell of them.
  await check('size', async () => {
    seen.bytes = await readDatabaseSize(sql)
    return skipped('')
  })
  // The embedded database has the clock of this machine.
  if (database.engine === 'postgres') {
    await check('clock', async () => {
      const sentMs = Date.now()
      const databaseMs = await readClock(sql)
      note(readingOf('the database', databaseMs, sentMs, Date.now()))
      return skipped('')
    })
  }
  return { databaseBytes: seen.bytes ?? null, stored: seen.stored ?? [] }

  async function* examineSpaces(): AsyncGenerator<Finding, void, undefined> {
    const names = new Map<string, string>()
    const whole = await check('embedding space', async () => {
      const spaces = await readSpaces(sql)
      for (const { id, name } of await readProviders(sql)) names.set(id, name)
      // The one that searches use comes first.
      seen.spaces = spaces
        .filter(({ state }) => state !== 'RETIRED')
        .sort((one, other) => Number(other.state === 'ACTIVE') - Number(one.state === 'ACTIVE'))
      return judgeNoSpace()
    })
    if (!seen.spaces?.length) yield whole
    for (const space of seen.spaces ?? []) {
      const { id, state } = space
      yield await check(state === 'ACTIVE' ? 'embedding space' : `embedding space ${id}`, async () =>
        judgeSpace(space, {
          isPartitionThere: await isPartitionThere(sql, space),
          providerName: space.providerId && (names.get(space.providerId) ?? space.providerId),
          difference: embedding?.differenceFrom(space),
        }),
      )
    }
  }

  async function* examineIndexes(): AsyncGenerator<Finding, void, undefined> {
    const findings: Finding[] = []
    const whole = await check('vector indexes', async () => {
      const indexes = await readVectorIndexes(sql, await readCaredSpaces(sql))
      const isWorking = await isSomebodyWorking()
      for (const index of indexes) {
        const name = ofSpace(`vector index ${index.kind.toLowerCase()}`, index.space)
        findings.push(named(name, judgeIndex(database, index, isWorking)))
      }
      return skipped('there is no embedding space yet')
    })
    if (findings.length > 0) yield* findings
    else yield whole
  }

  async function* examineEmbeddings(): AsyncGenerator<Finding, void, undefined> {
    if (!seen.spaces?.length) yield* withoutSpace(['embeddings', 'embedding rows'])
    for (const space of seen.spaces ?? []) {
      yield await check(ofSpace('embeddings', space), async () => {
        const { coverage, providerError } = await readCoverage(sql, space.id)
        return judgeCoverage(
          coverage,
          await readCommonestFailure(sql, space.id),
          await readOldestOwedSeconds(sql, space.id),
          await isSomebodyWorking(),
          providerError,
        )
      })
      yield await check(ofSpace('embedding rows', space), async () =>
        judgeRows({
          missing: await countMissingRows(sql, space.id),
          outdated: await countOutdatedRows(sql, space.id),
          orphaned: await countOrphanedRows(sql, space.id),
        }),
      )
    }
  }

  function* withoutSpace(names: readonly string[]): Generator<Finding> {
    yield* seen.spaces
      ? nothingThere(names, 'there is no embedding space yet')
      : notLookedAt(names, 'the embedding space could not be read')
  }
}

/** Which space a check is about: without a number, about the one that searches use. */
const ofSpace = (check: string, { id, state }: Pick<SpaceRecord, 'id' | 'state'>): string =>
  state === 'ACTIVE' ? check : `${check} of space ${id}`

async function* examineStored(
  stored: readonly Stored[],
  settings: Settings,
  note: (reading: ClockReading) => void,
): AsyncGenerator<Finding, void, undefined> {
  const { encryptionKeys, network } = settings.config.providers
  const keyDoubt = settings.doubtAbout('QUARRY_ENCRYPTION_KEY')
  const doubt = settings.doubtAbout('QUARRY_PROVIDER_NETWORK')
  const { trials, close } = tryStoredProviders(
    stored.map(({ row, keyProblem }) => ({
      row,
      doubt:
        doubt ??
        (row.key === null ? null : keyDoubt) ??
        (keyProblem === null ? null : 'its API key cannot be opened (see encryption keys)'),
    })),
    { keys: createKeyRing(encryptionKeys), network, onReading: note },
  )
  try {
    for (const { finding } of trials) yield await finding
  } finally {
    await close()
  }
}

async function* examineDisks(
  { database, serverUrl, server }: Config,
  place: Place,
  databaseBytes: number | null,
): AsyncGenerator<Finding, void, undefined> {
  if (serverUrl !== null) {
    yield* notLookedAt(['disk', 'upload folder'], 'they are those of the machine on which the server runs')
    return
  }
  if (database.kind === 'embedded') {
    yield await guarded('disk', async () =>
      judgeDataDisk(database.dataDir, await freeBytesAt(database.dataDir), databaseBytes),
    )
  } else {
    const size = databaseBytes === null ? '' : `the database takes ${bytesText(databaseBytes)}; `
    const reason =
      place.kind === 'database' ? 'what is free on its server cannot be seen from here' : 'see database'
    yield named('disk', unknown(`${size}${reason}`))
  }
  yield await guarded('upload folder', async () =>
    judgeUploadDisk(tmpdir(), await freeBytesAt(tmpdir()), server.maxUploadBytes),
  )
}

function* nothingThere(names: readonly string[], why: string): Generator<Finding> {
  for (const name of names) yield named(name, skipped(why))
}

function* notLookedAt(names: readonly string[], cause: string): Generator<Finding> {
  for (const name of names) yield named(name, unknown(`not looked at: ${cause}`))
}

/** All that were added, with their keys; one that is deleted meanwhile is left out. */
async function readStored(sql: Sql, keys: KeyRing): Promise<Stored[]> {
  const stored: Stored[] = []
  for (const { id } of await readProviders(sql)) {
    try {
      const row = await readProviderWithKey(sql, id)
      stored.push({ row, keyProblem: keyProblemOf(row, keys) })
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error
    }
  }
  return stored
}

/** Really opens it: a key of the right name does not open what was changed, or moved here from another row. */
function keyProblemOf({ provider, key }: ProviderWithKey, keys: KeyRing): string | null {
  if (key === null) return null
  try {
    keys.open(key, provider.id)
    return null
  } catch (error) {
    if (error instanceof ProviderKeyError) return error.message
    throw error
  }
}

function storedKey({ row: { provider, key }, keyProblem }: Stored, keys: KeyRing): StoredKey[] {
  if (key === null) return []
  return [{ name: provider.name, problem: keyProblem, isUnderFirst: key.keyId === keys.sealingKeyId }]
}

/**
 * Makes checks of the database that do not hold up each other: one that fails says so and the next is made, unless the
 * database has gone.
 */
function createCheck(): (name: string, look: () => Promise<Judgement>) => Promise<Finding> {
  let lostAt: string | null = null
  return async (name, look) => {
    if (lostAt !== null) return named(name, unknown(`not looked at: the database has gone (see ${lostAt})`))
    try {
      return named(name, await look())
    } catch (error) {
      if (isBug(error)) throw error
      if (isAnswer(error)) return named(name, judgeStatementError(error))
      lostAt = name
      return named(
        name,
        wrong(`the database has stopped answering: ${errorMessage(error)}`, 'Its log says why.'),
      )
    }
  }
}

/** An error of this code must not be told as one of the database. */
const isBug = (error: unknown): boolean =>
  error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError

/** Classes of SQLSTATE after which the connection is gone (PostgreSQL, Appendix A): connection exception, shutdown. */
const isGone = (code: string): boolean => code.startsWith('08') || code.startsWith('57P')

/** Whether it is the answer of a database that goes on answering. */
function isAnswer(error: unknown): error is Error & { code: string } {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false
  return /^[0-9A-Z]{5}$/.test(error.code) && !/^E[A-Z]{4}$/.test(error.code) && !isGone(error.code)
}

/** What can be done about a statement that failed, by its SQLSTATE. */
const remedies: Readonly<Record<string, string>> = {
  '42P01': 'Something of the database was dropped: restore it from a backup.',
  '42703': 'Something of the database was dropped: restore it from a backup.',
  '42501': 'Give the role of DATABASE_URL the rights of the owner of these tables.',
}

/** A statement was ended at its limit: nothing is known, and nothing need be wrong (PostgreSQL, query_canceled). */
const canceled = '57014'

function judgeStatementError(error: Error & { code: string }): Judgement {
  if (error.code === canceled) {
    return unknown(
      `it took too long to look: ${error.message}`,
      'Much data takes its time; if it is little, something holds it up: select pid, state, query from pg_stat_activity.',
    )
  }
  return wrong(
    `could not be looked at: ${error.message} (${error.code})`,
    remedies[error.code] ?? 'The log of the database says more.',
  )
}

async function guarded(name: string, look: () => Promise<Judgement>): Promise<Finding> {
  try {
    return named(name, await look())
  } catch (error) {
    if (isBug(error)) throw error
    return named(name, wrong(`could not be looked at: ${errorMessage(error)}`))
  }
}

function judgeFailure(error: unknown): Judgement {
  if (error instanceof QuarryError) return wrong(error.message)
  throw error
}
