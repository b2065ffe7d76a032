import { describe, expect, test } from 'vitest'
import type { AtomType } from '../../../../src/db/generated/prisma/client.ts'
import { findLabel, fits } from '../../../../src/extraction/local/atoms.ts'
import { cues } from '../../../../src/extraction/local/cues.ts'
import { readSentences } from '../../../../src/extraction/local/text.ts'

/** What the last sentence says by itself; null for nothing. */
function typeOf(text: string): AtomType | null {
  const sentence = readSentences(text).at(-1)
  if (!sentence) return null
  return findLabel(sentence)?.type ?? cues.find((cue) => fits(cue, sentence))?.type ?? null
}

describe.each<[AtomType, string[]]>([
  [
    'PROBLEM',
    [
      'The nightly backup of the mail server fails with a timeout.',
      'Users report that the export button is missing in the admin page',
      'I get an error when I start the importer with the new config file',
      "I can't open the staging dashboard since the router update",
      'The search index is corrupted after the power cut',
      '`TypeError: cannot read properties of undefined` in the parser',
      'Two customers complain that the invoice total is wrong',
      'After a restart of the phone nothing happens in the login screen',
      'Loading the customer list takes far too long on old tablets',
      'Problem: the label printer prints every address twice',
      'Сервер не отвечает после обновления базы',
      'При запуске сборки получаю странную ошибку компилятора',
    ],
  ],
  [
    'SOLUTION',
    [
      'I fixed the login loop by clearing the session table',
      'The workaround is to disable the cache for the export job',
      'The hotfix for the invoice export is live since noon',
      'Fix: the importer now skips empty lines in the price list',
      'Исправил зависание очереди, перезапустив брокер сообщений',
    ],
  ],
  [
    'DECISION',
    [
      'We decided to keep the old importer until the audit is done',
      "Let's go with Postgres for the reporting service",
      "OK, then we're going with two release trains per year",
      'Decision on the logo: the green one, from March',
      'Agreed, the beta programme starts with five customers in May',
      'From now on each change of the billing code needs two reviewers',
      'The board has approved the budget for a second office',
      'Мы решили перенести релиз мобильного приложения',
      'Договорились использовать общий формат журналов',
    ],
  ],
  [
    'QUESTION',
    [
      'Does anybody know why the build needs two hours on the new runner?',
      'How can we export the old orders without the archive server?',
      'Is there a way to restore one single table from the nightly backup?',
      'Should the retry limit of the queue be a setting?',
      'A customer asks whether the licence covers subcontractors',
      'I am wondering how the importer handles empty cells in the sheet',
      'Question: which region holds the customer backups',
      'Кто-нибудь знает, где лежат резервные копии почты?',
      'Почему сборка документации занимает два часа?',
    ],
  ],
  [
    'IDEA',
    [
      'What if we cache the price list on the tablet?',
      'We could move the thumbnails to the object store',
      'Could the importer skip rows without a price?',
      'I would suggest a weekly report for the support team',
      'It would be nice to have a dark theme for the dashboard',
      'Idea: let customers choose the delivery window themselves',
      'Предлагаю вынести отправку писем в отдельный сервис',
      'А что если добавить кэш перед поиском товаров?',
    ],
  ],
  [
    'REQUIREMENT',
    [
      'Every invoice must be stored for ten years in the archive',
      'The export has to finish before the shops open in the morning',
      'Two approvals are required for each payment above the limit',
      'Personal data must never leave the internal network',
      'Requirement: the kiosk works without a connection for a day',
      'We need a second factor for the admin accounts',
      'Пароли пользователей должны храниться в зашифрованном виде',
    ],
  ],
  [
    'BLOCKER',
    [
      'The release is blocked by the missing signature of the auditors',
      'The migration is stuck waiting for the new certificates',
      "We can't ship the firmware until the lab confirms the radio tests",
      'Blocker: no test devices for the new payment terminal',
      'Релиз заблокирован проверкой безопасности',
    ],
  ],
  [
    'RISK',
    [
      'Risk: one single person knows the billing code',
      'The risk is that the importer overwrites manual corrections',
      'The new index could slow down all writes on the order table',
      'If the certificate is not renewed, nobody can open the warehouse doors',
      'Rotate the keys first, otherwise the old devices will lose their connection',
      'The old mail gateway will be switched off in October',
      'Есть риск, что склад останется без связи',
    ],
  ],
  [
    'PATTERN',
    [
      'Every time we deploy on a Friday, the queue of the mail worker overflows',
      'Each Monday the label printers in the warehouse lose their configuration',
      'The nightly import keeps failing on the same supplier file',
      'Pattern: after each holiday the order import is a day late',
      'Каждый раз после обновления теряются настройки принтера',
    ],
  ],
  [
    'INSIGHT',
    [
      'Turns out the scanner sends each barcode with a trailing blank',
      'The cause was a wrong time zone in the container image',
      'With the new index the report went from 40 s to 2 s',
      'Only 12 % of our customers use the export at all',
      'I found that the proxy drops headers longer than 8 KB',
      'Lesson: the staging data must not be older than a week',
      'Оказалось, что сканер добавляет пробел после кода',
    ],
  ],
])('%s', (type, texts) => {
  test.each(texts)('%s', (text) => {
    expect(typeOf(text)).toBe(type)
  })
})

describe('nothing', () => {
  test.each([
    'Good morning everyone',
    'Thanks, that was quick!',
    'I will be late for the meeting tomorrow',
    'who wants pizza for lunch?',
    'Can you help me?',
    'did it work?',
    'Any idea?',
    "it doesn't work",
    'I have to go now, see you tomorrow',
    "you don't have to restart the service for that",
    'I must have missed the announcement about the office',
    'it must be a bug somewhere in there',
    'The deployment works again, the error is gone',
    'The crash of the importer is fixed since yesterday',
    "let's talk about it after lunch",
    "let's see what the customer says about the offer",
    'non-blocking calls do not wait for the event loop',
    'if you get an error, try to restart the importer',
    'without risk there is no fun',
    'every Monday we meet at ten in the big room',
    'Всем доброе утро!',
    'спасибо, посмотрю завтра',
    'я должен бежать на встречу',
  ])('%s', (text) => {
    expect(typeOf(text)).toBeNull()
  })
})

test('every rule has a name of its own', () => {
  expect(new Set(cues.map(({ rule }) => rule)).size).toBe(cues.length)
})
