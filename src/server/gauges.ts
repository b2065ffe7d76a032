import { Gauge, type Registry } from 'prom-client'
import type { Database } from '../db/database.ts'
import { type EmbeddingCoverage, percentReady, readCoverage } from '../embedding/coverage.ts'
import { bloatOf } from '../embedding/index-plan.ts'
import { entityKinds } from '../embedding/spaces.ts'
import { readOldestOwedSeconds } from '../embedding/stats.ts'
import { readCaredSpaces, readVectorIndexes, type VectorIndex } from '../embedding/vector-index.ts'
import { errorMessage } from '../errors.ts'
import {
  countEndedJobs,
  countOpenJobs,
  countProcesses,
  type JobCount,
  jobKinds,
  type QueueDepth,
  readOpenAlerts,
  readQueueDepth,
} from '../jobs/stats.ts'
import type { Logger } from '../log.ts'
import { type ProviderStatusRow, readServingStatus } from '../providers/read-status.ts'
import { type ProviderSpending, readSpending } from '../providers/usage-records.ts'
import { createSharedRead } from './shared-read.ts'

/** What the gauges show, read from the database in one go. */
interface Snapshot {
  queue: QueueDepth
  jobs: JobCount[]
  coverage: EmbeddingCoverage[]
  /** By the clock of the database, which is that of the times below. */
  at: Date
  oldestOwedSeconds: number
  indexes: VectorIndex[]
  alerts: { kind: string; failures: number }[]
  providers: ProviderStatusRow[]
  spending: ProviderSpending[]
  processes: { role: string; n: number }[]
}

/** However many scrapers there are, the database is asked once a second. */
const keepMs = 1_000
/** Kept jobs that have ended are all counted, so they are not counted at every scrape. */
const keepEndedMs = 60_000
/** A scrape waits no longer than this for the database: Prometheus itself gives up after ten seconds. */
const limitMs = 2_000
const endedStates = ['SUCCEEDED', 'FAILED', 'CANCELLED'] as const
const purposes = ['EMBEDDING', 'EXTRACTION'] as const
const providerStates = ['PENDING', 'VALIDATING', 'CONNECTED', 'ERROR'] as const
const openStates = ['QUEUED', 'RUNNING'] as const

/**
 * Gauges of what stands in the database, read when somebody scrapes. While it does not answer, `quarry_database_up` is 0
 * and the others are left out: numbers of before would look true.
 */
