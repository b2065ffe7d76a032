/*
 * How two ranked lists of the same query compare. Pure: ids in the order of the list, none twice.
 */

/** Share of the first `depth` that both have, of the longer of the two; null where both are empty. 0..1. */
export function overlapOf(one: readonly string[], other: readonly string[], depth: number): number | null {
  const [a, b] = [one.slice(0, depth), other.slice(0, depth)]
  const most = Math.max(a.length, b.length)
  if (most === 0) return null
  const inOther = new Set(b)
  return a.filter((id) => inOther.has(id)).length / most
}

/**
 * Spearman's rank correlation of what both lists have, ranked anew among itself, -1..1; null for fewer than two, which
 * have no order. Without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)).
 */
export function rankCorrelation(one: readonly string[], other: readonly string[]): number | null {
  const inOther = new Set(other)
  const common = one.filter((id) => inOther.has(id))
  const n = common.length
  if (n < 2) return null
  const inOne = new Set(common)
  const rankInOther = new Map(other.filter((id) => inOne.has(id)).map((id, rank) => [id, rank]))
  const squares = common.reduce((sum, id, rank) => sum + (rank - (rankInOther.get(id) ?? 0)) ** 2, 0)
  return 1 - (6 * squares) / (n * (n * n - 1))
}

/**
 * Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) of the first `depth`, 0..1; gains are the grades
 * themselves, the discount is log2(1 + rank), as in trec_eval.
 * @param grades above 0, of the right answers; at least one
 */
export function ndcg(ranking: readonly string[], grades: ReadonlyMap<string, number>, depth: number): number {
  const best = [...grades.values()].sort((a, b) => b - a)
  const found = ranking.map((id) => grades.get(id) ?? 0)
  return gain(found, depth) / gain(best, depth)
}

const gain = (grades: readonly number[], depth: number) =>
  grades.slice(0, depth).reduce((sum, grade, index) => sum + grade / Math.log2(index + 2), 0)

/** The mean of what is not null; null where nothing is. */
export function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null)
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length
}
