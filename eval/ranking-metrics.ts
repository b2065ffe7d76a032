/*
 * How good a ranked list is, 0..1. Grades are of the relevant rows, above 0; a row without one is not relevant. The
 * definitions are those of trec_eval, so that figures can be held against published ones.
 */

export type Grades = ReadonlyMap<string, number>

/**
 * Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) of the first `depth` rows; gains are the
 * grades themselves, the discount is log2(1 + rank).
 */
export function ndcg(ranking: readonly string[], grades: Grades, depth: number): number {
  const best = [...grades.values()].sort((a, b) => b - a)
  return (
    gain(
      ranking.map((id) => grades.get(id) ?? 0),
      depth,
    ) / gain(best, depth)
  )
}

const gain = (grades: readonly number[], depth: number) =>
  grades.slice(0, depth).reduce((sum, grade, index) => sum + grade / Math.log2(index + 2), 0)

/** Share of the relevant rows that is among the first `depth`. */
export function recall(ranking: readonly string[], grades: Grades, depth: number): number {
  return ranking.slice(0, depth).filter((id) => grades.has(id)).length / grades.size
}

/** Mean of the precisions at the ranks of the relevant rows; one that is not in the list counts as 0. */
export function averagePrecision(ranking: readonly string[], grades: Grades): number {
  let found = 0
  let sum = 0
  for (const [index, id] of ranking.entries()) {
    if (!grades.has(id)) continue
    found++
    sum += found / (index + 1)
  }
  return sum / grades.size
}

/** 1 / rank of the first relevant row; 0 if there is none. */
export function reciprocalRank(ranking: readonly string[], grades: Grades): number {
  const index = ranking.findIndex((id) => grades.has(id))
  return index < 0 ? 0 : 1 / (index + 1)
}
