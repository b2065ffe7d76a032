import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ZipFile } from 'yazl'
import { startProviderApp } from '../../support/apps.ts'
import type { ChatFormat } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { temporaryFolder } from '../../support/processes.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
let folder: Awaited<ReturnType<typeof temporaryFolder>>

beforeAll(async () => {
  folder = await temporaryFolder()
  app = await startProviderApp()
})
afterAll(async () => {
  await app[Symbol.asyncDispose]()
  await folder[Symbol.asyncDispose]()
})

const ImportDocument = graphql(`
  mutation ImportChat($file: File!, $format: ChatFormat, $sourceName: String) {
    importChat(input: { file: $file, format: $format, sourceName: $sourceName }) {
      __typename
      ... on ImportChatPayload { job { id kind total } }
      ... on InputError { code message path }
    }
  }
`)

const SourceDocument = graphql(`
  query ImportedMessages {
    messages(first: 100, orderBy: { field: SENT_AT, direction: ASC }) {
      nodes {
        externalId channel threadId author content sentAt embeddingStatus
        source { name type }
        replyTo { externalId }
      }
    }
  }
`)

interface Upload {
  name: string
  content: string | Buffer | object
  format?: ChatFormat
  sourceName?: string
}

async function upload({ name, content, format = 'AUTO', sourceName }: Upload) {
  const path = join(folder.path, name)
  const isRaw = typeof content === 'string' || Buffer.isBuffer(content)
  await writeFile(path, isRaw ? content : JSON.stringify(content))
  const { importChat } = await app.client.upload(
    ImportDocument,
    { format, ...(sourceName ? { sourceName } : {}) },
    path,
  )
  if (!importChat) throw new Error('importChat is null')
  return importChat
}

/** The job of an import when it has ended. */
async function importFile(file: Upload) {
  const answer = await upload(file)
  if (answer.__typename !== 'ImportChatPayload') throw new Error(answer.message)
  return app.client.waitForJob(answer.job.id)
}

async function messagesOf(source: string) {
  const { messages } = await app.client.run(SourceDocument)
  return messages.nodes.filter((message) => message.source.name === source)
}

const jsonl = (...records: unknown[]) => records.map((record) => JSON.stringify(record)).join('\n')

async function zip(entries: Record<string, unknown>): Promise<Buffer> {
  const file = new ZipFile()
  for (const [name, content] of Object.entries(entries)) {
    file.addBuffer(Buffer.from(JSON.stringify(content)), name)
  }
  file.end()
  return buffer(file.outputStream)
}

const telegram = {
  name: 'Orchard',
  type: 'private_supergroup',
  id: 4242,
  messages: [
    {
      id: 1,
      type: 'service',
      date: '2024-05-01T12:00:00',
      date_unixtime: '1714550000',
      action: 'invite_members',
    },
    {
      id: 2,
      type: 'message',
      date: '2024-05-01T14:00:00',
      date_unixtime: '1714557600',
      from: 'Marta',
      from_id: 'user1',
      text: ['The ', { type: 'bold', text: 'pump' }, ' runs'],
    },
    {
      id: 3,
      type: 'message',
      date: '2024-05-01T14:01:00',
      date_unixtime: '1714557660',
      from: 'Ivo',
      from_id: 'user2',
      reply_to_message_id: 2,
      text: 'Great',
    },
  ],
}

const slack = {
  'users.json': [{ id: 'U1', name: 'lena', profile: { display_name: 'Lena' } }],
  'channels.json': [{ id: 'C1', name: 'bakery', members: ['U1'] }],
  'bakery/2024-05-01.json': [
    { type: 'message', user: 'U1', text: 'Ovens are on', ts: '1714550000.000200' },
    { type: 'message', subtype: 'channel_join', user: 'U1', text: 'joined', ts: '1714550001.000200' },
  ],
}

const discord = {
  guild: { id: '5', name: 'Clay Guild', iconUrl: '' },
  channel: { id: '77', type: 'GuildTextChat', category: 'Craft', name: 'kiln', topic: null },
  dateRange: { after: null, before: null },
  exportedAt: '2024-06-01T00:00:00+00:00',
  messages: [
    {
      id: '900',
      type: 'Default',
      timestamp: '2024-05-01T12:34:56.789+02:00',
      timestampEdited: null,
      content: 'The kiln is hot',
      author: { id: '11', name: 'pia', nickname: 'Pia', isBot: false },
      attachments: [],
      embeds: [],
      stickers: [],
      mentions: [],
    },
  ],
  messageCount: 1,
}

