import { fileURLToPath } from 'node:url'
import type { Session } from './connect.ts'
import { waitForEmbeddings } from './embeddings.ts'
import { importPath } from './import.ts'
import { showKnowledge } from './knowledge.ts'
import { search } from './search.ts'
import { paint, say } from './terminal.ts'

const sampleChat = fileURLToPath(new URL('../../examples/sample-chat.jsonl', import.meta.url))

/** In other words than the messages use: what a search by words alone would not find. */
const exampleQueries = [
  'messages arrive too late on phones that are asleep',
  'our mail is classified as junk',
  'customers receive their money back when they cancel early',
]

const atomsShown = 5

/** Imports the sample chat, embeds it, extracts what is known from it, and answers three searches. */
export async function runDemo(session: Session): Promise<void> {
  await importPath(session, sampleChat, { format: 'JSONL', sourceName: 'Sample chat', extract: true })
  await waitForEmbeddings(session)
  say()
  await showKnowledge(session.client, atomsShown)
  for (const query of exampleQueries) {
    say()
    say(`${paint.dim('Search:')} ${paint.bold(query)}`)
    await search(session.client, query, { mode: 'HYBRID', kinds: null, first: 3 })
  }
}
