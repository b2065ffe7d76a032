import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidInputError } from '../../../../src/errors.ts'
import { irc } from '../../../../src/ingest/formats/irc.ts'
import { chatFile, kinds, messages, read, readUntilError } from './chat-files.ts'

/** What was said, as `time author: content`. */
async function said(name: string, log: string): Promise<string[]> {
  return messages(await read(irc, name, log)).map(
    (m) => `${m.sentAt.toISOString()} ${m.author}: ${m.content}`,
  )
}

describe('the logs of', () => {
  test('irssi', async () => {
    const log = [
      '--- Log opened Wed May 01 23:58:00 2024',
      '23:58 -!- mira [~m@host] has joined #garden',
      '23:58 < mira> frost tonight?',
      '23:59 <@tobi> yes: cover the  beans',
      '23:59  * mira runs out',
      '23:59 -ChanServ(services@host)- set +o tobi',
      '23:59 -!- mode/#garden [+o tobi] by ChanServ',
      '--- Day changed Thu May 02 2024',
      '00:01 <+mira> done',
      '--- Log closed Thu May 02 00:10:00 2024',
    ].join('\n')
    expect(await said('garden.log', log)).toEqual([
      '2024-05-01T23:58:00.000Z mira: frost tonight?',
      '2024-05-01T23:59:00.000Z tobi: yes: cover the  beans',
      '2024-05-01T23:59:00.000Z mira: * mira runs out',
      '2024-05-02T00:01:00.000Z mira: done',
    ])
    const records = await read(irc, 'garden.log', log)
    expect(records.filter((record) => record.kind === 'left-out')).toHaveLength(6)
    expect(messages(records)[0]).toMatchObject({
      channel: '#garden',
      threadId: null,
      replyToExternalId: null,
    })
  })

  test('WeeChat', async () => {
    const log = [
      '2024-05-01 12:34:56\t-->\tmira (~m@host) has joined #garden',
      '2024-05-01 12:34:57\t@mira\thello\tall',
      '2024-05-01 12:34:58\t *\tmira waves',
      '2024-05-01 12:34:59\t--\tMode #garden [+o mira] by ChanServ',
      '2024-05-01 12:35:00\t<--\tmira has quit (bye)',
      '2024-05-01 12:35:01\t\tblank',
    ].join('\n')
    expect(await said('irc.libera.#garden.weechatlog', log)).toEqual([
      '2024-05-01T12:34:57.000Z mira: hello\tall',
      '2024-05-01T12:34:58.000Z mira: * mira waves',
    ])
  })

  test('HexChat, over the end of a year', async () => {
    const log = [
      '**** BEGIN LOGGING AT Tue Dec 31 23:58:00 2024',
      '',
      'Dec 31 23:58:00 *\tNow talking on #garden',
      'Dec 31 23:58:10 *\tmira (~m@host) has joined',
      'Dec 31 23:59:00 <mira>\thappy new year',
      'Jan 01 00:00:01 <tobi>\tsame to you',
      'Jan 01 00:00:02 *\ttobi lights a rocket',
      'Jan 01 00:00:03 *\ttobi is now known as tobi_away',
      'Jan 01 00:00:04 *\ttobi_away sets mode +b x!*@*',
      'Jan 01 00:00:05 *\tmira has quit (Leaving)',
      'Jan 01 00:00:06 -mira-\ta notice',
      '**** ENDING LOGGING AT Wed Jan  1 00:10:00 2025',
    ].join('\n')
    expect(await said('garden.log', log)).toEqual([
      '2024-12-31T23:59:00.000Z mira: happy new year',
      '2025-01-01T00:00:01.000Z tobi: same to you',
      '2025-01-01T00:00:02.000Z tobi: * tobi lights a rocket',
    ])
    expect(messages(await read(irc, 'garden.log', log))[0]?.channel).toBe('#garden')
  })

  test.each(['#garden.2024-05-01.log', 'libera_#garden_20240501.log', '2024-05-01-#garden.txt'])(
    'ZNC and others, with the date in the name %s',
    async (name) => {
      const log = [
        '[12:34:56] *** Joins: mira (~m@host)',
        '[12:34:57] <mira> hello',
        '[12:34] === tobi is now known as tobias',
        '[12:35]  * mira waves',
        '=== tobi [n=tobi@host] has joined #garden',
      ].join('\r\n')
      const records = await read(irc, name, log)
      expect(messages(records).map((m) => [m.sentAt.toISOString(), m.author, m.content, m.channel])).toEqual([
        ['2024-05-01T12:34:57.000Z', 'mira', 'hello', '#garden'],
        ['2024-05-01T12:35:00.000Z', 'mira', '* mira waves', '#garden'],
      ])
      expect(records.filter((record) => record.kind === 'left-out')).toHaveLength(3)
    },
  )

  test('whoever writes the date into the lines', async () => {
    const log = [
      '=== 2024-05-01 ===',
      '[12:00] <mira> one',
      '--- Day changed to 2024-05-02',
      '[11:00] <mira> two',
      'Session Start: Fri May 03 10:00:00 2024',
      'Session Ident: #garden',
      '[10:01] <mira> three',
      '[2024-05-04T12:34:56Z] <mira> four',
      '2024-05-04T12:34:56.789+02:00 <mira> five',
    ].join('\n')
    expect(await said('garden.log', log)).toEqual([
      '2024-05-01T12:00:00.000Z mira: one',
      '2024-05-02T11:00:00.000Z mira: two',
      '2024-05-03T10:01:00.000Z mira: three',
      '2024-05-04T12:34:56.000Z mira: four',
      '2024-05-04T10:34:56.789Z mira: five',
    ])
  })
})

