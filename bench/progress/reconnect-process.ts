import { setTimeout as delay } from 'node:timers/promises'
import { createClient } from 'graphql-ws'
import { WebSocket } from 'ws'
import { randomNumbers } from '../vectors.ts'

/*
 * Clients of the progress benchmark that lose their connection at random while they follow a job, and go on behind the
 * last event that they have seen.
 */

export interface ReconnectTask {
  graphqlUrl: string
  jobId: string
  clients: number
  /** In all; then everybody stays until the job ends. */
  reconnects: number
  /** How long a connection lasts once it is made, on average, milliseconds. */
  meanMs: number
}

export interface ReconnectFigures {
  reconnects: number
  /** Connections after the first of a client that brought events. */
  fruitful: number
  events: number
  /** Numbers that were left out between two events. */
  lost: number
  /** Events whose number was not above the last one. */
  doubled: number
  /** The last number that each client has seen. */
  last: number[]
}

const task: ReconnectTask = JSON.parse(process.argv[2] ?? 'null')
const figures: ReconnectFigures = { reconnects: 0, fruitful: 0, events: 0, lost: 0, doubled: 0, last: [] }

const query = `subscription ($jobId: ID!, $afterSeq: String) {
  jobEvents(jobId: $jobId, afterSeq: $afterSeq) { seq at message data }
}`

/** So many are cut before they are made. */
const earlyShare = 0.1
/** Within about this time, milliseconds. */
const earlyMs = 5

/** Follows the job behind `afterSeq` until it ends, or until the connection is cut, gently or not. */
async function followOnce(
  afterSeq: number,
  random: () => number,
  onEvent: (seq: number) => void,
): Promise<'ended' | 'cut'> {
  let socket: WebSocket | null = null
  const client = createClient({
    url: task.graphqlUrl.replace(/^http/, 'ws'),
    webSocketImpl: class extends WebSocket {
      constructor(address: string, protocols: string | string[]) {
        super(address, protocols)
        socket = this
      }
    },
    retryAttempts: 0,
  })
  const isEarly = random() < earlyShare
  const made = isEarly
    ? Promise.resolve()
    : new Promise<void>((resolve) => client.on('connected', () => resolve()))
  const over = new AbortController()
  let isCut = false
  const ended = new Promise<'ended'>((resolve, reject) => {
    client.subscribe<{ jobEvents: { seq: string } }>(
      { query, variables: { jobId: task.jobId, afterSeq: String(afterSeq) } },
      {
        next({ data, errors }) {
          if (isCut) return
          if (data) onEvent(Number(data.jobEvents.seq))
          else reject(new Error(`a subscription was refused: ${JSON.stringify(errors)}`))
        },
        error: (error) => isCut || reject(error),
        complete: () => isCut || resolve('ended'),
      },
    )
  })
  const cut = async (): Promise<'ended' | 'cut'> => {
    await made
    await delay(2 * random() * (isEarly ? earlyMs : task.meanMs), undefined, { signal: over.signal }).catch(
      () => {},
    )
    if (over.signal.aborted || figures.reconnects >= task.reconnects) return ended
    figures.reconnects++
    isCut = true
    // Half of them disappear in the middle of whatever is on its way.
    if (random() < 0.5) (socket as WebSocket | null)?.terminate()
    return 'cut'
  }
  try {
    return await Promise.race([ended, cut()])
  } finally {
    over.abort()
    // Cut while it was connecting, it says so once more.
    await Promise.resolve(client.dispose()).catch(() => {})
  }
}

async function follow(seed: number): Promise<number> {
  const random = randomNumbers(seed)
  let seen = 0
  let connections = 0
  let isFruitful = false
  const onEvent = (seq: number) => {
    figures.events++
    if (connections > 1 && !isFruitful) figures.fruitful++
    isFruitful = true
    if (seq <= seen) figures.doubled++
    figures.lost += Math.max(0, seq - seen - 1)
    seen = Math.max(seen, seq)
  }
  for (;;) {
    connections++
    isFruitful = false
    if ((await followOnce(seen, random, onEvent)) === 'ended') return seen
  }
}

process.once('disconnect', () => process.exit())
figures.last = await Promise.all(Array.from({ length: task.clients }, (_, index) => follow(index + 1)))
process.send?.(figures)
