export const dimensions = 512

/** Directions that clusters share, so that clusters lie near and far from each other as topics of real texts do. */
const themeCount = 40
const themesOfCluster = 3
const clusterShare = 0.7
/** Two rows of one cluster have a similarity (1 - distance / 2) of about 0.86, two of one theme 0.6 to 0.7. */
const spread = 0.6

/**
 * Vectors made from numbers alone: any process makes the same vector for the same number, so the rows of a table, the
 * answers of a provider and the vectors of queries fit each other without a file between them.
 */
export class ClusteredVectors {
  readonly #centres: Float32Array[]
  readonly #seed: number

  constructor({ clusters, seed }: { clusters: number; seed: number }) {
    this.#seed = seed
    const random = randomNumbers(seed)
    const themes = Array.from({ length: themeCount }, () => unit(gaussian(random)))
    this.#centres = Array.from({ length: clusters }, () => {
      const centre = scaled(unit(gaussian(random)), clusterShare)
      for (let count = 0; count < themesOfCluster; count++) {
        const theme = themes[Math.floor(random() * themeCount)]
        if (theme) add(centre, theme, random())
      }
      return unit(centre)
    })
  }

  /** The vector of a number, of norm 1. */
  at(number: number): Float32Array {
    const random = randomNumbers(Math.imul(this.#seed ^ (number + 1), 0x9e3779b1))
    const vector = scaled(unit(gaussian(random)), spread)
    const centre = this.#centres[Math.floor(random() * this.#centres.length)]
    if (centre) add(vector, centre, 1)
    return unit(vector)
  }

  /** Which of the clusters a number belongs to, from 0. */
  clusterOf(number: number): number {
    const random = randomNumbers(Math.imul(this.#seed ^ (number + 1), 0x9e3779b1))
    // What `at` draws before it draws the cluster.
    for (let drawn = 0; drawn < dimensions; drawn++) random()
    return Math.floor(random() * this.#centres.length)
  }
}

/** Mulberry32: numbers in 0..1, the same for the same seed on every machine. */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

/** Box and Muller: two normal numbers from two even ones. */
function gaussian(random: () => number): Float32Array {
  const vector = new Float32Array(dimensions)
  for (let at = 0; at < dimensions; at += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random()))
    const angle = 2 * Math.PI * random()
    vector[at] = radius * Math.cos(angle)
    vector[at + 1] = radius * Math.sin(angle)
  }
  return vector
}

function unit(vector: Float32Array): Float32Array {
  let squares = 0
  for (const value of vector) squares += value * value
  return scaled(vector, 1 / Math.sqrt(squares))
}

function scaled(vector: Float32Array, factor: number): Float32Array {
  for (let at = 0; at < vector.length; at++) vector[at] = (vector[at] ?? 0) * factor
  return vector
}

function add(target: Float32Array, other: Float32Array, factor: number): void {
  for (let at = 0; at < target.length; at++) target[at] = (target[at] ?? 0) + (other[at] ?? 0) * factor
}

/**
 * What a statement takes as `vector[]`, in Postgres's binary format; a Buffer is sent as it is. As text, a vector of 512
 * numbers has 5 KB, and reading it costs the server as much as storing it.
 * @param elementType oid of the type `vector` in this database
 */
export function binaryVectors(vectors: readonly Float32Array[], elementType: number): Buffer {
  const elementBytes = 4 + dimensions * 4
  const bytes = Buffer.alloc(20 + vectors.length * (4 + elementBytes))
  // One dimension, no nulls, the element type, the length, the lower bound.
  let at = 0
  for (const header of [1, 0, elementType, vectors.length, 1]) at = bytes.writeInt32BE(header, at)
  for (const vector of vectors) {
    at = bytes.writeInt32BE(elementBytes, at)
    at = bytes.writeInt16BE(dimensions, at)
    at = bytes.writeInt16BE(0, at)
    for (const value of vector) at = bytes.writeFloatBE(value, at)
  }
  return bytes
}
