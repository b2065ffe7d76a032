import { Assembler } from 'stream-json/assembler.js'
import { jsonParser } from 'stream-json/parser.js'
import { jsonVerifier } from 'stream-json/utils/verifier.js'
import { errorMessage, InvalidInputError } from '../../errors.ts'
import { chunkBytes, readChunks } from './chunks.ts'
import type { ChatFile } from './format.ts'

export type JsonObject = Record<string, unknown>
/** Where a value stands in its document: `['messages', 812]`. */
export type JsonPath = readonly (string | number)[]

/** A JSON document that can be opened again, to find the exact byte after a failure. */
export interface JsonSource {
  name: string
  open(): AsyncIterable<Buffer> | Promise<AsyncIterable<Buffer>>
}

export type JsonPiece =
  /** A value that was asked for, whole. */
  | { kind: 'value'; path: JsonPath; value: unknown }
  /** An array that was not asked for whole begins. Tells an empty array from a missing one. */
  | { kind: 'array'; path: JsonPath }

/** One record larger than this is no chat message; reading it whole could exhaust the memory. */
const maxValueBytes = 64 * 1024 * 1024
/** Far deeper than any export nests; bounds the stacks that a file of nothing but `[` would grow. */
const maxDepth = 500

/** The chat file as a JSON document. */
export function jsonFile(file: ChatFile): JsonSource {
  return { name: file.name, open: () => readChunks(file) }
}

/**
 * Reads a document as a stream and yields every value whose path `take` accepts, in the order of the file; the rest is
 * checked but not kept. Throws InvalidInputError naming the byte where the document breaks off, is not JSON or is not
 * UTF-8, and the path of a value above 64 MiB. What stands before a break-off has been yielded by then.
 */
export async function* readJson(
  source: JsonSource,
  take: (path: JsonPath) => boolean,
): AsyncGenerator<JsonPiece, void> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const parse = jsonParser({ streamValues: false })
  const assembler = new Assembler()
  // The last entry is the key or index of the value that comes next within the innermost open container.
  const path: (string | number)[] = []
  let taking = false
  let depth = 0
  let begun = false
  let offset = 0
  let tail: Buffer = Buffer.alloc(0)
  // The start of the last chunk that held something outside of a value in the making: the size limit counts from here,
  // hence the allowance of one chunk.
  let valueFrom = 0
  const refuse = (problem: string) => new InvalidInputError(`${source.name}: ${problem}`)
  const stepOn = () => {
    const last = path.at(-1)
    if (typeof last === 'number') path[path.length - 1] = last + 1
  }

  for await (const chunk of await source.open()) {
    if (offset + chunk.length - valueFrom > maxValueBytes + chunkBytes) {
      throw refuse(
        `the value at ${formatPath(path)}, from about byte ${valueFrom}, is larger than 64 MiB; ` +
          'no chat message is that large, please look at the file there',
      )
    }
    let text: string
    try {
      text = decoder.decode(chunk, { stream: true })
    } catch {
      throw refuse(invalidUtf8(offset - tail.length, Buffer.concat([tail, chunk])))
    }
    let tokens: ReturnType<typeof parse>
    try {
      tokens = parse(text)
    } catch (error) {
      const byte = (await firstBadByte(source)) ?? `${offset} or up to ${chunk.length} bytes on`
      throw refuse(`not valid JSON at byte ${byte} (${errorMessage(error)}); please export the chat again`)
    }
    for (const token of typeof tokens === 'object' ? tokens.values : []) {
      const opens = token.name === 'startObject' || token.name === 'startArray'
      const closes = token.name === 'endObject' || token.name === 'endArray'
      if (opens && ++depth > maxDepth) {
        throw refuse(`nests deeper than ${maxDepth} levels at ${formatPath(path)}; no chat export does that`)
      }
      if (closes) depth--
      begun ||= opens
      if (!taking) valueFrom = offset
      if (taking) {
        assembler.consume(token)
        if (!assembler.done) continue
        taking = false
        yield { kind: 'value', path: [...path], value: assembler.current }
        stepOn()
      } else if (token.name === 'keyValue') {
        path[path.length - 1] = token.value
      } else if (opens && take(path)) {
        taking = true
        assembler.consume(token)
      } else if (opens) {
        const isArray = token.name === 'startArray'
        if (isArray) yield { kind: 'array', path: [...path] }
        path.push(isArray ? 0 : '')
      } else if (closes) {
        path.pop()
        stepOn()
      } else if (path.length === 0) {
        throw refuse('holds one bare value; expected a JSON object or array')
      } else {
        if (take(path) && 'value' in token) {
          const value = token.name === 'numberValue' ? Number(token.value) : token.value
          yield { kind: 'value', path: [...path], value }
        }
        stepOn()
      }
    }
    tail = Buffer.concat([tail, chunk.subarray(-3)]).subarray(-3)
    offset += chunk.length
  }
  // An unclosed root is the one sure sign of a file that was cut: a download or an export that was stopped. A wrong
  // literal in the last few bytes ends here as well, because the parser waits for the rest of it.
  if (depth > 0) {
    throw refuse(
      `breaks off or is damaged at its end, at byte ${offset}, in ${formatPath(path)}; please export it again`,
    )
  }
  if (!begun) throw refuse('holds no JSON object or array')
  try {
    decoder.decode()
  } catch {
    throw refuse(`not valid UTF-8 at byte ${offset - 1}`)
  }
}

