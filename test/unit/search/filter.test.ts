import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { entityKinds } from '../../../src/embedding/spaces.ts'
import { filterConditions, kindsUnderFilter, noFilter, Parameters } from '../../../src/search/filter.ts'

const everyFilter = {
  sourceIds: ['s'],
  channels: ['c'],
  authors: ['a'],
  topicIds: ['t'],
  atomTypes: ['IDEA'],
  reviewStates: ['PENDING'],
  sentAfter: new Date(1),
  sentBefore: new Date(2),
}
const fields = Object.keys(everyFilter) as (keyof typeof everyFilter)[]

describe('the kinds that are left', () => {
  test('are all without a filter', () => {
    expect(kindsUnderFilter(entityKinds, noFilter)).toEqual(['MESSAGE', 'ATOM', 'TOPIC'])
  })

  test('are those that have every field that is set', () => {
    const kindsOf = (field: keyof typeof everyFilter) =>
      kindsUnderFilter(entityKinds, { ...noFilter, [field]: everyFilter[field] })
    expect(Object.fromEntries(fields.map((field) => [field, kindsOf(field)]))).toEqual({
      sourceIds: ['MESSAGE'],
      channels: ['MESSAGE'],
      authors: ['MESSAGE'],
      topicIds: ['MESSAGE', 'ATOM', 'TOPIC'],
      atomTypes: ['ATOM'],
      reviewStates: ['ATOM'],
      sentAfter: ['MESSAGE'],
      sentBefore: ['MESSAGE'],
    })
  })

  test('are none where fields of different kinds are set', () => {
    expect(kindsUnderFilter(entityKinds, { ...noFilter, authors: ['a'], atomTypes: ['IDEA'] })).toEqual([])
  })

  test('are never one that was not asked for', () => {
    expect(kindsUnderFilter(['TOPIC'], { ...noFilter, topicIds: ['t'] })).toEqual(['TOPIC'])
  })
})

describe('the conditions', () => {
  test('name each value by its own parameter, and hold no value themselves', () => {
    const chosen = fc.subarray(fields)
    fc.assert(
      fc.property(chosen, fc.constantFrom(...entityKinds), (set, kind) => {
        const filter = { ...noFilter, ...Object.fromEntries(set.map((field) => [field, everyFilter[field]])) }
        const parameters = new Parameters()
        parameters.add('the first is of the caller')
        const sql = filterConditions(kind, filter, parameters).join(' and ')
        const named = [...sql.matchAll(/\$(\d+)/g)].map(([, number]) => Number(number))
        expect(named).toEqual(parameters.values.slice(1).map((_, index) => index + 2))
      }),
    )
  })

  test('leave out noise, rejected and archived rows unless they are asked for', () => {
    const conditionsOf = (kind: (typeof entityKinds)[number], filter: object) =>
      filterConditions(kind, { ...noFilter, ...filter }, new Parameters())
    expect(entityKinds.map((kind) => conditionsOf(kind, {}))).toEqual([
      [`m.noise is distinct from 'NOISE'`],
      [`a.review_state <> 'REJECTED'`, 'a.archived_at is null'],
      ['t.archived_at is null'],
    ])
    const all = { includeNoise: true, includeArchived: true, reviewStates: ['REJECTED'] }
    expect(entityKinds.map((kind) => conditionsOf(kind, all))).toEqual([
      [],
      ['a.review_state = $1::review_state'],
      [],
    ])
  })
})
