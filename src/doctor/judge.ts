import { satisfies } from 'semver'
import type { ConfigMistake } from '../config.ts'
import type { Database } from '../db/database.ts'
import {
  type MigrationState,
  migrationProblem,
  type ServerFacts,
  serverProblem,
  vectorProblem,
} from '../db/migrate.ts'
import type { EmbeddingCoverage } from '../embedding/coverage.ts'
import { decide, leastRecall } from '../embedding/index-care.ts'
import { bloatOf, careRules } from '../embedding/index-plan.ts'
import { type EntityKind, nameOfSpace, partitionName, type SpaceRecord } from '../embedding/spaces.ts'
import type { VectorIndex } from '../embedding/vector-index.ts'
import type { ProcessRole } from '../jobs/processes.ts'
import type { QueueDepth } from '../jobs/stats.ts'
import type { ValidationOutcome } from '../providers/records.ts'
import { type Judgement, ok, skipped, warning, wrong } from './finding.ts'
import { deleteOrphanedRows, type FailingJobs, renewOutdatedRows } from './statements.ts'
import { type StoredTrigger, type TriggerGroup, triggerGroups } from './triggers.ts'
import type { UnknownVariable } from './variables.ts'

/*
 * What doctor makes of what was read: pure rules, which say nothing that they were not given. Rules that others go by, too
 * (migrations, index care), are theirs.
 */

/** What is owed for so long is not just waiting for its turn: the alert `embedding does not keep up` of docs/operations.md. */
const lateAfterSeconds = 900
/** The same for an entry of the job queue: the alert `nobody takes jobs`. */
const waitingAfterSeconds = 120

/** `1 message`, `2 messages`. */
export const many = (n: number, word: string, plural = `${word}s`): string =>
  `${n} ${n === 1 ? word : plural}`

export function judgeConfiguration(mistakes: readonly ConfigMistake[]): Judgement {
  if (mistakes.length === 0) return ok('every variable that is set can be read')
  return wrong(
    `${many(mistakes.length, 'mistake')}: ${mistakes.map(({ message }) => message).join('; ')}`,
    'Correct or unset these variables: no command starts with them. docs/configuration.md lists them all.',
  )
}

export function judgeVariables(unknown: readonly UnknownVariable[]): Judgement {
  if (unknown.length === 0) return ok('no variable begins with QUARRY_ that nobody reads')
  const names = unknown.map(({ name, nearest }) => (nearest ? `${name} (did you mean ${nearest}?)` : name))
  return warning(
    `nobody reads ${names.join(', ')}`,
    'Correct the names or unset the variables: as they are, they do nothing.',
  )
}

/** @param version as `v20.19.5`, and @param range as package.json's `engines` has it */
export function judgeNode(version: string, range: string): Judgement {
  return satisfies(version, range)
    ? ok(`${version}; needed is ${range}`)
    : wrong(`${version}; needed is ${range}`, `Install a Node.js of ${range}.`)
}

export function judgeMigrations(state: MigrationState): Judgement {
  const problem = migrationProblem(state)
  if (problem !== null) return wrong(problem)
  const names = state.pending.map(({ name }) => name).join(', ')
  if (state.pending.length === 0) return ok(`all ${state.applied} are applied`)
  if (isNew(state))
    return ok(`none yet; the first start applies all ${state.pending.length} (or quarry migrate)`)
  return warning(
    `${state.applied} are applied, to be applied: ${names}`,
    'Start Quarry of this version, or run quarry migrate. Stop processes of the earlier version first.',
  )
}

/** Whether nothing was ever applied. */
export const isNew = (state: MigrationState): boolean =>
  state.applied === 0 && migrationProblem(state) === null

/** Whether tables are as this code expects them, so that the rest can be looked at. */
export const isUpToDate = ({ pending, unfinished, unknown }: MigrationState): boolean =>
  pending.length + unfinished.length + unknown.length === 0

/** What is true of the server that has answered. @param where the database is, for people */
export function judgeServer(
  facts: ServerFacts,
  { isStandby, isReadOnly }: { isStandby: boolean; isReadOnly: boolean },
  where: string,
): Judgement {
  const problem = serverProblem(facts)
  if (problem !== null) return wrong(problem)
  if (isStandby)
    return wrong(
      `${where} is a standby, which takes no changes`,
      'Set DATABASE_URL to the primary server, or promote this one.',
    )
  if (isReadOnly)
    return wrong(
      `${where} refuses changes (default_transaction_read_only)`,
      'Reset that for the role and the database: alter role ... reset default_transaction_read_only.',
    )
  return ok(`PostgreSQL ${facts.version} at ${where}`)
}

