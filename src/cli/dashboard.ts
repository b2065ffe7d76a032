import { isEnded } from '../jobs/records.ts'
import { type Coverage, type EmbeddingSnapshot, embeddingProgress } from './embeddings.ts'
import { shortId } from './job-id.ts'
import { type JobView, jobProgress, nextView } from './job-progress.ts'
import { type Job, stateColour } from './job-table.ts'
import { bar, counts, notes, type Progress } from './progress-text.ts'
import { paint } from './terminal.ts'
import { clock, cut, percent } from './wording.ts'

/** A model provider, as the API tells of it. */
export interface Provider {
  name: string
  state: string
  error: string | null
}

/** An alert that is open. */
export interface Alert {
  type: string
  /** Of the jobs; null where it is of none. */
  kind: string | null
  failures: number
  error: string | null
  raisedAt: string
  job: { id: string } | null
}

/** An embedding space with who fills it. */
export interface Space {
  state: string
  model: string
  dimensions: number
  provider: Provider
}

/** What `quarry status --watch` knows. All moments are by the clock of the database. */
export interface Dashboard {
  url: string
  /** Whether the server is there without this command. */
  isServer: boolean
  /** Why the server cannot be reached; null if it can. */
  outage: string | null
  spaces: readonly Space[]
  alerts: readonly Alert[]
  snapshot: EmbeddingSnapshot
  /** When the snapshot came, by `performance.now()`. */
  receivedMs: number
  jobs: readonly WatchedJob[]
}

/** A job that is under way or has just ended. */
export interface WatchedJob {
  job: Job
  view: JobView
}

/** Ended jobs are shown for so long. */
const endedShownMs = 30_000

/** The jobs, with those that are new or have changed; ended ones leave after half a minute. */
export function withJobs(known: readonly WatchedJob[], news: readonly Job[], nowMs: number): WatchedJob[] {
  const jobs = new Map(known.map((watched) => [watched.job.id, watched]))
  for (const job of news) {
    const event = { seq: '', at: new Date(nowMs).toISOString(), message: null, data: job }
    const view = nextView(jobs.get(job.id)?.view ?? null, event)
    if (view) jobs.set(job.id, { job, view })
  }
  return [...jobs.values()]
    .filter(({ job, view }) => !isEnded(job.state) || nowMs - view.atMs <= endedShownMs)
    .sort((a, b) => Date.parse(a.job.createdAt) - Date.parse(b.job.createdAt))
}

/** Now, by the clock of the database. */
export function databaseTime({ snapshot, receivedMs }: Dashboard, monotonicMs: number): number {
  return Date.parse(snapshot.at) + monotonicMs - receivedMs
}

/** What is said of one thing in a line with others; `quarry jobs` tells it whole. */
const mostErrorCharacters = 120
const errorText = (error: string) => cut(error.replace(/\s+/g, ' '), mostErrorCharacters)

const barColumns = { least: 10, most: 40 }

/** The whole view, for a terminal of so many columns and rows. */
export function dashboardLines(
  dashboard: Dashboard,
  monotonicMs: number,
  { columns, rows }: { columns: number; rows: number },
): string[] {
  const nowMs = databaseTime(dashboard, monotonicMs)
  const now = new Date(nowMs)
  const head = [
    `${serverLine(dashboard)}   ${paint.dim(clock(now, now))}`,
    ...(dashboard.outage ? [paint.yellow(outageLine(dashboard))] : []),
    ...dashboard.spaces.flatMap(spaceLines),
  ]
  const alerts =
    dashboard.alerts.length > 0
      ? [
          '',
          paint.bold(paint.red('Alerts')),
          ...dashboard.alerts.map((alert) => `  ${alertText(alert, now)}`),
        ]
      : []
  const embedding = embeddingLines(dashboard, monotonicMs, now, columns)
  const foot = ['', paint.dim('Ctrl-C ends this view; the work goes on.')]
  const fixed = head.length + alerts.length + embedding.length + foot.length + 3
  return [
    ...head,
    '',
    ...embedding,
    '',
    ...jobLines(dashboard.jobs, nowMs, columns, Math.max(1, rows - fixed)),
    ...alerts,
    ...foot,
  ]
}

function outageLine({ outage, snapshot }: Dashboard): string {
  const asOf = new Date(snapshot.at)
  return `No connection to the server, trying again. Numbers of ${clock(asOf, asOf)}. (${outage ?? ''})`
}

export function serverLine({ url, isServer }: Pick<Dashboard, 'url' | 'isServer'>): string {
  return `${paint.bold('Server')}    ${url}${isServer ? '' : ' (inside this command)'}`
}

/** The space, and how its provider does. */
export function spaceLines({ state, model, dimensions, provider }: Space): string[] {
  const how = `${provider.name} ${provider.state}${provider.error ? `: ${provider.error.replace(/\s+/g, ' ')}` : ''}`
  return [
    `${paint.bold('Space')}     ${state} ${provider.name} ${model}, ${dimensions} dimensions`,
    `${paint.bold('Provider')}  ${provider.state === 'ERROR' ? paint.red(how) : how}`,
  ]
}

