import { createEmbeddingProvider } from '../../src/providers/create.ts'
import { prepare, writeAll } from '../embedding.ts'
import {
  type BenchPostgres,
  createDatabase,
  providerConfig,
  providerEnv,
  startProvider,
} from '../environment.ts'
import { median, percent, perSecond, type Row, times } from '../report.ts'
import { ClusteredVectors } from '../vectors.ts'
import { timeBackfill } from './backfill.ts'

const clusters = 200
const seed = 7
const workerCounts = [1, 2, 4]

interface Trial {
  count: number
  latencyMs: number
  rounds: number
}

/** How much faster a backfill becomes with more workers. */
export async function measureWorkers(postgres: BenchPostgres, options: { quick: boolean }): Promise<Row[]> {
  const trials: Trial[] = options.quick
    ? [
        { count: 2_000, latencyMs: 50, rounds: 1 },
        { count: 4_096, latencyMs: 1_000, rounds: 1 },
      ]
    : [
        { count: 20_000, latencyMs: 50, rounds: 3 },
        // So slow that the provider is the limit, not the index: only there can more workers be faster on few cores.
        { count: 8_192, latencyMs: 4_000, rounds: 1 },
      ]
  const rows: Row[] = []
  for (const trial of trials) rows.push(...(await measure(postgres, trial)))
  return rows
}

async function measure(postgres: BenchPostgres, { count, latencyMs, rounds }: Trial): Promise<Row[]> {
  await using ours = await createDatabase(postgres)
  await using others = await createDatabase(postgres)
  await using provider = await startProvider({ clusters, seed, latencyMs, prepared: count })
  const config = providerConfig(provider.url)
  const { maxParallelRequests: lanes, maxTextsPerRequest: batch } = createEmbeddingProvider(config).limits
  const space = await prepare(ours.url, config)
  const rawSpace = await prepare(others.url, config)
  const vectors = new ClusteredVectors({ clusters, seed })
  const all = Array.from({ length: count }, (_, number) => vectors.at(number))

  /** Rates by number of workers, and of raw writes on as many connections, taken by turns. */
  const results = workerCounts.map((workers) => ({ workers, quarry: [] as number[], raw: [] as number[] }))
  for (let round = 0; round < rounds; round++) {
    for (const { workers, quarry, raw } of results) {
      const env = providerEnv(provider.url)
      const took = await timeBackfill({ databaseUrl: ours.url, space, env, count, workers })
      quarry.push((1000 * count) / took)
      raw.push(await writeAll(others.url, rawSpace, all, lanes * workers, batch))
    }
  }
  const { texts } = await provider.counts()
  if (texts !== count) throw new Error(`the provider answered ${texts} of ${count} texts`)
  const one = median(results[0]?.quarry ?? [])
  return results.map(({ workers, quarry, raw }): Row => {
    const rate = median(quarry)
    // The last requests are not all under way at once: what counts is how often each lane has to ask.
    const asked = Math.ceil(Math.ceil(count / batch) / (lanes * workers))
    const bounds = [
      { bound: workers * one, name: `${workers} x one` },
      { bound: (1000 * count) / (asked * latencyMs), name: 'the provider' },
      { bound: median(raw), name: 'raw writes' },
    ].sort((a, b) => a.bound - b.bound)
    // One worker is the measure of the others, so for itself only what is outside of it counts.
    const [ideal = { bound: Number.NaN, name: '' }] = bounds.filter(
      ({ name }) => workers > 1 || name !== '1 x one',
    )
    return {
      what: `backfill of ${count.toLocaleString('en')}, ${workers} ${workers === 1 ? 'worker' : 'workers'}, provider ${latencyMs} ms`,
      figure: workers === 1 ? perSecond(rate) : `${perSecond(rate)}, ${times(rate / one)}`,
      beside:
        workers === 1
          ? `${perSecond(ideal.bound)} ideal: ${ideal.name}`
          : `${perSecond(ideal.bound)}, ${times(ideal.bound / one)} ideal: ${ideal.name}`,
      ratio: percent(rate / ideal.bound),
    }
  })
}

export const workerNotes = [
  'Backfill: from the commit of the messages and of the job until the job has ended, by `quarry worker` processes that are there already; the index is empty at first. Ideal: the rate of one worker times their number, or what bounds it sooner: the provider (how often each lane has to ask), or raw writes into the same index on as many connections, measured by turns. Provider, workers and Postgres share the cores.',
]
