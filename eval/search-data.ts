import { basename, join, resolve } from 'node:path'
import { z } from 'zod'
import { SetupError } from '../src/errors.ts'
import { messageLimits } from '../src/ingest/normalise.ts'
import { type JsonLine, readJsonLines } from './json-lines.ts'

export interface RetrievalDocument {
  id: string
  text: string
}

/** Something that is looked for, and what should be found. */
export interface JudgedQuery {
  id: string
  text: string
  /** Grade of each relevant document, above 0. */
  relevant: ReadonlyMap<string, number>
}

export interface RetrievalCollection {
  /** The folder's name. */
  name: string
  documents: RetrievalDocument[]
  /** Those with a relevant document: the others say nothing about a ranking. */
  queries: JudgedQuery[]
  /** How many queries had none. */
  unjudged: number
  /** How many documents were cut to what a message may hold. */
  cut: number
}

const id = z
  .string()
  .refine((text) => text.trim() !== '', 'must not be blank')
  .refine(
    (text) => Buffer.byteLength(text) <= messageLimits.externalId,
    `must have at most ${messageLimits.externalId} bytes`,
  )
const document = z.object({ id, text: z.string() })
const query = z.object({ id, text: z.string().refine((text) => text.trim() !== '', 'must not be blank') })
const judgement = z.object({ q: id, d: id, rel: z.number().min(0) })

/**
 * A collection of documents, queries and judgements: corpus.jsonl {id, text}, queries.jsonl {id, text} and qrels.jsonl
 * {q, d, rel} of a folder. What is not judged counts as not relevant, as is the custom with such collections.
 * @throws SetupError that names the file and the line that is wrong
 */
export function readCollection(folder: string): RetrievalCollection {
  const documents = byId(readJsonLines(join(folder, 'corpus.jsonl'), document))
  const queries = byId(readJsonLines(join(folder, 'queries.jsonl'), query))
  const judged = new Map<string, Map<string, number>>()
  const seen = new Set<string>()
  for (const { value, place } of readJsonLines(join(folder, 'qrels.jsonl'), judgement)) {
    const { q, d, rel } = value
    if (!queries.has(q)) throw new SetupError(`${place}: queries.jsonl has no query ${JSON.stringify(q)}`)
    if (!documents.has(d)) throw new SetupError(`${place}: corpus.jsonl has no document ${JSON.stringify(d)}`)
    const pair = JSON.stringify([q, d])
    if (seen.has(pair))
      throw new SetupError(`${place}: ${q} and ${d} were judged on an earlier line; keep one`)
    seen.add(pair)
    if (rel === 0) continue
    const relevant = judged.get(q) ?? new Map<string, number>()
    judged.set(q, relevant.set(d, rel))
  }
  if (judged.size === 0)
    throw new SetupError(`${join(folder, 'qrels.jsonl')} has no line with rel above 0: nothing can be found`)
  let cut = 0
  return {
    name: basename(resolve(folder)),
    documents: [...documents.values()].map((own) => {
      const text = cutText(own.text, messageLimits.content)
      if (text !== own.text) cut++
      return { id: own.id, text }
    }),
    queries: [...queries.values()].flatMap((own) => {
      const relevant = judged.get(own.id)
      return relevant ? [{ ...own, relevant }] : []
    }),
    unjudged: queries.size - judged.size,
    cut,
  }
}

function byId<Value extends { id: string }>(lines: readonly JsonLine<Value>[]): Map<string, Value> {
  const found = new Map<string, Value>()
  for (const { value, place } of lines) {
    if (found.has(value.id))
      throw new SetupError(`${place}: the id ${JSON.stringify(value.id)} stands on an earlier line, too`)
    found.set(value.id, value)
  }
  return found
}

/** As much of a text as has at most so many bytes in UTF-8, without half a character at its end. */
function cutText(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text)
  if (bytes.length <= maxBytes) return text
  let end = maxBytes
  // Bytes 10xxxxxx continue a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}
