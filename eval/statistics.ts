import { randomNumbers } from '../bench/vectors.ts'

/** NaN of nothing. */
export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length

/**
 * Spearman's rank correlation, -1..1: Pearson's correlation of the ranks, where equal values share the mean of their
 * ranks. NaN where one side is all the same.
 */
export function spearman(a: readonly number[], b: readonly number[]): number {
  return pearson(ranksOf(a), ranksOf(b))
}

function pearson(a: readonly number[], b: readonly number[]): number {
  const [meanA, meanB] = [mean(a), mean(b)]
  let both = 0
  let onlyA = 0
  let onlyB = 0
  for (const [index, value] of a.entries()) {
    const [fromA, fromB] = [value - meanA, (b[index] ?? Number.NaN) - meanB]
    both += fromA * fromB
    onlyA += fromA ** 2
    onlyB += fromB ** 2
  }
  return both / Math.sqrt(onlyA * onlyB)
}

function ranksOf(values: readonly number[]): number[] {
  const order = values.map((value, index) => ({ value, index })).sort((a, b) => a.value - b.value)
  const ranks = new Array<number>(values.length)
  for (let from = 0; from < order.length; ) {
    let to = from
    while (to < order.length && order[to]?.value === order[from]?.value) to++
    for (const { index } of order.slice(from, to)) ranks[index] = (from + to + 1) / 2
    from = to
  }
  return ranks
}

/** How good two ways are for the same queries: `ours[n]` and `theirs[n]` are of one query. */
export interface Paired {
  ours: readonly number[]
  theirs: readonly number[]
}

/** Ratio of the means. */
export const ratioOf = ({ ours, theirs }: Paired): number => mean(ours) / mean(theirs)

/**
 * The 95 % interval of the mean over collections of `ratioOf`: paired bootstrap (Efron and Tibshirani, 1993; for
 * rankings Sakai, 2006), by percentiles. Queries are drawn anew within each collection, both ways of a query together.
 * @param seed the same seed gives the same interval
 */
export function bootstrapRatio(
  collections: readonly Paired[],
  { samples, seed }: { samples: number; seed: number },
): { low: number; high: number } {
  const random = randomNumbers(seed)
  const drawn = Array.from({ length: samples }, () =>
    mean(
      collections.map(({ ours, theirs }) => {
        let [sumOurs, sumTheirs] = [0, 0]
        for (let count = 0; count < ours.length; count++) {
          const index = Math.floor(random() * ours.length)
          sumOurs += ours[index] ?? 0
          sumTheirs += theirs[index] ?? 0
        }
        return sumOurs / sumTheirs
      }),
    ),
  ).sort((a, b) => a - b)
  const at = (share: number) => drawn[Math.min(samples - 1, Math.floor(samples * share))] ?? Number.NaN
  return { low: at(0.025), high: at(0.975) }
}
