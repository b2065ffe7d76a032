import { once } from 'node:events'
import { ProviderServer } from '../test/support/provider-server.ts'
import { ClusteredVectors, randomNumbers } from './vectors.ts'

/*
 * An embedding server in a process of its own, as in life. A text ends in `#` and a number, or is one that was named; the
 * answer is the vector of its number.
 */

export interface ProviderTask {
  clusters: number
  seed: number
  latencyMs: number
  /** Vectors of the numbers below this are made beforehand, so that the server takes next to no time from the rest. */
  prepared: number
  /** Numbers of texts that do not end in theirs, because the number would be one word more to search for. */
  named: Record<string, number>
  /** How often each vector stands in itself, one behind the other: more dimensions, and the same similarities. */
  repeats: number
  /** Answers 401: the pipeline then leaves the provider alone for a minute. */
  refuses: boolean
  /** Answers 429 to this share (0..1) of the requests, as a sequence of random numbers says that the seed stands for. */
  limited: { share: number; seed: number; retryAfterSeconds: number } | null
}

export interface ProviderCounts {
  requests: number
  /** Requests that were answered 429. */
  limited: number
  /** Different texts that were answered with a vector. */
  texts: number
  /** Times that a text was answered that had been answered before. */
  repeated: number
}

const task: ProviderTask = JSON.parse(process.argv[2] ?? 'null')
const vectors = new ClusteredVectors(task)
const encode = (number: number) => {
  const bytes = Buffer.from(vectors.at(number).buffer)
  return Buffer.concat(new Array<Buffer>(task.repeats).fill(bytes)).toString('base64')
}
const prepared = Array.from({ length: task.prepared }, (_, number) => encode(number))
const random = randomNumbers(task.limited?.seed ?? 0)
const answered = new Set<number>()
const counts: ProviderCounts = { requests: 0, limited: 0, texts: 0, repeated: 0 }

const server = await ProviderServer.start({
  latencyMs: task.latencyMs,
  fault({ texts }) {
    counts.requests++
    if (task.refuses) return { status: 401, body: '{"error":{"message":"refused for the benchmark"}}' }
    if (task.limited && random() < task.limited.share) {
      counts.limited++
      return {
        status: 429,
        headers: { 'retry-after': String(task.limited.retryAfterSeconds) },
        body: '{"error":{"message":"too many requests for the benchmark"}}',
      }
    }
    const data = texts.map((text, index) => {
      const number = task.named[text] ?? Number(/#(\d+)$/.exec(text)?.[1])
      if (!Number.isInteger(number)) throw new Error(`no number at the end of: ${text}`)
      if (answered.has(number)) counts.repeated++
      answered.add(number)
      return `{"index":${index},"embedding":"${prepared[number] ?? encode(number)}"}`
    })
    return { body: `{"data":[${data.join(',')}]}` }
  },
})
process.on('message', () => process.send?.({ ...counts, texts: answered.size }))
process.send?.({ url: server.url })
await once(process, 'disconnect')
await server.close()
