import type { Session } from './connect.ts'
import { type Alert, alertText, type Space, serverLine, spaceLines } from './dashboard.ts'
import { embeddingProgress, firstSnapshot } from './embeddings.ts'
import { type Job, jobFields, jobTable } from './job-table.ts'
import { notes } from './progress-text.ts'
import { paint, say, table } from './terminal.ts'

/** What a status tells besides the coverage. */
export interface Standing {
  embeddingSpaces: Space[]
  alerts: Alert[]
}

export const standingFields = `
  embeddingSpaces { model dimensions state provider { name state error } }
  alerts { type kind failures error raisedAt job { id } }
`

const newestJobs = 5
/** Where there is no terminal that has a width. */
const overviewColumns = 120

/** Prints coverage, providers, the newest jobs and open alerts. */
export async function status({ client, isServer }: Session): Promise<void> {
  const [answer, snapshot] = await Promise.all([
    client.request<Standing & { jobs: { nodes: Job[] } }>(
      `query Status($first: Int!) { ${standingFields} jobs(first: $first) { nodes { ${jobFields} } } }`,
      { first: newestJobs },
    ),
    firstSnapshot(client),
  ])
  const now = new Date(snapshot.at)
  say(serverLine({ url: client.url, isServer }))
  for (const space of answer.embeddingSpaces) for (const line of spaceLines(space)) say(line)
  say()
  say(
    table(
      ['KIND', 'TOTAL', 'READY', 'PENDING', 'STALE', 'FAILED', 'SKIPPED', '% READY'],
      snapshot.coverage.map((kind) => [
        kind.kind,
        kind.total,
        kind.ready,
        kind.pending,
        kind.stale,
        kind.failed,
        kind.skipped,
        Math.floor(kind.percentReady * 10) / 10,
      ]),
    ),
  )
  const progress = embeddingProgress(snapshot, 0)
  if (progress.done !== progress.total) say(notes({ ...progress, failed: 0 }, now).join(', '))
  if (answer.jobs.nodes.length > 0) {
    say()
    // An overview: `quarry jobs` tells what is cut off here.
    say(jobTable(answer.jobs.nodes, now, process.stdout.columns || overviewColumns))
  }
  if (answer.alerts.length > 0) {
    say()
    for (const alert of answer.alerts) say(`${paint.bold(paint.red('Alert'))}  ${alertText(alert, now)}`)
  }
}
