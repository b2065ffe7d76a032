import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { createLinker } from '../src/conversations/link.ts'
import { AtomType } from '../src/db/generated/prisma/enums.ts'
import type {
  Extraction,
  ExtractionBatch,
  ExtractionMessage,
  ProposedAtom,
} from '../src/extraction/extractor.ts'
import { readConversations } from '../src/extraction/local/dialogue.ts'
import { createLocalExtractor } from '../src/extraction/local/extractor.ts'
import { proposeAtoms } from '../src/extraction/local/propose.ts'
import { type GoldMessage, withVectors } from './conversation-data.ts'
import type { QualityReport, QualityTable } from './report.ts'

export interface EvalExtractionOptions {
  /** Also print all that is made of the labelled chat, for reading. */
  read: boolean
  /** Print what is made of the first messages of this file instead; it has no labels, so nothing is measured of it. */
  messages: string | undefined
  /** Messages of that file. */
  limit: number
  /** Also how often each rule is right. */
  rules: boolean
}

const types = Object.values(AtomType)

/** A line of eval/labels: what a careful reader takes away. */
const label = z.object({
  type: z.enum(types),
  messages: z.array(z.string()).min(1),
  quote: z.string().min(1),
  optional: z.boolean(),
  alsoAccept: z.array(z.enum(types)),
})
type Label = z.infer<typeof label>

const chatLine = z.object({
  id: z.string().min(1),
  channel: z.string(),
  author: z.string().min(1),
  sentAt: z.coerce.date(),
  text: z.string(),
  threadId: z.string().nullish(),
  replyTo: z.string().nullish(),
})

const chatPath = join(import.meta.dirname, '../examples/sample-chat.jsonl')
const labelPath = join(import.meta.dirname, 'labels/sample-chat.jsonl')

/** Up to and with this message the rules were corrected by their mistakes (eval/labels/README.md). */
const lastTuned = 'm220'

/**
 * Precision and recall of the local extractor on the labelled sample chat; or, with `messages`, a print of what it makes
 * of another chat.
 * @throws Error when a file is not there, or a line of it is not what it should be
 */
export async function evalExtraction(options: EvalExtractionOptions): Promise<QualityReport> {
  if (options.messages !== undefined) {
    const messages = await readMessages(options.messages, options.limit)
    const { extractions, milliseconds } = await extractAll(batchesOf(messages))
    printAll(extractions, messages)
    return {
      title: 'Extraction',
      tables: [countTable(extractions)],
      notes: [speedNote(messages.length, milliseconds)],
    }
  }
  const labels = readLines(labelPath, label)
  const messages = await readMessages(chatPath, Number.POSITIVE_INFINITY)
  const batches = batchesOf(messages)
  const { extractions, milliseconds } = await extractAll(batches)
  if (options.read) printAll(extractions, messages)
  const isTuned = (id: string) => id <= lastTuned
  const atoms = extractions.flatMap((extraction) => extraction.atoms)
  const judged = judge(atoms, labels)
  const tables = [
    scoreTable(
      'Held out (`m221` to `m420`): rules were not corrected by their mistakes here, but for one (`eval/labels/README.md`).',
      judged.filter(({ id }) => !isTuned(id)),
      labels.filter(({ messages: [id = ''] }) => !isTuned(id)),
    ),
    scoreTable(
      'Tuning half (`m001` to `m220`): what the rules were corrected by.',
      judged.filter(({ id }) => isTuned(id)),
      labels.filter(({ messages: [id = ''] }) => isTuned(id)),
    ),
  ]
  if (options.rules) tables.push(await ruleTable(batches, labels))
  return {
    title: 'Extraction',
    tables,
    notes: [
      'Extractor `local` (rules, no language model) on `examples/sample-chat.jsonl`, labelled by hand before the first rule was written, by the one reader who then wrote them; see `eval/labels/README.md`.',
      'An atom is right when its main citation is the main message of a label and its type is the label’s, or one that the label accepts as well. Recall counts the labels that are not optional.',
      'The conversations are told apart as the service does it, by `src/conversations`; mistakes there count here.',
      speedNote(messages.length, milliseconds),
    ],
  }
}

