import type { VectorPrecision } from './space.ts'

/*
 * The rules of index care: which parameters an index has, when it is built anew, and how much memory that takes. Pure;
 * what they are applied to is read and done in vector-index.ts and index-care.ts.
 */

/** How an HNSW graph is made: links of an element, and candidates that are looked at for each. */
export interface HnswParameters {
  m: number
  efConstruction: number
}

export interface SizeClass extends HnswParameters {
  /** Vectors up to which the class is for. */
  maxRows: number
}

export const sizeClasses: readonly SizeClass[] = [
  { maxRows: 999, m: 16, efConstruction: 64 },
  { maxRows: 100_000, m: 32, efConstruction: 128 },
  { maxRows: Number.POSITIVE_INFINITY, m: 48, efConstruction: 200 },
]

/** An index that has grown is a class up at once; one that shrinks goes down at this share of the limit, not below it. */
const wayDown = 0.5

/**
 * The parameters for so many vectors.
 * @param present those of the index that is there. It keeps them while its rows are a little fewer than its class is
 *   for: at a limit that rows come to and leave, it would be built again and again.
 */
export function parametersFor(
  rows: number,
  present: HnswParameters | null,
  classes: readonly SizeClass[] = sizeClasses,
): HnswParameters {
  const wanted = classes.findIndex(({ maxRows }) => rows <= maxRows)
  const own = classes.findIndex((each) => isSame(each, present))
  const limit = classes[own - 1]?.maxRows ?? 0
  const { m, efConstruction } = classes[own > wanted && rows > limit * wayDown ? own : wanted] ?? {
    m: 16,
    efConstruction: 64,
  }
  return { m, efConstruction }
}

const isSame = (a: HnswParameters, b: HnswParameters | null): boolean =>
  b !== null && a.m === b.m && a.efConstruction === b.efConstruction

// Sizes of pgvector 0.8 (hnsw.h): what an element takes on a page, and in memory while the graph is built.

const pageBytes = 8192 - 24 - 8
const linePointerBytes = 4
const aligned = (bytes: number) => Math.ceil(bytes / 8) * 8
const bytesOfVector = (dimensions: number, precision: VectorPrecision) =>
  8 + dimensions * (precision === 'FULL' ? 4 : 2)
/** Layers above the lowest that an element is in, on average: each holds 1/m of the one below. */
const upperLayers = (m: number) => 1 / (m - 1)

/** How large an index with nothing dead in it is. Equal vectors share an element, which makes it smaller. */
export function expectedIndexBytes(
  rows: number,
  dimensions: number,
  precision: VectorPrecision,
  { m }: HnswParameters,
): number {
  const element = aligned(72 + bytesOfVector(dimensions, precision)) + linePointerBytes
  const neighbours = aligned(4 + (2 + upperLayers(m)) * m * 6) + linePointerBytes
  const pair = element + neighbours
  // Where both do not fit on a page together, neither shares its page with anything.
  const perPage = Math.floor(pageBytes / pair) || 0.5
  // The first page describes the index.
  return 8192 * (1 + Math.ceil(rows / perPage))
}

/** What pgvector's allocations come to beyond the sizes of the structures: up to 1.16, measured on 3,000 rows. */
const memoryOverhead = 1.25
/** Rows that come while it is built. */
const growthWhileBuilding = 1.1

/** Memory in which the whole graph fits while it is built; with less, the build goes over to inserting row by row. */
export function buildMemoryBytes(
  rows: number,
  dimensions: number,
  precision: VectorPrecision,
  { m }: HnswParameters,
): number {
  const element = 144 + aligned(bytesOfVector(dimensions, precision))
  const neighbours = 16 + 16 * 2 * m + upperLayers(m) * (16 + 16 * m)
  return Math.ceil(rows * growthWhileBuilding * (element + neighbours) * memoryOverhead)
}

/** Postgres takes one worker less until each process of a parallel build has so much. */
const leastBytesOfProcess = 32 * 1024 * 1024
/** Below, starting workers takes longer than they save. */
const leastRowsForWorkers = 10_000

export interface BuildLimits {
  /** Most memory that a build may take, bytes. */
  memoryBytes: number
  /** Most processes beside its own that it may take. */
  workers: number
}

/** What a build of so many rows is given: memory for the graph, within the limit, and processes. */
export function buildResources(
  rows: number,
  graphBytes: number,
  limits: BuildLimits,
): { memoryBytes: number; workers: number } {
  const workers = rows >= leastRowsForWorkers ? limits.workers : 0
  const wanted = Math.max(graphBytes, leastBytesOfProcess * (workers + 1))
  const memoryBytes = Math.min(wanted, limits.memoryBytes)
  return {
    memoryBytes,
    workers: Math.min(workers, Math.max(0, Math.floor(memoryBytes / leastBytesOfProcess) - 1)),
  }
}

/**
 * How long the embedded engine would be at a build, in seconds; it answers nobody else meanwhile. Measured: 10,000
 * vectors of 512 dimensions with ef_construction 128 took 29 s, and fewer take less time each.
 */
export function embeddedBuildSeconds(
  rows: number,
  dimensions: number,
  { efConstruction }: HnswParameters,
): number {
  return rows * dimensions * efConstruction * 4.5e-8
}