const irc = '2024-05-01 12:34:56\\t-->\\tmira (~m@host) has joined #garden\n'
  .replaceAll('\\t', '\t')
  .concat('2024-05-01 12:34:57\t@mira\tfrost tonight?\n')

describe('a small export is found out and stored', () => {
  test('of Telegram', async () => {
    expect(await importFile({ name: 'result.json', content: telegram })).toMatchObject({
      kind: 'IMPORT',
      state: 'SUCCEEDED',
      total: 3,
      succeeded: 2,
      failed: 0,
      skipped: 1,
      result: { format: 'TELEGRAM', source: 'Orchard', created: 2, updated: 0, unchanged: 0, rejected: [] },
    })
    await app.client.waitUntilEmbedded()
    expect(await messagesOf('Orchard')).toMatchObject([
      { externalId: '2', author: 'Marta', content: 'The pump runs', replyTo: null, embeddingStatus: 'READY' },
      { externalId: '3', content: 'Great', source: { type: 'telegram' }, replyTo: { externalId: '2' } },
    ])
  })

  test('of Slack', async () => {
    const job = await importFile({ name: 'export.zip', content: await zip(slack) })
    expect(job).toMatchObject({ state: 'SUCCEEDED', succeeded: 1, skipped: 1, result: { format: 'SLACK' } })
    expect(await messagesOf(job.result.source)).toMatchObject([
      { channel: 'bakery', author: 'Lena', content: 'Ovens are on', source: { type: 'slack' } },
    ])
  })

  test('of Discord', async () => {
    const job = await importFile({ name: 'kiln.json', content: discord })
    expect(job).toMatchObject({ state: 'SUCCEEDED', succeeded: 1, result: { format: 'DISCORD' } })
    expect(await messagesOf(job.result.source)).toMatchObject([
      { externalId: '900', author: 'Pia', sentAt: '2024-05-01T10:34:56.789Z', source: { type: 'discord' } },
    ])
  })

  test('of IRC', async () => {
    const job = await importFile({ name: '#garden.weechatlog', content: irc })
    expect(job).toMatchObject({ state: 'SUCCEEDED', succeeded: 1, skipped: 1, result: { format: 'IRC' } })
    expect(await messagesOf(job.result.source)).toMatchObject([
      { author: 'mira', content: 'frost tonight?', channel: '#garden', source: { type: 'irc' } },
    ])
  })

  test('of JSONL, in either of its spellings', async () => {
    const content = jsonl(
      { externalId: 'a', content: 'one', author: 'x', sentAt: '2024-05-01T10:00:00Z', channel: 'c', more: 1 },
      { id: 'b', text: 'two', author: 'y', sentAt: '2024-05-01T11:00:00Z', channel: 'c', replyTo: 'a' },
    )
    const job = await importFile({ name: 'two.jsonl', content, sourceName: 'Lines' })
    expect(job).toMatchObject({ succeeded: 2, failed: 0, result: { format: 'JSONL', source: 'Lines' } })
    expect(await messagesOf('Lines')).toMatchObject([
      { externalId: 'a', content: 'one', channel: 'c' },
      { externalId: 'b', content: 'two', replyTo: { externalId: 'a' } },
    ])
  })
})

const line = (id: string, change: object = {}) => ({
  id,
  text: `text of ${id}`,
  author: 'x',
  sentAt: '2024-05-01T10:00:00Z',
  ...change,
})

test('the same file again changes nothing, and a changed one only what differs', async () => {
  const file = { name: 'again.jsonl', sourceName: 'Again' }
  const run = async (content: string) => (await importFile({ ...file, content })).result
  expect(await run(jsonl(line('1'), line('2')))).toMatchObject({ created: 2, updated: 0, unchanged: 0 })
  expect(await run(jsonl(line('1'), line('2')))).toMatchObject({ created: 0, updated: 0, unchanged: 2 })
  expect(await run(jsonl(line('1', { text: 'edited' }), line('2'), line('3')))).toMatchObject({
    created: 1,
    updated: 1,
    unchanged: 1,
  })
})