function speedNote(count: number, milliseconds: number): string {
  return `${count} messages in ${(milliseconds / 1000).toFixed(1)} s, without embedding.`
}

/* Reading */

function readLines<T>(path: string, schema: z.ZodType<T>): T[] {
  if (!existsSync(path)) throw new Error(`${path} is not there; give a file with one JSON object to a line`)
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((text, index) => {
      if (text.trim() === '') return []
      const parsed = schema.safeParse(JSON.parse(text))
      if (!parsed.success) throw new Error(`${path}, line ${index + 1}: ${z.prettifyError(parsed.error)}`)
      return [parsed.data]
    })
}

/** The first `limit` messages, with vectors of the local model and the conversations that the service would find. */
async function readMessages(path: string, limit: number): Promise<ExtractionMessage[]> {
  const lines = readLines(path, chatLine).slice(0, limit)
  const gold = lines.map(
    (line): GoldMessage => ({
      message: {
        id: line.id,
        author: line.author,
        sentAt: line.sentAt,
        content: line.text,
        threadId: line.threadId ?? null,
        replyToId: line.replyTo ?? null,
        vector: null,
      },
      cluster: '',
      answers: null,
    }),
  )
  const [embedded] = await withVectors([{ collection: basename(path), name: '', messages: gold }])
  const linkers = new Map<string, ReturnType<typeof createLinker>>()
  return (embedded?.messages ?? [])
    .map(({ message }, place) => ({ message, channel: lines[place]?.channel ?? '' }))
    .sort((a, b) => a.message.sentAt.getTime() - b.message.sentAt.getTime())
    .map(({ message, channel }) => {
      const linker = linkers.get(channel) ?? createLinker([])
      linkers.set(channel, linker)
      const conversationId = linker.link(message).conversationId ?? message.id
      linker.remember({ ...message, conversationId })
      return { ...message, channel, conversationId }
    })
}

/** Messages of one batch, about as many as the service gives to an extractor at once. */
const batchSize = 50

/** Whole conversations in the order of their start. */
function batchesOf(messages: readonly ExtractionMessage[]): ExtractionBatch[] {
  const conversations = new Map<string, ExtractionMessage[]>()
  for (const message of messages) {
    const known = conversations.get(message.conversationId)
    if (known) known.push(message)
    else conversations.set(message.conversationId, [message])
  }
  const batches: ExtractionMessage[][] = []
  for (const conversation of conversations.values()) {
    const open = batches.at(-1)
    if (open && open.length + conversation.length <= batchSize) open.push(...conversation)
    else batches.push([...conversation])
  }
  return batches.map((own) => ({ messages: own, topics: [], atoms: [] }))
}

async function extractAll(batches: readonly ExtractionBatch[]) {
  const extractor = createLocalExtractor()
  const started = performance.now()
  try {
    const extractions: Extraction[] = []
    for (const batch of batches)
      extractions.push(await extractor.extract(batch, new AbortController().signal))
    return { extractions, milliseconds: performance.now() - started }
  } finally {
    await extractor.close()
  }
}

/* Judging */

interface Judged {
  /** Of the main message. */
  id: string
  type: AtomType
  /** The label that it meets; null: it is wrong. */
  met: Label | null
}

/** Each label is met once: by the atom that cites its quote rather than by another one of its message. */
function judge(
  atoms: readonly Pick<ProposedAtom, 'type' | 'citations'>[],
  labels: readonly Label[],
): Judged[] {
  const free = new Set(labels)
  const pairs = atoms.flatMap((atom, place) =>
    labels
      .filter(
        ({ type, messages, alsoAccept }) =>
          messages[0] === atom.citations[0]?.messageId &&
          (type === atom.type || alsoAccept.includes(atom.type)),
      )
      .map((own) => ({ place, own, fit: fitOf(atom, own) })),
  )
  pairs.sort((a, b) => b.fit - a.fit || a.place - b.place)
  const met = new Map<number, Label>()
  for (const { place, own } of pairs) {
    if (met.has(place) || !free.has(own)) continue
    met.set(place, own)
    free.delete(own)
  }
  return atoms.map((atom, place) => ({
    id: atom.citations[0]?.messageId ?? '',
    type: atom.type,
    met: met.get(place) ?? null,
  }))
}

