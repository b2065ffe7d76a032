import type { ExtractionBatch, ExtractionMessage, KnownTopic } from '../../../../src/extraction/extractor.ts'

export interface Said {
  author: string
  content: string
  /** Place of the message that it answers. */
  answers?: number
  conversation?: string
  vector?: readonly number[]
}

/** One message a minute; ids are `m0`, `m1`, ... */
export function batchOf(said: readonly Said[], topics: readonly KnownTopic[] = []): ExtractionBatch {
  return {
    messages: said.map(
      ({ author, content, answers, conversation, vector }, place): ExtractionMessage => ({
        id: `m${place}`,
        author,
        content,
        sentAt: new Date(Date.UTC(2026, 0, 5, 9, place)),
        channel: '#team',
        conversationId: conversation ?? 'one',
        replyToId: answers === undefined ? null : `m${answers}`,
        vector: vector ? Float32Array.from(vector) : null,
      }),
    ),
    topics,
    atoms: [],
  }
}

/** "author: text" lines of one conversation; `author>2: text` answers the message at place 2. */
export function chat(...lines: string[]): Said[] {
  return lines.map((line) => {
    const [, author = '', answers, content = ''] = /^(\w+)(?:>(\d+))?: ([\s\S]*)$/.exec(line) ?? []
    return { author, content, ...(answers === undefined ? {} : { answers: Number(answers) }) }
  })
}
