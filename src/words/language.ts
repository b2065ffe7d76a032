import { dan, deu, eng, fin, fra, ind, ita, nld, nob, pol, por, ron, spa, swe, tur } from 'stopword'
import { fold } from './fold.ts'

const languages = [eng, dan, deu, fin, fra, ind, ita, nld, nob, pol, por, ron, spa, swe, tur]

/** For each small word the numbers of the languages that have it. */
const languagesOf = new Map<string, number[]>()
for (const [index, words] of languages.entries()) {
  for (const word of words) languagesOf.set(fold(word), [...(languagesOf.get(fold(word)) ?? []), index])
}

/**
 * Whether a text is taken for English, by its small words ("the", "und", "que"): no other Latin language has more of
 * them in it. A text without any is; words of other scripts have no English endings that could be cut.
 * @param words folded
 */
export function isEnglish(words: readonly string[]): boolean {
  const counts = languages.map(() => 0)
  for (const word of words) {
    for (const language of languagesOf.get(word) ?? []) counts[language] = (counts[language] ?? 0) + 1
  }
  const [english = 0, ...others] = counts
  return others.every((count) => count <= english)
}
