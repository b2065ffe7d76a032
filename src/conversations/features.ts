/*
 * What a single message tells, read once: its words, the names it may address, its length. Nothing here knows a
 * language: words are runs of letters, and a name is whatever somebody in the channel is called.
 */

/** How a message names somebody: spoken to ("anna: try this", "@anna"), or only mentioned ("ask anna"). */
export type NameUse = 'ADDRESSED' | 'MENTIONED'

export interface MessageTraits {
  /** Distinct stems of the words, at most `maxWords`. */
  words: readonly string[]
  /** Distinct tokens between white space without the punctuation round them, in lower case, with their use if a name. */
  tokens: ReadonlyMap<string, NameUse>
  /** What stands where a name is spoken to beyond doubt (`@x`, `x:` at the beginning), known or not. */
  markedNames: readonly string[]
  /** Words in all, repeated ones too. */
  length: number
  isQuestion: boolean
}

/** Beyond this a text (a pasted log) says no more about whom it answers, and reading it would cost. */
const maxCharacters = 2000
const maxWords = 64
/**
 * Stems are the first letters: as good as a stemmer in many European languages at 5 (McNamee and Mayfield, "Character
 * N-Gram Tokenization for European Language Text Retrieval", 2004, report 4 and 5 letters), and needs no language.
 */
const stemLength = 6

const wordPattern = /[\p{L}\p{M}\p{N}_]+/gu
/** Scripts written without spaces: a run of letters is a sentence there, so pairs of characters stand for words. */
const unspacedPattern =
  /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]/u
/** ASCII, Spanish, Greek, full-width, Arabic and Armenian. */
const questionPattern = /[?¿\u037e？؟՞]/u
const openingPunctuation = /^[("'«„“<[{*_~]+/u
const closingPunctuation = /[)"'»“”>\]}*~.!?;,:，：！？。…]+$/u

export function traitsOf(content: string): MessageTraits {
  const text = content.slice(0, maxCharacters)
  const lower = text.normalize('NFKC').toLowerCase()
  return { ...wordsOf(lower), ...namesIn(lower), isQuestion: questionPattern.test(text) }
}

function wordsOf(lower: string): { words: string[]; length: number } {
  const words = new Set<string>()
  let length = 0
  for (const [word] of lower.matchAll(wordPattern)) {
    if (unspacedPattern.test(word)) {
      const characters = [...word]
      length += Math.ceil(characters.length / 2)
      for (let index = 0; index + 1 < characters.length; index++)
        words.add(`${characters[index]}${characters[index + 1]}`)
    } else {
      length++
      words.add(word.length > stemLength ? word.slice(0, stemLength) : word)
    }
  }
  return { words: [...words].slice(0, maxWords), length }
}

function namesIn(lower: string): { tokens: Map<string, NameUse>; markedNames: string[] } {
  const tokens = new Map<string, NameUse>()
  const markedNames: string[] = []
  const mark = (name: string) => {
    markedNames.push(name)
    tokens.set(name, 'ADDRESSED')
  }
  let isFirst = true
  let afterAt = ''
  for (const raw of lower.split(/\s+/)) {
    if (raw === '') continue
    const opened = raw.replace(openingPunctuation, '')
    const isAt = opened.startsWith('@')
    const core = (isAt ? opened.slice(1) : opened).replace(closingPunctuation, '')
    if (core !== '') {
      const isMarked =
        isAt ||
        (isFirst && opened.length > core.length && /^[)\]>*_"']*[:：]/u.test(opened.slice(core.length)))
      if (isMarked) mark(core)
      // Chats speak to people in their first word, with a comma or with nothing after it.
      else if (isFirst) tokens.set(core, 'ADDRESSED')
      else if (!tokens.has(core)) tokens.set(core, 'MENTIONED')
      // "@anna petrova", where the name has two words.
      if (afterAt !== '') mark(afterAt + core)
      afterAt = isAt ? core : ''
      isFirst = false
    }
  }
  return { tokens, markedNames }
}

/**
 * What others call an author: the name, without ornaments at its ends (`anna_`, `|anna|`, `anna42`), and for a name of
 * several words the first of them and all run together. Lower case, no duplicates, best first.
 */
export function aliasesOf(author: string): string[] {
  const name = author.normalize('NFKC').toLowerCase().trim()
  const parts = name.split(/\s+/)
  const whole = parts.length > 1 ? [parts.join(''), parts.join('_'), parts.join('.'), parts[0] ?? ''] : [name]
  const aliases = whole.flatMap((alias) => {
    const start = alias.startsWith('@') ? alias.slice(1) : alias
    return [start, start.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{M}]+$/gu, '')]
  })
  return [...new Set(aliases)].filter((alias) => alias.length >= minNameLength)
}

/** A single letter is a word more often than a name. */
const minNameLength = 2
