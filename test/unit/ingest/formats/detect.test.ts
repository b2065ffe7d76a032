import { describe, expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { allFormats, detectFormat } from '../../../../src/ingest/formats/detect.ts'
import { chatFormats } from '../../../../src/ingest/formats/format.ts'
import { chatFile, zipOf } from './chat-files.ts'

const line = { externalId: 'm1', author: 'Runa', content: 'Low tide at six', sentAt: '2024-05-01T12:00:00Z' }
const files: [string, string, unknown][] = [
  ['TELEGRAM', 'result.json', { name: 'Orchard', type: 'private_group', id: 1, messages: [] }],
  [
    'TELEGRAM',
    'pretty.json',
    JSON.stringify({ name: 'O', type: 'x', id: 1, messages: [{ id: 1, text: 'x'.repeat(99_999) }] }, null, 1),
  ],
  [
    'TELEGRAM',
    'account.json',
    { about: 'x', personal_information: {}, contacts: { list: Array(9999).fill('someone') }, chats: {} },
  ],
  ['DISCORD', 'kiln.json', { guild: { id: '1' }, channel: { id: '2' }, messages: [] }],
  [
    'DISCORD',
    'marked.json',
    `\ufeff${JSON.stringify({ guild: { id: '1' }, channel: { id: '2' }, messages: [] })}`,
  ],
  ['IRC', 'garden.log', '--- Log opened Wed May 01 23:58:00 2024\n23:58 < mira> frost tonight?\n'],
  ['IRC', 'garden.txt', '[12:34] <mira> hello'],
  ['IRC', 'garden.log', '2024-05-01 12:34:57\tmira\thello\n'],
  ['IRC', 'garden.log', '\ufeff[2024-05-01T12:34:56Z] <mira> {"id":1}\r\n'],
  ['JSONL', 'chat.jsonl', `${JSON.stringify(line)}\n${JSON.stringify(line)}\n`],
  ['JSONL', 'chat.jsonl', `\ufeff\n{"broken\n${JSON.stringify(line)}`],
  ['JSONL', 'chat.txt', '{"id":1,"text":"x"}'],
]

test('every format is there', () => {
  expect(allFormats.map((format) => format.name).sort()).toEqual([...chatFormats].sort())
})

describe('AUTO knows', () => {
  test.each(files)('%s in %s', async (name, fileName, content) => {
    expect((await detectFormat(await chatFile(fileName, content), 'AUTO')).name).toBe(name)
  })

  test('SLACK', async () => {
    const zip = await zipOf({ 'top/users.json': [], 'top/channels.json': [] })
    expect((await detectFormat(await chatFile('export.zip', zip), 'AUTO')).name).toBe('SLACK')
  })
})

test('no file is known to two formats, and the one asked for is taken', async () => {
  for (const [name, fileName, content] of files) {
    for (const asked of chatFormats) {
      const detected = detectFormat(await chatFile(fileName, content), asked)
      if (asked === name) expect((await detected).name).toBe(name)
      else await expect(detected).rejects.toThrow(`looks like ${name}, but was to be read as ${asked}`)
    }
  }
})

async function refusal(
  content: unknown,
  format: Parameters<typeof detectFormat>[1] = 'AUTO',
): Promise<string> {
  const error = await detectFormat(await chatFile('upload', content), format).catch((thrown) => thrown)
  expect(error).toBeInstanceOf(InvalidInputError)
  return String(error)
}

test.each([
  ['nothing', '', /an empty file/],
  ['blanks', '\ufeff \n\t\n', /a file of blanks alone/],
  ['UTF-16', Buffer.from('\ufeff{"id":1}', 'utf16le'), /UTF-16, expected UTF-8; please convert it/],
  ['UTF-16, the other way round', Buffer.from('\ufeff{"id":1}', 'utf16le').swap16(), /UTF-16/],
  ['UTF-16 without a mark', Buffer.from('{"id":1}', 'utf16le'), /UTF-16/],
  ['another JSON object', { tracks: [], owner: 'Runa' }, /a JSON object with the keys "tracks", "owner"/],
  ['an empty JSON object', {}, /a JSON object without keys/],
  ['a JSON array', [line], /a JSON array beginning with "\[\{/],
  ['prose', 'Dear Runa, low tide at six.\nYours, Tom', /text beginning with "Dear Runa/],
  ['prose with one time', 'Dear Runa,\n12:00 is fine.\nLow tide at six.\nYours\nTom', /text beginning with/],
  [
    'something packed',
    Buffer.from('1f8b0800000000000003deadbeef', 'hex'),
    /binary data beginning with the bytes 1f 8b 08/,
  ],
])('%s: refused, with what was seen', async (_, content, expected) => {
  expect(await refusal(content)).toMatch(expected)
})

test('the refusal says what each format expects', async () => {
  const message = await refusal('Dear Runa')
  for (const format of allFormats) expect(message).toContain(`${format.name}: ${format.expects}`)
})

test('another zip is refused with its entries', async () => {
  const entries = Object.fromEntries(Array.from({ length: 12 }, (_, at) => [`photo-${at}.jpg`, 'x']))
  expect(await refusal(await zipOf(entries))).toMatch(/a zip archive with "photo-0.jpg", .* and 4 more/)
  expect(await refusal(await zipOf({}))).toMatch(/an empty zip archive/)
  expect(await refusal(await zipOf(entries), 'JSONL')).toMatch(
    /to be read as JSONL: .*; but it is a zip archive/,
  )
  expect(await refusal((await zipOf(entries)).subarray(0, -10))).toMatch(/not a sound zip archive/)
})

test('a format of lines that is asked for is trusted: its reader names the bad lines', async () => {
  const file = await chatFile('odd.txt', 'Dear Runa, low tide at six.')
  expect((await detectFormat(file, 'IRC')).name).toBe('IRC')
  expect((await detectFormat(file, 'JSONL')).name).toBe('JSONL')
  await expect(detectFormat(file, 'TELEGRAM')).rejects.toThrow(
    /to be read as TELEGRAM: .* but it is text beginning/,
  )
})
