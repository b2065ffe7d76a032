import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createProviderLimiter, type ProviderLimits } from '../../../src/providers/limits.ts'
import { ProviderError } from '../../../src/providers/provider.ts'

const none: ProviderLimits = { requestsPerMinute: null, tokensPerMinute: null, maxParallelRequests: null }
const limiter = (limits: Partial<ProviderLimits>) => createProviderLimiter('Ada', { ...none, ...limits })
const done = async () => 'done'

async function refusal(running: Promise<unknown>): Promise<ProviderError> {
  const error = await running.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(ProviderError)
  return error as ProviderError
}

describe('in a minute', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  test('no more requests are let through, and the rest is told how long to wait', async () => {
    const limited = limiter({ requestsPerMinute: 2 })
    expect(await limited.run(1, undefined, done)).toBe('done')
    vi.advanceTimersByTime(20_000)
    expect(await limited.run(1, undefined, done)).toBe('done')
    const error = await refusal(limited.run(1, undefined, done))
    expect(error).toMatchObject({ failure: 'RATE_LIMITED', isRetryable: true, retryAfterMs: 40_000 })
    expect(error.message).toBe('Ada is used up to its limit of 2 requests per minute.')
    vi.advanceTimersByTime(error.retryAfterMs ?? 0)
    expect(await limited.run(1, undefined, done)).toBe('done')
  })

  test('no more tokens are let through; smaller requests still are', async () => {
    const limited = limiter({ tokensPerMinute: 100 })
    await limited.run(60, undefined, done)
    expect((await refusal(limited.run(50, undefined, done))).message).toContain('100 tokens per minute')
    expect(await limited.run(40, undefined, done)).toBe('done')
    await refusal(limited.run(1, undefined, done))
  })

  test('what was refused does not count', async () => {
    const limited = limiter({ requestsPerMinute: 2, tokensPerMinute: 100 })
    await limited.run(60, undefined, done)
    for (let n = 0; n < 10; n++) await refusal(limited.run(50, undefined, done))
    expect(await limited.run(40, undefined, done)).toBe('done')
  })

  test('a request larger than a whole minute is sent alone', async () => {
    const limited = limiter({ tokensPerMinute: 100 })
    expect(await limited.run(5000, undefined, done)).toBe('done')
    await refusal(limited.run(1, undefined, done))
    vi.advanceTimersByTime(60_000)
    expect(await limited.run(1, undefined, done)).toBe('done')
  })
})

describe('at once', () => {
  /** Requests that end when they are told to. */
  function requests() {
    const ends: (() => void)[] = []
    return { ends, start: () => new Promise<void>((resolve) => ends.push(resolve)) }
  }
  const settle = () => new Promise((resolve) => setImmediate(resolve))

  test('no more requests are under way; the others wait for their turn', async () => {
    const limited = limiter({ maxParallelRequests: 2 })
    const { ends, start } = requests()
    const running = [1, 2, 3].map(() => limited.run(1, undefined, start))
    await settle()
    expect(ends).toHaveLength(2)
    ends[0]?.()
    await settle()
    expect(ends).toHaveLength(3)
    for (const end of ends) end()
    await Promise.all(running)
  })

  test('one that fails gives back its turn', async () => {
    const limited = limiter({ maxParallelRequests: 1 })
    await expect(limited.run(1, undefined, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(await limited.run(1, undefined, done)).toBe('done')
  })

  test('one that is aborted while it waits is not sent, and passes its turn on', async () => {
    const limited = limiter({ maxParallelRequests: 1, requestsPerMinute: 2 })
    const { ends, start } = requests()
    const first = limited.run(1, undefined, start)
    const controller = new AbortController()
    const second = limited.run(1, controller.signal, start)
    await settle()
    controller.abort(new Error('enough'))
    await expect(second).rejects.toThrow('enough')
    ends[0]?.()
    await first
    expect(await limited.run(1, undefined, done)).toBe('done')
    expect(ends).toHaveLength(1)
  })
})
