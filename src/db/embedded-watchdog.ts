import { workerData } from 'node:worker_threads'

/**
 * Ends the process of an embedded database that has outlived its owner. On a thread of its own: an engine that broke (on
 * a full disk, say) may spin for ever, and no timer of its own thread would run any more.
 */

const { owner, limitMs } = workerData as { owner: number; limitMs: number }
const intervalMs = 1_000
let aloneMs = 0

setInterval(() => {
  // The system gives a process whose parent is gone another one.
  aloneMs = process.ppid === owner ? 0 : aloneMs + intervalMs
  if (aloneMs >= limitMs) process.kill(process.pid, 'SIGKILL')
}, intervalMs)
