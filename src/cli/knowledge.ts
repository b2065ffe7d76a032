import type { ApiClient } from './client.ts'
import { paint, say } from './terminal.ts'

interface KnowledgeAnswer {
  topics: { nodes: { name: string; keywords: string[]; messages: { nodes: unknown[] } }[] }
  atoms: {
    nodes: {
      type: string
      title: string
      confidence: number | null
      extractedBy: string | null
      citations: { quote: string; message: { author: string; sentAt: string } }[]
      links: { nodes: { type: string; to: { type: string; title: string } }[] }
    }[]
  }
}

/** Prints the newest topics, and atoms with the words that prove them and one of their links; linked ones first. */
export async function showKnowledge(client: ApiClient, count: number): Promise<void> {
  const { topics, atoms } = await client.request<KnowledgeAnswer>(
    `query Knowledge {
       topics(first: 8, orderBy: { field: CREATED_AT, direction: DESC }) {
         nodes { name keywords messages(first: 100) { nodes { id } } }
       }
       atoms(first: 100) {
         nodes {
           type title confidence extractedBy
           citations { quote message { author sentAt } }
           links(direction: OUT) { nodes { type to { type title } } }
         }
       }
     }`,
  )
  say(paint.bold('Topics'))
  for (const topic of topics.nodes) {
    say(
      `  ${topic.name} ${paint.dim(`${topic.messages.nodes.length} messages; ${topic.keywords.join(', ')}`)}`,
    )
  }
  say(paint.bold('Atoms'))
  const isLinked = (atom: (typeof atoms.nodes)[number]) =>
    atom.links.nodes.some(({ type }) => type !== 'RELATES_TO')
  const shown = [...atoms.nodes].sort((a, b) => Number(isLinked(b)) - Number(isLinked(a))).slice(0, count)
  for (const { type, title, confidence, citations, links } of shown) {
    say(`  ${paint.cyan(type)} ${title} ${paint.dim(confidence === null ? '' : confidence.toFixed(2))}`)
    for (const { quote, message } of citations.slice(0, 2)) {
      const words = quote.replace(/\s+/g, ' ')
      say(`      ${paint.dim(`${message.author}, ${message.sentAt.slice(0, 10)}:`)} "${words.slice(0, 160)}"`)
    }
    for (const link of links.nodes.slice(0, 1)) {
      say(`      ${paint.green(`${link.type} ${link.to.type}`)} ${link.to.title}`)
    }
  }
}
