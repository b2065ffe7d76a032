import fc from 'fast-check'
import { expect, test } from 'vitest'
import { topicKey } from '../../../src/knowledge/topic-key.ts'

test.each([
  ['Deploys', 'deploy'],
  ['Push-Notifications', 'push notification'],
  ['  Épics  ', 'epic'],
  ['Retry policies', 'RETRY POLICY'],
  ['Mailboxes', 'mailbox'],
  ['Аварии', 'аварии'],
  ['C++', 'c++'],
  ['Status', 'status'],
])('%s and %s are one topic', (a, b) => expect(topicKey(a)).toBe(topicKey(b)))

test.each([
  ['C', 'C++'],
  ['Class', 'Clas'],
  ['iOS', 'iO'],
  ['Deploy', 'Redeploy'],
  ['Авария', 'Аварии на складе'],
])('%s and %s are two', (a, b) => expect(topicKey(a)).not.toBe(topicKey(b)))

test('no name has an empty key, and case never counts', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), (name) => {
      expect(topicKey(name)).not.toBe('')
    }),
  )
  expect(topicKey('🚀')).toBe('🚀')
})