/** `['chats', 'list', 3, 'messages', 812]` as a person writes it: `chats.list[3].messages[812]`. */
export function formatPath(path: JsonPath): string {
  let text = ''
  for (const step of path) text += typeof step === 'number' ? `[${step}]` : text === '' ? step : `.${step}`
  return text === '' ? 'the top level' : text
}

/** What the beginning of a document shows: the kind of its root and of the root's first values. */
export interface JsonOutline {
  root: 'object' | 'array'
  keys: ReadonlyMap<string, 'object' | 'array' | 'scalar'>
}

/** Outlines a document from its first bytes, which may end anywhere; null if they do not begin like one. */
export function outlineJson(head: Buffer): JsonOutline | null {
  const text = new TextDecoder().decode(head)
  const parse = jsonParser({ streamValues: false })
  const keys = new Map<string, 'object' | 'array' | 'scalar'>()
  let root: 'object' | 'array' | null = null
  let depth = 0
  let key = ''
  // The parser drops the tokens of a slice in which it fails; small slices keep what stands before the failure.
  for (let at = 0; at < text.length; at += 64) {
    let tokens: ReturnType<typeof parse>
    try {
      tokens = parse(text.slice(at, at + 64))
    } catch {
      break
    }
    if (typeof tokens !== 'object') continue
    for (const token of tokens.values) {
      const opens = token.name === 'startObject' ? 'object' : token.name === 'startArray' ? 'array' : null
      if (token.name === 'endObject' || token.name === 'endArray') depth--
      else if (token.name === 'keyValue') key = depth === 1 ? token.value : key
      else {
        if (depth === 0) root = opens
        else if (depth === 1 && root === 'object') keys.set(key, opens ?? 'scalar')
        if (opens) depth++
      }
    }
  }
  return root && { root, keys }
}

/** Whether the value is a JSON object, not an array and not null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The objects of an array; none for anything else, as exports leave lists out or write null. */
export function objects(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.filter(isJsonObject) : []
}

/** A text with something in it; exports write '' and null alike for "none". */
export function nonEmpty(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** What a value is, for the sentence "expected ..., found ...". */
export function describeJson(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return 'an object'
  const text = JSON.stringify(value)
  return text.length > 60 ? `${text.slice(0, 60)}...` : text
}

/** An id, written as a text or as a number; null for anything else. */
export function jsonId(value: unknown): string | null {
  if (typeof value === 'string') return value === '' ? null : value
  // A number beyond 2^53 has lost its last digits in parsing: two messages would share one id.
  return Number.isSafeInteger(value) ? String(value) : null
}

function invalidUtf8(from: number, bytes: Buffer): string {
  // Bytes carried over from the last chunk may be the end of a sound character; those are no beginning.
  let start = 0
  if (from > 0) while (((bytes[start] ?? 0) & 0xc0) === 0x80) start++
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let at = start
  try {
    for (; at < bytes.length; at++) decoder.decode(bytes.subarray(at, at + 1), { stream: true })
  } catch {
    // The loop variable now names the byte.
  }
  return `not valid UTF-8 at byte ${from + at}; please convert the file to UTF-8 or export it again`
}

/** Reads the document once more with the verifier, which is slower but knows positions; null if it finds no fault. */
async function firstBadByte(source: JsonSource): Promise<number | null> {
  const verify = jsonVerifier()
  let bom: number | null = null
  try {
    for await (const chunk of await source.open()) {
      const skip: number = bom === null && chunk.subarray(0, 3).equals(Buffer.from('\ufeff')) ? 3 : 0
      bom ??= skip
      // As latin1 every byte is one character, so that the verifier's offset counts bytes.
      verify(chunk.toString('latin1', skip))
    }
  } catch (error) {
    if (error instanceof Error && 'offset' in error && typeof error.offset === 'number') {
      return error.offset + (bom ?? 0)
    }
    throw error
  }
  return null
}