export function judgeVector(facts: ServerFacts): Judgement {
  const problem = vectorProblem(facts)
  if (problem !== null) return wrong(problem)
  const { installed, offered } = facts
  if (installed === null)
    return ok(`not installed yet; the first start installs the ${offered} of the server`)
  if (offered === null) {
    return warning(
      `${installed} is installed, but the server does not offer it any more`,
      'Install the package of pgvector on the server again: a restore or an upgrade would fail without it.',
    )
  }
  if (offered === installed) return ok(`${installed}`)
  return warning(
    `${installed} is installed, the server offers ${offered}`,
    'When it suits: alter extension vector update.',
  )
}

export function judgeTriggers(
  found: readonly StoredTrigger[],
  groups: readonly TriggerGroup[] = triggerGroups,
): Judgement {
  const broken = groups.flatMap(({ names, without }) => {
    const lost = names.flatMap((name) => {
      const trigger = found.find((each) => each.name === name)
      if (trigger?.isEnabled) return []
      return trigger ? `${name} (disabled)` : `${name} (missing)`
    })
    return lost.length > 0 ? `${lost.join(', ')}: ${without}` : []
  })
  const count = groups.reduce((sum, { names }) => sum + names.length, 0)
  if (broken.length === 0) return ok(`all ${count} are there and enabled`)
  return wrong(
    broken.join('; '),
    'Enable them (alter table ... enable trigger ...), or make them again as prisma/migrations has them; then run quarry doctor again, which finds the rows that were missed.',
  )
}

/** What is known of a space beside its row. */
export interface SpaceReading {
  isPartitionThere: boolean
  /** Of the provider that was added and embeds it; null: that of the environment does. */
  providerName: string | null
  /**
   * Why the model of the environment does not fit; null if it does, undefined if that cannot be told. Does not count where
   * a provider that was added embeds the space.
   */
  difference: string | null | undefined
}

export const judgeNoSpace = (): Judgement => ok('none yet; the first start makes it')

export function judgeSpace(
  space: SpaceRecord,
  { isPartitionThere, providerName, difference }: SpaceReading,
): Judgement {
  const found = `${nameOfSpace(space)}${standingOf(space)}`
  if (!isPartitionThere) {
    return wrong(
      `${found}: the table ${partitionName(space)} with its vectors is gone, or is no partition of embedding`,
      'Attach it again (alter table embedding attach partition ...), or restore the database from a backup.',
    )
  }
  if (space.state === 'BUILDING' && !space.isFilled) {
    return warning(
      `${found}, but nobody fills it: its job is cancelled or has not begun`,
      'See quarry jobs: quarry jobs retry <id> goes on; retireEmbeddingSpace of the API gives the move up.',
    )
  }
  if (providerName !== null) return ok(`${found}, embedded by ${providerName}`)
  if (difference) return wrong(difference)
  if (difference === undefined)
    return ok(`${found}; not compared with the configured model, which cannot be read`)
  return ok(`${found}, as configured`)
}

function standingOf({ state, activatedAt }: SpaceRecord): string {
  if (state === 'ACTIVE') return ''
  return activatedAt === null ? ', which is being moved to' : ', which is kept in step to go back to'
}

/** Cut, not rounded: what is below the limit must not look as if it were not. It is stored in single precision. */
const percentOf = (share: number) => Math.floor(1000 * share + 0.001) / 10

/** Null where recall is as it should be, or was not measured. */
export function judgeRecall(name: string, recall: number | null, remedy: string): Judgement | null {
  if (recall === null || recall >= leastRecall) return null
  return wrong(
    `${name} finds only ${percentOf(recall)} % of the nearest rows, ${100 * leastRecall} % are expected`,
    remedy,
  )
}

