import { SetupError } from '../src/errors.ts'
import { type PreparedApp, startPreparedApp } from './prepared-app.ts'
import type { QualityReport, QualityTable } from './report.ts'
import { duplicateScore, type PairCollection, readPairs } from './similarity-data.ts'
import { spearman } from './statistics.ts'
import {
  bestThreshold,
  type CurvePoint,
  judgeThreshold,
  preciseThreshold,
  type Scored,
} from './threshold-curve.ts'

export interface EvalSimilarityOptions {
  /** Each with pairs.jsonl. */
  folders: readonly string[]
}

const thresholds = Array.from({ length: 20 }, (_, index) => (80 + index) / 100)
const leastPrecision = 0.9
/** Questions under way at once: one leaves the app idle between two answers. */
const lanes = 4

interface Measured {
  name: string
  scored: (Scored & { score: number })[]
  note: string
}

/** @throws SetupError when a folder or a line of it cannot be read, or the app cannot work with what it is given */
export async function evalSimilarity({ folders }: EvalSimilarityOptions): Promise<QualityReport> {
  const measured: Measured[] = []
  for (const collection of folders.map(readPairs)) measured.push(await measure(collection))
  const all: Measured = { name: '**all**', scored: measured.flatMap(({ scored }) => scored), note: '' }
  const whole = measured.length > 1 ? [...measured, all] : measured
  return {
    title: 'Similarity',
    tables: [summaryTable(whole), ...whole.map(curveTable)],
    notes: [
      'Similarity as the API gives it: 1 - cosineDistance / 2. One text of a pair is stored as a message, the other one searched for by meaning in a channel that holds nothing else, so all is measured that a caller gets: parts, their mean, what the database stores.',
      `Spearman: rank correlation with the scores of people (equal ranks shared). Duplicates: pairs with a score of ${duplicateScore} and above; found: those at and above the threshold. Nowhere: at no threshold that finds a pair.`,
      ...measured.map(({ note }) => note),
    ],
  }
}

async function measure({ name, pairs }: PairCollection): Promise<Measured> {
  const channelOf = (index: number) => `pair ${index + 1}`
  const texts = pairs.map(({ b }, index) => ({ id: `${index + 1}`, text: b, channel: channelOf(index) }))
  await using app = await startPreparedApp(name, texts)
  const similarities = new Array<number | null>(pairs.length).fill(null)
  const places = pairs.entries()
  const lane = async () => {
    for (const [index, { a }] of places) similarities[index] = await similarity(app, a, channelOf(index))
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  const scored = pairs.flatMap(({ score }, index) => {
    const own = similarities[index]
    return typeof own === 'number' ? [{ score, similarity: own, isDuplicate: score >= duplicateScore }] : []
  })
  const without = pairs.length - scored.length
  if (!scored.some(({ isDuplicate }) => isDuplicate))
    throw new SetupError(
      `${name}: ${without} of ${pairs.length} pairs have no similarity; no duplicate is left`,
    )
  const duplicates = scored.filter(({ isDuplicate }) => isDuplicate).length
  return {
    name,
    scored,
    note: `${name}: ${scored.length.toLocaleString('en')} pairs, ${duplicates} duplicates; ${app.description}.${
      without > 0 ? ` ${without} pairs were left out: the model knows no word of one text.` : ''
    }`,
  }
}

const searchDocument = `
  query Similarity($query: String!, $channel: String!) {
    search(query: $query, mode: SEMANTIC, kinds: [MESSAGE], filter: { channels: [$channel], includeNoise: true }, first: 1) {
      edges { similarity }
    }
  }
`

/** Of a text and the one message of a channel; null where one of them has no vector. */
async function similarity({ client }: PreparedApp, query: string, channel: string): Promise<number | null> {
  const { search } = await client.request<{ search: { edges: { similarity: number | null }[] } }>(
    searchDocument,
    { query, channel },
  )
  return search.edges[0]?.similarity ?? null
}

function summaryTable(measured: readonly Measured[]): QualityTable {
  return {
    caption: 'How similarity agrees with people, and where duplicates are told best.',
    head: [
      'Collection',
      'Spearman',
      'Best F1',
      'at threshold',
      'precision, recall there',
      `Precision reaches ${leastPrecision} at`,
      'recall there',
    ],
    rows: measured.map(({ name, scored }) => {
      const best = bestThreshold(scored)
      const precise = preciseThreshold(scored, leastPrecision)
      const rho = spearman(
        scored.map(({ similarity }) => similarity),
        scored.map(({ score }) => score),
      )
      return [
        name,
        figure(rho),
        figure(best.f1),
        figure(best.threshold),
        `${figure(best.precision)}, ${figure(best.recall)}`,
        precise ? figure(precise.threshold) : 'nowhere',
        precise ? figure(precise.recall) : '-',
      ]
    }),
  }
}

function curveTable({ name, scored }: Measured): QualityTable {
  const row = ({ threshold, precision, recall, f1, found }: CurvePoint) => [
    threshold.toFixed(2),
    found === 0 ? '-' : figure(precision),
    figure(recall),
    figure(f1),
    `${found}`,
  ]
  return {
    caption: `Duplicates of ${name} by threshold.`,
    head: ['Threshold', 'Precision', 'Recall', 'F1', 'Found'],
    rows: thresholds.map((threshold) => row(judgeThreshold(scored, threshold))),
  }
}

const figure = (value: number) => value.toFixed(3)
