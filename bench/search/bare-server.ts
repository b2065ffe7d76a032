import { once } from 'node:events'
import type { Candidate } from '../../src/search/statements.ts'
import { openPool, serveParent } from './serve.ts'

/*
 * The least that a server in Node can do for the same answer: read the JSON body, send the very statement that Quarry
 * sends, write JSON of the same shape. No GraphQL, no checks. A process of its own.
 */

export interface BareTask {
  databaseUrl: string
  /** By the text of a query and whether it is filtered, what is sent; the channel comes last. */
  vectors: Record<string, Buffer>
  /** Without a filter, and with one on a channel. */
  statement: { text: string; name?: string }
  filtered: { text: string; name?: string }
  pageSize: number
}

interface Ask {
  query: string
  channels: string[] | null
}

const [task] = (await once(process, 'message')) as [BareTask]
const pool = openPool(task.databaseUrl)

async function answer({ query, channels }: Ask): Promise<string> {
  const vector = task.vectors[query]
  if (!vector) throw new Error(`no vector for the query: ${query}`)
  const { rows } = await pool.query<Candidate>(
    channels === null
      ? { ...task.statement, values: [vector] }
      : { ...task.filtered, values: [vector, ...channels] },
  )
  const edges = rows.slice(0, task.pageSize).map(({ distance, row }) => ({
    similarity: 1 - (distance ?? 0) / 2,
    node: { id: row?.id, content: row?.content, author: row?.author },
  }))
  return JSON.stringify({ data: { search: { edges } } })
}

await serveParent((request, response) => {
  let body = ''
  request.setEncoding('utf8')
  request.on('data', (chunk: string) => {
    body += chunk
  })
  request.on('end', async () => {
    try {
      const text = await answer(JSON.parse(body))
      response.writeHead(200, {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
      })
      response.end(text)
    } catch (error) {
      response.writeHead(500)
      response.end(String(error))
    }
  })
}, pool)
