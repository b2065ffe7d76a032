import { graphql } from './generated/index.ts'
import {
  type ChatReply,
  hashVector,
  type ProviderRequest,
  type ProviderServerOptions,
} from './provider-server.ts'

/*
 * A model that reads by a few plain marks, so that a test says in its messages what is found in them:
 *
 *   PROBLEM: The cache is full #builds      an atom of this type, proven by these words, in the topic "builds"
 *   SOLUTION: Clear it >SOLVES The cache…   and a link to the atom of the message that begins so
 *   ... ?0.5                                with this confidence instead of 0.9
 *   ... !quote                              with a quote that nobody wrote
 *
 * In vectors, texts with the same {mark} are equal, and {mark@0.9} has this similarity to {mark}.
 */

interface MessageLine {
  message: string
  text: string
}

const atomPattern =
  /^([A-Z]+): ([^#>?!]+?)(?: #([\w-]+))?(?: >([A-Z_]+) (.+?))?(?: \?([\d.]+))?(?: (!quote))?$/

/** The lines of data in a request for an extraction. */
export function messageLines(request: ProviderRequest): MessageLine[] {
  return dataLines(request).flatMap(({ message, text }) => (message && text ? [{ message, text }] : []))
}

export function dataLines(request: ProviderRequest): Record<string, string>[] {
  const prompt = request.messages.find(({ role }) => role === 'user')?.content ?? ''
  return prompt.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))
}

export function readByMarks(request: ProviderRequest): ChatReply {
  const topics = new Map<string, string[]>()
  const found = messageLines(request).flatMap(({ message, text }) => {
    const [, type, content = '', topic, link, target, confidence, isInvented] = atomPattern.exec(text) ?? []
    const [, tag] = /#([\w-]+)/.exec(text) ?? []
    if (tag) topics.set(tag, [...(topics.get(tag) ?? []), message])
    if (!type) return []
    return [{ message, text, type, content, topic, link, target, confidence, isInvented }]
  })
  const keyOf = new Map(found.map(({ content }, index) => [content, `x${index + 1}`]))
  return {
    text: JSON.stringify({
      topics: [...topics].map(([tag, messages], index) => ({
        key: `n${index + 1}`,
        name: tag.replaceAll('-', ' '),
        description: '',
        keywords: [],
        confidence: 0.9,
        messages,
      })),
      atoms: found.map(({ message, text, type, content, topic, confidence, isInvented }) => ({
        key: keyOf.get(content),
        topic: topic ? `n${[...topics.keys()].indexOf(topic) + 1}` : null,
        citations: [{ message, quote: isInvented ? 'nobody wrote this' : text }],
        type,
        title: content.slice(0, 80),
        content,
        confidence: Number(confidence ?? 0.9),
      })),
      links: found.flatMap(({ content, link, target = '' }) => {
        const to = [...keyOf].find(([other]) => other.startsWith(target))?.[1]
        return link && to ? [{ from: keyOf.get(content), type: link, to, strength: 0.8 }] : []
      }),
    }),
  }
}

/** Vectors by the marks in braces. */
export function vectorByMarks(text: string, dimensions: number): number[] {
  const [, mark, similarity] = /\{(\w+)(?:@([\d.]+))?\}/.exec(text) ?? []
  if (!mark) return hashVector(text, dimensions)
  const base = hashVector(mark, dimensions)
  if (!similarity) return base
  const cosine = 2 * Number(similarity) - 1
  const other = hashVector(text, dimensions)
  const dot = base.reduce((sum, value, index) => sum + value * (other[index] ?? 0), 0)
  const across = other.map((value, index) => value - dot * (base[index] ?? 0))
  const norm = Math.hypot(...across)
  return base.map(
    (value, index) => cosine * value + (Math.sqrt(1 - cosine ** 2) * (across[index] ?? 0)) / norm,
  )
}

/** A provider that embeds and reads by marks. */
export const byMarks: ProviderServerOptions = { chat: readByMarks, vector: vectorByMarks }

export const openAiExtractor = { QUARRY_EXTRACTION_PROVIDER: 'openai', OPENAI_EXTRACTION_MODEL: 'marks' }

export const ExtractDocument = graphql(`
  mutation Extract($input: ExtractKnowledgeInput!) {
    extractKnowledge(input: $input) {
      __typename
      ... on ExtractKnowledgePayload { job { id kind state } }
      ... on UserError { code message }
      ... on InputError { path }
    }
  }
`)

export const KnowledgeDocument = graphql(`
  query Knowledge {
    atoms(first: 100, orderBy: { field: CREATED_AT, direction: ASC }) {
      nodes {
        id type title content confidence reviewState extractedBy extractionModel embeddingStatus
        topics { nodes { name } }
        citations { quote start end message { id content } }
        links(direction: OUT) { nodes { type strength to { title } } }
        revisions { nodes { id number state changes } }
      }
    }
    topics(first: 100) { nodes { id name color icon embeddingStatus messages(first: 100) { nodes { content } } } }
  }
`)
