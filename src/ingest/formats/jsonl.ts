import type { ChatFormat, ChatRecord, FileHead } from './format.ts'
import { describeJson, isJsonObject, type JsonObject, jsonId } from './json-stream.ts'
import { isoInstant } from './sent-at.ts'
import { readLines } from './text-lines.ts'

/** One JSON object per line: the form to write when a chat comes from a source that Quarry does not know. */
export const jsonl: ChatFormat = {
  name: 'JSONL',
  expects:
    'one JSON object per line with externalId (or id), author, content (or text) and sentAt, optionally channel, ' +
    'threadId and replyTo',
  detect,
  sourceName: async () => null,
  async *read(file) {
    for await (const line of readLines(file)) {
      if (line.text === null || line.text.trim() !== '') yield toRecord(line.text, `line ${line.number}`)
    }
  },
}

/** Any line of the head will do: one broken line at the top must not hide what the file is. */
function detect(head: FileHead): boolean {
  if (head.isZip) return false
  return head.bytes
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .split('\n')
    .some((line) => {
      if (!line.startsWith('{')) return false
      const value = parseLine(line)
      return (
        isJsonObject(value) &&
        ('content' in value || 'text' in value) &&
        ('externalId' in value || 'id' in value || 'author' in value)
      )
    })
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}

function toRecord(line: string | null, position: string): ChatRecord {
  const reject = (reason: string): ChatRecord => ({ kind: 'rejected', position, reason })
  if (line === null) return reject('not valid UTF-8; please convert the file to UTF-8')
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    return reject(`not valid JSON: ${error instanceof Error ? error.message : error}`)
  }
  if (!isJsonObject(value)) return reject(`expected a JSON object, found ${describeJson(value)}`)

  const problems: string[] = []
  const optionalId = (names: readonly string[]) => readId(value, names, false, problems)
  const externalId = readId(value, ['externalId', 'id'], true, problems)
  const author = readText(value, ['author'], problems)
  const content = readText(value, ['content', 'text'], problems)
  const sentAt = readSentAt(value.sentAt, problems)
  const message = {
    externalId: externalId ?? '',
    author: author ?? '',
    content: content ?? '',
    sentAt: sentAt ?? new Date(Number.NaN),
    channel: optionalId(['channel']),
    threadId: optionalId(['threadId']),
    replyToExternalId: optionalId(['replyToExternalId', 'replyTo']),
  }
  return problems.length > 0 ? reject(problems.join('; ')) : { kind: 'message', position, message }
}

/** The first of the names that is there and not null. */
function pick(value: JsonObject, names: readonly string[]): unknown {
  return names.map((name) => value[name]).find((found) => found !== undefined && found !== null)
}

function readId(value: JsonObject, names: readonly string[], required: boolean, problems: string[]) {
  const found = pick(value, names)
  if (found === undefined && !required) return null
  const id = jsonId(found)
  if (id === null && typeof found === 'number') {
    problems.push(
      `${names.join(' or ')} must be a text: ${found} is no whole number that JSON carries exactly`,
    )
  } else if (id === null && (required || found !== '')) {
    problems.push(`${names.join(' or ')} must be a text or a whole number, found ${describeJson(found)}`)
  }
  return id
}

function readText(value: JsonObject, names: readonly string[], problems: string[]): string | null {
  const found = pick(value, names)
  if (typeof found === 'string') return found
  problems.push(`${names.join(' or ')} must be a text, found ${describeJson(found)}`)
  return null
}

function readSentAt(value: unknown, problems: string[]): Date | null {
  const date = typeof value === 'string' ? isoInstant(value) : typeof value === 'number' ? epoch(value) : null
  if (!date) {
    problems.push(
      `sentAt must be a moment such as "2024-05-01T12:34:56Z" or a number of seconds or milliseconds since 1970, ` +
        `found ${describeJson(value)}`,
    )
  }
  return date
}

/** 10^11 seconds are the year 5138, 10^11 milliseconds are March 1973: no chat lies on the wrong side of it. */
function epoch(value: number): Date | null {
  const date = new Date(Math.abs(value) < 1e11 ? value * 1000 : value)
  return Number.isNaN(date.getTime()) ? null : date
}
