import { Agent, request } from 'node:http'
import type pg from 'pg'
import type { SearchMode } from '../../src/search/rank.ts'
import { connect, databaseId } from '../environment.ts'
import { percentile } from '../report.ts'
import { type LangChainStore, loadLangChain, loadLangChainCore } from './others.ts'
import { langchainView } from './peers.ts'
import { openPool } from './serve.ts'

/*
 * The client of the search benchmark, in a process of its own: neither a server nor the bench shares its event loop.
 * The same client asks everyone by turns, so that whatever else the machine does meanwhile falls on all alike. Raw `pg`
 * and LangChain are libraries, not servers: they run here, as they run in the programs that use them.
 */

export const sides = ['raw', 'langchain', 'bare', 'postgraphile', 'quarry'] as const
export type SideName = (typeof sides)[number]

/** One way to ask one side. */
export interface Cell {
  side: SideName
  /** Null asks for nothing: what of a request is not search. */
  mode: SearchMode | null
  channels: string[] | null
}

export interface SearchTask {
  urls: { bare: string; postgraphile: string; quarry: string }
  databaseUrl: string
  queries: { text: string; vector: Buffer }[]
  /** The very statement of the search by meaning, without a filter and with one on a channel. */
  statement: { text: string; name?: string }
  filtered: { text: string; name?: string }
  cells: Cell[]
  pageSize: number
  rounds: number
  /** How long each cell is measured in a round, with one connection and again with all. */
  measureMs: number
  connections: number
}

export interface Figures {
  /** Milliseconds. */
  p50: number
  p95: number
  perSecond: number
}

export interface CellFigures {
  /** Each in the order of the rounds: a ratio is one of the same round. */
  alone: Figures[]
  loaded: Figures[]
  /** Ids that were found, by query. */
  found: string[][]
}

interface Hits {
  data?: {
    search?: { edges: { node: { id: string } }[] }
    searchList?: { id: string }[]
  }
  errors?: unknown
}

const quarryDocument = `query Search($query: String!, $mode: SearchMode!, $filter: SearchFilter) {
  search(query: $query, kinds: [MESSAGE], mode: $mode, first: 10, filter: $filter) {
    edges { similarity node { ... on Message { id content author } } }
  }
}`
const postgraphileDocument = `query Search($query: String!, $channels: [String]) {
  searchList(query: $query, channels: $channels) { id similarity content author }
}`

async function measure(task: SearchTask): Promise<CellFigures[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: task.connections })
  const clients = await Promise.all(Array.from({ length: task.connections }, () => connect(task.databaseUrl)))
  const langchain = await openLangChain(task)
  const results = task.cells.map(
    (): CellFigures => ({ alone: [], loaded: [], found: task.queries.map(() => []) }),
  )
  const ask = task.cells.map((cell) => asker(cell, task, agent, clients, langchain))

  /** @returns what it took, until the time is over */
  async function run(cell: number, connections: number, ms: number): Promise<Figures> {
    const took: number[] = []
    const started = performance.now()
    await Promise.all(
      Array.from({ length: connections }, async (_, connection) => {
        for (let index = connection; performance.now() - started < ms; index += connections) {
          const asked = performance.now()
          await ask[cell]?.(index % task.queries.length, connection)
          took.push(performance.now() - asked)
        }
      }),
    )
    const perSecond = (1000 * took.length) / (performance.now() - started)
    return { p50: percentile(took, 0.5), p95: percentile(took, 0.95), perSecond }
  }

  // Once through everything: query vectors are cached, plans and pages warm, the code compiled.
  for (const [cell, { found }] of results.entries()) {
    for (const query of task.queries.keys()) found[query] = (await ask[cell]?.(query, 0)) ?? []
    await run(cell, task.connections, task.measureMs)
  }
  const order = [...task.cells.keys()]
  for (let round = 0; round < task.rounds; round++) {
    const turns = round % 2 === 0 ? order : order.toReversed()
    for (const cell of turns) results[cell]?.alone.push(await run(cell, 1, task.measureMs))
    for (const cell of turns) results[cell]?.loaded.push(await run(cell, task.connections, task.measureMs))
  }
  agent.destroy()
  await langchain.end()
  await Promise.all(clients.map((client) => client.end()))
  return results
}

