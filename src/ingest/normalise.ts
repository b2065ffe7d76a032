import type { MessageDraft } from './formats/format.ts'

/**
 * Limits of a message, in bytes of UTF-8. Identities and authors are indexed, and an index entry holds at most 2,704
 * bytes (nbtree); channel and externalId share one entry.
 */
export const messageLimits = {
  content: 2 * 1024 * 1024,
  externalId: 1000,
  channel: 1000,
  threadId: 1000,
  author: 1000,
} as const

const firstDate = Date.UTC(1970, 0, 1)
const lastDate = Date.UTC(10_000, 0, 1)

/** A rule that a message breaks: the field, and what is wrong with it. */
export interface Violation {
  field: keyof MessageDraft
  problem: string
}

/**
 * Checks a message against what can be stored without changing a character. Nothing is repaired or cut: a text that
 * Postgres cannot hold (NUL bytes, lone surrogates) is refused by name.
 * @returns the first rule that is broken, or null
 */
export function findViolation(message: MessageDraft): Violation | null {
  return (
    textViolation('externalId', message.externalId, { mayBeBlank: false }) ??
    textViolation('author', message.author, { mayBeBlank: false }) ??
    textViolation('content', message.content, { mayBeBlank: true }) ??
    (message.channel === null ? null : textViolation('channel', message.channel, { mayBeBlank: false })) ??
    (message.threadId === null ? null : textViolation('threadId', message.threadId, { mayBeBlank: false })) ??
    (message.replyToExternalId === null
      ? null
      : textViolation('replyToExternalId', message.replyToExternalId, { mayBeBlank: false })) ??
    dateViolation(message.sentAt)
  )
}

function textViolation(
  field: Exclude<keyof MessageDraft, 'sentAt'>,
  text: string,
  rule: { mayBeBlank: boolean },
): Violation | null {
  if (!rule.mayBeBlank && text.trim() === '') return { field, problem: 'is empty' }
  const nul = text.indexOf('\0')
  if (nul >= 0)
    return { field, problem: `has a NUL character at ${nul}, which Postgres cannot store; remove it` }
  const surrogate = text.isWellFormed() ? -1 : loneSurrogate(text)
  if (surrogate >= 0) {
    const code = text.charCodeAt(surrogate).toString(16)
    return {
      field,
      problem: `has half of a character (lone surrogate U+${code.toUpperCase()}) at ${surrogate}; it is broken text`,
    }
  }
  const limit = messageLimits[field === 'replyToExternalId' ? 'externalId' : field]
  // No UTF-16 unit needs more than three bytes: only long texts are measured.
  if (text.length * 3 <= limit) return null
  const bytes = Buffer.byteLength(text)
  return bytes <= limit
    ? null
    : { field, problem: `has ${bytes} bytes, more than the ${limit} that are allowed; split it` }
}

function loneSurrogate(text: string): number {
  return text.search(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/)
}

function dateViolation(sentAt: Date): Violation | null {
  const time = sentAt.getTime()
  if (Number.isNaN(time)) return { field: 'sentAt', problem: 'is not a date' }
  if (time < firstDate || time >= lastDate)
    return { field: 'sentAt', problem: `(${sentAt.toISOString()}) is not between the years 1970 and 9999` }
  return null
}