test.each([
  ['#garden.2024-05-01.log', '#garden'],
  ['libera_#node.js.2024-05-01.log', '#node.js'],
  ['#garden_20240501.log', '#garden'],
  ['##c++-2024-05-01.txt', '##c++'],
  ['2024-05-01-#garden.txt', '#garden'],
  ['garden-2024-05-01.log', null],
])('the channel in the name %s is %s', async (name, channel) => {
  expect(messages(await read(irc, name, '[12:00] <mira> hi'))[0]?.channel).toBe(channel)
  expect(await irc.sourceName(await chatFile(name, ''))).toBe(channel)
})

test('time that runs backwards is the next day; up to an hour it is a clock put right', async () => {
  const log = [
    '[23:50] <mira> a',
    '[00:10] <mira> b',
    '[14:00] <mira> c',
    '[13:30] <mira> d',
    '[09:00] <mira> e',
  ]
  expect(await said('#garden.2024-02-28.log', log.join('\n'))).toEqual([
    '2024-02-28T23:50:00.000Z mira: a',
    '2024-02-29T00:10:00.000Z mira: b',
    '2024-02-29T14:00:00.000Z mira: c',
    '2024-02-29T13:30:00.000Z mira: d',
    '2024-03-01T09:00:00.000Z mira: e',
  ])
})

test.each([
  ['* mira has joined #garden'],
  ['* mira has quit (Ping timeout)'],
  ['* mira has left #garden'],
  ['* tobi has kicked mira from #garden (spam)'],
  ['* tobi gives channel operator status to mira'],
  ['* tobi removes voice from mira'],
  ['* mira has changed the topic to: beans'],
  ['* Topic for #garden is: beans'],
  ['* You are now known as mira'],
  ['*** mira sets mode: +o tobi'],
  ['-!- Irssi: #garden: Total of 3 nicks'],
  ['--> mira has joined'],
  ['-mira- a notice'],
])('left out: %s', async (line) => {
  expect(kinds(await read(irc, '#garden.2024-05-01.log', `[12:00] ${line}`))).toEqual(['left-out'])
})

