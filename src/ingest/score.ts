import type { ScoreRules } from '../config.ts'

/*
 * How much a message matters, from 0 to 1: a weighted sum of four small rules, each 0..1. They look at the shape of a
 * text and need no language; only the acknowledgements are words, of a few languages.
 */

export const noiseClasses = ['NOISE', 'WEAK_SIGNAL', 'SIGNAL'] as const
export type NoiseClass = (typeof noiseClasses)[number]

export interface Score {
  /** 0..1. */
  importance: number
  noise: NoiseClass
}

/** Names and keywords of topics, ready to be looked for. */
export type TopicTerms = ReadonlyMap<
  string,
  readonly { topic: number; words: readonly string[]; isName: boolean }[]
>

export function scoreMessage(
  message: { author: string; content: string; sentAt: Date },
  rules: ScoreRules,
  context: { now: Date; terms: TopicTerms },
): Score {
  const words = wordsOf(message.content)
  const { weights, thresholds } = rules
  const sum =
    weights.content * scoreContent(message.content, words) +
    weights.author * scoreAuthor(message.author, rules.importantAuthors) +
    weights.recency * scoreRecency(message.sentAt, context.now) +
    weights.topic * scoreTopic(words, context.terms)
  const importance = Math.min(1, Math.max(0, sum))
  const noise =
    importance < thresholds.noise ? 'NOISE' : importance > thresholds.signal ? 'SIGNAL' : 'WEAK_SIGNAL'
  return { importance, noise }
}

/** Longer ones are scored by their beginning: more words than this no longer change the score. */
const scoredLength = 4000

/** Words in lower case: letters and digits of any script, with what joins identifiers, versions and file names. */
function wordsOf(content: string): string[] {
  return content.slice(0, scoredLength).toLowerCase().match(wordPattern) ?? []
}
const wordPattern = /[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}_]|['’.\-/](?=[\p{L}\p{N}_]))*/gu

/** What people say to have said something; whole words, so that "ok" is not found in "token". */
const acknowledgements = new Set(
  [
    'ok okay k kk yes yep yeah yup no nope sure right true exactly agreed same nice cool great good awesome perfect',
    'thanks thank you thx ty tnx np please pls welcome sorry oops lol lmao rofl haha hahaha hehe hmm hm uh oh ah wow',
    'hi hello hey morning evening night bye cheers gm gn afk brb done',
    'да нет ага угу ок окей хорошо ладно спасибо спс пасиб пожалуйста привет здравствуйте пока понял поняла ясно',
    'супер круто отлично точно ахах ахаха хаха лол',
    'danke bitte ja nein genau moin hallo tschüss merci oui non salut gracias hola sí obrigado grazie ciao',
  ].flatMap((line) => line.split(' ')),
)

/** Words of substance, from three on half of what there is to get; then questions, links, code and numbers. */
export function scoreContent(content: string, words: readonly string[] = wordsOf(content)): number {
  const count = words.filter((word) => !acknowledgements.has(word) && /\p{L}/u.test(word)).length
  const hasLink = /\bhttps?:\/\/\S/i.test(content)
  const hasCode = codePattern.test(content.slice(0, scoredLength))
  if (count === 0 && !hasLink && !hasCode) return 0
  const length = count < 3 ? count * 0.1 : 0.4 + 0.4 * (1 - Math.exp(-(count - 3) / 12))
  const isQuestion = count > 0 && /[?？؟]/.test(content)
  const hasNumber = words.some((word) => /\p{N}/u.test(word))
  const extra = (isQuestion ? 0.2 : 0) + (hasLink ? 0.2 : 0) + (hasCode ? 0.2 : 0) + (hasNumber ? 0.1 : 0)
  return Math.min(1, length + extra)
}

/** Text in backticks, a call, an identifier, a path, or a file name with a known kind of ending. */
const codePattern =
  /`[^`\n]+`|\w\([^)\n]{0,80}\)|[a-z0-9]_[a-z0-9]|\b[a-z]+[a-z0-9]*[A-Z][A-Za-z0-9]{2,}|(?:^|\s)~?\/[\w.-]+\/[\w./-]+|\b[\w-]+\.(?:ts|tsx|js|jsx|py|go|rs|java|kt|rb|php|c|h|cpp|cs|sh|sql|json|ya?ml|toml|xml|html|css|md|log|conf|ini|env)\b/

/**
 * Programs tell less than people, and some people more than others. Telegram makes the names of its bots end in "bot",
 * and other places follow.
 */
export function scoreAuthor(author: string, importantAuthors: readonly string[]): number {
  const name = author.trim().toLowerCase()
  if (importantAuthors.some((important) => important.trim().toLowerCase() === name)) return 1
  return /bot\]?$|^(?:webhook|slackbot|github|gitlab|jira)\b/u.test(name) ? 0 : 0.25
}

const halfLifeMs = 7 * 24 * 3_600_000

/** 1 for now, down to 0.5 with a half-life of a week: what is old matters less, but does not turn into noise by it. */
export function scoreRecency(sentAt: Date, now: Date): number {
  const age = Math.max(0, now.getTime() - sentAt.getTime())
  return 0.5 + 0.5 * 2 ** (-age / halfLifeMs)
}

/** 1 for the name of a topic or three of its keywords, less for fewer. */
export function scoreTopic(words: readonly string[], terms: TopicTerms): number {
  if (terms.size === 0) return 0
  const found = new Map<number, Set<string>>()
  for (const [index, word] of words.entries()) {
    for (const term of terms.get(word) ?? []) {
      if (!term.words.every((part, offset) => words[index + offset] === part)) continue
      if (term.isName) return 1
      const keywords = found.get(term.topic) ?? new Set()
      found.set(term.topic, keywords.add(term.words.join(' ')))
    }
  }
  const most = Math.max(0, ...[...found.values()].map((keywords) => keywords.size))
  return [0, 0.5, 0.8, 1][Math.min(most, 3)] ?? 0
}

export function topicTerms(topics: readonly { name: string; keywords: readonly string[] }[]): TopicTerms {
  const terms = new Map<string, { topic: number; words: string[]; isName: boolean }[]>()
  for (const [topic, { name, keywords }] of topics.entries()) {
    for (const [index, text] of [name, ...keywords].entries()) {
      const words = wordsOf(text)
      const [first] = words
      if (first === undefined) continue
      const of = terms.get(first) ?? []
      of.push({ topic, words, isName: index === 0 })
      terms.set(first, of)
    }
  }
  return terms
}
