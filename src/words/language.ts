import { dan, deu, eng, fin, fra, ind, ita, nld, nob, pol, por, ron, spa, swe, tur } from 'stopword'
import { fold } from './fold.ts'

const languages = [eng, dan, deu, fin, fra, ind, ita, nld, nob, pol, por, ron, spa, swe, tur]

/** For each small word the numbers of the languages that have it. */
const languagesOf = new Map<string, number[]>()
for (const [index, words] of languages.entries()) {
  for (const word of words) languagesOf.set(fold(word), [...(languagesOf.get(fold(word)) ?? []), index])
}

/** What the small words of a text tell of its language. */
export interface Language {
  /**
   * Whether it is taken for English: no other Latin language has more small words ("the", "und", "que") in it. A text
   * without any is; words of other scripts have no English endings that could be cut.
   */
  isEnglish: boolean
  /** Whether a word is a small one of the language that has most of them in the text: it says next to nothing. */
  isSmall(word: string): boolean
}

/** @param words folded */
export function languageOf(words: readonly string[]): Language {
  const counts = languages.map(() => 0)
  for (const word of words) {
    for (const language of languagesOf.get(word) ?? []) counts[language] = (counts[language] ?? 0) + 1
  }
  const most = Math.max(...counts)
  const best = counts.indexOf(most)
  return {
    isEnglish: best === 0,
    isSmall: (word) => most > 0 && (languagesOf.get(word)?.includes(best) ?? false),
  }
}

/** Small words of English. */
export const smallWords: readonly string[] = eng.map(fold)
