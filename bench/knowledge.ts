import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseConfig } from '../src/config.ts'
import { groupMessages } from '../src/conversations/group.ts'
import { migrate } from '../src/db/migrate.ts'
import { ensureActiveSpace, partitionName } from '../src/embedding/spaces.ts'
import type { MessageDraft } from '../src/ingest/formats/format.ts'
import { ensureSource, storeMessages } from '../src/ingest/messages.ts'
import { scoreMessage, topicTerms } from '../src/ingest/score.ts'
import { createLogger } from '../src/log.ts'
import { createEmbeddingProvider } from '../src/providers/create.ts'
import {
  type BenchPostgres,
  createDatabase,
  openBenchDatabase,
  providerConfig,
  startProvider,
  startServer,
} from './environment.ts'
import { perSecond, type Report, seconds } from './report.ts'

const aims = { perSecond: 2000, extractionMs: 60_000 }
const grouped = 10_000
const extracted = 1000
const batchSize = 1000
/** Between two messages of the made-up chat, in milliseconds. */
const paceMs = 40_000

/** What happens to a message between its storing and its knowledge: score, conversation, extraction by rules. */
export async function benchKnowledge(postgres: BenchPostgres, options: { quick: boolean }): Promise<Report> {
  const count = options.quick ? 2000 : grouped
  const drafts = chat(count)
  const scoreMs = measureScore(drafts)
  const { groupMs, conversations } = await measureGrouping(postgres, drafts)
  const both = (1000 * count) / (scoreMs + groupMs)
  const extraction = await measureExtraction(postgres, chat(extracted))
  return {
    title: 'From messages to knowledge',
    rows: [
      {
        what: 'score and grouping',
        figure: perSecond(both),
        aim: `>= ${aims.perSecond.toLocaleString('en')}/s`,
        isMet: both >= aims.perSecond,
      },
      { what: 'score alone', figure: perSecond((1000 * count) / scoreMs) },
      {
        what: 'grouping alone, from rows to rows',
        figure: perSecond((1000 * count) / groupMs),
        beside: `${conversations.toLocaleString('en')} conversations`,
      },
      {
        what: `extraction of ${extracted.toLocaleString('en')} messages by rules`,
        figure: seconds(extraction.ms),
        beside: `${extraction.read} read; ${extraction.atoms} atoms, ${extraction.topics} topics`,
        aim: `<= ${aims.extractionMs / 1000} s`,
        isMet: extraction.ms <= aims.extractionMs,
      },
    ],
    notes: [
      `The texts and authors of examples/sample-chat.jsonl, again and again, in six channels, ${paceMs / 1000} s apart; ${count.toLocaleString('en')} for score and grouping.`,
      'Grouping reads the messages with their vectors, links them, and writes their conversations, in one process.',
      'Extraction: from the start of the job to its end, with the local model embedding what is proposed; noise is not read.',
    ],
  }
}

interface SampleLine {
  author: string
  channel: string
  text: string
}

function chat(count: number): MessageDraft[] {
  const lines = readFileSync(join(import.meta.dirname, '../examples/sample-chat.jsonl'), 'utf8')
    .split('\n')
    .flatMap((line) => (line.trim() === '' ? [] : [JSON.parse(line) as SampleLine]))
  const begin = Date.UTC(2026, 0, 1)
  return Array.from({ length: count }, (_, index) => {
    const line = lines[index % lines.length]
    if (!line) throw new Error('the sample chat is empty')
    return {
      externalId: `${index}`,
      channel: line.channel,
      author: line.author,
      content: line.text,
      sentAt: new Date(begin + index * paceMs),
      threadId: null,
      replyToExternalId: null,
    }
  })
}

function measureScore(drafts: readonly MessageDraft[]): number {
  const { scoring } = parseConfig({})
  // As many topics as a team of some size has.
  const terms = topicTerms(
    Array.from({ length: 200 }, (_, index) => ({
      name: `topic ${index}`,
      keywords: [`word${index}`, 'booking'],
    })),
  )
  const context = { now: new Date(), terms }
  const started = performance.now()
  for (const draft of drafts) scoreMessage(draft, scoring, context)
  return performance.now() - started
}

async function measureGrouping(
  postgres: BenchPostgres,
  drafts: readonly MessageDraft[],
): Promise<{ groupMs: number; conversations: number }> {
  await using created = await createDatabase(postgres)
  await using server = await startProvider({})
  const provider = createEmbeddingProvider(providerConfig(server.url))
  const database = await openBenchDatabase(created.url)
  try {
    await migrate(database)
    const space = await ensureActiveSpace(database, provider, createLogger('warn'))
    const { scoring } = parseConfig({})
    for (let from = 0; from < drafts.length; from += batchSize) {
      await database.transaction(async (transaction) => {
        const source = await ensureSource(transaction, 'bench', 'bench')
        await storeMessages(transaction, scoring, source.id, drafts.slice(from, from + batchSize))
      })
    }
    const partition = partitionName(space)
    await database.query(`drop index ${partition}_message_vector`)
    await database.query(
      `update ${partition} e set status = 'READY',
         vector = (select array_agg(random() - 0.5) from generate_series(1, ${space.dimensions}) where e.owner_id is not null)::vector`,
    )
    await database.query('analyze')
    const started = performance.now()
    await groupMessages(database, space, new AbortController().signal)
    const groupMs = performance.now() - started
    const [row] = await database.query<{ n: number }>(
      'select count(distinct conversation_id)::int as n from message',
    )
    return { groupMs, conversations: row?.n ?? 0 }
  } finally {
    await provider.close()
    await database.close()
  }
}

interface JobAnswer {
  node: {
    state: string
    succeeded: number
    startedAt: string
    finishedAt: string
    result: { atomsCreated: number; topicsCreated: number }
  }
}

async function measureExtraction(postgres: BenchPostgres, drafts: readonly MessageDraft[]) {
  await using created = await createDatabase(postgres)
  await using server = await startServer({ DATABASE_URL: created.url, QUARRY_AUTO_EXTRACT: 'off' })
  await server.request(
    `mutation ($messages: [MessageInput!]!) {
       ingestMessages(input: { source: { name: "bench", type: "bench" }, messages: $messages }) { __typename }
     }`,
    { messages: drafts },
  )
  const ungrouped =
    '{ messages(first: 100, orderBy: { field: SENT_AT, direction: DESC }) { nodes { conversationId } } }'
  for (;;) {
    const { messages } = await server.request<{ messages: { nodes: { conversationId: string | null }[] } }>(
      ungrouped,
    )
    if (messages.nodes.every(({ conversationId }) => conversationId !== null)) break
    await delay(200)
  }
  const { extractKnowledge } = await server.request<{ extractKnowledge: { job: { id: string } } }>(
    `mutation { extractKnowledge(input: { period: { from: "2020-01-01T00:00:00Z" } }) {
       ... on ExtractKnowledgePayload { job { id } }
     } }`,
  )
  for (;;) {
    const { node } = await server.request<JobAnswer>(
      `query ($id: ID!) { node(id: $id) { ... on Job { state succeeded startedAt finishedAt result } } }`,
      { id: extractKnowledge.job.id },
    )
    if (node.state === 'SUCCEEDED') {
      return {
        ms: Date.parse(node.finishedAt) - Date.parse(node.startedAt),
        read: node.succeeded,
        atoms: node.result.atomsCreated,
        topics: node.result.topicsCreated,
      }
    }
    if (node.state === 'FAILED') throw new Error('the extraction failed')
    await delay(200)
  }
}
