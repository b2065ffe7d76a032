import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createFolder, startServer } from './environment.ts'
import { median, type Report, seconds } from './report.ts'

const aims = { firstMs: 8_000, nextMs: 2_500 }
/** The first start of this process on this machine also reads programs from disk; what is measured is a warm one. */
const warmUps = 1

const search = `{ search(query: "messages arrive late on phones that are asleep", mode: SEMANTIC, first: 5) {
  edges { similarity node { ... on Message { content } } }
} }`

interface Found {
  search: { edges: unknown[] }
}

/** From the command to the first answer of a search, on the embedded database with the local model. */
export async function benchStart(options: { quick: boolean }): Promise<Report> {
  const first: Start[] = []
  const next: Start[] = []
  for (let round = -warmUps; round < (options.quick ? 1 : 7); round++) {
    await using folder = await createFolder()
    const dataDir = join(folder.path, 'data')
    const fresh = await start(dataDir, true)
    const again = await start(dataDir, false)
    if (round < 0) continue
    first.push(fresh)
    next.push(again)
  }
  const [firstMs, nextMs] = [median(first.map((start) => start.ms)), median(next.map((start) => start.ms))]
  return {
    title: 'Cold start to the first answer, embedded',
    rows: [
      {
        what: 'first time, new data folder',
        figure: seconds(firstMs),
        beside: steps(first),
        aim: `<= ${aims.firstMs / 1000} s`,
        isMet: firstMs <= aims.firstMs,
      },
      {
        what: 'next time, messages of the sample chat in it',
        figure: seconds(nextMs),
        beside: steps(next),
        aim: `<= ${aims.nextMs / 1000} s`,
        isMet: nextMs <= aims.nextMs,
      },
    ],
    notes: [
      '`quarry serve` from the start of the process until an answer by meaning has come over HTTP, local model included. Medians.',
      'The files of the packages are in the cache of the system; after a restart of the machine reading them comes on top.',
    ],
  }
}

interface Start {
  ms: number
  servesMs: number
}

async function start(dataDir: string, isFirst: boolean): Promise<Start> {
  const started = performance.now()
  await using server = await startServer({ QUARRY_DATA_DIR: dataDir })
  const servesMs = performance.now() - started
  const answer = await server.request<Found>(search)
  const ms = performance.now() - started
  if (isFirst) await fill(server)
  else if (answer.search.edges.length === 0) throw new Error('the second start found nothing')
  return { ms, servesMs }
}

const steps = (starts: readonly Start[]) => {
  const serves = median(starts.map(({ servesMs }) => servesMs))
  const answers = median(starts.map((start) => start.ms - start.servesMs))
  return `${seconds(serves)} until it serves, ${seconds(answers)} for the answer`
}

/** The first hundred messages of the sample chat, embedded: a search of the next start has something to find. */
async function fill(server: Awaited<ReturnType<typeof startServer>>): Promise<void> {
  const messages = readFileSync(join(import.meta.dirname, '../examples/sample-chat.jsonl'), 'utf8')
    .split('\n')
    .slice(0, 100)
    .map((line) => JSON.parse(line) as Record<string, string>)
    .map(({ id, author, sentAt, text }) => ({ externalId: id, author, sentAt, content: text }))
  await server.request(
    `mutation ($messages: [MessageInput!]!) {
       ingestMessages(input: { source: { name: "bench", type: "bench" }, messages: $messages }) { __typename }
     }`,
    { messages },
  )
  for (;;) {
    const { embeddingCoverage } = await server.request<{
      embeddingCoverage: { total: number; pending: number }[]
    }>('{ embeddingCoverage { total pending } }')
    const sum = (field: 'total' | 'pending') => embeddingCoverage.reduce((all, kind) => all + kind[field], 0)
    if (sum('total') > 0 && sum('pending') === 0) return
    await delay(100)
  }
}
