import { createBell } from '../bell.ts'
import { isEnded } from '../jobs/records.ts'
import type { ApiClient } from './client.ts'
import type { Session } from './connect.ts'
import { type Dashboard, dashboardLine, dashboardLines, databaseTime, withJobs } from './dashboard.ts'
import { type EmbeddingSnapshot, embeddingProgressSubscription, firstSnapshot } from './embeddings.ts'
import { Interrupted } from './interrupt.ts'
import { type Job, jobFields } from './job-table.ts'
import { openScreen } from './screen.ts'
import { type Standing, standingFields } from './status.ts'
import { say } from './terminal.ts'
import { clock } from './wording.ts'

/** Alerts and providers have no subscription. */
const refreshMs = 5_000
const leastLineMs = 1_000
const leastFrameMs = 200
/** The most jobs of a page. */
const mostJobs = 100

/**
 * Shows the status as it changes, until somebody ends it: redrawn in place on a terminal, elsewhere a line for each
 * change, at most one a second. A server that goes away is waited for, however long.
 */
export async function watchStatus(session: Session): Promise<void> {
  try {
    await watch(session)
  } catch (error) {
    // There is no other end, so it is no failure.
    if (!(error instanceof Interrupted)) throw error
  }
}

async function watch({ client, isServer }: Session): Promise<void> {
  const options = { isPatient: true, isEndless: true }
  const ended = new AbortController()
  const isDue = createBell()
  let dashboard = { ...(await firstDashboard(client)), isServer }
  const display = process.stdout.isTTY ? startFrames(() => dashboard) : startLines(() => dashboard, say)
  function change(changes: Partial<Dashboard>): void {
    dashboard = { ...dashboard, ...changes }
    display.changed()
  }
  function take(jobs: readonly Job[]): void {
    const nowMs = databaseTime(dashboard, performance.now())
    change({ jobs: withJobs(dashboard.jobs, jobs, nowMs) })
  }

  async function followEmbeddings(): Promise<void> {
    const snapshots = client.subscribe<{ embeddingProgress: EmbeddingSnapshot }>(
      embeddingProgressSubscription,
      {},
      options,
    )
    for await (const { embeddingProgress } of snapshots) {
      change({ snapshot: embeddingProgress, receivedMs: performance.now() })
    }
  }

  async function followJobs(): Promise<void> {
    const updates = client.subscribe<{ jobUpdated: Job }>(
      `subscription Jobs { jobUpdated { ${jobFields} } }`,
      {},
      options,
    )
    for await (const { jobUpdated } of updates) {
      take([jobUpdated])
      // What became of it may be an alert.
      if (isEnded(jobUpdated.state)) isDue.ring()
    }
  }

  /** Also finds what became of jobs while the connection was lost. */
  async function refresh(): Promise<void> {
    for (;;) {
      await isDue.wait({ signal: ended.signal, limitMs: refreshMs })
      if (ended.signal.aborted) return
      const ids = dashboard.jobs.filter(({ job }) => !isEnded(job.state)).map(({ job }) => job.id)
      const { embeddingSpaces, alerts, jobs, nodes } = await client.read<Refresh>(
        refreshQuery,
        { ids: ids.slice(0, mostJobs) },
        options,
      )
      change({ spaces: embeddingSpaces, alerts, url: client.url })
      const known = new Map(dashboard.jobs.map(({ job }) => [job.id, JSON.stringify(job)]))
      const found = [...nodes, ...jobs.nodes].filter((job) => job !== null)
      take(found.filter((job) => known.get(job.id) !== JSON.stringify(job)))
    }
  }

  const unwatch = client.onOutage(() => {
    change({ outage: client.outage, url: client.url })
    if (client.outage === null) isDue.ring()
  })
  try {
    await Promise.all([followEmbeddings(), followJobs(), refresh()])
  } finally {
    ended.abort()
    unwatch()
    display.stop()
  }
}

type Refresh = Standing & { jobs: { nodes: Job[] }; nodes: (Job | null)[] }

const refreshQuery = `query Refresh($ids: [ID!]!) {
  ${standingFields}
  jobs(first: ${mostJobs}, filter: { states: [QUEUED, RUNNING] }) { nodes { ${jobFields} } }
  nodes(ids: $ids) { ... on Job { ${jobFields} } }
}`

async function firstDashboard(client: ApiClient): Promise<Omit<Dashboard, 'isServer'>> {
  const { embeddingSpaces, alerts, jobs } = await client.request<Refresh>(refreshQuery, { ids: [] })
  const snapshot = await firstSnapshot(client)
  return {
    url: client.url,
    outage: null,
    spaces: embeddingSpaces,
    alerts,
    snapshot,
    receivedMs: performance.now(),
    jobs: withJobs([], jobs.nodes, Date.parse(snapshot.at)),
  }
}

interface Display {
  changed(): void
  stop(): void
}

function startFrames(read: () => Dashboard): Display {
  const screen = openScreen(process.stdout)
  let isChanged = true
  let drawnMs = 0
  // A terminal that does not know its size says 0.
  const size = () => ({ columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 })
  function draw(): void {
    const nowMs = performance.now()
    // Rates and waits change without any news.
    if (!isChanged && nowMs - drawnMs < 1_000) return
    isChanged = false
    drawnMs = nowMs
    screen.draw(dashboardLines(read(), nowMs, size()).slice(0, size().rows))
  }
  draw()
  const timer = setInterval(draw, leastFrameMs)
  const changed = () => {
    isChanged = true
  }
  process.stdout.on('resize', changed)
  return {
    changed,
    stop() {
      clearInterval(timer)
      process.stdout.off('resize', changed)
      screen.close()
      // What was last seen stays on the terminal.
      for (const line of dashboardLines(read(), performance.now(), size()).slice(0, -2)) say(line)
    },
  }
}

/** A line for each change, at most one a second; the changes between two lines come as one. */
export function startLines(read: () => Dashboard, write: (line: string) => void): Display {
  let said = read()
  let saidLine = ''
  let pause: NodeJS.Timeout | null = null
  let isDue = false
  function sayNow(): void {
    const dashboard = read()
    const line = dashboardLine(said, dashboard, performance.now())
    // What an outage has hidden is told when it is over.
    said = dashboard.outage ? { ...said, outage: dashboard.outage } : dashboard
    if (line === saidLine) return
    saidLine = line
    const now = new Date(databaseTime(dashboard, performance.now()))
    write(`${clock(now, now)} ${line}`)
  }
  function changed(): void {
    if (pause) {
      isDue = true
      return
    }
    sayNow()
    pause = setTimeout(() => {
      pause = null
      if (!isDue) return
      isDue = false
      changed()
    }, leastLineMs)
  }
  changed()
  return {
    changed,
    stop() {
      if (pause) clearTimeout(pause)
      if (isDue) sayNow()
    },
  }
}
