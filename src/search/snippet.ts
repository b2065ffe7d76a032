const snippetLength = 240
const wordPattern = /[\p{L}\p{M}\p{N}_]+/gu

/**
 * A passage of the text round the first word that the query has too, with such words in <mark> and everything else
 * escaped: safe to put into a page as HTML. Without such a word, the beginning of the text.
 */
export function makeSnippet(text: string, query: string): string {
  const wanted = new Set([...query.matchAll(wordPattern)].map(([word]) => fold(word)))
  const isWanted = (word: string) => wanted.has(fold(word))
  const { start, end } = passage(text, isWanted)
  let html = start > 0 ? '… ' : ''
  let position = start
  for (const match of text.slice(start, end).matchAll(wordPattern)) {
    if (!isWanted(match[0])) continue
    const at = start + match.index
    html += `${escapeHtml(text.slice(position, at))}<mark>${escapeHtml(match[0])}</mark>`
    position = at + match[0].length
  }
  html += escapeHtml(text.slice(position, end))
  return end < text.length ? `${html} …` : html
}

/** A third of the window before the first match; cut at white space, never inside a surrogate pair. */
function passage(text: string, isWanted: (word: string) => boolean): { start: number; end: number } {
  if (text.length <= snippetLength) return { start: 0, end: text.length }
  let first = 0
  for (const match of text.matchAll(wordPattern)) {
    if (isWanted(match[0])) {
      first = match.index
      break
    }
  }
  const from = Math.max(0, first - snippetLength / 3)
  const start = from === 0 ? 0 : nextGap(text, from, first)
  const to = Math.min(text.length, start + snippetLength)
  return { start, end: to === text.length ? to : lastGap(text, to, start) }
}

function nextGap(text: string, from: number, limit: number): number {
  for (let index = from; index < limit; index++) if (/\s/.test(text.charAt(index))) return index + 1
  return limit
}

function lastGap(text: string, to: number, limit: number): number {
  for (let index = to; index > limit; index--) if (/\s/.test(text.charAt(index))) return index
  const code = text.charCodeAt(to - 1)
  return code >= 0xd800 && code <= 0xdbff ? to - 1 : to
}

const fold = (word: string) => word.toLowerCase()

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => entities[character] ?? character)
