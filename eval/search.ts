import type { ApiClient } from '../src/cli/client.ts'
import { QuarryError, SetupError } from '../src/errors.ts'
import { createBm25 } from './bm25.ts'
import { startPreparedApp } from './prepared-app.ts'
import { averagePrecision, type Grades, ndcg, recall, reciprocalRank } from './ranking-metrics.ts'
import type { QualityReport, QualityTable } from './report.ts'
import { type JudgedQuery, type RetrievalCollection, readCollection } from './search-data.ts'
import { bootstrapRatio, mean, type Paired, ratioOf } from './statistics.ts'

export const searchModes = ['KEYWORD', 'SEMANTIC', 'HYBRID'] as const
export type SearchMode = (typeof searchModes)[number]

export interface EvalSearchOptions {
  /** Each with corpus.jsonl, queries.jsonl and qrels.jsonl. */
  folders: readonly string[]
  modes: readonly SearchMode[]
  /** Print these queries with what was found: all of them, or those with these ids. Null: none. */
  queries: 'all' | readonly string[] | null
}

/** As deep as recall looks; one page of the API. */
const depth = 100
const aims = { keyword: 0.98, hybrid: 1.04, hybridOnEach: 1 }
const bootstrap = { samples: 10_000, seed: 1 }
/** Below, two figures differ by rounding only. */
const tolerance = 1e-9

interface Hit {
  id: string
  score: number
  similarity: number | null
}

/** One way of ranking, over the queries of a collection in their order. */
interface Way {
  name: string
  rankings: Hit[][]
}

interface Measured {
  collection: RetrievalCollection
  reference: Way
  ways: ReadonlyMap<SearchMode, Way>
  notes: string[]
}

/** @throws SetupError when a folder or a line of it cannot be read, or the app cannot work with what it is given */
export async function evalSearch(options: EvalSearchOptions): Promise<QualityReport> {
  // Read all before the first is embedded: a mistake in the last folder should not cost minutes.
  const collections = options.folders.map(readCollection)
  const measured: Measured[] = []
  for (const collection of collections) {
    const own = await measure(collection, options.modes)
    measured.push(own)
    if (options.queries !== null) printQueries(own, options.queries)
  }
  const isWhole = searchModes.every((mode) => options.modes.includes(mode))
  return {
    title: 'Search',
    tables: [figureTable(measured, options.modes), ...(isWhole ? [aimTable(measured)] : [])],
    notes: [
      'Each collection is ingested as messages into an app of its own and searched by the public API, to rank 100, noise included. nDCG with the grades as gains, as trec_eval computes it; a document that nobody judged counts as not relevant.',
      'Reference BM25: k1 1.2, b 0.75, a suffix stemmer for English, written for this measure alone (`eval/bm25.ts`) and run over the same documents and queries.',
      ...(isWhole
        ? [
            `Better leg: KEYWORD or SEMANTIC, whichever has the higher nDCG@10 on the collection. Better, worse, same: in how many queries HYBRID has a higher, lower or equal nDCG@10. Interval: 95 %, paired bootstrap over queries (${bootstrap.samples.toLocaleString('en')} samples, seed ${bootstrap.seed}) of the ratio, the better leg staying the same; one that holds 1 tells no gain from chance. The mean is that of the ratios.`,
          ]
        : []),
      ...measured.flatMap(({ notes }) => notes),
    ],
  }
}

/* Measuring */

