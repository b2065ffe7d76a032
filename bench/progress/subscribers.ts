import { disconnected, forkTypeScript, messageOf, within } from '../environment.ts'
import type { Commit, ReportRequest, SubscriberTask } from './subscriber-process.ts'

export interface Subscribers extends AsyncDisposable {
  /** For each subscriber and commit, milliseconds from the commit until the subscriber knew of it. */
  lags(commits: Commit[]): Promise<Float64Array>
}

/** The last events of a measurement have so long to come. */
const patienceMs = 15_000

const queries = {
  jobEvents: `subscription ($jobId: ID!) { jobEvents(jobId: $jobId) { seq at message data } }`,
  embeddingProgress: `subscription {
    embeddingProgress { seq at ratePerSecond etaSeconds lastError coverage { kind total ready pending stale failed skipped } }
  }`,
}

/** Resolves when each of the subscribers has had its first event. `await using` ends them, without a goodbye. */
export async function startSubscribers(
  graphqlUrl: string,
  options: Pick<SubscriberTask, 'field' | 'subscribers' | 'perSocket'> & { jobId: string },
): Promise<Subscribers> {
  const { jobId, ...rest } = options
  const task: SubscriberTask = {
    graphqlUrl,
    query: queries[rest.field],
    variables: rest.field === 'jobEvents' ? { jobId } : {},
    ...rest,
  }
  const child = forkTypeScript('progress/subscriber-process.ts', [JSON.stringify(task)])
  await within(60_000, `connecting ${rest.subscribers} subscribers`, messageOf(child))
  return {
    async lags(commits) {
      child.send({ commits, patienceMs } satisfies ReportRequest)
      return within(patienceMs + 30_000, 'the report of the subscribers', messageOf<Float64Array>(child))
    },
    [Symbol.asyncDispose]: () => disconnected(child),
  }
}