/** @param isSomebodyWorking whether a process is there that builds what is missing */
export function judgeIndex(
  { engine }: Pick<Database, 'engine'>,
  index: VectorIndex,
  isSomebodyWorking: boolean,
): Judgement {
  const { name, kind, present, progress, rows, recall, lastError, space } = index
  const decision = decide({ engine }, index, false)
  const builder = isSomebodyWorking
    ? 'A process that works builds it within a minute; if it does not, its log says why.'
    : 'Start Quarry (quarry serve): it builds the index.'
  const rebuild = `Build it anew: quarry index --rebuild ${kind.toLowerCase()}`
  if (!present?.isValid) {
    if (progress !== null) {
      return warning(
        `${name} is being built, ${Math.floor(100 * progress)} % read; until then searches compare with every row`,
        'Wait; quarry index shows how far it is.',
      )
    }
    if (decision.action === 'defer') {
      return warning(`${name} is not built yet: ${decision.reason}`, 'Nothing: it is built when they are.')
    }
    const state = present ? 'is invalid, because its build was broken off' : 'is missing'
    const reason = lastError === null ? '' : ` (its last build failed: ${lastError})`
    return wrong(`${name} ${state}${reason}: searches compare with every row`, builder)
  }
  if (lastError !== null) return wrong(`${name}: ${lastError}`, rebuild)
  const shortfall = judgeRecall(name, recall, rebuild)
  if (shortfall) return shortfall
  if (decision.action === 'build' || decision.action === 'wait') {
    const isBySomebody = decision.action === 'build' && isSomebodyWorking
    return warning(`${name} is to be built anew: ${decision.reason}`, isBySomebody ? builder : `${rebuild}.`)
  }
  const found = recall === null ? 'recall not measured' : `recall ${percentOf(recall)} %`
  // Of a small one the estimate says nothing, and nobody goes by it.
  const isLarge = present.bytes >= careRules.bloatFromBytes
  const bloat = isLarge ? bloatOf({ rows, present, dimensions: space.dimensions }) : 0
  return ok(
    `${name}: ${many(rows, 'vector')}, ${found}${isLarge ? `, ${Math.round(100 * bloat)} % dead` : ''}`,
  )
}

/**
 * @param commonest why most of the failed have failed
 * @param providerError why whoever embeds did nothing when it was asked last; null if it did
 */
export function judgeCoverage(
  coverage: readonly Pick<EmbeddingCoverage, 'ready' | 'pending' | 'stale' | 'failed'>[],
  commonest: { error: string; n: number } | null,
  oldestOwedSeconds: number,
  isSomebodyWorking: boolean,
  providerError: string | null,
): Judgement {
  const sum = (status: 'ready' | 'pending' | 'stale' | 'failed') =>
    coverage.reduce((total, counts) => total + counts[status], 0)
  const [ready, owed, failed] = [sum('ready'), sum('pending') + sum('stale'), sum('failed')]
  const found = `${ready} ready, ${owed} owed, ${failed} failed`
  if (failed > 0) {
    const reason = commonest ? `; most often (${commonest.n}): ${commonest.error}` : ''
    return warning(
      `${found}${reason}`,
      'Mend the cause, then: quarry backfill --retry-failed. Until then a search by meaning does not find them.',
    )
  }
  if (owed > 0 && !isSomebodyWorking)
    return warning(`${found}, and nobody works`, 'Start Quarry (quarry serve): it embeds them.')
  if (owed > 0 && providerError !== null)
    return warning(
      `${found}; who should embed them does not: ${providerError}`,
      'See below how the provider does.',
    )
  if (oldestOwedSeconds > lateAfterSeconds) {
    return warning(
      `${found}; the oldest has been there for ${Math.round(oldestOwedSeconds / 60)} min`,
      'See below how the provider does; more workers or higher limits make it quicker. quarry status --watch shows the speed.',
    )
  }
  return ok(found)
}

/** Numbers of texts: without a row, with one of an earlier text; and of rows whose text is gone. */
export interface RowCounts {
  missing: number
  outdated: number
  orphaned: number
}

export function judgeRows({ missing, outdated, orphaned }: RowCounts): Judgement {
  const faults = [
    missing > 0 && {
      found: `${many(missing, 'text has', 'texts have')} none, so nobody would ever embed ${missing === 1 ? 'it' : 'them'}`,
      remedy: 'Start Quarry again: a start queues texts without a row.',
    },
    outdated > 0 && {
      found: `${many(outdated, 'is', 'are')} of an earlier text, so a search by meaning finds what is no longer there`,
      remedy: `Have them embedded anew: ${renewOutdatedRows};`,
    },
    orphaned > 0 && {
      found: `${many(orphaned, 'is', 'are')} of something that is deleted`,
      remedy: `Delete them: ${deleteOrphanedRows};`,
    },
  ].filter((fault) => fault !== false)
  if (faults.length === 0) return ok('every text has its own')
  return wrong(
    faults.map(({ found }) => found).join('; '),
    `${faults.map(({ remedy }) => remedy).join(' ')} It comes about where data is changed while triggers are off.`,
  )
}

export function judgeWords(
  wordless: Readonly<Record<EntityKind, number>>,
  isSomebodyWorking: boolean,
): Judgement {
  const n = Object.values(wordless).reduce((sum, each) => sum + each, 0)
  if (n === 0) return ok('every text is cut into words')
  return warning(
    `${many(n, 'text is', 'texts are')} not cut into words yet: a search by words does not find ${n === 1 ? 'it' : 'them'}`,
    isSomebodyWorking
      ? 'Nothing, if that becomes less: a process that works does it. Else its log says why.'
      : 'Start Quarry (quarry serve): it cuts them.',
  )
}

