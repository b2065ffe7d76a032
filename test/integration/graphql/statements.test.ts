import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { graphql } from '../../support/generated/index.ts'
import { createAtom, createTopic } from '../../support/knowledge.ts'
import { ingest, message } from '../../support/messages.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
const most = 50

const MessagesDocument = graphql(`
  query CountMessages($first: Int!) {
    messages(first: $first) {
      nodes {
        content
        source { name type }
        topic { name }
        replyTo { content source { name } embeddingStatus }
        embeddingStatus
        embeddedAt
        embeddingError
        similar(first: 3, threshold: 0) { edges { similarity node { ... on Message { content } } } }
        duplicates { nodes { ... on Message { id } } }
        suggestedTopics { nodes { ... on Topic { name } } }
        atoms(first: 3) { nodes { title embeddingStatus } }
      }
    }
  }
`)

const AtomsDocument = graphql(`
  query CountAtoms($first: Int!) {
    atoms(first: $first) {
      nodes {
        title
        embeddingStatus
        topics { nodes { name embeddingStatus } }
        similar(threshold: 0) { nodes { ... on Atom { title } } }
        citations { quote start message { content author } }
        links { nodes { type from { title } to { title } } }
        revisions { nodes { number state } }
      }
    }
  }
`)

const TopicsDocument = graphql(`
  query CountTopics($first: Int!) {
    topics(first: $first) {
      nodes {
        name
        embeddingStatus
        messages(first: 5) { nodes { content embeddingStatus } }
        atoms(first: 5) { nodes { title embeddingStatus topics { nodes { name } } } }
      }
    }
  }
`)

const SourceDocument = graphql(`
  query CountOneSource($id: ID!, $first: Int!) {
    node(id: $id) { ... on Source { messages(first: $first) { nodes { content embeddingStatus source { id } } } } }
  }
`)

const AnySourceDocument = graphql(`query AnySource { messages(first: 1) { nodes { source { id } } } }`)

const SearchDocument = graphql(`
  query CountSearch($first: Int!) {
    search(query: "number", first: $first, kinds: [MESSAGE]) {
      edges { snippet node { ... on Message { content embeddingStatus source { name } replyTo { content } } } }
      coverage { eligible }
    }
  }
`)

const JobsDocument = graphql(`
  query CountJobs($first: Int!) {
    jobs(first: $first) { nodes { id kind events(first: 2) { nodes { seq message } } } }
  }
`)

const BackfillDocument = graphql(`
  mutation CountableJob { backfillEmbeddings(input: {}) { ... on BackfillEmbeddingsPayload { job { id } } } }
`)

beforeAll(async () => {
  app = await startProviderApp()
  const messages = Array.from({ length: most }, (_, index) => message(`number ${index}`))
  await ingest(
    app.client,
    messages.map((entry, index) => ({
      ...entry,
      replyToExternalId: messages[index - 1]?.externalId ?? null,
    })),
  )
  for (let index = 0; index < most; index++) {
    const { id } = await createTopic(app.client, { name: `Topic ${index}` })
    await createAtom(app.client, { type: 'IDEA', title: `Atom ${index}`, content: 'Text', topicIds: [id] })
    await app.client.run(BackfillDocument)
  }
  await app.sql(
    `update message m set topic_id = t.id from topic t where m.content = replace(t.name, 'Topic', 'number')`,
  )
  await app.sql(
    `insert into citation (atom_id, message_id, start, quote) select a.id, m.id, 0, m.content
     from atom a join message m on m.content = replace(a.title, 'Atom', 'number')`,
  )
  await app.sql(
    `insert into atom_link (id, from_id, to_id, type)
     select gen_random_uuid(), a.id, b.id, 'RELATES_TO'
     from generate_series(0, ${most - 1}) as i
     join atom a on a.title = 'Atom ' || i join atom b on b.title = 'Atom ' || (i + 1) % ${most}`,
  )
  await app.client.waitUntilEmbedded()
})
afterAll(() => app[Symbol.asyncDispose]())

/** What goes on by itself: the job queue, the pipeline, heartbeats, progress, the account of the providers. */
const background =
  /graphile_worker|conversation_id is null|embedding_count|leased_by|\bprocess\b|^(begin|commit|listen|unlisten|set |start_job)|job set|job_event \(|append_job_event|report_held_jobs|embedding_request|from embeddable|provider_usage|pg_notify/i

/** Statements that an operation needs, without what goes on beside it. */
async function statementsOf(run: () => Promise<unknown>): Promise<string[]> {
  app.statements.length = 0
  await run()
  return app.statements.filter((text) => !background.test(text))
}

describe('the number of statements does not grow with the rows', () => {
  const cases: [string, number, (first: number) => Promise<unknown>][] = [
    ['messages with all that belongs to each', 14, (first) => app.client.run(MessagesDocument, { first })],
    ['atoms with their topics', 14, (first) => app.client.run(AtomsDocument, { first })],
    ['topics with their messages and atoms', 10, (first) => app.client.run(TopicsDocument, { first })],
    ['a search with what belongs to each hit', 8, (first) => app.client.run(SearchDocument, { first })],
    ['jobs with their events', 2, (first) => app.client.run(JobsDocument, { first })],
    [
      'one source with its messages',
      6,
      async (first) => {
        const id = (await app.client.run(AnySourceDocument)).messages.nodes[0]?.source.id ?? ''
        return app.client.run(SourceDocument, { id, first })
      },
    ],
  ]

  test.each(cases)('for %s', async (_name, limit, run) => {
    await run(1)
    const few = await statementsOf(() => run(5))
    const many = await statementsOf(() => run(most))
    expect(many.length, many.join('\n\n')).toBeLessThanOrEqual(few.length)
    expect(many.length, many.join('\n\n')).toBeLessThanOrEqual(limit)
    expect(many.length).toBeGreaterThan(0)
  })
})
