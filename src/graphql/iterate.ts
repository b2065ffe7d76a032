/**
 * What `next` gives, one after the other, until it gives null.
 * @param next is not called again before it has ended; its signal is aborted when nobody listens any more
 * @param end called once, however it ends; also if it ends before it has begun
 */
export function iterate<Item>(
  next: (signal: AbortSignal) => Promise<Item | null>,
  end: () => void,
): AsyncIterableIterator<Item> {
  const left = new AbortController()
  const done = { done: true, value: undefined } as const

  function finish(): void {
    if (left.signal.aborted) return
    left.abort()
    end()
  }

  return {
    async next() {
      if (left.signal.aborted) return done
      try {
        const item = await next(left.signal)
        if (item !== null && !left.signal.aborted) return { done: false, value: item }
      } catch (error) {
        finish()
        throw error
      }
      finish()
      return done
    },
    async return() {
      finish()
      return done
    },
    async throw(error) {
      finish()
      throw error
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}
