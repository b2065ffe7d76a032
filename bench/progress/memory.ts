import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { maxSocketOperations } from '../../src/server/sockets.ts'
import { prepare } from '../embedding.ts'
import {
  type BenchPostgres,
  type BenchServer,
  connect,
  createDatabase,
  providerConfig,
  providerEnv,
  residentMemory,
  startProvider,
  startServer,
  within,
} from '../environment.ts'
import { kib, median, type Row } from '../report.ts'
import { insertHeldMessages, startHeldBackfill } from './backfill.ts'
import type { SubscriberTask } from './subscriber-process.ts'
import { startSubscribers } from './subscribers.ts'

/** Subscribers that come and go before the first reading: what is loaded and compiled once is none of their memory. */
const warmUps = 50
const readings = 5
const readingEveryMs = 500

interface Variant {
  field: SubscriberTask['field']
  perSocket: number
  words: string
}

const layouts = [
  { perSocket: 1, words: 'a socket each' },
  { perSocket: maxSocketOperations, words: `${maxSocketOperations} on each socket` },
]
const variants: Variant[] = (['jobEvents', 'embeddingProgress'] as const).flatMap((field) =>
  layouts.map((layout) => ({ field, ...layout })),
)

/** What a server keeps for each of those who watch while nothing happens. */
export async function measureMemory(postgres: BenchPostgres, options: { quick: boolean }): Promise<Row[]> {
  const subscribers = options.quick ? 200 : 1_000
  const rows: Row[] = []
  for (const variant of variants) {
    const { before, after } = await measure(postgres, variant, subscribers)
    const each = (field: keyof Memory) => (after[field] - before[field]) / subscribers
    rows.push({
      what: `memory per idle subscriber, ${variant.field}, ${variant.words}`,
      figure: kib(each('resident')),
      beside: `${kib(each('heap'))} of heap`,
    })
  }
  return rows
}

interface Memory {
  resident: number
  heap: number
}

async function measure(
  postgres: BenchPostgres,
  { field, perSocket }: Variant,
  subscribers: number,
): Promise<{ before: Memory; after: Memory }> {
  await using database = await createDatabase(postgres)
  await using provider = await startProvider({ refuses: true })
  const space = await prepare(database.url, providerConfig(provider.url))
  // Nobody but this process may speak to the inspector; the port is any free one.
  const inspect = ['--inspect=127.0.0.1:0']
  await using server = await startServer(
    { DATABASE_URL: database.url, ...providerEnv(provider.url) },
    inspect,
  )
  const client = await connect(database.url)
  try {
    await insertHeldMessages(client, space, 0, 1)
    const jobId = await startHeldBackfill(server, client, 1)
    const some = await startSubscribers(server.url, { field, perSocket, subscribers: warmUps, jobId })
    await some[Symbol.asyncDispose]()
    const before = await settledMemory(server)
    await using all = await startSubscribers(server.url, { field, perSocket, subscribers, jobId })
    const after = await settledMemory(server)
    void all
    return { before, after }
  } finally {
    await client.end()
  }
}

/** Medians of several readings, each after a garbage collection. */
async function settledMemory(server: BenchServer): Promise<Memory> {
  const all: Memory[] = []
  for (let reading = 0; reading < readings; reading++) {
    await delay(readingEveryMs)
    const heap = await collectGarbage(server.inspectorUrl)
    all.push({ resident: residentMemory(server.pid), heap })
  }
  return { resident: median(all.map(({ resident }) => resident)), heap: median(all.map(({ heap }) => heap)) }
}

/** Has the server collect its garbage, through the inspector. Returns the bytes that its heap then holds. */
async function collectGarbage(inspectorUrl: string | null): Promise<number> {
  if (!inspectorUrl) throw new Error('the server has no inspector')
  const socket = new WebSocket(inspectorUrl)
  const ask = (id: number, method: string) =>
    new Promise<unknown>((resolve) => {
      socket.on('message', (text: Buffer) => {
        const answer = JSON.parse(text.toString()) as { id?: number; result?: unknown }
        if (answer.id === id) resolve(answer.result)
      })
      socket.send(JSON.stringify({ id, method }))
    })
  const broken = new Promise<never>((_, reject) => socket.once('error', reject))
  const asked = async () => {
    await new Promise((resolve) => socket.once('open', resolve))
    await ask(1, 'HeapProfiler.collectGarbage')
    return (await ask(2, 'Runtime.getHeapUsage')) as { usedSize: number }
  }
  try {
    const { usedSize } = await within(10_000, 'the garbage collection', Promise.race([asked(), broken]))
    return usedSize
  } finally {
    socket.close()
  }
}

export const memoryNotes = [
  `Memory per idle subscriber: VmRSS of the server with them less that with none, divided by their number; medians of ${readings} readings, each after a forced garbage collection. ${warmUps} others came and went before.`,
]
