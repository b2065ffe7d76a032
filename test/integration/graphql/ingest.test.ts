import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
import { databaseId, missingId } from '../../support/ids.ts'
import { ingest, message, testSource, tryIngest } from '../../support/messages.ts'
import { createGate } from '../../support/provider-server.ts'

type ProviderApp = Awaited<ReturnType<typeof startProviderApp>>
let app: ProviderApp

beforeAll(async () => {
  app = await startProviderApp()
})
afterAll(() => app[Symbol.asyncDispose]())

const MessageStateDocument = graphql(`
  query MessageState($id: ID!) {
    node(id: $id) {
      ... on Message { content author channel threadId sentAt source { name type } embeddingStatus embeddedAt embeddingError }
    }
  }
`)

const UpdateDocument = graphql(`
  mutation UpdateMessage($input: UpdateMessageInput!) {
    updateMessage(input: $input) {
      __typename
      ... on UpdateMessagePayload { changed: message { id content author embeddingStatus } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

const DeleteDocument = graphql(`
  mutation DeleteMessages($input: DeleteMessagesInput!) {
    deleteMessages(input: $input) {
      __typename
      ... on DeleteMessagesPayload { deletedMessageIds }
      ... on InputError { code message path }
    }
  }
`)

async function stateOf(id: string) {
  const { node } = await app.client.run(MessageStateDocument, { id })
  if (!node || !('content' in node)) throw new Error(`${id} is no message`)
  return node
}

async function storedVector(id: string): Promise<string | undefined> {
  const [row] = await app.sql<{ vector: string }>(
    'select vector::text as vector from embedding where owner_id = $1',
    [databaseId(id)],
  )
  return row?.vector
}

function only<Item>(items: readonly Item[]): Item {
  const [item] = items
  if (item === undefined || items.length !== 1) throw new Error(`${items.length} items, not one`)
  return item
}

describe('the same message again', () => {
  test('is created, then unchanged, then updated when it differs', async () => {
    const first = message('The deploy is stuck')
    const counts = async (...messages: (typeof first)[]) => {
      const { created, updated, unchanged } = await ingest(app.client, messages)
      return { created, updated, unchanged }
    }
    expect(await counts(first)).toEqual({ created: 1, updated: 0, unchanged: 0 })
    expect(await counts(first)).toEqual({ created: 0, updated: 0, unchanged: 1 })
    expect(await counts({ ...first, threadId: 't' }, message('another'))).toEqual({
      created: 1,
      updated: 1,
      unchanged: 0,
    })
  })

  test('keeps its id', async () => {
    const first = message('one')
    const before = await ingest(app.client, [first])
    const after = await ingest(app.client, [{ ...first, content: 'two' }])
    expect(after.messages).toMatchObject([{ id: before.messages[0]?.id, content: 'two' }])
  })

  test('within one call: the last one holds, as if they had come one by one', async () => {
    const first = message('one')
    const { created, updated, unchanged, messages } = await ingest(app.client, [
      first,
      first,
      { ...first, content: 'two' },
    ])
    expect({ created, updated, unchanged }).toEqual({ created: 1, updated: 1, unchanged: 1 })
    expect(new Set(messages.map((stored) => stored.content))).toEqual(new Set(['two']))
  })
})

describe('the identity of a message', () => {
  test('holds its channel, and no channel is one of its own', async () => {
    const identities = [null, undefined, 'general', 'General', 'random']
    const same = identities.map((channel) =>
      message('hello', {
        externalId: 'same',
        sentAt: '2026-05-04T09:30:00Z',
        ...(channel === undefined ? {} : { channel }),
      }),
    )
    const { created, unchanged, messages } = await ingest(app.client, same)
    expect({ created, unchanged }).toEqual({ created: 4, unchanged: 1 })
    expect(messages.map(({ channel }) => channel)).toEqual([null, null, 'general', 'General', 'random'])
    expect(new Set(messages.map(({ id }) => id)).size).toBe(4)
  })

  test('holds its source, whose identity is name and type', async () => {
    const same = message('hello')
    const sources = [
      { name: 'A', type: 'slack' },
      { name: 'A', type: 'irc' },
      { name: 'B', type: 'irc' },
    ]
    const ids = []
    for (const source of sources) ids.push(only((await ingest(app.client, [same], source)).messages).id)
    expect(new Set(ids).size).toBe(3)
    for (const [index, id] of ids.entries())
      expect(await stateOf(id)).toMatchObject({ source: sources[index] })
  })
})

describe('what breaks a rule', () => {
  test('is refused by name, and the other messages of the call are stored', async () => {
    const { created, messages, errors } = await ingest(app.client, [
      message('good'),
      message('a\0b'),
      message('half \ud83d'),
      message('no name', { author: ' ' }),
      message('too old', { sentAt: '1969-01-01T00:00:00Z' }),
      message('long id', { externalId: 'x'.repeat(1001) }),
      message('x'.repeat(2 * 1024 * 1024 + 1)),
      message('good too', { channel: 'c' }),
    ])
    expect(created).toBe(2)
    expect(messages.map(({ content }) => content)).toEqual(['good', 'good too'])
    expect(errors.map(({ path }) => path)).toEqual([
      ['messages', '1', 'content'],
      ['messages', '2', 'content'],
      ['messages', '3', 'author'],
      ['messages', '4', 'sentAt'],
      ['messages', '5', 'externalId'],
      ['messages', '6', 'content'],
    ])
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(['INVALID_INPUT']))
    expect(errors[0]?.message).toContain('NUL character at 1')
    expect(errors[1]?.message).toContain('lone surrogate U+D83D) at 5')
  })

  test.each([0, 1001])('in number (%d messages) is refused as a whole', async (length) => {
    const answer = await tryIngest(
      app.client,
      Array.from({ length }, (_, index) => message(String(index))),
    )
    expect(answer).toMatchObject({ __typename: 'InputError', code: 'INVALID_INPUT', path: ['messages'] })
  })

  test('in the source is refused as a whole', async () => {
    expect(await tryIngest(app.client, [message('x')], { name: '', type: 'api' })).toMatchObject({
      __typename: 'InputError',
      path: ['source', 'name'],
    })
  })
})

test('a thousand messages are stored in one call, and answered in their order', async () => {
  const thousand = Array.from({ length: 1000 }, (_, index) => message(`message ${index}`))
  const { created, messages } = await ingest(app.client, thousand)
  expect(created).toBe(1000)
  expect(messages.map(({ externalId }) => externalId)).toEqual(thousand.map(({ externalId }) => externalId))
})

test('texts survive byte for byte', async () => {
  const texts = [
    '\ufeffwith a byte-order mark',
    'مرحبا \u202eabc\u202c שלום',
    '👩‍👩‍👧‍👦 e\u0301 é \u200b',
    ' \t leading and trailing \r\n\n',
    'quotes \' " \\ $1 %s ; drop table message; --',
    '\u0001\u0008\u001b[31m\u007f\u0085\u2028\uffff',
    'ä 😀 '.repeat(120_000),
  ]
  const { messages, errors } = await ingest(app.client, texts)
  expect(errors).toEqual([])
  for (const [index, { id }] of messages.entries()) {
    const { content } = await stateOf(id)
    expect(Buffer.from(content).equals(Buffer.from(texts[index] ?? ''))).toBe(true)
  }
})

describe('a changed text', () => {
  test('is embedded again by itself, and until then found by its old meaning', async () => {
    const { id } = only((await ingest(app.client, ['The old text'])).messages)
    await app.client.waitUntilEmbedded()
    const before = await stateOf(id)
    const oldVector = await storedVector(id)
    expect(before).toMatchObject({ embeddingStatus: 'READY', embeddingError: null })

    using gate = createGate()
    app.provider.options.fault = () => gate.opened
    const { updateMessage } = await app.client.run(UpdateDocument, { input: { id, content: 'The new text' } })
    expect(updateMessage).toMatchObject({ changed: { content: 'The new text', embeddingStatus: 'STALE' } })
    expect(await storedVector(id)).toBe(oldVector)
    gate.open()
    await app.client.waitUntilEmbedded()

    expect(await stateOf(id)).toMatchObject({ content: 'The new text', embeddingStatus: 'READY' })
    expect(await storedVector(id)).not.toBe(oldVector)
    expect(app.provider.last?.texts).toEqual(['The new text'])
  })

  test('that becomes blank is SKIPPED and loses its vector', async () => {
    const { id } = only((await ingest(app.client, ['Something'])).messages)
    await app.client.waitUntilEmbedded()
    await app.client.run(UpdateDocument, { input: { id, content: ' \u200b\ufeff ' } })
    expect(await stateOf(id)).toMatchObject({ embeddingStatus: 'SKIPPED' })
    expect(await storedVector(id)).toBeNull()
  })

  test('is not embedded again where only the author changes', async () => {
    const { id } = only((await ingest(app.client, ['By somebody'])).messages)
    await app.client.waitUntilEmbedded()
    const { updateMessage } = await app.client.run(UpdateDocument, { input: { id, author: 'bob' } })
    expect(updateMessage).toMatchObject({
      changed: { author: 'bob', content: 'By somebody', embeddingStatus: 'READY' },
    })
  })

  test('is refused by name where it breaks a rule, and for a message that does not exist', async () => {
    const { id } = only((await ingest(app.client, ['Fine'])).messages)
    const update = async (input: { id: string; content?: string; author?: string }) =>
      (await app.client.run(UpdateDocument, { input })).updateMessage
    expect(await update({ id, content: 'a\0' })).toMatchObject({ code: 'INVALID_INPUT', path: ['content'] })
    expect(await update({ id, author: '' })).toMatchObject({ code: 'INVALID_INPUT', path: ['author'] })
    expect(await update({ id: missingId('Message'), content: 'x' })).toMatchObject({
      __typename: 'NotFoundError',
      code: 'NOT_FOUND',
    })
    expect(await stateOf(id)).toMatchObject({ content: 'Fine' })
  })
})

test('a deleted message takes everything that was derived from it along', async () => {
  const { messages } = await ingest(app.client, ['to be deleted', 'to stay'])
  await app.client.waitUntilEmbedded()
  const [gone, stays] = messages
  if (!gone || !stays) throw new Error('nothing was stored')
  const job = '018f0000-0000-7000-8000-00000000000a'
  await app.sql(`insert into job (id, kind, state, total) values ($1, 'EMBED', 'RUNNING', 1)`, [job])
  await app.sql(
    `insert into embedding_request (job_id, space_id, kind, owner_id) select $1, space_id, kind, owner_id from embedding where owner_id = $2`,
    [job, databaseId(gone.id)],
  )
  const readyBefore = await readyCount()

  const { deleteMessages } = await app.client.run(DeleteDocument, {
    input: { ids: [gone.id, missingId('Message')] },
  })
  expect(deleteMessages).toEqual({ __typename: 'DeleteMessagesPayload', deletedMessageIds: [gone.id] })
  for (const table of ['embedding', 'embedding_request']) {
    expect(await app.sql(`select from ${table} where owner_id = $1`, [databaseId(gone.id)])).toEqual([])
  }
  expect(await app.sql('select state, skipped from job where id = $1', [job])).toEqual([
    { state: 'SUCCEEDED', skipped: 1 },
  ])
  expect(await readyCount()).toBe(readyBefore - 1)
  expect(await stateOf(stays.id)).toMatchObject({ embeddingStatus: 'READY' })
})

async function readyCount(): Promise<number> {
  const [row] = await app.sql<{ n: number }>(
    `select sum(n)::int as n from embedding_count where kind = 'MESSAGE' and status = 'READY'`,
  )
  const [counted] = await app.sql<{ n: number }>(
    `select count(*)::int as n from embedding where kind = 'MESSAGE' and status = 'READY'`,
  )
  expect(row?.n).toBe(counted?.n)
  return row?.n ?? 0
}

test('deletion is refused for no ids at all, and for ids of something else', async () => {
  const { deleteMessages } = await app.client.run(DeleteDocument, { input: { ids: [] } })
  expect(deleteMessages).toMatchObject({ __typename: 'InputError', path: ['ids'] })
  const answer = await app.client.send(DeleteDocument.toString(), { input: { ids: [missingId('Topic')] } })
  expect(answer.errors?.[0]?.message).toContain('is not of type: Message')
})

test('the source is made once, however many calls name it at once', async () => {
  const source = { ...testSource, name: 'At once' }
  await Promise.all(
    Array.from({ length: 8 }, (_, index) => ingest(app.client, [message(`${index}`)], source)),
  )
  expect(await app.sql('select name from source where name = $1', [source.name])).toHaveLength(1)
})