async function measure(collection: RetrievalCollection, modes: readonly SearchMode[]): Promise<Measured> {
  const { name, documents, queries, unjudged, cut } = collection
  await using app = await startPreparedApp(name, documents)
  const ways = new Map<SearchMode, Way>()
  const notes = [
    [
      `${name}: ${documents.length.toLocaleString('en')} documents, ${queries.length} judged queries; ${app.description}.`,
      unjudged > 0 ? `${unjudged} queries without a relevant document were left out.` : '',
      cut > 0 ? `${cut} documents were cut to what a message may hold.` : '',
      app.withoutVector > 0 ? `${app.withoutVector} documents have no vector.` : '',
    ],
  ]
  for (const mode of modes) {
    console.error(`${name}: ${mode}`)
    const rankings: Hit[][] = []
    const refusals: string[] = []
    for (const query of queries) {
      const found = await search(app.client, query, mode)
      if (Array.isArray(found)) rankings.push(found)
      else {
        rankings.push([])
        refusals.push(`${query.id}: ${found.refusal}`)
      }
    }
    if (refusals.length === queries.length)
      throw new SetupError(`${name}: every query was refused in mode ${mode}; ${refusals[0]}`)
    if (refusals.length > 0)
      notes.push([
        `${name}: queries that ${mode} refused, which count as if nothing had been found: ${refusals.length}; such as ${refusals[0]}.`,
      ])
    ways.set(mode, { name: mode, rankings })
  }
  const rank = createBm25(documents)
  const reference = {
    name: 'reference BM25',
    rankings: queries.map(({ text }) => rank(text, depth).map((id) => ({ id, score: 0, similarity: null }))),
  }
  return { collection, reference, ways, notes: notes.map((parts) => parts.filter(Boolean).join(' ')) }
}

const searchDocument = `
  query Search($query: String!, $mode: SearchMode!, $first: Int!) {
    search(query: $query, mode: $mode, kinds: [MESSAGE], filter: { includeNoise: true }, first: $first) {
      edges { score similarity node { ... on Message { externalId } } }
    }
  }
`

interface SearchAnswer {
  search: { edges: { score: number; similarity: number | null; node: { externalId: string } }[] }
}

/** A query that the API refuses is found nothing for, which a person would meet as well; an outage ends the run. */
async function search(
  client: ApiClient,
  { text }: JudgedQuery,
  mode: SearchMode,
): Promise<Hit[] | { refusal: string }> {
  try {
    const answer = await client.request<SearchAnswer>(searchDocument, { query: text, mode, first: depth })
    return answer.search.edges.map(({ score, similarity, node }) => ({
      id: node.externalId,
      score,
      similarity,
    }))
  } catch (error) {
    if (!(error instanceof QuarryError) || error instanceof SetupError) throw error
    return { refusal: error.message }
  }
}

/* Tables */

const ids = (ranking: readonly Hit[]) => ranking.map(({ id }) => id)

const metrics: { name: string; of: (ranking: readonly string[], relevant: Grades) => number }[] = [
  { name: 'nDCG@10', of: (ranking, relevant) => ndcg(ranking, relevant, 10) },
  { name: 'recall@100', of: (ranking, relevant) => recall(ranking, relevant, depth) },
  { name: 'MAP', of: averagePrecision },
  { name: 'MRR', of: reciprocalRank },
]

function figureTable(measured: readonly Measured[], modes: readonly SearchMode[]): QualityTable {
  const waysOf = ({ reference, ways }: Measured) => [
    reference,
    ...modes.flatMap((mode) => ways.get(mode) ?? []),
  ]
  const figures = measured.map((own) =>
    waysOf(own).map(({ name, rankings }) => ({
      name,
      values: metrics.map(({ of }) =>
        mean(own.collection.queries.map(({ relevant }, index) => of(ids(rankings[index] ?? []), relevant))),
      ),
    })),
  )
  const rows = measured.flatMap(({ collection }, place) =>
    (figures[place] ?? []).map(({ name, values }) => [collection.name, name, ...values.map(figure)]),
  )
  if (measured.length > 1)
    for (const [index, way] of (figures[0] ?? []).entries())
      rows.push([
        '**mean**',
        way.name,
        ...metrics.map((_, column) => figure(mean(figures.map((own) => own[index]?.values[column] ?? 0)))),
      ])
  return {
    caption:
      'How well what is relevant is ranked, 0 to 1, as the mean of the queries; MAP and MRR to rank 100.',
    head: ['Collection', 'How', ...metrics.map(({ name }) => name)],
    rows,
  }
}

const figure = (value: number) => value.toFixed(3)

const ndcgs = ({ queries }: RetrievalCollection, { rankings }: Way): number[] =>
  queries.map(({ relevant }, index) => ndcg(ids(rankings[index] ?? []), relevant, 10))

