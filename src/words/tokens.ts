import { stemmer } from 'stemmer'
import { fold } from './fold.ts'
import { languageOf } from './language.ts'
import { lexeme } from './lexemes.ts'

/** A word of a text. */
export interface Token {
  /** Folded: lower case, compatibility forms and accents resolved. */
  word: string
  /** Where it stands among the words of the text, from 0: what stands side by side has numbers side by side. */
  position: number
  /** Where it stands in the text, in UTF-16 units. */
  start: number
  end: number
}

/** More is not read: positions of a tsvector end at 16,383, and so long a text is no message any more. */
export const maxTextLength = 100_000

const wordPattern = /[\p{L}\p{N}\p{M}]+(?:(?:\+\+|#)(?![\p{L}\p{N}]))?|\p{Extended_Pictographic}/gu
/** Scripts that put no spaces between words. */
const unspacedPattern =
  /(?:[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]\p{M}*)+/gu
const humpPattern = /\p{Lu}+(?=\p{Lu}\p{Ll})|\p{Lu}?[\p{Ll}\p{N}\p{M}]+|\p{Lu}+[\p{N}\p{M}]*|\p{N}+/gu

/**
 * The words of a text, in its order. Identifiers and file names are words side by side: `src/app.ts` is src, app, ts.
 * Scripts without spaces are cut into pairs of neighbouring characters.
 * @param what 'searched' is what a person looks for; 'indexed' adds what it may be found by: the parts of names in
 * camel case (several words stand at one position then) and the last character of a script without spaces
 */
export function tokenize(text: string, what: 'indexed' | 'searched'): Token[] {
  const tokens: Token[] = []
  let position = 0
  for (const { 0: run, index } of text.slice(0, maxTextLength).matchAll(wordPattern)) {
    const sign = run.endsWith('++') ? 2 : run.endsWith('#') ? 1 : 0
    const letters = sign ? run.slice(0, -sign) : run
    if (sign) tokens.push({ word: fold(run), position, start: index, end: index + run.length })
    if (sign && what === 'searched') {
      position++
      continue
    }
    let from = 0
    for (const { 0: unspaced, index: at } of letters.matchAll(unspacedPattern)) {
      spaced(letters.slice(from, at), index + from)
      pairs(unspaced, index + at)
      from = at + unspaced.length
    }
    spaced(letters.slice(from), index + from)
  }
  return tokens

  function spaced(word: string, start: number): void {
    if (word === '') return
    push(word, start)
    if (what === 'searched' || !/\p{Ll}\p{Lu}|\p{Lu}\p{Lu}\p{Ll}/u.test(word)) return
    const parts = [...word.matchAll(humpPattern)]
    if (parts.length < 2) return
    position--
    for (const { 0: part, index } of parts) push(part, start + index)
  }

  function pairs(run: string, start: number): void {
    const characters = run.match(/\P{M}\p{M}*|\p{M}+/gu) ?? []
    let at = start
    for (const [index, character] of characters.entries()) {
      const next = characters[index + 1] ?? ''
      if (next !== '' || what === 'indexed' || characters.length === 1) push(character + next, at)
      at += character.length
    }
  }

  function push(word: string, start: number): void {
    const folded = fold(word)
    // Marks alone fold to nothing.
    if (folded === '') return
    tokens.push({ word: folded, position, start, end: start + word.length })
    position++
  }
}

/**
 * English words without their endings, so that "connections" finds "connected". Other languages are left as they are:
 * an English rule would cut from their words what belongs to them.
 */
export const stemOf = (word: string): string => (/^[a-z]{3,}$/.test(word) ? stemmer(word) : word)

/** Whether a word is a single character of a script without spaces: the index has it as the beginning of pairs. */
export const isLoneCharacter = (word: string): boolean => loneCharacterPattern.test(word)
const loneCharacterPattern = new RegExp(`^${unspacedPattern.source.slice(0, -1)}$`, 'u')

/** What the index holds of a text. */
export interface IndexedWords {
  /** A tsvector in Postgres' text form: each word with its positions, and each English word's stem beside it. */
  vector: string
  /** How many words the text has. */
  count: number
}

export function indexWords(text: string): IndexedWords {
  const tokens = tokenize(text, 'indexed')
  const { isEnglish: withStems } = languageOf(tokens.map(({ word }) => word))
  const positions = new Map<string, number[]>()
  const add = (word: string, position: number) => {
    const known = positions.get(word)
    if (!known) positions.set(word, [position])
    else if (known.at(-1) !== position) known.push(position)
  }
  for (const { word, position } of tokens) {
    // Positions of a tsvector begin at 1.
    add(word, position + 1)
    if (withStems) add(stemOf(word), position + 1)
  }
  return {
    vector: [...positions]
      .map(([word, at]) => `${lexeme(word)}:${at.slice(0, maxPositions).join()}`)
      .join(' '),
    count: tokens.length,
  }
}

/** Postgres keeps so many positions of a word. */
const maxPositions = 255
