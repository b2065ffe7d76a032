/** A folded word as tsvector and tsquery read it. Quotes and backslashes are no letters, but no rule of Unicode says so. */
export const lexeme = (word: string): string => `'${word.replace(/['\\]/g, '$&$&')}'`

/** A tsquery: these words, side by side. */
export const phrase = (words: readonly string[]): string => words.map(lexeme).join(' <-> ')
