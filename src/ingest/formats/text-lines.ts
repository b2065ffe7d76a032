import { isUtf8 } from 'node:buffer'
import { InvalidInputError } from '../../errors.ts'
import { readChunks } from './chunks.ts'
import type { ChatFile } from './format.ts'

export interface TextLine {
  /** From 1, as editors count. */
  number: number
  /** Null where the bytes are not UTF-8: decoding them anyway would silently put U+FFFD into the message. */
  text: string | null
}

const maxLineBytes = 64 * 1024 * 1024
const lineFeed = 0x0a

/**
 * The lines of a file as a stream, without their line ends and without the byte order mark. Lines end at LF or CRLF
 * alone: `node:readline` also splits at U+2028, which may stand in a message, and replaces what is not UTF-8.
 */
export async function* readLines(file: ChatFile): AsyncGenerator<TextLine, void> {
  let number = 1
  let pending: Buffer[] = []
  let pendingBytes = 0
  const finish = (end: Buffer): TextLine => {
    const line = pending.length === 0 ? end : Buffer.concat([...pending, end])
    pending = []
    pendingBytes = 0
    return { number, text: lineText(line, number++ === 1) }
  }
  for await (const chunk of readChunks(file)) {
    let from = 0
    for (let to = chunk.indexOf(lineFeed); to !== -1; to = chunk.indexOf(lineFeed, from)) {
      yield finish(chunk.subarray(from, to))
      from = to + 1
    }
    if (from === chunk.length) continue
    pending.push(chunk.subarray(from))
    pendingBytes += chunk.length - from
    if (pendingBytes > maxLineBytes) {
      throw new InvalidInputError(
        `${file.name}: line ${number} is longer than 64 MiB; no chat message is that large, please look at it`,
      )
    }
  }
  if (pendingBytes > 0) yield finish(Buffer.alloc(0))
}

/** The text of one line, for whoever has the bytes already. */
function lineText(line: Buffer, isFirst: boolean): string | null {
  if (!isUtf8(line)) return null
  const from = isFirst && line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf ? 3 : 0
  const to = line.at(-1) === 0x0d ? line.length - 1 : line.length
  return line.toString('utf8', from, to)
}
