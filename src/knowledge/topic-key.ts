/**
 * What tells one topic from another in its name: two names with one key are the same topic's. Case, accents,
 * punctuation, white space and the English plural do not count ("Épics" is "epic").
 * @returns never empty
 */
export function topicKey(name: string): string {
  const words = name
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .split(/[^\p{L}\p{N}+#]+/u)
    .filter((word) => word !== '')
  return words.map(singular).join(' ') || name
}

/** Rough, but the same for both names: nothing is shown that it makes. */
function singular(word: string): string {
  if (word.length < 4 || !/^[a-z]+$/.test(word)) return word
  if (word.endsWith('ies')) return word.length > 4 ? `${word.slice(0, -3)}y` : word
  if (/(?:ss|x|z|ch|sh)es$/.test(word)) return word.slice(0, -2)
  return /[^sui]s$/.test(word) ? word.slice(0, -1) : word
}