export function registerDatabaseGauges(options: {
  registry: Registry
  database: Database
  /** The space that searches use now. */
  activeSpace(): { id: number }
  log: Logger
}): void {
  const { registry, database, activeSpace, log } = options
  let isUp = true
  let ended: { at: number; counts: JobCount[] } = { at: Number.NEGATIVE_INFINITY, counts: [] }

  /** One statement after the other: a scrape never holds more than one connection. */
  async function read(): Promise<Snapshot> {
    const queue = await readQueueDepth(database)
    const open = await countOpenJobs(database)
    if (performance.now() - ended.at >= keepEndedMs) {
      ended = { counts: await countEndedJobs(database), at: performance.now() }
    }
    const { id: spaceId } = activeSpace()
    const { coverage, at } = await readCoverage(database, spaceId)
    const owed = coverage.reduce((sum, { pending, stale }) => sum + pending + stale, 0)
    return {
      queue,
      jobs: [...open, ...ended.counts],
      coverage,
      at,
      oldestOwedSeconds: owed > 0 ? await readOldestOwedSeconds(database, spaceId) : 0,
      indexes: (await readVectorIndexes(database, await readCaredSpaces(database))).filter(
        ({ space }) => space.id === spaceId,
      ),
      alerts: await readOpenAlerts(database),
      providers: await readServingStatus(database),
      spending: await readSpending(database),
      processes: await countProcesses(database),
    }
  }

  const snapshot = createSharedRead(read, { keepMs, limitMs })
  async function current(): Promise<Snapshot | null> {
    const { value, error } = await snapshot()
    if (isUp !== (error === null)) {
      isUp = error === null
      if (error) log.warn({ error: errorMessage(error) }, 'The metrics of the database cannot be read')
      else log.info({}, 'The metrics of the database can be read again')
    }
    return value
  }

  function gauge<Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    write: (gauge: Gauge<Label>, snapshot: Snapshot) => void,
  ): void {
    new Gauge<Label>({
      name,
      help,
      labelNames,
      registers: [registry],
      async collect() {
        const state = await current()
        this.reset()
        if (state) write(this, state)
        else if (labelNames.length === 0) this.remove()
      },
    })
  }

  new Gauge({
    name: 'quarry_database_up',
    help: 'Whether the database answers within two seconds',
    registers: [registry],
    async collect() {
      this.set((await current()) ? 1 : 0)
    },
  })
  gauge('quarry_queue_entries', 'Entries of the job queue, by state', ['state'], (gauge, { queue }) => {
    for (const state of ['ready', 'scheduled', 'locked', 'exhausted'] as const)
      gauge.set({ state }, queue[state])
  })
  gauge(
    'quarry_queue_oldest_ready_seconds',
    'How long the longest-waiting entry of the job queue could have been begun',
    [],
    (gauge, { queue }) => gauge.set(queue.oldestReadySeconds),
  )
  gauge(
    'quarry_jobs',
    'Jobs by kind and state; ended ones as long as they are kept, counted once a minute',
    ['kind', 'state'],
    (gauge, { jobs }) => {
      for (const kind of jobKinds)
        for (const state of [...openStates, ...endedStates]) gauge.set({ kind, state }, 0)
      for (const { kind, state, n } of jobs) gauge.set({ kind, state }, n)
    },
  )
  gauge(
    'quarry_alerts',
    'Jobs of a kind that have failed in a row, while an alert of that is open; else 0',
    ['kind'],
    (gauge, { alerts }) => {
      for (const kind of jobKinds) gauge.set({ kind }, 0)
      for (const { kind, failures } of alerts) gauge.set({ kind }, failures)
    },
  )
  gauge(
    'quarry_embeddings',
    'Messages, atoms and topics by status of their embedding; PENDING and STALE are owed',
    ['kind', 'status'],
    (gauge, { coverage }) => {
      for (const { kind, ready, pending, stale, failed, skipped } of coverage) {
        gauge.set({ kind, status: 'READY' }, ready)
        gauge.set({ kind, status: 'PENDING' }, pending)
        gauge.set({ kind, status: 'STALE' }, stale)
        gauge.set({ kind, status: 'FAILED' }, failed)
        gauge.set({ kind, status: 'SKIPPED' }, skipped)
      }
    },
  )
  gauge(
    'quarry_embedding_coverage_ratio',
    'Share of what can be embedded that is READY, 0..1',
    ['kind'],
    (gauge, { coverage }) => {
      for (const kind of entityKinds) {
        const counts = coverage.find((each) => each.kind === kind)
        if (counts) gauge.set({ kind }, percentReady(counts) / 100)
      }
    },
  )
  gauge(
    'quarry_embedding_oldest_owed_seconds',
    'Age of the oldest message, atom or topic that is owed an embedding; 0 if none is',
    [],
    (gauge, { oldestOwedSeconds }) => gauge.set(oldestOwedSeconds),
  )
  const indexGauge = (name: string, help: string, read: (index: VectorIndex) => number | null) =>
    gauge(name, help, ['kind'], (gauge, { indexes }) => {
      for (const index of indexes) {
        const value = read(index)
        if (value !== null) gauge.set({ kind: index.kind }, value)
      }
    })
  indexGauge('quarry_vector_index_usable', '1 if searches have a vector index, else 0', ({ present }) =>
    present?.isValid ? 1 : 0,
  )
  indexGauge('quarry_vector_index_rows', 'Vectors of a kind', ({ rows }) => rows)
  indexGauge('quarry_vector_index_bytes', 'Size of a vector index', ({ present }) => present?.bytes ?? 0)
  indexGauge(
    'quarry_vector_index_bloat_ratio',
    'Share of a vector index that holds nothing any more, 0..1; an estimate',
    ({ rows, present, space }) => bloatOf({ rows, present, dimensions: space.dimensions }),
  )
  indexGauge(
    'quarry_vector_index_recall_ratio',
    'Share of the ten nearest rows that a vector index found when it was measured, 0..1',
    ({ recall }) => recall,
  )
  gauge(
    'quarry_provider_state',
    '1 for the state that the provider for a purpose is in, 0 for the others',
    ['purpose', 'state'],
    (gauge, { providers }) => {
      for (const purpose of purposes) {
        // One that was never asked has said nothing yet.
        const current = providers.find((provider) => provider.purpose === purpose)?.state ?? 'PENDING'
        for (const state of providerStates) gauge.set({ purpose, state }, state === current ? 1 : 0)
      }
    },
  )
  gauge(
    'quarry_provider_waiting_seconds',
    'How long the provider for a purpose still asked to be left alone',
    ['purpose'],
    (gauge, { providers, at }) => {
      for (const purpose of purposes) {
        const until = providers.find((provider) => provider.purpose === purpose)?.waitingUntil ?? at
        gauge.set({ purpose }, Math.max(0, until.getTime() - at.getTime()) / 1000)
      }
    },
  )
  gauge(
    'quarry_provider_spent_usd',
    'What an added provider has cost in this calendar month (UTC)',
    ['provider'],
    (gauge, { spending }) => {
      for (const { name, spent } of spending) gauge.set({ provider: name }, spent)
    },
  )
  gauge(
    'quarry_provider_budget_usd',
    'What an added provider may cost in a calendar month, where that is limited',
    ['provider'],
    (gauge, { spending }) => {
      for (const { name, limit } of spending) if (limit !== null) gauge.set({ provider: name }, limit)
    },
  )
  gauge(
    'quarry_processes',
    'Processes that work on the database, by role',
    ['role'],
    (gauge, { processes }) => {
      for (const role of ['server', 'worker']) gauge.set({ role }, 0)
      for (const { role, n } of processes) gauge.set({ role }, n)
    },
  )
}
