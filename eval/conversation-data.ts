import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { z } from 'zod'
import type { LinkMessage } from '../src/conversations/link.ts'
import { poolVectors, splitText } from '../src/embedding/parts.ts'
import { SetupError } from '../src/errors.ts'
import { createEmbeddingProvider } from '../src/providers/create.ts'

/** A message of a collection whose conversations are known. */
export interface GoldMessage {
  message: LinkMessage
  /** The conversation, by hand. */
  cluster: string
  /** The message that it answers, by hand; null where nobody said. Never part of `message`: it is the answer. */
  answers: string | null
}

export interface GoldChannel {
  /** The folder's name: channels of one collection are of one kind. */
  collection: string
  name: string
  /** In the order of time. */
  messages: GoldMessage[]
}

const line = z.object({
  id: z.string().min(1),
  channel: z.string(),
  author: z.string().min(1),
  sentAt: z.coerce.date(),
  text: z.string(),
  cluster: z.string().min(1),
  replyTo: z.string().nullish(),
})

/**
 * The channels of `messages.jsonl` in a folder; one object to a line: id, channel, author, sentAt, text, cluster and,
 * where it is known, replyTo. Vectors are null.
 * @throws SetupError that says which line is wrong, or that the file is not there
 */
export function readChannels(folder: string): GoldChannel[] {
  const path = join(folder, 'messages.jsonl')
  if (!existsSync(path))
    throw new SetupError(`${path} is not there; give a folder with messages.jsonl whose lines have a cluster`)
  const channels = new Map<string, GoldChannel>()
  for (const [index, text] of readFileSync(path, 'utf8').split('\n').entries()) {
    if (text.trim() === '') continue
    const parsed = line.safeParse(parseLine(text))
    if (!parsed.success)
      throw new SetupError(
        `${path}, line ${index + 1}: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}`,
      )
    const { id, channel, author, sentAt, cluster, replyTo } = parsed.data
    const known = channels.get(channel)
    const found = known ?? { collection: basename(resolve(folder)), name: channel, messages: [] }
    if (!known) channels.set(channel, found)
    found.messages.push({
      message: {
        id,
        author,
        sentAt,
        content: parsed.data.text,
        threadId: null,
        replyToId: null,
        vector: null,
      },
      cluster,
      answers: replyTo ?? null,
    })
  }
  for (const channel of channels.values())
    channel.messages.sort((a, b) => a.message.sentAt.getTime() - b.message.sentAt.getTime())
  return [...channels.values()]
}

function parseLine(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** The same channels with the vectors of the local model, which are kept in the system's folder for temporary files. */
export async function withVectors(channels: readonly GoldChannel[]): Promise<GoldChannel[]> {
  const texts = [
    ...new Set(channels.flatMap((channel) => channel.messages.map((gold) => gold.message.content))),
  ]
  const vectors = new Map(
    (await cachedVectors(texts)).map((vector, index) => [texts[index] ?? '', vector] as const),
  )
  return channels.map((channel) => ({
    ...channel,
    messages: channel.messages.map((gold) => ({
      ...gold,
      message: { ...gold.message, vector: vectors.get(gold.message.content) ?? null },
    })),
  }))
}

async function cachedVectors(texts: readonly string[]): Promise<(Float32Array | null)[]> {
  const provider = createEmbeddingProvider({ type: 'local', threads: 2 })
  try {
    const dimensions = await provider.dimensions()
    const hash = createHash('sha256')
      .update(JSON.stringify([provider.model, dimensions, texts]))
      .digest('hex')
    const folder = join(tmpdir(), 'quarry-eval')
    const path = join(folder, `${hash.slice(0, 32)}.f32`)
    if (!existsSync(path)) {
      const flat = new Float32Array(texts.length * dimensions)
      for (const [index, vector] of (await embedAll(texts, provider)).entries())
        if (vector) flat.set(vector, index * dimensions)
      mkdirSync(folder, { recursive: true })
      // Renamed when complete: a run that was stopped leaves no half a file behind.
      writeFileSync(`${path}.${process.pid}`, flat)
      renameSync(`${path}.${process.pid}`, path)
    }
    const bytes = readFileSync(path)
    const flat = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength))
    return texts.map((_, index) => {
      const vector = flat.subarray(index * dimensions, (index + 1) * dimensions)
      return vector.some((value) => value !== 0) ? vector : null
    })
  } finally {
    await provider.close()
  }
}

async function embedAll(
  texts: readonly string[],
  provider: ReturnType<typeof createEmbeddingProvider>,
): Promise<(Float32Array | null)[]> {
  const { maxTokensPerText, maxTextsPerRequest, maxTokensPerRequest, maxParallelRequests } = provider.limits
  const partsOf = texts.map((text) =>
    splitText(text, maxTokensPerText, (part) => provider.countTokens(part)).map((part, place) => ({
      ...part,
      place,
    })),
  )
  const found = partsOf.map((parts) => new Array<Float32Array | null>(parts.length).fill(null))
  const requests: { text: string; tokens: number; place: number; owner: number }[][] = [[]]
  let tokens = 0
  for (const part of partsOf.flatMap((parts, owner) => parts.map((part) => ({ ...part, owner })))) {
    const open = requests.at(-1) ?? []
    tokens += part.tokens
    if (open.length > 0 && (open.length === maxTextsPerRequest || tokens > maxTokensPerRequest)) {
      requests.push([part])
      tokens = part.tokens
    } else open.push(part)
  }
  let next = 0
  const lane = async () => {
    for (let request = requests[next++]; request && request.length > 0; request = requests[next++]) {
      const vectors = await provider.embed(request.map((part) => part.text))
      for (const [index, { owner, place }] of request.entries()) {
        const own = found[owner]
        if (own) own[place] = vectors[index] ?? null
      }
    }
  }
  await Promise.all(Array.from({ length: maxParallelRequests }, lane))
  return partsOf.map((parts, index) => poolVectors(parts, found[index] ?? []))
}
