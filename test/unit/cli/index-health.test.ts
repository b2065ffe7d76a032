import { describe, expect, test } from 'vitest'
import { indexLines, type VectorIndex } from '../../../src/cli/index-health.ts'

const index: VectorIndex = {
  kind: 'MESSAGE',
  state: 'READY',
  reason: null,
  name: 'embedding_1_message_vector',
  space: { model: 'some-model', state: 'ACTIVE' },
  buildProgress: null,
  rows: 12_345,
  sizeBytes: 34 * 1024 ** 2,
  precision: 'FULL',
  m: 32,
  efConstruction: 128,
  deadRows: 77,
  bloat: 0.126,
  builtAt: '2026-05-04T09:00:00Z',
  buildSeconds: 12.34,
  buildReason: 'there was none',
  recall: 0.98765,
  recallQueries: 50,
  recallSource: 'SEARCHES',
  measuredAt: '2026-05-04T09:00:00Z',
  rebuildRequestedAt: null,
  measureRequestedAt: null,
  lastError: null,
}
const missing = {
  ...index,
  state: 'MISSING',
  precision: null,
  m: null,
  efConstruction: null,
  sizeBytes: 0,
  buildSeconds: null,
  recall: null,
}

const lines = (given: VectorIndex[]) => indexLines(given).join('\n').split('\n')

describe('the list of vector indexes', () => {
  test('has a line for each, and tells of dead rows once', () => {
    const [head, first, second, ...rest] = lines([index, missing])
    expect(head).toBe(
      'KIND     STATE    ROWS   SIZE    PRECISION  M/EF    BLOAT  RECALL@10            BUILT IN',
    )
    expect(first).toBe('MESSAGE  READY    12345  34 MiB  full       32/128  13 %   0.987 (50 searches)  12 s')
    expect(second).toMatch(/^MESSAGE {2}MISSING +12345 +0 B +13 % +not measured$/)
    expect(rest).toEqual(['77 dead rows in the table'])
  })

  test('says why an index is not as it should be', () => {
    const said = lines([
      { ...index, state: 'REBUILDING', reason: 'it was asked for', buildProgress: 0.419 },
      { ...index, lastError: 'no space left on device' },
    ])
    expect(said.slice(3, 5)).toEqual([
      'MESSAGE rebuilding: it was asked for, 41 % read',
      'MESSAGE: no space left on device',
    ])
  })

  test('never shows a recall that is too low as one that is not', () => {
    expect(lines([{ ...index, recall: 0.94999 }])[1]).toContain('0.949 ')
  })
})
