import { stripVTControlCharacters } from 'node:util'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Dashboard, dashboardLine, dashboardLines, withJobs } from '../../../src/cli/dashboard.ts'
import { type Job, jobTable } from '../../../src/cli/job-table.ts'
import { startLines } from '../../../src/cli/watch.ts'

const noon = new Date(2026, 10, 22, 12, 0, 0)
const later = (seconds: number) => new Date(noon.getTime() + seconds * 1000)
const globalId = (end: string) => Buffer.from(`Job:019aac61-7c3e-7000-8000-0000${end}`).toString('base64')

const job = (end: string, changes: Partial<Job> = {}): Job => ({
  id: globalId(end),
  kind: 'BACKFILL',
  state: 'RUNNING',
  total: 200,
  succeeded: 50,
  failed: 0,
  skipped: 0,
  error: null,
  createdAt: noon.toISOString(),
  startedAt: noon.toISOString(),
  finishedAt: null,
  waitingUntil: null,
  ...changes,
})

const counts = { total: 0, ready: 0, pending: 0, stale: 0, failed: 0, skipped: 0, percentReady: 100 }
const dashboard: Dashboard = {
  url: 'http://127.0.0.1:4000',
  isServer: true,
  outage: null,
  spaces: [
    {
      state: 'ACTIVE',
      model: 'small',
      dimensions: 64,
      provider: { name: 'openai (environment)', state: 'CONNECTED', error: null },
    },
  ],
  alerts: [],
  snapshot: {
    at: noon.toISOString(),
    coverage: [
      { ...counts, kind: 'MESSAGE', total: 420, ready: 300, pending: 90, stale: 10, failed: 4, skipped: 16 },
      { ...counts, kind: 'ATOM' },
    ],
    ratePerSecond: 25,
    lastError: null,
    waitingUntil: null,
  },
  receivedMs: 1_000,
  jobs: [],
}
const alert = {
  type: 'JOBS_FAILING',
  kind: 'IMPORT',
  failures: 3,
  error: 'no space left\non device',
  raisedAt: noon.toISOString(),
  job: { id: globalId('7c9d1f3a') },
}
const size = { columns: 100, rows: 24 }
const shown = (changes: Partial<Dashboard>, atMs = 1_000, { columns, rows } = size) =>
  dashboardLines({ ...dashboard, ...changes }, atMs, { columns, rows }).map(stripVTControlCharacters)

describe('the view of the status', () => {
  test('tells coverage, jobs and how to leave it', () => {
    const jobs = withJobs(
      [],
      [job('7c9d1f3a'), job('c0ffee00', { state: 'QUEUED', kind: 'IMPORT', total: null, succeeded: 0 })],
      noon.getTime(),
    )
    expect(shown({ jobs })).toEqual([
      'Server    http://127.0.0.1:4000   12:00:00',
      'Space     ACTIVE openai (environment) small, 64 dimensions',
      'Provider  openai (environment) CONNECTED',
      '',
      'Embedded  100 queued, 25/s, 4 s left',
      '  MESSAGE  █████████████████████████████░░░░░░░░░░░  74% 300/404, 90 pending, 10 stale, 4 failed, 16 skipped',
      '  ATOM     ████████████████████████████████████████ 100% 0/0',
      '',
      'Jobs',
      '  7c9d1f3a  BACKFILL RUNNING █████░░░░░░░░░░░░░░░  25% 50/200',
      '  c0ffee00  IMPORT   QUEUED',
      '',
      'Ctrl-C ends this view; the work goes on.',
    ])
  })

  test('goes on with the clock of the database', () => {
    expect(shown({}, 6_500)[0]).toContain('12:00:05')
  })

  test('says that nothing is queued, and that no job is under way', () => {
    const coverage = [{ ...counts, kind: 'MESSAGE', total: 3, ready: 3 }]
    const lines = shown({ snapshot: { ...dashboard.snapshot, coverage } })
    expect(lines).toContain('Embedded  nothing is queued')
    expect(lines).toContain('Jobs  none under way')
  })

  test('says why the provider does nothing, until when it waits, what alerts there are, and that the server is away', () => {
    const lines = shown({
      outage: 'connect ECONNREFUSED',
      alerts: [alert],
      snapshot: {
        ...dashboard.snapshot,
        lastError: '429: too\nmany',
        waitingUntil: later(190).toISOString(),
      },
    })
    expect(lines[1]).toBe(
      'No connection to the server, trying again. Numbers of 12:00:00. (connect ECONNREFUSED)',
    )
    expect(lines).toContain('Embedded  100 queued, waiting for the provider until 12:03:10')
    expect(lines).toContain('  429: too many')
    expect(lines).toContain(
      '  3 IMPORT jobs in a row have failed, at 12:00:00: no space left on device (quarry jobs retry 7c9d1f3a)',
    )
    expect(
      shown({
        spaces: [
          {
            ...dashboard.spaces[0],
            provider: { name: 'x', state: 'ERROR', error: 'no key' },
          } as Dashboard['spaces'][number],
        ],
      }),
    ).toContain('Provider  x ERROR: no key')
  })

  test('fits into the rows of the terminal and counts the jobs that do not, the ended ones first', () => {
    const many = Array.from({ length: 30 }, (_, n) =>
      job(
        `0000${String(n).padStart(4, '0')}`,
        n < 29 ? { state: 'SUCCEEDED', finishedAt: noon.toISOString() } : {},
      ),
    )
    const lines = shown({ jobs: withJobs([], many, noon.getTime()), alerts: [alert] }, 1_000, {
      columns: 80,
      rows: 20,
    })
    expect(lines.length).toBeLessThanOrEqual(20)
    expect(lines.find((line) => line.includes('RUNNING'))).toContain('00000029')
    expect(lines.find((line) => /and \d+ more/.test(line))).toBeDefined()
    expect(lines.at(-1)).toContain('Ctrl-C')
  })
})

