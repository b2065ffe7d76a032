/**
 * Settings that every database session has, on both engines.
 * - hnsw.iterative_scan: a filtered search goes on through the index until the page is full (pgvector 0.8); strict
 *   order, because cursors rely on it.
 * - hnsw.ef_search: candidates that one step of the scan keeps (pgvector's default of 40 is below one page of 50).
 * - hnsw.max_scan_tuples: how far such a scan goes before it gives up.
 * - jit: compiling costs more than any statement here saves.
 */
export const sessionSettings = {
  'hnsw.iterative_scan': 'strict_order',
  'hnsw.ef_search': '100',
  'hnsw.max_scan_tuples': '100000',
  jit: 'off',
} as const

/** The same as a `-c` list for the start-up packet of a Postgres connection: costs no round trip. */
export const startupOptions = Object.entries(sessionSettings)
  .map(([name, value]) => `-c ${name}=${value}`)
  .join(' ')
