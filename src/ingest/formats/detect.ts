import { open } from 'node:fs/promises'
import { InvalidInputError } from '../../errors.ts'
import { discord } from './discord.ts'
import type { ChatFile, ChatFormat, ChatFormatName, FileHead } from './format.ts'
import { irc } from './irc.ts'
import { outlineJson } from './json-stream.ts'
import { jsonl } from './jsonl.ts'
import { slack, zipEntryNames } from './slack.ts'
import { telegram } from './telegram.ts'

/** Every format that Quarry reads. */
export const allFormats: readonly ChatFormat[] = [telegram, slack, discord, irc, jsonl]

const headBytes = 64 * 1024

/**
 * The format to read the file with: the one that knows it (AUTO), or the one asked for. Throws InvalidInputError, with
 * what was seen, if no format knows the file, or if it plainly is of another format than the one asked for.
 */
export async function detectFormat(file: ChatFile, format: ChatFormatName | 'AUTO'): Promise<ChatFormat> {
  const head = await readHead(file)
  refuseForeignText(file, head)
  const knowing = allFormats.filter((candidate) => candidate.detect(head))
  const asked = allFormats.find((candidate) => candidate.name === format)
  const known = knowing[0]
  if (!asked) {
    if (known) return known
    const expected = allFormats.map(({ name, expects }) => `${name}: ${expects}`).join('. ')
    throw new InvalidInputError(
      `${file.name}: no known chat export, but ${seen(head)}. Expected one of these. ${expected}`,
    )
  }
  if (knowing.includes(asked)) return asked
  if (known) {
    throw new InvalidInputError(
      `${file.name}: looks like ${known.name}, but was to be read as ${asked.name} (${asked.expects}); ` +
        `please import it as ${known.name} or AUTO`,
    )
  }
  // Lines may be odd at the top and fine below, so whoever insists on a format of lines gets them read; the reader
  // names the bad ones. The other formats show what they are at once, or are not what they should be.
  const isLines = asked === irc || asked === jsonl
  if (isLines && !head.isZip && !isBinary(head.bytes)) return asked
  throw new InvalidInputError(
    `${file.name}: is to be read as ${asked.name}: ${asked.expects}; but it is ${seen(head)}`,
  )
}

async function readHead(file: ChatFile): Promise<FileHead> {
  const handle = await open(file.path)
  let bytes: Buffer
  try {
    const buffer = Buffer.alloc(headBytes)
    let filled = 0
    for (;;) {
      const { bytesRead } = await handle.read(buffer, filled, headBytes - filled, filled)
      filled += bytesRead
      if (bytesRead === 0 || filled === headBytes) break
    }
    bytes = buffer.subarray(0, filled)
  } finally {
    await handle.close()
  }
  // "PK" and 3, 4 begin an archive with entries, 5, 6 one without.
  const isZip = ['PK\x03\x04', 'PK\x05\x06'].includes(bytes.toString('latin1', 0, 4))
  return { name: file.name, bytes, isZip, entries: isZip ? await zipEntryNames(file) : [] }
}

/** What no format can read, and what a person can do about it. */
function refuseForeignText(file: ChatFile, { bytes }: FileHead): void {
  if (
    bytes
      .toString('utf8')
      .replace(/^\ufeff/, '')
      .trim() === ''
  ) {
    throw new InvalidInputError(
      `${file.name}: ${bytes.length === 0 ? 'an empty file' : 'a file of blanks alone'}`,
    )
  }
  const [first, second, third, fourth] = bytes
  const hasBom = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)
  // Without a mark: every other byte of Latin text is 0.
  const isUnmarked =
    bytes.length >= 4 && ((!first && second && !third && fourth) || (first && !second && third && !fourth))
  if (hasBom || isUnmarked) {
    throw new InvalidInputError(
      `${file.name}: encoded in UTF-16, expected UTF-8; please convert it, e.g. iconv -f UTF-16 -t UTF-8`,
    )
  }
}

/** More than one control character in twenty bytes; logs carry a few, as colours. */
function isBinary(bytes: Buffer): boolean {
  const start = bytes.subarray(0, 512)
  const odd = start.filter((byte) => byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d)
  return odd.length * 20 > start.length
}

/** What the file shows, for the refusal. */
function seen(head: FileHead): string {
  const list = (names: readonly string[]) => {
    const shown = names.slice(0, 8).map((name) => JSON.stringify(name.slice(0, 60)))
    return shown.join(', ') + (names.length > 8 ? ` and ${names.length - 8} more` : '')
  }
  if (head.isZip) {
    return head.entries.length === 0 ? 'an empty zip archive' : `a zip archive with ${list(head.entries)}`
  }
  const outline = outlineJson(head.bytes)
  if (outline?.root === 'object') {
    const keys = [...outline.keys.keys()]
    return `a JSON object ${keys.length === 0 ? 'without keys' : `with the keys ${list(keys)}`}`
  }
  const text = head.bytes.toString('utf8').replace(/^\ufeff/, '')
  if (isBinary(head.bytes)) {
    return `binary data beginning with the bytes ${head.bytes
      .subarray(0, 8)
      .toString('hex')
      .replace(/..(?=.)/g, '$& ')}`
  }
  return `${outline ? 'a JSON array' : 'text'} beginning with ${JSON.stringify(text.slice(0, 80))}`
}
