/** Longer words (keys, hashes, encoded data) are known by their beginning. */
const maxWordLength = 64

/** Letters that compatibility decomposition leaves whole. */
const plainLetters: Record<string, string> = {
  ß: 'ss',
  æ: 'ae',
  œ: 'oe',
  ø: 'o',
  ł: 'l',
  đ: 'd',
  ð: 'd',
  þ: 'th',
  ħ: 'h',
  ı: 'i',
  ς: 'σ',
}

/**
 * What a word is compared by. Accents of Latin, Greek and Cyrillic go, but not the breve of й, which makes it another
 * letter; marks of other scripts stay, they are vowels.
 */
export function fold(word: string): string {
  const lower = word.toLowerCase()
  if (/^[a-z0-9]*$/.test(lower)) return lower.slice(0, maxWordLength)
  return lower
    .normalize('NFKD')
    .replace(/(?<!и)[\u0300-\u036f]+|(?<=и)(?!\u0306)[\u0300-\u036f]+/gu, '')
    .normalize('NFC')
    .toLowerCase()
    .replace(/[ßæœøłđðþħıς]/gu, (letter) => plainLetters[letter] ?? letter)
    .slice(0, maxWordLength)
}