type Ask = (query: number, connection: number) => Promise<string[]>

/** What a cell asks; resolves to the ids that came. */
function asker(
  cell: Cell,
  task: SearchTask,
  agent: Agent,
  clients: readonly pg.Client[],
  langchain: LangChainStore,
): Ask {
  const { side, mode, channels } = cell
  /** Bodies are made beforehand: what the client does is no part of what is measured. */
  const bodies = (make: (text: string) => object) =>
    task.queries.map(({ text }) => JSON.stringify(make(text)))
  const overHttp = (url: string, made: string[], read: (answer: Hits) => string[] | undefined): Ask => {
    return async (query) => {
      const text = await post(agent, url, made[query] ?? '')
      const answer: Hits = JSON.parse(text)
      const ids = answer.errors ? undefined : read(answer)
      if (!ids) throw new Error(`a search of ${side} failed: ${text.slice(0, 500)}`)
      return ids
    }
  }
  const edges = (answer: Hits) => answer.data?.search?.edges.map(({ node }) => node.id)
  switch (side) {
    case 'raw':
      return async (query, connection) => {
        const vector = task.queries[query]?.vector
        const answer = await clients[connection]?.query<{ id: string }>(
          channels === null
            ? { ...task.statement, values: [vector] }
            : { ...task.filtered, values: [vector, ...channels] },
        )
        return answer?.rows.slice(0, task.pageSize).map(({ id }) => id) ?? []
      }
    case 'langchain':
      return async (query) => {
        const text = task.queries[query]?.text ?? ''
        const documents = await langchain.similaritySearch(
          text,
          task.pageSize,
          channels === null ? undefined : { channel: { in: channels } },
        )
        return documents.map(({ id }) => id ?? '')
      }
    case 'bare':
      return overHttp(
        task.urls.bare,
        bodies((query) => ({ query, channels })),
        edges,
      )
    case 'postgraphile':
      return overHttp(
        task.urls.postgraphile,
        bodies((query) => ({ query: postgraphileDocument, variables: { query, channels } })),
        (answer) => answer.data?.searchList?.map(({ id }) => id),
      )
    case 'quarry':
      if (mode === null) {
        return overHttp(
          task.urls.quarry,
          bodies(() => ({ query: '{ __typename }' })),
          () => [],
        )
      }
      return overHttp(
        task.urls.quarry,
        bodies((query) => ({
          query: quarryDocument,
          variables: { query, mode, filter: channels === null ? null : { channels } },
        })),
        (answer) => edges(answer)?.map(databaseId),
      )
  }
}

/** PGVectorStore with vectors of the queries that are there already: as with Quarry, embedding is not measured. */
async function openLangChain(task: SearchTask): Promise<LangChainStore> {
  const { Embeddings } = loadLangChainCore()
  const vectors = new Map(task.queries.map(({ text, vector }) => [text, numbersOf(vector)]))
  class Cached extends Embeddings {
    override async embedQuery(text: string): Promise<number[]> {
      const vector = vectors.get(text)
      if (!vector) throw new Error(`no vector for the query: ${text}`)
      return vector
    }
    override async embedDocuments(): Promise<number[][]> {
      throw new Error('the benchmark gives LangChain no documents')
    }
  }
  const pool = openPool(task.databaseUrl)
  // Answers as soon as it can be asked; the table is made elsewhere (createLangChainView).
  return loadLangChain().PGVectorStore.initialize(new Cached({}), {
    pool,
    tableName: langchainView,
    skipInitializationCheck: true,
  })
}

/** What `vectorBytes` wrote: two numbers of 16 bits, then one of 32 for each dimension. */
function numbersOf(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: view.getInt16(0) }, (_, index) => view.getFloat32(4 + index * 4))
}

function post(agent: Agent, url: string, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      {
        agent,
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => {
          text += chunk
        })
        response.on('end', () => resolve(text))
        response.on('error', reject)
      },
    )
    sent.on('error', reject)
    sent.end(body)
  })
}

process.once('message', async (task: SearchTask) => {
  const figures = await measure(task)
  process.send?.(figures, () => process.disconnect())
})
