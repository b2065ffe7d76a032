/** What a read has brought: a value, or why there is none. */
export type ReadResult<Value> = { value: Value; error: null } | { value: null; error: Error }

/**
 * A read that many may ask for and that may hang: there is never more than one under way, and nobody waits longer than
 * `limitMs` for it. Never rejects.
 * @param keepMs for so long after it came, a value is given again without reading
 */
export function createSharedRead<Value>(
  read: () => Promise<Value>,
  { keepMs, limitMs }: { keepMs: number; limitMs: number },
): () => Promise<ReadResult<Value>> {
  let kept: { value: Value; at: number } | null = null
  let reading: Promise<ReadResult<Value>> | null = null

  async function readNow(): Promise<ReadResult<Value>> {
    try {
      const value = await read()
      kept = { value, at: performance.now() }
      return { value, error: null }
    } catch (error) {
      return { value: null, error: error instanceof Error ? error : new Error(String(error)) }
    } finally {
      reading = null
    }
  }

  return async () => {
    if (kept && performance.now() - kept.at < keepMs) return { value: kept.value, error: null }
    reading ??= readNow()
    const result = reading
    return new Promise((resolve) => {
      const limit = setTimeout(
        () => resolve({ value: null, error: new Error(`There was no answer within ${limitMs} ms`) }),
        limitMs,
      )
      void result.then((ended) => {
        clearTimeout(limit)
        resolve(ended)
      })
    })
  }
}
