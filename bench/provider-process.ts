import { once } from 'node:events'
import { ProviderServer } from '../test/support/provider-server.ts'
import { ClusteredVectors } from './vectors.ts'

/*
 * An embedding server in a process of its own, as in life. A text ends in `#` and a number; the answer is the vector of
 * that number.
 */

export interface ProviderTask {
  clusters: number
  seed: number
  latencyMs: number
  /** Vectors of the numbers below this are made beforehand, so that the server takes next to no time from the rest. */
  prepared: number
  /** Answers 401: the pipeline then leaves the provider alone for a minute. */
  refuses: boolean
}

const task: ProviderTask = JSON.parse(process.argv[2] ?? 'null')
const vectors = new ClusteredVectors(task)
const encode = (number: number) => Buffer.from(vectors.at(number).buffer).toString('base64')
const prepared = Array.from({ length: task.prepared }, (_, number) => encode(number))

const server = await ProviderServer.start({
  latencyMs: task.latencyMs,
  fault({ texts }) {
    if (task.refuses) return { status: 401, body: '{"error":{"message":"refused for the benchmark"}}' }
    const data = texts.map((text, index) => {
      const number = Number(/#(\d+)$/.exec(text)?.[1])
      if (!Number.isInteger(number)) throw new Error(`no number at the end of: ${text}`)
      return `{"index":${index},"embedding":"${prepared[number] ?? encode(number)}"}`
    })
    return { body: `{"data":[${data.join(',')}]}` }
  },
})
process.send?.({ url: server.url })
await once(process, 'disconnect')
await server.close()