test.each([
  ['* mira has quit smoking', 'mira', '* mira has quit smoking'],
  ['* mira gives tobi a bean', 'mira', '* mira gives tobi a bean'],
  ['* mira', 'mira', '* mira'],
  ['<~@mira> <b>bold</b> > all', 'mira', '<b>bold</b> > all'],
  ['<mira> tobi: try this', 'mira', 'tobi: try this'],
  ['<mira>   indented', 'mira', '  indented'],
  ['<mira> a\0b \ufeff \u2028 مرحبا \u0003', 'mira', 'a\0b \ufeff \u2028 مرحبا \u0003'],
  ['<mira> * not an action', 'mira', '* not an action'],
  ['<mira>', 'mira', ''],
])('said: %j', async (line, author, content) => {
  expect(messages(await read(irc, '#garden.2024-05-01.log', `[12:00] ${line}`))).toMatchObject([
    { author, content },
  ])
})

test('what fits nothing is rejected with its line, the rest goes on', async () => {
  const latin1 = Buffer.from('[12:03] <mira> M\u00fcll\n', 'latin1')
  const log = Buffer.concat([
    Buffer.from('[12:00] <mira> a\n<mira> no time\n[12:01] just words\n[25:00] <mira> no hour\n\n'),
    latin1,
    Buffer.from('--- Day changed Mi Mai 02 24\n[12:04] <mira> b'),
  ])
  expect(kinds(await read(irc, '#garden.2024-05-01.log', log))).toEqual([
    'message',
    expect.stringMatching(/^rejected line 2: no line of an IRC log.*"<mira> no time"$/),
    expect.stringMatching(/^rejected line 3: /),
    expect.stringMatching(/^rejected line 4: /),
    'rejected line 6: not valid UTF-8; please convert the log to UTF-8',
    expect.stringMatching(/^rejected line 7: expected a date such as/),
    'message',
  ])
})

test('lines before the first date are rejected', async () => {
  const log = '12:00 <mira> when?\n--- Day changed Thu May 02 2024\n12:00 <mira> now'
  expect(kinds(await read(irc, 'garden.log', log))).toEqual([
    expect.stringMatching(/^rejected line 1: .*before the first date/),
    'left-out',
    'message',
  ])
})

test('a log without any date is refused as a whole', async () => {
  const { records, error } = await readUntilError(irc, await chatFile('garden.log', '[12:00] <mira> a\n'))
  expect(records).toEqual([])
  expect(error).toBeInstanceOf(InvalidInputError)
  expect(String(error)).toContain('put the date of the first line into the file name')
})

describe('ids', () => {
  const name = '#garden.2024-05-01.log'
  const ids = async (file: string, log: string) =>
    messages(await read(irc, file, log)).map((m) => m.externalId)

  test('are unique, and the same when the log is read again or has grown at its end', async () => {
    const line = fc.record({
      minute: fc.nat(1),
      nick: fc.constantFrom('mira', 'tobi'),
      text: fc.constantFrom('hi', 'ok', '* hi'),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(line), fc.nat(), async (items, cut) => {
        const lines = items.map(({ minute, nick, text }) => `[12:0${minute}] <${nick}> ${text}`)
        const all = await ids(name, lines.join('\n'))
        const length = cut % (lines.length + 1)
        expect(new Set(all).size).toBe(lines.length)
        expect(await ids(name, `${lines.slice(0, length).join('\n')}\n`)).toEqual(all.slice(0, length))
      }),
      { numRuns: 50 },
    )
  })

  test('differ between channels', async () => {
    const line = '[12:00] <bot> build passed'
    expect(await ids(name, line)).not.toEqual(await ids('#barn.2024-05-01.log', line))
  })
})

test('a line of a megabyte takes no time that grows with its square', async () => {
  for (const text of ['x', ' ', '@', '<', '-', '* ', '(', '\t']) {
    const line = `[12:00] <mira> ${text.repeat(1_000_000)}`
    expect(messages(await read(irc, '#garden.2024-05-01.log', line))[0]?.content).toBe(line.slice(15))
    await read(
      irc,
      '#garden.2024-05-01.log',
      `[12:00] ${text.repeat(1_000_000)}\n--- ${text.repeat(1_000_000)}!`,
    )
  }
}, 5000)
