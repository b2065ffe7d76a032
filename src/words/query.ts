import { languageOf } from './language.ts'
import { isLoneCharacter, stemOf, tokenize } from './tokens.ts'

/** What the words of a query ask for. Lists hold folded words as the index has them. */
export interface WordQuery {
  /** Each raises the score of a text that has it. */
  terms: Term[]
  /**
   * Identifiers, file names and quotes of prose, of several words each: a text that has one whole stands above one with
   * its parts.
   */
  names: string[][]
  /** "Quoted": a text must have each, word beside word. None in prose. */
  required: string[][]
  /** -excluded: a text must have none, word beside word. None in prose. */
  excluded: string[][]
  /** Whether the words of a text are compared by their stems, too: the query is English. */
  hasStems: boolean
  /** What is left when quotes and exclusions are taken away: what a search by meaning compares. */
  meaning: string
}

/** A word in all forms in which the query has it. */
export interface Term {
  /** What the forms have in common if the query is English, else the word itself. */
  stem: string
  forms: string[]
  /** How often the query says it, 1 or more. */
  count: number
  /** A small word of its language ("the", "und", "que"), which says next to nothing. */
  isSmall: boolean
  /** The form that is being typed: what begins like it fits, too. */
  beginning: string | null
}

/** Looks for nothing. */
export const noWords: WordQuery = {
  terms: [],
  names: [],
  required: [],
  excluded: [],
  hasStems: false,
  meaning: '',
}

/** More words than these say nothing more: the first ones count. */
const maxTerms = 64
/**
 * With more words than a person types into a search field, a query is prose, or a log that was pasted: its quotes quote
 * somebody and its minuses are options of a command. Held strictly, they would leave nothing to be found.
 */
const maxTyped = 12
/** So does one that quotes a sentence, its comma or full stop inside. */
const spokenPattern = /[\p{L}\p{N}'’][,.?!…]+\s*$/u

const quotePattern = /(?<exclude>(?<=^|\s)-)?["“„«]\s*(?<quoted>[^"“”„«»]*[^"“”„«»\s])\s*["“”»]/gu
/** What joins the words of an identifier or a file name. A hyphen between letters alone is only a compound's. */
const namePattern = /[\p{L}\p{N}\p{M}](?:[^\s\p{L}\p{N}\p{M}\-'’,;!?()]+[\p{L}\p{N}]|-\p{N})|\p{N}-\p{L}/u
const exclusionPattern = /(?<=^|\s)-(?=[\p{L}"“„«])\S+/gu

/**
 * Reads a query as people type it. Every text is one: what cannot be read as quotes or exclusions is words.
 */
export function parseQuery(text: string): WordQuery {
  const required: string[][] = []
  const excluded: string[][] = []
  const quotes: string[] = []
  const names: string[][] = []
  let isSpoken = false
  let rest = text.replace(quotePattern, (whole, _exclude, _quoted, _at, _text, groups) => {
    const words = wordsOf(groups.quoted)
    if (words.length === 0) return whole
    ;(groups.exclude ? excluded : required).push(words)
    if (!groups.exclude) {
      quotes.push(groups.quoted)
      if (words.length > 1) names.push(words)
      isSpoken ||= spokenPattern.test(groups.quoted)
    }
    return ' '
  })
  rest = rest.replace(exclusionPattern, (whole) => {
    const words = wordsOf(whole)
    if (words.length === 0) return whole
    excluded.push(words)
    return ' '
  })
  const beside = wordsOf(rest).length
  const isProse = runsOf(text) > maxTyped || (isSpoken && beside > 0)
  // What is to be left out of nothing was meant to be found.
  const isOnlyExclusions = required.length === 0 && beside === 0
  if (isOnlyExclusions || isProse) {
    const plain = readWords(text, [])
    return { ...plain, names: [...names, ...plain.names].slice(0, maxTerms), required: [], excluded: [] }
  }
  return { ...readWords(rest, quotes), required, excluded }
}

/** @param quoted is looked for like the rest, too */
function readWords(text: string, quoted: readonly string[]): Omit<WordQuery, 'required' | 'excluded'> {
  const all = [...quoted, text].join(' ')
  const tokens = tokenize(all, 'searched')
  const { isEnglish: hasStems, isSmall } = languageOf(tokens.map(({ word }) => word))
  const isBeingTyped = /[\p{L}\p{N}\p{M}]$/u.test(text) && runsOf(all) <= maxTyped
  const last = isBeingTyped ? tokens.at(-1) : undefined
  const terms = new Map<string, Term>()
  for (const token of tokens) {
    const { word } = token
    const stem = hasStems ? stemOf(word) : word
    const term = terms.get(stem) ?? { stem, forms: [], count: 0, isSmall: isSmall(word), beginning: null }
    if (!term.forms.includes(word)) term.forms.push(word)
    term.count++
    if (token === last || isLoneCharacter(word)) term.beginning = word
    terms.set(stem, term)
  }
  return {
    terms: [...terms.values()].slice(0, maxTerms),
    names: all
      .split(/\s+/)
      .filter((run) => namePattern.test(run))
      .map(wordsOf)
      .filter((words) => words.length > 1 && words.some((word) => word.length > 1))
      .slice(0, maxTerms),
    hasStems,
    meaning: all.replace(/\s+/g, ' ').trim(),
  }
}

/** Words as spaces part them. */
const runsOf = (text: string) => text.split(/\s+/).filter((run) => /[\p{L}\p{N}]/u.test(run)).length
const wordsOf = (text: string) => tokenize(text, 'searched').map(({ word }) => word)
