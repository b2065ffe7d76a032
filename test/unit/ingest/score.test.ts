import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseConfig } from '../../../src/config.ts'
import {
  scoreAuthor,
  scoreContent,
  scoreMessage,
  scoreRecency,
  scoreTopic,
  topicTerms,
} from '../../../src/ingest/score.ts'

const rules = parseConfig({}).scoring
const now = new Date('2026-03-02T12:00:00Z')
const hoursAgo = (hours: number) => new Date(now.getTime() - hours * 3_600_000)
const score = (content: string, hours = 1, author = 'anna') =>
  scoreMessage({ author, content, sentAt: hoursAgo(hours) }, rules, { now, terms: topicTerms([]) })

describe('a message', () => {
  test.each([
    ['ok'],
    ['OK!'],
    ['thanks :)'],
    ['lol'],
    ['👍'],
    ['спасибо'],
    ['ага, ок'],
    ['danke!'],
    ['+1'],
    ['?'],
    [''],
    ['...'],
  ])('that only acknowledges is noise, new or old: %s', (content) => {
    expect(score(content).noise).toBe('NOISE')
    expect(score(content, 24 * 365).noise).toBe('NOISE')
  })

  test.each([
    ['the token expired'],
    ['restart the server'],
    ['деплой опять упал'],
    ['https://example.com/ticket/12'],
    ['`npm ci`'],
    ['Wann kommt das Update?'],
  ])('of substance is no noise, however old: %s', (content) => {
    expect(score(content).noise).not.toBe('NOISE')
    expect(score(content, 24 * 365 * 10).noise).not.toBe('NOISE')
  })

  test('that says much is a signal while it is new', () => {
    const content =
      'The importer fails with ERR-1042 as soon as a file holds more than 65535 rows, see https://example.com/1; should we raise the limit in src/import/limits.ts or split the file?'
    expect(score(content).noise).toBe('SIGNAL')
    expect(score(content, 24 * 365).noise).toBe('WEAK_SIGNAL')
  })

  test('of a program is worth less than one of a person', () => {
    const text = 'Build 381 of main has failed after 12 minutes'
    expect(score(text, 1, 'ci-bot').importance).toBeLessThan(score(text, 1, 'anna').importance)
  })

  test('is scored 0..1, in time in proportion to its length, whatever it is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (content, author) => {
        const { importance, noise } = score(content, 1, author)
        expect(importance).toBeGreaterThanOrEqual(0)
        expect(importance).toBeLessThanOrEqual(1)
        expect(['NOISE', 'WEAK_SIGNAL', 'SIGNAL']).toContain(noise)
      }),
    )
    for (const piece of ['a', 'a ', 'a_', 'a.', '/', '`', '(', 'é́', '9', 'aA', 'http'])
      score(piece.repeat(1_000_000))
  })
})

describe('the rules', () => {
  test.each([
    ['see `config.ts`', 'see nothing'],
    ['why does it fail?', 'why does it fail'],
    ['look at https://example.com here', 'look at example here'],
    ['it took 3 days', 'it took some days'],
    ['call parse_config before you start', 'call the parser before you start'],
  ])('count what a text has: %s over %s', (more, less) => {
    expect(scoreContent(more)).toBeGreaterThan(scoreContent(less))
  })

  test('see words, not pieces of them', () => {
    expect(scoreContent('token')).toBeGreaterThan(scoreContent('ok'))
    expect(scoreContent('yesterday thanksgiving finetuning')).toBeGreaterThan(0.3)
  })

  test.each([
    ['renovate[bot]', 0],
    ['deploy-bot', 0],
    ['StatusBot', 0],
    ['Bott', 0.25],
    ['Botond', 0.25],
    ['Anna', 0.25],
    ['Boss', 1],
    [' boss ', 1],
  ])('tell programs and important people from others: %s', (author, expected) => {
    expect(scoreAuthor(author, ['BOSS'])).toBe(expected)
  })

  test('let a message lose half of its freshness in a week', () => {
    expect(scoreRecency(now, now)).toBe(1)
    expect(scoreRecency(hoursAgo(7 * 24), now)).toBeCloseTo(0.75)
    expect(scoreRecency(hoursAgo(24 * 3650), now)).toBeCloseTo(0.5)
    expect(scoreRecency(hoursAgo(-5), now)).toBe(1)
  })

  test.each([
    ['the push notifications are late', 1],
    ['Push  Notifications!', 1],
    ['push it', 0],
    ['the apns token and the badge', 0.8],
    ['apns', 0.5],
    ['apns apns apns', 0.5],
    ['apns badge silent', 1],
    ['billing badge', 0.5],
    ['', 0],
  ])('see what belongs to a topic: %s', (content, expected) => {
    const terms = topicTerms([
      { name: 'Push notifications', keywords: ['APNs', 'badge', 'silent'] },
      { name: 'Billing run', keywords: ['invoice'] },
    ])
    const words = content.toLowerCase().match(/\p{L}+/gu) ?? []
    expect(scoreTopic(words, terms)).toBe(expected)
  })
})
