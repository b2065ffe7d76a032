import { describe, expect, test } from 'vitest'
import { type JobEvent, type JobView, jobProgress, nextView } from '../../../src/cli/job-progress.ts'
import { plainLine } from '../../../src/cli/progress-text.ts'

const start = Date.parse('2026-11-22T14:00:00Z')
const at = (seconds: number) => new Date(start + seconds * 1000).toISOString()

type Change = Partial<NonNullable<JobEvent['data']>>

/** What is known after these events, given as seconds and what is said at each. */
function viewAfter(...steps: [seconds: number, change: Change, message?: string][]): JobView {
  let data: NonNullable<JobEvent['data']> = {
    state: 'QUEUED',
    total: null,
    succeeded: 0,
    failed: 0,
    skipped: 0,
    error: null,
  }
  let view: JobView | null = null
  for (const [index, [seconds, change, message]] of steps.entries()) {
    data = { ...data, ...change }
    view = nextView(view, { seq: String(index + 1), at: at(seconds), message: message ?? null, data })
  }
  if (!view) throw new Error('no event')
  return view
}

const lineAt = (view: JobView, seconds: number) => {
  const nowMs = start + seconds * 1000
  const progress = jobProgress(view, nowMs)
  return progress && plainLine('Importing', progress, new Date(nowMs))
}

describe('a job', () => {
  test('that waits in the queue says so, but not at once', () => {
    const view = viewAfter([0, {}])
    expect(lineAt(view, 0.2)).toBeNull()
    expect(lineAt(view, 1.2)).toBe('Importing 0, queued')
  })

  test('that has begun and has no counts yet tells what it does', () => {
    const view = viewAfter([0, {}], [1, { state: 'RUNNING' }, 'Waiting until 3 messages are embedded'])
    expect(lineAt(view, 1.2)).toBeNull()
    expect(lineAt(view, 5)).toBe('Importing 0, Waiting until 3 messages are embedded')
  })

  test('is measured from its begin, not from when it was queued', () => {
    const view = viewAfter([0, {}], [60, { state: 'RUNNING', total: 100 }], [62, { succeeded: 20 }])
    expect(lineAt(view, 62)).toBe('Importing 20/100 (20 %), 10/s, 8 s left')
  })

  test('of a file is estimated by the bytes that were read, until the number of its records is known', () => {
    const read = viewAfter(
      [0, {}],
      [1, { state: 'RUNNING', bytes: 4_000 }],
      [2, { bytesRead: 500 }],
      [3, { succeeded: 90, skipped: 10, bytesRead: 1_000 }],
    )
    expect(jobProgress(read, start + 3_000)).toMatchObject({ done: 100, total: 400, isEstimate: true })
    const { bytes: _, bytesRead: __, ...counts } = read.data
    const other = nextView(read, { seq: '5', at: at(4), message: 'Attempt 2', data: counts })
    expect(other && jobProgress(other, start + 4_000)).toMatchObject({ total: 400, isEstimate: true })
    const ended = viewAfter(
      [0, { state: 'RUNNING', bytes: 10, bytesRead: 10 }],
      [5, { succeeded: 7, total: 7 }],
    )
    expect(jobProgress(ended, start + 5_000)).toMatchObject({ done: 7, total: 7, isEstimate: false })
  })

  test('that waits for its provider says until when, and no longer when that is over', () => {
    const view = viewAfter(
      [0, {}],
      [1, { state: 'RUNNING', total: 100 }],
      [2, { succeeded: 20, waitingUntil: at(30) }],
    )
    expect(lineAt(view, 10)).toMatch(/^Importing 20\/100 \(20 %\), waiting for the provider until [\d:]{8}$/)
    expect(lineAt(view, 31)).not.toContain('waiting')
  })

  test('that will be tried again says why', () => {
    const view = viewAfter(
      [0, {}],
      [1, { state: 'RUNNING', total: 100, succeeded: 5 }],
      [3, { state: 'QUEUED', error: 'the disk is full' }],
    )
    expect(lineAt(view, 4)).toBe('Importing 5/100 (5 %), the disk is full')
  })

  test('that has ended tells how long it took and its speed over all of that', () => {
    const view = viewAfter(
      [0, {}],
      [10, { state: 'RUNNING', total: 100 }],
      [12, { succeeded: 95 }],
      [20, { state: 'SUCCEEDED', failed: 5 }],
    )
    expect(lineAt(view, 500)).toBe('Importing 100/100, 10 s, 10/s, 5 failed')
  })

  test('that was taken up again is measured anew, by what it does then', () => {
    const view = viewAfter(
      [0, {}],
      [1, { state: 'RUNNING', total: 100 }],
      [9, { state: 'CANCELLED', succeeded: 80 }],
      [100, { state: 'QUEUED' }],
      [101, { state: 'RUNNING' }],
      [105, { succeeded: 90 }],
    )
    expect(lineAt(view, 105)).toBe('Importing 90/100 (90 %), 2.5/s, 4 s left')
    const ended = viewAfter(
      [0, {}],
      [1, { state: 'RUNNING', total: 100 }],
      [9, { state: 'CANCELLED', succeeded: 80 }],
      [100, { state: 'QUEUED' }],
      [101, { state: 'RUNNING' }],
      [111, { state: 'SUCCEEDED', succeeded: 100 }],
    )
    expect(lineAt(ended, 111)).toBe('Importing 100/100, 10 s, 2.0/s')
  })

  test('whose begin was not seen has no time that it took', () => {
    const view = viewAfter(
      [0, { state: 'RUNNING', total: 100, succeeded: 50 }],
      [9, { state: 'SUCCEEDED', succeeded: 100 }],
    )
    expect(lineAt(view, 9)).toBe('Importing 100/100 (100 %)')
  })

  test('an event without data changes nothing', () => {
    const view = viewAfter([0, {}])
    expect(nextView(view, { seq: '9', at: at(1), message: 'x', data: null })).toBe(view)
  })
})
