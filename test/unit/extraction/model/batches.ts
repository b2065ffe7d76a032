import type {
  ExtractionBatch,
  ExtractionMessage,
  KnownAtom,
  KnownTopic,
} from '../../../../src/extraction/extractor.ts'

/** A UUID that is told apart by its end. */
export function uuid(kind: 'message' | 'topic' | 'atom', number: number): string {
  const block = { message: 'aaaa', topic: 'bbbb', atom: 'cccc' }[kind]
  return `018f0000-0000-7000-${block}-${String(number).padStart(12, '0')}`
}

/** Messages of one conversation, each sent a minute after the one before; ids by `uuid`, counted from 1. */
export function messagesOf(
  ...contents: readonly (string | Partial<ExtractionMessage>)[]
): ExtractionMessage[] {
  return contents.map((content, at) => ({
    id: uuid('message', at + 1),
    author: 'ann',
    sentAt: new Date(Date.UTC(2026, 0, 1, 12, at)),
    channel: 'dev',
    content: '',
    conversationId: 'conversation',
    replyToId: null,
    vector: null,
    ...(typeof content === 'string' ? { content } : content),
  }))
}

export function knownTopic(number: number, fields: Partial<KnownTopic> = {}): KnownTopic {
  const name = `Topic ${number}`
  return {
    id: uuid('topic', number),
    name,
    description: `All of ${name}.`,
    keywords: ['word'],
    vector: null,
    ...fields,
  }
}

export function knownAtom(number: number, fields: Partial<KnownAtom> = {}): KnownAtom {
  const title = `Atom ${number}`
  return { id: uuid('atom', number), type: 'PROBLEM', title, content: `${title} in full.`, ...fields }
}

export function batchOf(fields: Partial<ExtractionBatch>): ExtractionBatch {
  return { messages: [], topics: [], atoms: [], ...fields }
}
