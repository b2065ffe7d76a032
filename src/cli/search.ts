import type { ApiClient } from './client.ts'
import { paint, paintWarning, say, warn } from './terminal.ts'

export interface SearchOptions {
  mode: string
  kinds: string[] | null
  first: number
}

interface SearchAnswer {
  search: {
    edges: {
      rank: number
      score: number
      similarity: number | null
      snippet: string | null
      node: {
        __typename: string
        author?: string
        channel?: string | null
        sentAt?: string
        title?: string
        name?: string
        type?: string
      }
    }[]
    coverage: { eligible: number; ready: number; pending: number; stale: number; failed: number }
  }
}

/** Searches and prints the hits. Returns how many there are. */
export async function search(client: ApiClient, query: string, options: SearchOptions): Promise<number> {
  const { search: answer } = await client.request<SearchAnswer>(
    `query Search($query: String!, $mode: SearchMode, $kinds: [EntityKind!], $first: Int) {
       search(query: $query, mode: $mode, kinds: $kinds, first: $first) {
         edges {
           rank score similarity snippet
           node {
             __typename
             ... on Message { author channel sentAt }
             ... on Atom { type title }
             ... on Topic { name }
           }
         }
         coverage { eligible ready pending stale failed }
       }
     }`,
    { query, ...options },
  )
  for (const { rank, similarity, snippet, node } of answer.edges) {
    const where =
      node.title ??
      node.name ??
      [node.author, node.channel, node.sentAt?.slice(0, 10)].filter(Boolean).join(' · ')
    const meaning = similarity === null ? '' : ` ${similarity.toFixed(3)}`
    say(
      `${paint.bold(String(rank).padStart(2))}${paint.cyan(meaning)} ${node.__typename === 'Message' ? '' : `${node.__typename} `}${paint.dim(where)}`,
    )
    if (snippet) say(`   ${plainSnippet(snippet)}`)
  }
  if (answer.edges.length === 0) say('Nothing found.')
  const { eligible, ready, pending, stale, failed } = answer.coverage
  if (ready < eligible) {
    warn(
      paintWarning.yellow(
        `${ready} of ${eligible} can be found by meaning (${pending + stale} queued, ${failed} failed).`,
      ),
    )
  }
  return answer.edges.length
}

const entities: Record<string, string> = {
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#39;': "'",
}

function plainSnippet(html: string): string {
  return html
    .replace(/<mark>(.*?)<\/mark>/g, (_, text: string) => paint.underline(text))
    .replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => entities[entity] ?? entity)
    .replace(/\s+/g, ' ')
}