test('a record that cannot be used is named by position and reason, and the rest goes on', async () => {
  const content = [
    JSON.stringify(line('1')),
    '{"broken": ',
    JSON.stringify({ text: 'nobody', sentAt: '2024-05-01T10:00:00Z' }),
    JSON.stringify(line('4', { text: 'a\0b' })),
    JSON.stringify(line('5', { sentAt: 'yesterday' })),
    JSON.stringify(line('6')),
  ].join('\n')
  const job = await importFile({ name: 'bad.jsonl', content, sourceName: 'Bad' })
  expect(job).toMatchObject({ state: 'SUCCEEDED', total: 6, succeeded: 2, failed: 4, skipped: 0 })
  expect(job.result.rejected.map(({ position }: { position: string }) => position)).toEqual([
    'line 2',
    'line 3',
    'line 4',
    'line 5',
  ])
  expect(job.result.rejected[2]?.reason).toContain('NUL character at 1')
  expect((await messagesOf('Bad')).map(({ externalId }) => externalId)).toEqual(['1', '6'])
})

test('of very many records that cannot be used the first hundred are listed, and all are counted', async () => {
  const content = jsonl(line('good'), ...Array.from({ length: 2500 }, () => ({ id: 1 })))
  const job = await importFile({ name: 'worse.jsonl', content, sourceName: 'Worse' })
  expect(job).toMatchObject({ total: 2501, succeeded: 1, failed: 2500 })
  expect(job.result.rejected).toHaveLength(100)
})

describe('a file that is no chat', () => {
  test('ends its job as FAILED, with what was seen and what was expected', async () => {
    const job = await importFile({ name: 'prose.txt', content: 'Once upon a time.\nThere was no chat.\n' })
    expect(job).toMatchObject({ state: 'FAILED', succeeded: 0, attempts: 1 })
    expect(job.error).toMatch(/prose\.txt: no known chat export.*TELEGRAM.*JSONL/s)
  })

  test('ends its job as FAILED where it is of another format than was said', async () => {
    const job = await importFile({ name: 'result.json', content: telegram, format: 'DISCORD' })
    expect(job).toMatchObject({ state: 'FAILED' })
    expect(job.error).toContain('looks like TELEGRAM, but was to be read as DISCORD')
  })

  test('ends its job as FAILED where it breaks off, and keeps what had been read', async () => {
    const whole = JSON.stringify({ ...telegram, name: 'Cut' })
    const job = await importFile({ name: 'cut.json', content: whole.slice(0, -30) })
    expect(job).toMatchObject({ state: 'FAILED', attempts: 1, error: expect.stringContaining('cut.json') })
  })

  test('is refused at once where it is empty, and nothing is kept of it', async () => {
    expect(await upload({ name: 'empty.jsonl', content: '' })).toMatchObject({
      __typename: 'InputError',
      code: 'INVALID_INPUT',
      path: ['file'],
    })
    expect(await app.sql(`select from job where params ->> 'fileName' = 'empty.jsonl'`)).toEqual([])
  })
})

describe('the name of the source', () => {
  test('is the one that is given, else the one of the export, else that of the file', async () => {
    const sourceOf = async (file: Upload) => (await importFile(file)).result.source
    expect(await sourceOf({ name: 'result.json', content: telegram, sourceName: 'Mine' })).toBe('Mine')
    expect(await sourceOf({ name: 'result.json', content: telegram })).toBe('Orchard')
    expect(await sourceOf({ name: 'ünïcode.jsonl', content: jsonl(line('1')) })).toBe('ünïcode.jsonl')
  })

  test('is refused where it is blank', async () => {
    expect(await upload({ name: 'a.jsonl', content: jsonl(line('1')), sourceName: ' ' })).toMatchObject({
      path: ['sourceName'],
    })
  })
})

test('the uploaded file is dropped when its import has ended', async () => {
  await importFile({ name: 'dropped.jsonl', content: jsonl(line('1')) })
  expect(
    await app.sql(
      `select from import_chunk c join job j on j.id = c.job_id where j.params ->> 'fileName' = 'dropped.jsonl'`,
    ),
  ).toEqual([])
})
