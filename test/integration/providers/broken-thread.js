// A thread of the local provider that breaks in the way that the number of texts in the request says; for local.test.ts.
import { exit } from 'node:process'

/** @param {{ lengths: Uint16Array }} task */
export default async function embed({ lengths }) {
  if (lengths.length === 1) exit(7)
  if (lengths.length === 2)
    queueMicrotask(() => {
      throw new Error('out of memory')
    })
  if (lengths.length === 3) return { error: 'shape mismatch' }
  if (lengths.length === 4) return new Float32Array(4 * 512)
  return new Promise(() => {})
}