function aimTable(measured: readonly Measured[]): QualityTable {
  const judged = measured.map(({ collection, reference, ways }) => {
    const of = (mode: SearchMode) => {
      const way = ways.get(mode)
      if (!way) throw new Error(`${mode} was not measured`)
      return { name: mode, values: ndcgs(collection, way) }
    }
    const [keyword, semantic] = [of('KEYWORD'), of('SEMANTIC')]
    const leg = mean(keyword.values) >= mean(semantic.values) ? keyword : semantic
    return {
      name: collection.name,
      leg: leg.name,
      keyword: { ours: keyword.values, theirs: ndcgs(collection, reference) },
      hybrid: { ours: of('HYBRID').values, theirs: leg.values },
    }
  })
  const row = (name: string, leg: string, own: typeof judged, least: number) => {
    const toReference = mean(own.map(({ keyword }) => ratioOf(keyword)))
    const toLeg = mean(own.map(({ hybrid }) => ratioOf(hybrid)))
    const hybrids = own.map(({ hybrid }) => hybrid)
    const { low, high } = bootstrapRatio(hybrids, bootstrap)
    return [
      name,
      judgedBy(toReference, aims.keyword),
      leg,
      judgedBy(toLeg, least),
      `${figure(low)} to ${figure(high)}`,
      counts(hybrids),
    ]
  }
  return {
    caption: `nDCG@10 held against the aims: KEYWORD at least ${aims.keyword} of the reference; HYBRID at least ${aims.hybrid} of the better leg as the mean of the collections, and below it on none.`,
    head: [
      'Collection',
      'KEYWORD / reference',
      'Better leg',
      'HYBRID / better leg',
      'Interval',
      'Better, worse, same',
    ],
    rows: [
      ...judged.map((own) => row(own.name, own.leg, [own], aims.hybridOnEach)),
      row('**mean**', '', judged, aims.hybrid),
    ],
  }
}

const judgedBy = (value: number, least: number) =>
  `${figure(value)} ${value >= least - tolerance ? 'met' : '**missed**'}`

function counts(pairs: readonly Paired[]): string {
  const differences = pairs.flatMap(({ ours, theirs }) =>
    ours.map((value, index) => value - (theirs[index] ?? Number.NaN)),
  )
  const better = differences.filter((value) => value > tolerance).length
  const worse = differences.filter((value) => value < -tolerance).length
  return `${better}, ${worse}, ${differences.length - better - worse}`
}

/* Single queries, to learn from */

const shownHits = 10
const shownCharacters = 100

function printQueries({ collection, reference, ways }: Measured, wanted: 'all' | readonly string[]): void {
  const { name, queries, documents } = collection
  if (wanted !== 'all')
    for (const id of wanted)
      if (!queries.some((query) => query.id === id)) console.log(`${name} has no judged query ${id}\n`)
  const texts = new Map(documents.map(({ id, text }) => [id, text]))
  const shorten = (text: string) => {
    const line = text.replaceAll(/\s+/g, ' ').trim()
    return line.length > shownCharacters ? `${line.slice(0, shownCharacters)}…` : line
  }
  const all = [reference, ...ways.values()]
  for (const [index, { id, text, relevant }] of queries.entries()) {
    if (wanted !== 'all' && !wanted.includes(id)) continue
    console.log(`QUERY ${name} ${id} (${relevant.size} relevant): ${text.replaceAll(/\s+/g, ' ').trim()}`)
    for (const { name: way, rankings } of all) {
      const ranking = rankings[index] ?? []
      const found = ids(ranking)
      const ranks = found.flatMap((hit, place) => (relevant.has(hit) ? [place + 1] : []))
      console.log(
        `  ${way}: nDCG@10 ${figure(ndcg(found, relevant, 10))}; relevant at ${ranks.join(' ') || 'no rank'}`,
      )
      if (way === reference.name) continue
      for (const [place, hit] of ranking.slice(0, shownHits).entries())
        console.log(
          [
            `    ${relevant.has(hit.id) ? '+' : '-'} ${place + 1}`,
            hit.id,
            `score ${figure(hit.score)}`,
            ...(hit.similarity === null ? [] : [`similarity ${figure(hit.similarity)}`]),
            shorten(texts.get(hit.id) ?? ''),
          ].join('  '),
        )
    }
    const nowhere = [...relevant.keys()].filter((own) =>
      [...ways.values()].every(({ rankings }) => !ids(rankings[index] ?? []).includes(own)),
    )
    for (const own of nowhere) console.log(`  not found by any: ${own}  ${shorten(texts.get(own) ?? '')}`)
    console.log()
  }
}
