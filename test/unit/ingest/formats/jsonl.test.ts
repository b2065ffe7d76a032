import fc from 'fast-check'
import { expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { jsonl } from '../../../../src/ingest/formats/jsonl.ts'
import { chatFile, kinds, messages, read, readUntilError } from './chat-files.ts'

const base = { externalId: 'm1', author: 'Runa', content: 'Low tide at six', sentAt: '2024-05-01T12:00:00Z' }

async function lines(...items: unknown[]) {
  return read(jsonl, 'chat.jsonl', items.map((item) => JSON.stringify(item)).join('\n'))
}

test('a message with everything', async () => {
  const full = { ...base, channel: '#harbour', threadId: 't1', replyTo: 'm0', mood: 'ignored' }
  expect(await lines(full)).toEqual([
    {
      kind: 'message',
      position: 'line 1',
      message: {
        externalId: 'm1',
        author: 'Runa',
        content: 'Low tide at six',
        sentAt: new Date('2024-05-01T12:00:00Z'),
        channel: '#harbour',
        threadId: 't1',
        replyToExternalId: 'm0',
      },
    },
  ])
})

test('the other names, numbers as ids, and null for what there is not', async () => {
  const [message] = messages(
    await lines({
      id: 5,
      author: 'Runa',
      text: 'x',
      sentAt: 1714564800,
      channel: null,
      replyToExternalId: 4,
      threadId: 3,
    }),
  )
  expect(message).toMatchObject({
    externalId: '5',
    content: 'x',
    channel: null,
    threadId: '3',
    replyToExternalId: '4',
  })
})

test.each([
  ['2024-05-01T12:00:00Z', '2024-05-01T12:00:00.000Z'],
  ['2024-05-01T12:00:00.1239+02:00', '2024-05-01T10:00:00.123Z'],
  ['2024-05-01T12:00:00-0530', '2024-05-01T17:30:00.000Z'],
  ['2024-05-01 12:00', '2024-05-01T12:00:00.000Z'],
  ['2024-05-01', '2024-05-01T00:00:00.000Z'],
  [1714564800, '2024-05-01T12:00:00.000Z'],
  [1714564800.5, '2024-05-01T12:00:00.500Z'],
  [1714564800123, '2024-05-01T12:00:00.123Z'],
])('sentAt %j', async (sentAt, expected) => {
  expect(messages(await lines({ ...base, sentAt }))[0]?.sentAt.toISOString()).toBe(expected)
})

test.each([
  ['{"externalId":', /^not valid JSON: /],
  ['[1]', /^expected a JSON object, found an array$/],
  [
    '{}',
    /^externalId or id must be .* found nothing; author .* found nothing; content or text .*; sentAt .*$/,
  ],
  [JSON.stringify({ ...base, author: 7 }), /^author must be a text, found 7$/],
  [
    JSON.stringify({ ...base, externalId: '' }),
    /^externalId or id must be a text or a whole number, found ""$/,
  ],
  [JSON.stringify({ ...base, externalId: 1.5 }), /^externalId or id must be a text: 1\.5 is no whole number/],
  [
    '{"id":12345678901234567890,"author":"a","text":"b","sentAt":1}',
    /no whole number that JSON carries exactly/,
  ],
  [JSON.stringify({ ...base, channel: {} }), /^channel must be a text or a whole number, found an object$/],
  [
    JSON.stringify({ ...base, sentAt: '2024-02-30T00:00:00Z' }),
    /^sentAt must be a moment .* found "2024-02-30/,
  ],
  [JSON.stringify({ ...base, sentAt: '2024-05-01T24:30:00Z' }), /^sentAt must be/],
  [JSON.stringify({ ...base, sentAt: '1 May 2024' }), /^sentAt must be/],
  [JSON.stringify({ ...base, sentAt: 1e300 }), /^sentAt must be/],
])('rejected: %s', async (line, reason) => {
  const good = JSON.stringify(base)
  const records = await read(jsonl, 'chat.jsonl', `${good}\n${line}\n${good}`)
  expect(records.map((record) => record.kind)).toEqual(['message', 'rejected', 'message'])
  expect(records[1]).toMatchObject({ position: 'line 2', reason: expect.stringMatching(reason) })
})

test('a byte order mark, blank lines, CRLF and a missing last line end are fine; lines are counted as editors do', async () => {
  const line = JSON.stringify(base)
  const records = await read(jsonl, 'chat.jsonl', `\ufeff${line}\r\n\r\n  \n${line}\nx\n${line}`)
  expect(kinds(records)).toEqual([
    'message',
    'message',
    expect.stringMatching(/^rejected line 5: not valid JSON/),
    'message',
  ])
})

test('a line that is not UTF-8 is rejected, never mended', async () => {
  const line = Buffer.from(`${JSON.stringify(base)}\n`)
  const bad = Buffer.from(line)
  bad[bad.indexOf('tide')] = 0xe4
  const records = await read(jsonl, 'chat.jsonl', Buffer.concat([line, bad, line]))
  expect(kinds(records)).toEqual([
    'message',
    'rejected line 2: not valid UTF-8; please convert the file to UTF-8',
    'message',
  ])
})

test('any text comes through unchanged', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string({ unit: 'binary' }), { minLength: 1 }), async (texts) => {
      const all = [...texts, 'a\0b', '\ud800', '\u2028', '\ufeff', 'خ'.repeat(200_000)]
      const records = await lines(...all.map((content) => ({ ...base, content })))
      expect(messages(records).map((message) => message.content)).toEqual(all)
    }),
    { numRuns: 20 },
  )
})

test('a line above 64 MiB is refused by its number', async () => {
  const file = await chatFile(
    'chat.jsonl',
    Buffer.concat([Buffer.from('\n'), Buffer.alloc(65 * 1024 * 1024, 'x')]),
  )
  const { error } = await readUntilError(jsonl, file)
  expect(error).toBeInstanceOf(InvalidInputError)
  expect(String(error)).toContain('line 2 is longer than 64 MiB')
})
