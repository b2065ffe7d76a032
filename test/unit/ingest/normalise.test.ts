import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { MessageDraft } from '../../../src/ingest/formats/format.ts'
import { findViolation, messageLimits } from '../../../src/ingest/normalise.ts'

const good: MessageDraft = {
  externalId: '1',
  author: 'ann',
  content: 'hello',
  sentAt: new Date('2026-05-04T09:30:00Z'),
  channel: null,
  threadId: null,
  replyToExternalId: null,
}
const names = ['externalId', 'author', 'channel', 'threadId', 'replyToExternalId'] as const
const texts = [...names, 'content'] as const

test('a message that can be stored breaks no rule', () => {
  expect(findViolation(good)).toBeNull()
  expect(
    findViolation({ ...good, channel: 'c', threadId: 't', replyToExternalId: '0', content: '' }),
  ).toBeNull()
})

test('any well-formed text without NUL can be content', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }).filter((text) => text.isWellFormed() && !text.includes('\0')),
      (content) => {
        expect(findViolation({ ...good, content })).toBeNull()
      },
    ),
  )
})

describe.each(texts)('%s', (field) => {
  test('may not have a NUL character, which is named by its position', () => {
    expect(findViolation({ ...good, [field]: 'ab\0c' })).toEqual({
      field,
      problem: expect.stringContaining('NUL character at 2'),
    })
  })

  test.each([
    ['high', 'a\ud83d', 'U+D83D', 1],
    ['low', '\ude00a', 'U+DE00', 0],
    ['swapped', '😀\ude00\ud83d', 'U+DE00', 2],
  ])('may not have half of a character (%s)', (_name, text, code, position) => {
    expect(findViolation({ ...good, [field]: text })).toEqual({
      field,
      problem: expect.stringMatching(
        new RegExp(`lone surrogate ${code.replace('+', '\\+')}\\) at ${position}`),
      ),
    })
  })

  test('is measured in bytes of UTF-8', () => {
    const limit = messageLimits[field === 'replyToExternalId' ? 'externalId' : field]
    const exact = `${'é'.repeat(limit / 2 - 1)}ab`
    expect(Buffer.byteLength(exact)).toBe(limit)
    expect(findViolation({ ...good, [field]: exact })).toBeNull()
    expect(findViolation({ ...good, [field]: `${exact}c` })).toEqual({
      field,
      problem: expect.stringContaining(`has ${limit + 1} bytes, more than the ${limit}`),
    })
  })
})

test.each(names)('%s may not be blank', (field) => {
  expect(findViolation({ ...good, [field]: ' \n' })).toEqual({ field, problem: 'is empty' })
})

test.each([
  ['no date at all', new Date(Number.NaN), /not a date/],
  ['before 1970', new Date('1969-12-31T23:59:59.999Z'), /1969.*not between/],
  ['after 9999', new Date('+010000-01-01T00:00:00Z'), /10000.*not between/],
])('sentAt may not be %s', (_name, sentAt, problem) => {
  expect(findViolation({ ...good, sentAt })).toEqual({
    field: 'sentAt',
    problem: expect.stringMatching(problem),
  })
})

test('the first and the last moment are allowed', () => {
  expect(findViolation({ ...good, sentAt: new Date(0) })).toBeNull()
  expect(findViolation({ ...good, sentAt: new Date('9999-12-31T23:59:59.999Z') })).toBeNull()
})
