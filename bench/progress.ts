import type { BenchPostgres } from './environment.ts'
import { lagNotes, measureLag } from './progress/lag.ts'
import { measureMemory, memoryNotes } from './progress/memory.ts'
import { measurePickUp, pickUpNotes } from './progress/pick-up.ts'
import { measureRateLimits, rateLimitNotes } from './progress/rate-limits.ts'
import { measureReconnects, reconnectNotes } from './progress/reconnects.ts'
import { measureWorkers, workerNotes } from './progress/workers.ts'
import type { Report, Row } from './report.ts'

const measures = {
  lag: measureLag,
  memory: measureMemory,
  reconnects: measureReconnects,
  'pick-up': measurePickUp,
  workers: measureWorkers,
  'rate limits': measureRateLimits,
}

/** How soon and how truly people see what goes on, how soon work begins, and how well it goes on with a bad provider. */
export async function benchProgress(postgres: BenchPostgres, options: { quick: boolean }): Promise<Report> {
  const rows: Row[] = []
  for (const [name, measure] of Object.entries(measures)) {
    const started = performance.now()
    rows.push(...(await measure(postgres, options)))
    console.error(`progress, ${name}: measured in ${Math.round((performance.now() - started) / 1000)} s`)
  }
  return {
    title: 'Progress and jobs',
    rows,
    notes: [
      ...lagNotes,
      ...memoryNotes,
      ...reconnectNotes,
      ...pickUpNotes,
      ...workerNotes,
      ...rateLimitNotes,
      'Clients, servers, workers, provider and Postgres are processes of their own and share the cores.',
    ],
  }
}
