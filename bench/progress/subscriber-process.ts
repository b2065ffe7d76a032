import { type Client, createClient } from 'graphql-ws'
import { WebSocket } from 'ws'
import { monotonicMs } from '../environment.ts'

/*
 * Subscribers of the progress benchmark, in a process of their own: what they do with an event holds up neither the server
 * nor the bench.
 */

/** What numbers the events of a subscription: those that are told later never have a smaller one. */
const keyOf = {
  /** The number of the event. */
  jobEvents: (data: Data) => Number(data.jobEvents?.seq),
  /** How many rows are READY. */
  embeddingProgress: (data: Data) =>
    data.embeddingProgress?.coverage.reduce((sum, { ready }) => sum + ready, 0) ?? Number.NaN,
}

interface Data {
  jobEvents?: { seq: string }
  embeddingProgress?: { coverage: { ready: number }[] }
}

export interface SubscriberTask {
  graphqlUrl: string
  field: keyof typeof keyOf
  query: string
  variables: Record<string, unknown>
  subscribers: number
  /** Subscriptions on each socket. */
  perSocket: number
}

/** A commit that changed something that is told: with which key, and when, by monotonicMs(). */
export interface Commit {
  key: number
  sentAt: number
}

export interface ReportRequest {
  commits: Commit[]
  /** The last events have so long to come. */
  patienceMs: number
}

interface Subscriber {
  keys: number[]
  arrivals: number[]
}

const connectAtOnce = 50

const task: SubscriberTask = JSON.parse(process.argv[2] ?? 'null')

function subscribe(client: Client): { subscriber: Subscriber; first: Promise<void> } {
  const subscriber: Subscriber = { keys: [], arrivals: [] }
  const first = new Promise<void>((resolve, reject) => {
    client.subscribe<Data>(
      { query: task.query, variables: task.variables },
      {
        next({ data, errors }) {
          const at = monotonicMs()
          if (!data) return reject(new Error(`a subscription was refused: ${JSON.stringify(errors)}`))
          subscriber.keys.push(keyOf[task.field](data))
          subscriber.arrivals.push(at)
          resolve()
        },
        error: reject,
        complete: () => reject(new Error('a subscription ended before its first event')),
      },
    )
  })
  return { subscriber, first }
}

async function subscribeAll(): Promise<Subscriber[]> {
  const all: Subscriber[] = []
  let client: Client | null = null
  while (all.length < task.subscribers) {
    const some = Array.from(
      { length: Math.min(connectAtOnce, task.subscribers - all.length) },
      (_, index) => {
        if (!client || (all.length + index) % task.perSocket === 0) {
          client = createClient({
            url: task.graphqlUrl.replace(/^http/, 'ws'),
            webSocketImpl: WebSocket,
            retryAttempts: 0,
          })
        }
        return subscribe(client)
      },
    )
    await Promise.all(some.map(({ first }) => first))
    all.push(...some.map(({ subscriber }) => subscriber))
  }
  return all
}

/**
 * For each subscriber and commit, milliseconds until the subscriber knew of it: until the first event came with its key
 * or a later one. Infinity where none came.
 */
function lagsOf(subscribers: readonly Subscriber[], commits: readonly Commit[]): Float64Array {
  const lags = new Float64Array(subscribers.length * commits.length)
  for (const [row, { keys, arrivals }] of subscribers.entries()) {
    let at = 0
    for (const [column, { key, sentAt }] of commits.entries()) {
      while (at < keys.length && (keys[at] ?? 0) < key) at++
      lags[row * commits.length + column] = (arrivals[at] ?? Number.POSITIVE_INFINITY) - sentAt
    }
  }
  return lags
}

const subscribers = await subscribeAll()

process.on('message', async ({ commits, patienceMs }: ReportRequest) => {
  const last = commits.at(-1)?.key ?? 0
  const deadline = performance.now() + patienceMs
  while (performance.now() < deadline && subscribers.some(({ keys }) => !((keys.at(-1) ?? 0) >= last))) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  process.send?.(lagsOf(subscribers, commits))
})
process.once('disconnect', () => process.exit())
process.send?.({ subscribers: subscribers.length })
