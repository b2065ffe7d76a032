/**
 * A read of which one is under way at a time, however many ask for it: whoever asks while it is gets the next one,
 * which sees all that was committed before.
 */
export function oneAtATime<Result>(read: () => Promise<Result>): () => Promise<Result> {
  let underWay: Promise<Result> | null = null
  let next: Promise<Result> | null = null

  function begin(): Promise<Result> {
    next = null
    underWay = read().finally(() => {
      underWay = null
    })
    return underWay
  }

  return () => {
    if (next) return next
    if (!underWay) return begin()
    next = underWay.then(begin, begin)
    return next
  }
}