/** Such as `3 IMPORT jobs in a row have failed, at 14:03:10: no space left on device (quarry jobs retry 7c9d1f3a)`. */
export function alertText({ type, kind, failures, error, raisedAt, job }: Alert, now: Date): string {
  // It says all by itself, what to do included.
  if (type !== 'JOBS_FAILING') return `${error}, at ${clock(new Date(raisedAt), now)}`
  const reason = error ? `: ${errorText(error)}` : ''
  const advice = job ? ` (quarry jobs retry ${shortId(job.id)})` : ''
  return `${failures} ${kind} jobs in a row have failed, at ${clock(new Date(raisedAt), now)}${reason}${advice}`
}

function embeddingLines(dashboard: Dashboard, monotonicMs: number, now: Date, columns: number): string[] {
  const { snapshot, receivedMs } = dashboard
  const progress = embeddingProgress(snapshot, monotonicMs - receivedMs)
  const queued = (progress.total ?? 0) - progress.done
  const said = [`${queued} queued`, ...notes({ ...progress, trouble: '', failed: 0 }, now)].join(', ')
  return [
    `${paint.bold('Embedded')}  ${queued === 0 ? paint.dim('nothing is queued') : said}`,
    ...snapshot.coverage.map((kind) => coverageLine(kind, columns)),
    ...(progress.trouble ? [`  ${paint.yellow(progress.trouble.replace(/\s+/g, ' '))}`] : []),
  ]
}

function coverageLine(kind: Coverage, columns: number): string {
  const { ready, pending, stale, failed, skipped, total } = kind
  const share = percent(ready, total - skipped)
  const parts = [
    `${ready}/${total - skipped}`,
    pending > 0 ? `${pending} pending` : '',
    stale > 0 ? `${stale} stale` : '',
    failed > 0 ? paint.red(`${failed} failed`) : '',
    skipped > 0 ? paint.dim(`${skipped} skipped`) : '',
  ]
  const size = Math.min(barColumns.most, Math.max(barColumns.least, columns - 60))
  const drawn = bar(ready, total - skipped, size)
  return `  ${kind.kind.padEnd(8)} ${paint.green(drawn)} ${`${share}%`.padStart(4)} ${parts.filter(Boolean).join(', ')}`
}

function jobLines(jobs: readonly WatchedJob[], nowMs: number, columns: number, rows: number): string[] {
  if (jobs.length === 0) return [`${paint.bold('Jobs')}  ${paint.dim('none under way')}`]
  // What is under way first; what is left out is counted.
  const sorted = [...jobs].sort((a, b) => Number(isEnded(a.job.state)) - Number(isEnded(b.job.state)))
  const room = sorted.length > rows ? Math.max(0, rows - 1) : rows
  const shown = sorted.slice(0, room).map((watched) => jobLine(watched, nowMs, columns))
  const left = sorted.length - shown.length
  return [paint.bold('Jobs'), ...shown, ...(left > 0 ? [paint.dim(`  and ${left} more`)] : [])]
}

function jobLine({ job, view }: WatchedJob, nowMs: number, columns: number): string {
  const progress = jobProgress(view, nowMs)
  const { total = null, done = 0 } = progress ?? {}
  const size = Math.min(barColumns.most, Math.max(barColumns.least, columns - 80))
  const drawn =
    job.state === 'RUNNING' && total !== null
      ? ` ${paint.cyan(bar(done, total, size))} ${`${percent(done, total)}%`.padStart(4)}`
      : ''
  const name = `  ${paint.dim(shortId(job.id))}  ${job.kind.padEnd(8)} ${stateColour(job.state)(job.state)}`
  return `${name}${drawn} ${jobText(job, progress, new Date(nowMs))}`.trimEnd()
}

/** Counts and what is to be said of a job, without its name and state. */
function jobText(job: Job, progress: Progress | null, now: Date): string {
  if (!progress) return ''
  const error = isEnded(job.state) && job.error ? [errorText(job.error)] : []
  return [counts(progress), ...notes(progress, now), ...error].join(', ')
}

/**
 * What there is to tell where there is no terminal, in one line: the coverage, the jobs that have changed, and what was
 * lost or found since.
 * @param before what was told last; at first the dashboard itself, of which all is told then
 */
export function dashboardLine(before: Dashboard, dashboard: Dashboard, monotonicMs: number): string {
  const { snapshot, receivedMs, outage } = dashboard
  if (outage) return `no connection to the server, trying again (${outage})`
  const nowMs = databaseTime(dashboard, monotonicMs)
  const now = new Date(nowMs)
  const progress = embeddingProgress(snapshot, monotonicMs - receivedMs)
  const ready = snapshot.coverage.reduce((sum, kind) => sum + kind.ready, 0)
  const total = progress.total ?? 0
  const embedded = [`embedded ${ready}/${total} (${percent(ready, total)} %)`, ...notes(progress, now)].join(
    ', ',
  )
  const isFirst = before === dashboard
  const jobs = dashboard.jobs
    .filter((watched) => isFirst || !before.jobs.includes(watched))
    .map(({ job, view }) =>
      `${job.kind} ${shortId(job.id)} ${job.state} ${jobText(job, jobProgress(view, nowMs), now)}`.trimEnd(),
    )
  const toldAlerts = new Set(isFirst ? [] : before.alerts.map((alert) => alertText(alert, now)))
  const alerts = dashboard.alerts
    .map((alert) => alertText(alert, now))
    .filter((text) => !toldAlerts.has(text))
  return [
    ...(before.outage ? ['connected again'] : []),
    embedded,
    ...jobs,
    ...alerts.map((text) => `ALERT ${text}`),
    ...(before.alerts.length > 0 && dashboard.alerts.length === 0 ? ['no alert any more'] : []),
  ].join('; ')
}