export function judgeJobs(failing: readonly FailingJobs[]): Judgement {
  if (failing.length === 0) return ok('no alert: no kind of job has failed three times in a row')
  const kinds = failing.map(
    ({ kind, failures, error }) =>
      `${failures} ${kind} jobs in a row (the last: ${error ?? 'no reason was kept'})`,
  )
  return wrong(
    `alert: failed have ${kinds.join('; ')}`,
    'Mend the cause, then take them up again: quarry jobs --state failed, quarry jobs retry <id>. The alert ends when one succeeds.',
  )
}

/** @param living processes that have given a sign of life of late */
export function judgeQueue(
  engine: Database['engine'],
  { ready, scheduled, locked, exhausted, oldestReadySeconds }: QueueDepth,
  living: readonly { role: ProcessRole; n: number }[],
): Judgement {
  const processes = living.map(({ role, n }) => many(n, role)).join(', ') || 'no process'
  const found = `${ready} to be begun, ${locked} under way, ${scheduled} for later; ${processes} at work`
  if (living.length === 0 && ready + locked > 0) {
    // Whoever looks at a folder has it to themselves: that nobody works there is no fault.
    const judge = engine === 'embedded' ? warning : wrong
    return judge(`${found}: nobody works on them`, 'Start Quarry (quarry serve, or a quarry worker).')
  }
  if (ready > 0 && oldestReadySeconds > waitingAfterSeconds) {
    return warning(
      `${found}; the oldest could have been begun ${Math.round(oldestReadySeconds)} s ago`,
      'Look into the logs of the processes; more workers take more at once.',
    )
  }
  if (exhausted > 0) {
    return warning(
      `${found}; ${many(exhausted, 'task was', 'tasks were')} given up`,
      'Such as an alert that its webhook never took: select task_identifier, last_error from graphile_worker.jobs where attempts >= max_attempts.',
    )
  }
  return ok(found)
}

/** A stored API key, and whether it can be read. */
export interface StoredKey {
  /** Of its provider. */
  name: string
  /** Why it cannot be opened; null if it was. */
  problem: string | null
  /** Whether it is under the first key of the list. */
  isUnderFirst: boolean
}

/** @param count keys of QUARRY_ENCRYPTION_KEY */
export function judgeKeys(count: number, stored: readonly StoredKey[]): Judgement {
  const lost = stored.filter(({ problem }) => problem !== null)
  const list =
    count === 0 ? 'QUARRY_ENCRYPTION_KEY is not set' : `${many(count, 'key')} in QUARRY_ENCRYPTION_KEY`
  if (lost.length > 0) {
    return wrong(
      `${list}; unreadable ${lost.map(({ name, problem }) => `${name}: ${problem}`).join('; ')}`,
      'The key that is missing opens them again when it stands in the list; without it, give these providers their API keys anew (updateProvider).',
    )
  }
  if (count === 0)
    return ok(`${list}, and no API key is stored; to store one, make a key: quarry keys generate`)
  const old = stored.filter(({ isUnderFirst }) => !isUnderFirst)
  const found = `${list}; ${many(stored.length, 'stored API key')}, opened`
  if (old.length === 0) return ok(found)
  return warning(
    `${found}; not under the first key: ${old.map(({ name }) => name).join(', ')}`,
    'Run quarry keys rotate; then the keys behind the first can go.',
  )
}

/**
 * What came of really asking a provider.
 * @param does such as `embeds by x and answers by y`
 * @param remedy where it does not work
 */
export function judgeOutcome(
  { error, embeddingDimensions, waitMs }: Pick<ValidationOutcome, 'error' | 'embeddingDimensions' | 'waitMs'>,
  does: string,
  ms: number,
  remedy: string,
): Judgement {
  if (error === null) {
    const dimensions = embeddingDimensions === null ? '' : `, ${embeddingDimensions} dimensions`
    return ok(`${does}${dimensions}; it answered within ${(ms / 1000).toFixed(1)} s`)
  }
  // It is there, and asks for nothing but patience.
  if (waitMs !== null)
    return warning(`${does}: ${error}`, `Wait: it asks to be left alone for ${Math.ceil(waitMs / 1000)} s.`)
  return wrong(`${does}: ${error}`, remedy)
}

export const judgeInactive = (): Judgement => skipped('is not active, so it was not asked')