/** The quote says more than the type, and a label that has to be met comes before an optional one. */
function fitOf(
  atom: Pick<ProposedAtom, 'type' | 'citations'>,
  { type, quote, optional, messages }: Label,
): number {
  const isQuoted = atom.citations.some(
    (citation) =>
      citation.messageId === messages[0] &&
      (citation.quote.includes(quote) || quote.includes(citation.quote)),
  )
  return (isQuoted ? 4 : 0) + (type === atom.type ? 2 : 0) + (optional ? 0 : 1)
}

function scoreTable(caption: string, judged: readonly Judged[], labels: readonly Label[]): QualityTable {
  const met = new Set(judged.map((atom) => atom.met))
  const row = (name: string, found: readonly Judged[], wanted: readonly Label[]) => {
    const right = found.filter((atom) => atom.met !== null).length
    const hit = wanted.filter((own) => met.has(own)).length
    return [
      name,
      `${found.length}`,
      share(right, found.length),
      `${wanted.length}`,
      share(hit, wanted.length),
    ]
  }
  const wanted = labels.filter(({ optional }) => !optional)
  return {
    caption,
    head: ['Type', 'Found', 'Precision', 'Wanted', 'Recall'],
    rows: [
      ...types.map((type) =>
        row(
          type,
          judged.filter((atom) => atom.type === type),
          wanted.filter((own) => own.type === type),
        ),
      ),
      row('all', judged, wanted),
    ],
  }
}

const share = (part: number, all: number) => (all === 0 ? '-' : (part / all).toFixed(2))

async function ruleTable(
  batches: readonly ExtractionBatch[],
  labels: readonly Label[],
): Promise<QualityTable> {
  const rows = new Map<string, { tuned: [number, number]; heldOut: [number, number] }>()
  for (const batch of batches) {
    const { atoms } = await proposeAtoms(readConversations(batch.messages), async () => {})
    for (const [place, { id, met }] of judge(atoms, labels).entries()) {
      const rule = atoms[place]?.rule ?? ''
      const row = rows.get(rule) ?? { tuned: [0, 0], heldOut: [0, 0] }
      const counts = id <= lastTuned ? row.tuned : row.heldOut
      counts[0] += met ? 1 : 0
      counts[1] += 1
      rows.set(rule, row)
    }
  }
  return {
    caption: 'Right ones of all that each rule finds.',
    head: ['Rule', 'Tuning half', 'Held out'],
    rows: [...rows]
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([rule, { tuned, heldOut }]) => [rule, tuned.join(' of '), heldOut.join(' of ')]),
  }
}

/* Printing */

function printAll(extractions: readonly Extraction[], messages: readonly ExtractionMessage[]): void {
  const authors = new Map(messages.map(({ id, author }) => [id, author]))
  for (const { topics, atoms, links } of extractions) {
    for (const { name, keywords, description, confidence, messageIds } of topics)
      console.log(
        `TOPIC ${name} (${confidence.toFixed(2)}, ${messageIds.length} messages)\n  ${keywords.join(', ')}\n  ${description}`,
      )
    for (const { key, type, title, content, confidence, citations } of atoms)
      console.log(
        [
          `${key} ${type} (${confidence.toFixed(2)}) ${title}`,
          `  ${content}`,
          ...citations.map(
            ({ messageId, quote }) =>
              `  > ${messageId} ${authors.get(messageId)}: ${quote.replaceAll('\n', ' ')}`,
          ),
        ].join('\n'),
      )
    for (const { from, to, type, strength } of links)
      console.log(`LINK ${from} ${type} ${to}${strength === null ? '' : ` (${strength})`}`)
    console.log()
  }
}

function countTable(extractions: readonly Extraction[]): QualityTable {
  const atoms = extractions.flatMap((extraction) => extraction.atoms)
  return {
    caption: 'Found, not judged.',
    head: ['Type', 'Found'],
    rows: types.map((type) => [type, `${atoms.filter((atom) => atom.type === type).length}`]),
  }
}
