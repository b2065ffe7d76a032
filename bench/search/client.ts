import { Agent, request } from 'node:http'
import { connect, databaseId } from './environment.ts'
import { median, percentile } from './report.ts'

/*
 * The client of the search benchmark, in a process of its own: neither the server nor the bench shares its event loop.
 * The same client asks the API and, for comparison, the database itself, by turns, so that whatever else the machine
 * does meanwhile falls on both alike.
 */

export interface SearchTask {
  graphqlUrl: string
  databaseUrl: string
  queries: { text: string; values: unknown[] }[]
  statement: string
  rounds: number
  /** How long each side is loaded in a round. */
  loadMs: number
  connections: number
}

export interface Side {
  p50: number
  p95: number
  perSecond: number
}

export interface SearchFigures {
  quarry: Side
  raw: Side
  /** The same way through HTTP and GraphQL with nothing to do: what of a search is not search. */
  empty: Side
  /** Medians of the ratios of the rounds, not ratios of the medians. */
  ratio: Side
  /** Ids that the API found, by query. */
  found: string[][]
}

interface Answer {
  data?: { search: { edges: { node: { id: string; content: string } }[] } }
  errors?: unknown
}

const document = `query Search($query: String!) {
  search(query: $query, kinds: [MESSAGE], mode: SEMANTIC, first: 10) {
    edges { similarity node { ... on Message { id content author } } }
  }
}`

async function measure(task: SearchTask): Promise<SearchFigures> {
  const agent = new Agent({ keepAlive: true, maxSockets: task.connections })
  const clients = await Promise.all(Array.from({ length: task.connections }, () => connect(task.databaseUrl)))
  const found: string[][] = task.queries.map(() => [])
  const queryOf = (index: number) => {
    const query = task.queries[index % task.queries.length]
    if (!query) throw new Error('no queries')
    return query
  }
  const sides = {
    quarry: async (index: number) => {
      const body = JSON.stringify({ query: document, variables: { query: queryOf(index).text } })
      const { data, errors }: Answer = JSON.parse(await post(agent, task.graphqlUrl, body))
      if (data?.search.edges.length !== 10) {
        throw new Error(`a search failed: ${JSON.stringify(errors ?? data)}`)
      }
      found[index % found.length] = data.search.edges.map(({ node }) => databaseId(node.id))
    },
    raw: async (index: number, connection: number) => {
      const answer = await clients[connection]?.query(task.statement, queryOf(index).values)
      if (!answer || answer.rows.length < 10) throw new Error('a raw search found less than 10 rows')
    },
    empty: async () => {
      await post(agent, task.graphqlUrl, '{"query":"{ __typename }"}')
    },
  }
  type Name = keyof typeof sides
  const names = Object.keys(sides) as Name[]

  /** One after another: how long a person waits. */
  async function latency(name: Name): Promise<Pick<Side, 'p50' | 'p95'>> {
    const took: number[] = []
    for (let index = 0; index < task.queries.length; index++) {
      const started = performance.now()
      await sides[name](index, 0)
      took.push(performance.now() - started)
    }
    return { p50: percentile(took, 0.5), p95: percentile(took, 0.95) }
  }

  /** On all connections at once: how many the machine bears. */
  async function load(name: Name): Promise<number> {
    const started = performance.now()
    let done = 0
    await Promise.all(
      Array.from({ length: task.connections }, async (_, connection) => {
        for (let index = connection; performance.now() - started < task.loadMs; index += task.connections) {
          await sides[name](index, connection)
          done++
        }
      }),
    )
    return (1000 * done) / (performance.now() - started)
  }

  // Once through everything: query vectors are cached, plans and pages warm, the code compiled.
  for (const name of names) await latency(name)
  await load('quarry')
  const rounds: Record<Name, Side>[] = []
  for (let round = 0; round < task.rounds; round++) {
    const figures = {} as Record<Name, Side>
    const order = round % 2 === 0 ? names : names.toReversed()
    for (const name of order) figures[name] = { ...(await latency(name)), perSecond: 0 }
    for (const name of order) figures[name].perSecond = await load(name)
    rounds.push(figures)
  }
  agent.destroy()
  await Promise.all(clients.map((client) => client.end()))

  const over = (read: (round: Record<Name, Side>, field: keyof Side) => number): Side => ({
    p50: median(rounds.map((round) => read(round, 'p50'))),
    p95: median(rounds.map((round) => read(round, 'p95'))),
    perSecond: median(rounds.map((round) => read(round, 'perSecond'))),
  })
  return {
    quarry: over((round, field) => round.quarry[field]),
    raw: over((round, field) => round.raw[field]),
    empty: over((round, field) => round.empty[field]),
    ratio: over((round, field) => round.quarry[field] / round.raw[field]),
    found,
  }
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
