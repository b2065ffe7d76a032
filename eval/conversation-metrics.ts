/*
 * How well found clusters agree with true ones. A clustering is a list of labels, one per item, in the order of the
 * items; labels say only which items belong together. All measures are symmetric but for their names, and 1 is best.
 */

/** What the labels of two clusterings have in common. */
interface Contingency {
  items: number
  /** Items of each true cluster. */
  truth: number[]
  /** Items of each found cluster. */
  found: number[]
  /** Items in both a true and a found cluster; pairs with none are left out. */
  cells: { truth: number; found: number; items: number }[]
}

/** @throws RangeError when the lists differ in length. */
function contingencyOf(truth: readonly string[], found: readonly string[]): Contingency {
  if (truth.length !== found.length)
    throw new RangeError(`clusterings of the same items expected, found ${truth.length} and ${found.length}`)
  const rows = new Map<string, number>()
  const columns = new Map<string, number>()
  const table: Contingency = { items: truth.length, truth: [], found: [], cells: [] }
  const cells = new Map<string, Contingency['cells'][number]>()
  const number = (numbers: Map<string, number>, sizes: number[], label: string) => {
    const index = numbers.get(label) ?? numbers.size
    numbers.set(label, index)
    sizes[index] = (sizes[index] ?? 0) + 1
    return index
  }
  for (const [index, label] of truth.entries()) {
    const row = number(rows, table.truth, label)
    const column = number(columns, table.found, found[index] ?? '')
    const cell = cells.get(`${row} ${column}`)
    if (cell) cell.items++
    else cells.set(`${row} ${column}`, { truth: row, found: column, items: 1 })
  }
  table.cells = [...cells.values()]
  return table
}

const entropy = (sizes: readonly number[], items: number): number =>
  sizes.reduce((sum, size) => sum - (size / items) * Math.log2(size / items), 0)

/**
 * Variation of information (Meilă 2007) scaled as in Kummerfeld et al., ACL 2019: 1 - VI / log2(n), in 0..1. The more
 * items, the milder: several channels taken as one give a higher figure than the mean of the channels.
 */
export function scaledVariation(truth: readonly string[], found: readonly string[]): number {
  const table = contingencyOf(truth, found)
  if (table.items < 2) return 1
  const joint = entropy(
    table.cells.map((cell) => cell.items),
    table.items,
  )
  const variation = 2 * joint - entropy(table.truth, table.items) - entropy(table.found, table.items)
  return 1 - variation / Math.log2(table.items)
}

/**
 * One-to-one overlap (Elsner and Charniak, ACL 2008): the share of items that agree when each found cluster stands for
 * at most one true cluster and they are paired in the best way. 0..1.
 */
export function oneToOneOverlap(truth: readonly string[], found: readonly string[]): number {
  const table = contingencyOf(truth, found)
  if (table.items === 0) return 1
  const size = Math.max(table.truth.length, table.found.length)
  const cost = Array.from({ length: size }, () => new Array<number>(size).fill(0))
  for (const cell of table.cells) {
    const row = cost[cell.truth]
    if (row) row[cell.found] = -cell.items
  }
  return -leastCost(cost) / table.items
}

/**
 * The least cost of an assignment of rows to columns, by the Hungarian method with potentials (Kuhn 1955, Munkres 1957;
 * in the form with shortest augmenting paths of Jonker and Volgenant 1987): n cubed steps for a square of n.
 */
function leastCost(cost: readonly (readonly number[])[]): number {
  const size = cost.length
  const at = (list: readonly number[], index: number) => list[index] ?? 0
  const rowPotential = new Array<number>(size + 1).fill(0)
  const columnPotential = new Array<number>(size + 1).fill(0)
  /** Row (from 1) that a column (from 1) is given to; 0: none. Column 0 holds the row being placed. */
  const rowOf = new Array<number>(size + 1).fill(0)
  for (let placed = 1; placed <= size; placed++) {
    rowOf[0] = placed
    const previous = new Array<number>(size + 1).fill(0)
    const slack = new Array<number>(size + 1).fill(Number.POSITIVE_INFINITY)
    const isVisited = new Array<boolean>(size + 1).fill(false)
    let column = 0
    while (at(rowOf, column) !== 0) {
      isVisited[column] = true
      const row = at(rowOf, column)
      let step = Number.POSITIVE_INFINITY
      let next = 0
      for (let other = 1; other <= size; other++) {
        if (isVisited[other]) continue
        const reduced =
          at(cost[row - 1] ?? [], other - 1) - at(rowPotential, row) - at(columnPotential, other)
        if (reduced < at(slack, other)) {
          slack[other] = reduced
          previous[other] = column
        }
        if (at(slack, other) < step) {
          step = at(slack, other)
          next = other
        }
      }
      for (let other = 0; other <= size; other++) {
        if (isVisited[other]) {
          const visited = at(rowOf, other)
          rowPotential[visited] = at(rowPotential, visited) + step
          columnPotential[other] = at(columnPotential, other) - step
        } else slack[other] = at(slack, other) - step
      }
      column = next
    }
    while (column !== 0) {
      const back = at(previous, column)
      rowOf[column] = at(rowOf, back)
      column = back
    }
  }
  let total = 0
  for (let column = 1; column <= size; column++) total += at(cost[at(rowOf, column) - 1] ?? [], column - 1)
  return total
}

/**
 * F1 of clusters that were found exactly (Kummerfeld et al., ACL 2019): clusters of a single item, true or found, are
 * left out. 0..1; 0 where none matches.
 */
export function exactMatchF1(truth: readonly string[], found: readonly string[]): number {
  const { expected, proposed, matched } = exactMatches(truth, found)
  return matched === 0 ? 0 : (2 * matched) / (expected + proposed)
}

/** What an F1 over several channels is made of: clusters of two and more items, and those that are the same in both. */
export function exactMatches(
  truth: readonly string[],
  found: readonly string[],
): { expected: number; proposed: number; matched: number } {
  const table = contingencyOf(truth, found)
  const several = (sizes: readonly number[]) => sizes.filter((size) => size > 1).length
  const matched = table.cells.filter(
    (cell) =>
      cell.items > 1 && cell.items === table.truth[cell.truth] && cell.items === table.found[cell.found],
  )
  return { expected: several(table.truth), proposed: several(table.found), matched: matched.length }
}

/**
 * Adjusted Rand index (Hubert and Arabie 1985): agreement over pairs of items, less what chance gives. 1 is the same, 0
 * chance; may be below 0.
 */
export function adjustedRandIndex(truth: readonly string[], found: readonly string[]): number {
  const table = contingencyOf(truth, found)
  const pairs = (sizes: readonly number[]) => sizes.reduce((sum, size) => sum + (size * (size - 1)) / 2, 0)
  const both = pairs(table.cells.map((cell) => cell.items))
  const [inTruth, inFound] = [pairs(table.truth), pairs(table.found)]
  const all = (table.items * (table.items - 1)) / 2
  const expected = all === 0 ? 0 : (inTruth * inFound) / all
  const most = (inTruth + inFound) / 2
  // Both all singles, or both one cluster: they agree, and chance could not do otherwise.
  return most === expected ? 1 : (both - expected) / (most - expected)
}