describe('the jobs of the view', () => {
  test('leave it half a minute after their end', () => {
    const running = withJobs([], [job('7c9d1f3a')], noon.getTime())
    const ended = withJobs(
      running,
      [job('7c9d1f3a', { state: 'SUCCEEDED', succeeded: 200 })],
      later(5).getTime(),
    )
    expect(withJobs(ended, [], later(34).getTime())).toHaveLength(1)
    expect(withJobs(ended, [], later(36).getTime())).toEqual([])
  })

  test('have their speed from how they change', () => {
    let jobs = withJobs([], [job('7c9d1f3a', { state: 'QUEUED' })], noon.getTime())
    for (let second = 1; second <= 5; second++) {
      jobs = withJobs(jobs, [job('7c9d1f3a', { succeeded: 20 * second })], later(second).getTime())
    }
    const line = shown({ jobs }, 1_000 + 5_000).find((each) => each.includes('RUNNING'))
    expect(line).toMatch(/50% 100\/200, 20\/s, 5 s left$/)
  })
})

describe('the line where there is no terminal', () => {
  const line = (before: Dashboard, now: Dashboard) =>
    stripVTControlCharacters(dashboardLine(before, now, 1_000))
  const jobs = withJobs([], [job('7c9d1f3a')], noon.getTime())

  test('tells everything at first, then the jobs that have changed', () => {
    const first = { ...dashboard, jobs, alerts: [alert] }
    expect(line(first, first)).toBe(
      'embedded 300/404 (74 %), 25/s, 4 s left, 4 failed; BACKFILL 7c9d1f3a RUNNING 50/200; ' +
        'ALERT 3 IMPORT jobs in a row have failed, at 12:00:00: no space left on device (quarry jobs retry 7c9d1f3a)',
    )
    expect(line(first, { ...first })).toBe('embedded 300/404 (74 %), 25/s, 4 s left, 4 failed')
    const ended = withJobs(
      jobs,
      [job('7c9d1f3a', { state: 'FAILED', error: 'gone\nwrong' })],
      later(5).getTime(),
    )
    expect(line(first, { ...first, jobs: ended, alerts: [] })).toBe(
      'embedded 300/404 (74 %), 25/s, 4 s left, 4 failed; BACKFILL 7c9d1f3a FAILED 50/200, gone wrong; no alert any more',
    )
  })

  test('tells that the server is away, and that it is back', () => {
    const away = { ...dashboard, outage: 'connect ECONNREFUSED' }
    expect(line(dashboard, away)).toBe('no connection to the server, trying again (connect ECONNREFUSED)')
    expect(line(away, dashboard)).toMatch(/^connected again; embedded 300\/404/)
  })
})

describe('lines as they are written', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('come at most once a second, tell all that changed since, and nothing twice', () => {
    const lines: { text: string; ms: number }[] = []
    let shown = dashboard
    const display = startLines(
      () => shown,
      (text) => lines.push({ text, ms: performance.now() }),
    )
    const change = (changes: Partial<Dashboard>) => {
      shown = { ...shown, ...changes }
      display.changed()
    }
    for (let n = 0; n < 30; n++) {
      change({ jobs: withJobs(shown.jobs, [job(`0000000${n % 3}`, { succeeded: n })], noon.getTime()) })
      vi.advanceTimersByTime(100)
    }
    display.stop()
    // Three seconds: the first line, three later ones, and what is left at the end.
    expect(lines.length).toBeLessThanOrEqual(5)
    const gaps = lines.slice(1, -1).map(({ ms }, index) => ms - (lines[index]?.ms ?? 0))
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(1_000)
    for (const { text } of lines.slice(1, -1)) expect(text.match(/BACKFILL 0000000[012]/g)).toHaveLength(3)

    const said = lines.length
    display.changed()
    vi.advanceTimersByTime(10_000)
    expect(lines.length).toBe(said)
  })
})

describe('the table of jobs', () => {
  const rows = [
    job('7c9d1f3a', {
      state: 'FAILED',
      failed: 3,
      finishedAt: later(192).toISOString(),
      error: 'a reason\nof two lines',
    }),
    job('c0ffee00', {
      kind: 'IMPORT',
      total: null,
      state: 'QUEUED',
      startedAt: null,
      waitingUntil: later(4_000).toISOString(),
    }),
  ]
  const table = (columns: number | null) =>
    stripVTControlCharacters(jobTable(rows, later(3_600), columns)).split('\n')

  test('has one line for each, with what went wrong', () => {
    expect(table(null)).toEqual([
      'ID        KIND      STATE   DONE    FAILED  AGE     TOOK        NOTE',
      '7c9d1f3a  BACKFILL  FAILED  53/200       3  60 min  3 min 12 s  a reason of two lines',
      'c0ffee00  IMPORT    QUEUED  50           0  60 min              waiting for the provider until 13:06:40',
    ])
  })

  test('ends at the edge of a terminal', () => {
    const lines = table(90)
    expect(Math.max(...lines.map((each) => each.length))).toBeLessThanOrEqual(90)
    expect(lines[2]).toMatch(/…$/)
  })
})
