/**
 * Settings that every database session has, on both engines.
 * - hnsw.iterative_scan: a filtered search goes on through the index until the page is full (pgvector 0.8); in relaxed
 *   order, because a strict one leaves out what it comes upon too late. Statements order what they find.
 * - hnsw.ef_search: candidates that one step of the scan keeps, where a statement does not ask for more.
 * - hnsw.max_scan_tuples: how far such a scan goes before it gives up.
 * - random_page_cost: what fast disks and memory cost. With Postgres' 4, of disks that turn, the planner leaves a vector
 *   index with many links (m = 32) until there are some 8,000 rows, where it is three times as fast as an exact scan;
 *   with 1.1 until there are about 2,000, where both are (512 dimensions, measured).
 * - jit: compiling costs more than any statement here saves.
 */
export const sessionSettings = {
  'hnsw.iterative_scan': 'relaxed_order',
  'hnsw.ef_search': '100',
  'hnsw.max_scan_tuples': '100000',
  random_page_cost: '1.1',
  jit: 'off',
} as const

/** The same as a `-c` list for the start-up packet of a Postgres connection: costs no round trip. */
export const startupOptions = Object.entries(sessionSettings)
  .map(([name, value]) => `-c ${name}=${value}`)
  .join(' ')
