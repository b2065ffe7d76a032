/** A pair's similarity, and whether it is what is looked for. */
export interface Scored {
  similarity: number
  isDuplicate: boolean
}

/** Of the pairs at and above a threshold; precision is 1 of none, as none of them is wrong. */
export interface CurvePoint {
  threshold: number
  precision: number
  recall: number
  /** Harmonic mean of both. */
  f1: number
  found: number
}

export function judgeThreshold(scored: readonly Scored[], threshold: number): CurvePoint {
  const wanted = scored.filter(({ isDuplicate }) => isDuplicate).length
  const found = scored.filter(({ similarity }) => similarity >= threshold)
  const right = found.filter(({ isDuplicate }) => isDuplicate).length
  const precision = found.length === 0 ? 1 : right / found.length
  const recall = right / wanted
  const f1 = right === 0 ? 0 : (2 * precision * recall) / (precision + recall)
  return { threshold, precision, recall, f1, found: found.length }
}

/** Similarities to judge: no reader sets more than three digits. */
const steps = Array.from({ length: 501 }, (_, index) => (500 + index) / 1000)

/** The threshold of 0.500, 0.501 ... 1 with the highest F1; the higher of equals, as a wrong duplicate does more harm. */
export function bestThreshold(scored: readonly Scored[]): CurvePoint {
  return steps
    .map((threshold) => judgeThreshold(scored, threshold))
    .reduce((best, point) => (point.f1 >= best.f1 ? point : best))
}

/** The lowest of those thresholds whose precision is `least` at least; null if none that finds a pair has it. */
export function preciseThreshold(scored: readonly Scored[], least: number): CurvePoint | null {
  const points = steps.map((threshold) => judgeThreshold(scored, threshold))
  return points.find(({ found, precision }) => found > 0 && precision >= least) ?? null
}
