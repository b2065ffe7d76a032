import { setTimeout as delay } from 'node:timers/promises'
import { bytesText } from '../bytes.ts'
import { QuarryError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { paint, say, table } from './terminal.ts'
import { duration } from './wording.ts'

/** A vector index as the API tells of it. */
export interface VectorIndex {
  kind: string
  state: string
  reason: string | null
  name: string
  space: { model: string; state: string }
  buildProgress: number | null
  rows: number
  sizeBytes: number
  precision: string | null
  m: number | null
  efConstruction: number | null
  deadRows: number
  bloat: number
  builtAt: string | null
  buildSeconds: number | null
  buildReason: string | null
  recall: number | null
  recallQueries: number
  recallSource: string | null
  measuredAt: string | null
  rebuildRequestedAt: string | null
  measureRequestedAt: string | null
  lastError: string | null
}

const fields = `kind state reason name space { model state } buildProgress rows sizeBytes precision m efConstruction
  deadRows bloat builtAt buildSeconds buildReason recall recallQueries recallSource measuredAt
  rebuildRequestedAt measureRequestedAt lastError`

export interface IndexOptions {
  json: boolean
  measure: boolean
  /** Kinds to build anew; null: none. */
  rebuild: readonly string[] | null
}

const pollMs = 500

/** Shows the vector indexes; before, has them built anew or measured if asked to, and waits for that. */
export async function showIndexes(
  client: ApiClient,
  { json, measure, rebuild }: IndexOptions,
): Promise<void> {
  if (rebuild) {
    await ask(client, 'rebuildVectorIndexes', rebuild)
    await waitUntil(client, (index) => index.rebuildRequestedAt === null)
  }
  if (measure) {
    await ask(client, 'measureVectorIndexes', null)
    await waitUntil(client, (index) => index.measureRequestedAt === null)
  }
  const indexes = await readIndexes(client)
  if (json) say(JSON.stringify(indexes, null, 2))
  else for (const line of indexLines(indexes)) say(line)
}

async function readIndexes(client: ApiClient): Promise<VectorIndex[]> {
  const query = `query VectorIndexes { vectorIndexes { ${fields} } }`
  return (await client.read<{ vectorIndexes: VectorIndex[] }>(query, {})).vectorIndexes
}

async function ask(
  client: ApiClient,
  mutation: 'rebuildVectorIndexes' | 'measureVectorIndexes',
  kinds: readonly string[] | null,
): Promise<void> {
  const type = `${mutation.charAt(0).toUpperCase()}${mutation.slice(1)}`
  const answer = await client.request<{ asked: { message?: string } }>(
    `mutation ${type}($kinds: [EntityKind!]) {
       asked: ${mutation}(input: { kinds: $kinds }) { __typename ... on UserError { message } }
     }`,
    { kinds },
  )
  if (answer.asked.message) throw new QuarryError(answer.asked.message)
}

/** While an embedded database builds it answers nobody: what is read waits as long. */
async function waitUntil(client: ApiClient, isDone: (index: VectorIndex) => boolean): Promise<void> {
  for (;;) {
    const waiting = (await readIndexes(client)).filter((index) => !isDone(index))
    const failed = waiting.find((index) => index.lastError !== null)
    if (failed) throw new QuarryError(`${failed.name}: ${failed.lastError}`)
    if (waiting.length === 0) return
    await delay(pollMs)
  }
}

const head = ['KIND', 'STATE', 'ROWS', 'SIZE', 'PRECISION', 'M/EF', 'BLOAT', 'RECALL@10', 'BUILT IN']

/** The indexes as a table, and below what there is to say of each. */
export function indexLines(indexes: readonly VectorIndex[]): string[] {
  const rows = indexes.map((index) => [
    index.kind,
    stateColour(index.state)(index.state),
    index.rows,
    bytesText(index.sizeBytes),
    index.precision?.toLowerCase() ?? '',
    index.m === null ? '' : `${index.m}/${index.efConstruction}`,
    `${Math.round(100 * index.bloat)} %`,
    recallText(index),
    index.buildSeconds === null ? '' : duration(index.buildSeconds),
  ])
  // One table has all kinds: a number of dead rows for each would be told several times.
  const [first] = indexes
  const dead = first ? [paint.dim(`${first.deadRows} dead rows in the table`)] : []
  return [table(head, rows), ...indexes.flatMap(notesOf), ...dead]
}

function stateColour(state: string): (text: string) => string {
  switch (state) {
    case 'READY':
      return paint.green
    case 'MISSING':
      return paint.red
    default:
      return paint.yellow
  }
}

function recallText({ recall, recallQueries, recallSource }: VectorIndex): string {
  if (recall === null) return 'not measured'
  // Cut, not rounded: what is below the limit must not look as if it were not.
  const share = (Math.floor(recall * 1000) / 1000).toFixed(3)
  return `${share} (${recallQueries} ${recallSource === 'SEARCHES' ? 'searches' : 'rows'})`
}

function notesOf({ kind, state, reason, buildProgress, lastError }: VectorIndex): string[] {
  const progress = buildProgress === null ? '' : `, ${Math.floor(100 * buildProgress)} % read`
  return [
    ...(reason === null ? [] : [`${kind} ${state.toLowerCase()}: ${reason}${progress}`]),
    ...(lastError === null ? [] : [paint.red(`${kind}: ${lastError}`)]),
  ]
}