export interface CareRules {
  classes: readonly SizeClass[]
  /** So many texts that are owed make it worth to build the index after them. */
  deferFrom: number
  /** Share of an index that may be dead before it is built anew, and from which size on, bytes. */
  maxBloat: number
  bloatFromBytes: number
  /** How long a build may keep an engine that does nothing else meanwhile, unless somebody asked for it; seconds. */
  maxFreezeSeconds: number
}

export const careRules: CareRules = {
  classes: sizeClasses,
  deferFrom: 10_000,
  maxBloat: 0.5,
  bloatFromBytes: 8 * 1024 * 1024,
  maxFreezeSeconds: 5,
}

/** Until this share of the rows is there, those that are owed still make the index. */
const enoughRows = 0.9

/** What there is of an index, and what is to be known to decide about it. */
export interface IndexFacts {
  /** Vectors. */
  rows: number
  /** Texts whose vector is owed. */
  owed: number
  /** Whether none of them was embedded for some minutes. */
  isStalled: boolean
  dimensions: number
  /** What searches use, or will. */
  precision: VectorPrecision
  /** The index that searches use; null if there is none that is whole. */
  present: (HnswParameters & { precision: VectorPrecision; bytes: number }) | null
  isRequested: boolean
  /** Whether a build holds up everything else: the embedded engine. */
  freezes: boolean
}

export type CareDecision =
  | { action: 'none' }
  /** There is none, and there will be when the rows are there. */
  | { action: 'defer'; reason: string }
  /** It should be built anew, and is when somebody asks for it. */
  | { action: 'wait'; reason: string; seconds: number }
  | { action: 'build'; reason: string; parameters: HnswParameters }

/** Share of an index that is dead or empty, 0..1. */
export function bloatOf({
  rows,
  dimensions,
  present,
}: Pick<IndexFacts, 'rows' | 'dimensions' | 'present'>): number {
  if (!present || present.bytes <= 0) return 0
  return Math.max(0, 1 - expectedIndexBytes(rows, dimensions, present.precision, present) / present.bytes)
}

/** Whether an index is to be built now, and why. */
export function decideCare(facts: IndexFacts, rules: CareRules = careRules): CareDecision {
  const { rows, owed, present, precision, dimensions } = facts
  const isFilling = !facts.isStalled && owed >= rules.deferFrom && rows < enoughRows * (rows + owed)
  const parameters = parametersFor(rows, present, rules.classes)
  const build = (reason: string): CareDecision => ({ action: 'build', reason, parameters })
  if (!present) {
    // Building afterwards takes a fraction of the time; where that would hold up everything, each row pays instead.
    if (isFilling && !facts.freezes && !facts.isRequested) {
      return { action: 'defer', reason: `${owed} texts are to be embedded first` }
    }
    return build('there was none')
  }
  if (facts.isRequested) return build('it was asked for')
  const reason = reasonToRebuild()
  if (reason === null) return { action: 'none' }
  const seconds = embeddedBuildSeconds(rows, dimensions, parameters)
  if (facts.freezes && seconds > rules.maxFreezeSeconds) return { action: 'wait', reason, seconds }
  return build(reason)

  function reasonToRebuild(): string | null {
    if (present?.precision !== precision) return `it is to be of ${precision.toLowerCase()} precision`
    // While rows come in bulk the class of now would be passed again, and a larger graph makes each of them slower.
    if (!isSame(parameters, present) && !(isFilling || (!facts.isStalled && owed > rows))) {
      return `it has ${rows} rows, for which m = ${present.m} is not made`
    }
    const bloat = bloatOf(facts)
    if (present.bytes >= rules.bloatFromBytes && bloat > rules.maxBloat) {
      return `${Math.round(bloat * 100)} % of it is dead`
    }
    return null
  }
}

/** What changed in a table since it was last looked after. */
export interface TableFacts {
  live: number
  dead: number
  changed: number
}

/**
 * What a table needs: rows that are gone cleared away, or what the planner knows of it brought up to date. The
 * thresholds are Postgres' own (autovacuum_vacuum_threshold, _scale_factor and those of analyze).
 * @param patience how many times the thresholds: 1 where nobody else does it, more where autovacuum should have
 */
export function upkeepOf({ live, dead, changed }: TableFacts, patience: number): 'vacuum' | 'analyze' | null {
  if (dead > patience * (50 + 0.2 * live)) return 'vacuum'
  return changed > patience * (50 + 0.1 * live) ? 'analyze' : null
}

/** Distances that differ by less are equal: single precision, rounded differently by the two plans. */
const sameDistance = 1e-6

/**
 * Share of the nearest rows that an index has found, 0..1: rows that are as near as the last of them count, because which
 * of equal rows comes is chance.
 * @param exact distances of the nearest rows, nearest first
 * @param found distances of the rows that the index gave
 */
export function recallOf(exact: readonly number[], found: readonly number[]): number {
  const last = exact.at(-1)
  if (last === undefined) return 1
  const near = found.filter((distance) => distance <= last + sameDistance).length
  return Math.min(near, exact.length) / exact.length
}
