import { createEmbeddingProvider } from '../../src/providers/create.ts'
import { prepare, writeAll } from '../embedding.ts'
import {
  type BenchPostgres,
  createDatabase,
  providerConfig,
  providerEnv,
  startProvider,
} from '../environment.ts'
import { median, type Row, seconds, times } from '../report.ts'
import { ClusteredVectors, randomNumbers } from '../vectors.ts'
import { timeBackfill } from './backfill.ts'

const clusters = 200
const latencyMs = 50
const share = 0.3
const retryAfterSeconds = 1
const aim = 1.5
/** Ideals that ask for less: in the strict one nothing waits for anything that it does not need. */
const otherIdeals = {
  writing: 'a lane asks again only when its answer is written',
  stopping: 'besides, each 429 stops all lanes',
}

/** A backfill against a provider that answers 429 to many of its requests. */
export async function measureRateLimits(
  postgres: BenchPostgres,
  options: { quick: boolean },
): Promise<Row[]> {
  const count = options.quick ? 4_000 : 20_000
  const rounds: Awaited<ReturnType<typeof measure>>[] = []
  for (let round = 1; round <= (options.quick ? 1 : 3); round++)
    rounds.push(await measure(postgres, count, round))
  const of = (field: 'tookMs' | 'strict' | keyof typeof otherIdeals) =>
    median(rounds.map((round) => round[field]))
  const sum = (field: 'texts' | 'limited' | 'repeated') =>
    rounds.reduce((all, { counts }) => all + counts[field], 0)
  const ratio = median(rounds.map(({ tookMs, strict }) => tookMs / strict))
  const number = (value: number) => value.toLocaleString('en')
  return [
    {
      what: `backfill of ${number(count)}, ${100 * share} % of requests answered 429`,
      figure: seconds(of('tookMs')),
      beside: `${seconds(of('strict'))} ideal`,
      ratio: times(ratio),
      aim: `<= ${aim}x`,
      isMet: ratio <= aim,
    },
    ...(['writing', 'stopping'] as const).map(
      (ideal): Row => ({
        what: `the same, if ${otherIdeals[ideal]}`,
        figure: '',
        beside: `${seconds(of(ideal))} ideal`,
        ratio: times(median(rounds.map((round) => round.tookMs / round[ideal]))),
      }),
    ),
    {
      what: 'texts answered twice',
      figure: number(sum('repeated')),
      beside: `${number(sum('texts'))} answered, ${number(sum('limited'))} answers of 429`,
      aim: '0',
      isMet: sum('repeated') === 0,
    },
  ]
}

async function measure(postgres: BenchPostgres, count: number, seed: number) {
  await using ours = await createDatabase(postgres)
  await using others = await createDatabase(postgres)
  const limited = { share, seed, retryAfterSeconds }
  await using provider = await startProvider({ clusters, seed, latencyMs, prepared: count, limited })
  const config = providerConfig(provider.url)
  const { maxParallelRequests: lanes, maxTextsPerRequest: batch } = createEmbeddingProvider(config).limits
  const space = await prepare(ours.url, config)
  const rawSpace = await prepare(others.url, config)
  const vectors = new ClusteredVectors({ clusters, seed })
  const all = Array.from({ length: count }, (_, number) => vectors.at(number))

  const env = providerEnv(provider.url)
  const tookMs = await timeBackfill({ databaseUrl: ours.url, space, env, count, workers: 1 })
  const counts = await provider.counts()
  if (counts.texts !== count) throw new Error(`the provider answered ${counts.texts} of ${count} texts`)
  const rawPerSecond = await writeAll(others.url, rawSpace, all, lanes, batch)
  const paced = { count, batch, lanes, seed, writeMs: 1000 / rawPerSecond }
  return {
    tookMs,
    counts,
    strict: idealMs({ ...paced, lanesWrite: false, stopsAll: false }),
    writing: idealMs({ ...paced, lanesWrite: true, stopsAll: false }),
    stopping: idealMs({ ...paced, lanesWrite: true, stopsAll: true }),
  }
}

/**
 * Pure: how long it takes lanes that lose no time. Each asks for a batch; an answer goes to a writer that all share;
 * after a 429 the lane waits as long as asked, then asks again. The provider answers as the real one does, by the same
 * sequence of random numbers. Milliseconds.
 * @param writeMs for one text
 * @param lanesWrite whether a lane asks again only when its answer is written
 * @param stopsAll whether after a 429 no lane asks until the wait is over
 */
export function idealMs(options: {
  count: number
  batch: number
  lanes: number
  seed: number
  writeMs: number
  lanesWrite: boolean
  stopsAll: boolean
}): number {
  const random = randomNumbers(options.seed)
  const waitMs = 1000 * retryAfterSeconds
  const freeAt = Array.from({ length: options.lanes }, () => 0)
  const stops: { from: number; until: number }[] = []
  let left = options.count
  let writerFreeAt = 0
  while (left > 0) {
    const lane = freeAt.indexOf(Math.min(...freeAt))
    const at = freeAt[lane] ?? 0
    const stop = stops.find(({ from, until }) => at >= from && at < until)
    if (stop) {
      freeAt[lane] = stop.until
      continue
    }
    const answeredAt = at + latencyMs
    if (random() < share) {
      freeAt[lane] = answeredAt + waitMs
      if (options.stopsAll) stops.push({ from: answeredAt, until: answeredAt + waitMs })
    } else {
      const texts = Math.min(options.batch, left)
      left -= texts
      writerFreeAt = Math.max(writerFreeAt, answeredAt) + texts * options.writeMs
      freeAt[lane] = options.lanesWrite ? writerFreeAt : answeredAt
    }
  }
  return writerFreeAt
}

export const rateLimitNotes = [
  `429: ${100 * share} % of the requests, as a sequence of random numbers says, with Retry-After: ${retryAfterSeconds}; one worker. Ideal: simulated with the same sequence, as many lanes, ${latencyMs} ms a request, ${retryAfterSeconds} s for a lane that was answered 429, and the answers written beside that, at the rate of raw writes as measured by turns; nothing else takes time.`,
]
