import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import type { MessageInput } from '../../support/generated/graphql.ts'
import { graphql } from '../../support/generated/index.ts'
import { ingest } from '../../support/messages.ts'
import type { ProviderServerOptions } from '../../support/provider-server.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
const provider: ProviderServerOptions = {}

beforeAll(async () => {
  app = await startProviderApp(provider)
})
afterAll(() => app[Symbol.asyncDispose]())
afterEach(async () => {
  delete provider.fault
  await app.sql('delete from message')
})

const ConversationsDocument = graphql(`
  query Conversations {
    messages(first: 100, orderBy: { field: SENT_AT, direction: ASC }) { nodes { externalId conversationId } }
  }
`)

const start = Date.UTC(2026, 1, 1, 9)
const say = (
  minute: number,
  author: string,
  content: string,
  fields: Partial<MessageInput> = {},
): MessageInput => ({
  externalId: `at ${minute}`,
  author,
  content,
  sentAt: new Date(start + minute * 60_000).toISOString(),
  channel: '#general',
  ...fields,
})

/** The conversations as lists of external ids, once every message has one. */
async function conversations(): Promise<string[][]> {
  await expect
    .poll(() => app.sql('select from message where conversation_id is null'), { timeout: 10_000 })
    .toEqual([])
  const { messages } = await app.client.run(ConversationsDocument)
  const groups = new Map<string, string[]>()
  for (const { externalId, conversationId } of messages.nodes) {
    const id = conversationId ?? 'none'
    groups.set(id, [...(groups.get(id) ?? []), externalId])
  }
  return [...groups.values()]
}

test('the messages of a conversation can be listed, without noise', async () => {
  await ingest(app.client, [
    say(0, 'ann', 'why is the staging server down?'),
    say(1, 'ben', 'ann: its disk is full', { replyToExternalId: 'at 0' }),
    say(2, 'ann', 'ok', { replyToExternalId: 'at 1' }),
  ])
  expect(await conversations()).toHaveLength(1)
  const [row] = await app.sql<{ id: string }>('select distinct conversation_id as id from message')
  const document = graphql(`
    query OneConversation($ids: [String!], $noise: [Noise!]) {
      messages(filter: { conversationIds: $ids, noise: $noise }) { nodes { content } }
    }
  `)
  const count = async (variables: Parameters<typeof app.client.run<unknown, object>>[1] & object) =>
    (await app.client.run(document, variables)).messages.nodes.length
  const ids = [row?.id ?? '', 'not an id']
  expect(await count({ ids })).toBe(3)
  expect(await count({ ids, noise: ['SIGNAL', 'WEAK_SIGNAL'] })).toBe(2)
  expect(await count({ ids: ['not an id'] })).toBe(0)
})

describe('messages get the same conversation', () => {
  test('when they answer each other, however long after', async () => {
    await ingest(app.client, [
      say(0, 'ann', 'the nightly build is red since the upgrade'),
      say(60 * 24 * 90, 'ben', 'what is for lunch today in the canteen'),
      say(60 * 24 * 90 + 1, 'cem', 'that was the cache of the compiler', { replyToExternalId: 'at 0' }),
    ])
    expect(await conversations()).toEqual([['at 0', `at ${60 * 24 * 90 + 1}`], [`at ${60 * 24 * 90}`]])
  })

  test('when they are of one thread, whose first message bears its id', async () => {
    await ingest(app.client, [
      say(0, 'ann', 'who takes the release of this week'),
      say(1, 'ben', 'does anybody know a good dentist near the office'),
      say(500, 'cem', 'I can do it on Thursday afternoon', { threadId: 'at 0' }),
      say(900, 'dan', 'then I take over the week after that', { threadId: 'at 0' }),
    ])
    const groups = await conversations()
    expect(groups.find((group) => group.includes('at 0'))).toEqual(
      expect.arrayContaining(['at 0', 'at 500', 'at 900']),
    )
  })

  test('when one speaks to the other by name', async () => {
    await ingest(app.client, [
      say(0, 'anna', 'how do I reset the staging database?'),
      say(1, 'ben', 'the coffee machine on the third floor leaks'),
      say(2, 'cem', 'anna: run the seed script with the reset flag'),
      say(3, 'anna', 'cem: thanks, that did it'),
    ])
    const groups = await conversations()
    expect(groups.find((group) => group.includes('at 0'))).toEqual(expect.arrayContaining(['at 2', 'at 3']))
  })

  test('only within a channel', async () => {
    await ingest(app.client, [
      say(0, 'ann', 'is the api down?'),
      say(1, 'ben', 'ann: no, it is up', { channel: '#other' }),
    ])
    expect(await conversations()).toHaveLength(2)
  })
})

test('a message that comes late joins what was there, and what was there stays as it is', async () => {
  await ingest(app.client, [
    say(0, 'anna', 'how do I reset the staging database?'),
    say(2, 'anna', 'cem: thanks, that did it'),
  ])
  const before = await conversations()
  await ingest(app.client, [say(1, 'cem', 'anna: run the seed script with the reset flag')])
  const after = await conversations()
  expect(after.find((group) => group.includes('at 0'))).toContain('at 1')
  expect(after.map((group) => group.filter((id) => id !== 'at 1'))).toEqual(before)
})

test('an older export that comes late is grouped beside the newer one', async () => {
  const pair = (minute: number) => [
    say(minute, 'ann', 'what broke the deploy of tonight?'),
    say(minute + 1, 'ben', 'ann: the certificate', { replyToExternalId: `at ${minute}` }),
  ]
  await ingest(app.client, [0, 40_000, 80_000].flatMap(pair))
  await conversations()
  await ingest(app.client, [20_000, 60_000, 100_000].flatMap(pair))
  expect((await conversations()).map((group) => group.length)).toEqual([2, 2, 2, 2, 2, 2])
})

test('grouping waits for the embeddings, and no longer than ten minutes', async () => {
  provider.fault = () => ({ status: 401 })
  await ingest(app.client, [say(0, 'ann', 'is anybody there?'), say(1, 'ben', 'ann: yes, here')])
  const [row] = await app.sql<{ n: number }>(
    'select count(*)::int as n from message where conversation_id is null',
  )
  expect(row?.n).toBe(2)
  await app.sql(`update message set created_at = now() - interval '11 minutes'`)
  expect(await conversations()).toHaveLength(1)
})
