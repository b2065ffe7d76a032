import type { WordQuery } from '../words/query.ts'
import { stemOf, type Token, tokenize } from '../words/tokens.ts'

const snippetLength = 240

/**
 * The passage of the text that has most of the query's words, with these in <mark> and everything else escaped: safe to
 * put into a page as HTML. Words are found as the search finds them: by their stem, in parts of names, by the beginning
 * of the one that is being typed. Without such a word, the beginning of the text.
 */
export function makeSnippet(text: string, query: WordQuery): string {
  const marks = findMarks(text, query)
  const { start, end } = passage(text, marks)
  let html = start > 0 ? '… ' : ''
  let position = start
  for (const mark of marks) {
    // Names in camel case are marked as a whole and in parts, pairs of characters overlap.
    const from = Math.max(mark.start, position)
    if (from < mark.start || mark.start < start || mark.end > end || mark.end <= from) continue
    html += `${escapeHtml(text.slice(position, from))}<mark>${escapeHtml(text.slice(from, mark.end))}</mark>`
    position = mark.end
  }
  html += escapeHtml(text.slice(position, end))
  return end < text.length ? `${html} …` : html
}

interface Mark {
  /** Which word of the query. */
  term: number
  start: number
  end: number
}

function findMarks(text: string, { terms, hasStems }: WordQuery): Mark[] {
  if (terms.length === 0) return []
  const wanted = new Map<string, number>()
  for (const [index, { forms, stem }] of terms.entries()) {
    for (const word of [...forms, stem]) wanted.set(word, index)
  }
  const beginnings = terms.flatMap(({ beginning }, index) =>
    beginning === null ? [] : [{ beginning, index }],
  )
  const termOf = ({ word }: Token): number | undefined =>
    wanted.get(word) ??
    (hasStems ? wanted.get(stemOf(word)) : undefined) ??
    beginnings.find(({ beginning }) => word.startsWith(beginning))?.index
  const marks = tokenize(text, 'indexed').flatMap((token) => {
    const term = termOf(token)
    return term === undefined ? [] : [{ term, start: token.start, end: token.end }]
  })
  return marks.sort((a, b) => a.start - b.start || b.end - a.end)
}

/** The window with the most different words, then with the most words, cut at white space. */
function passage(text: string, marks: readonly Mark[]): { start: number; end: number } {
  if (text.length <= snippetLength) return { start: 0, end: text.length }
  let best = { worth: 0, from: 0, to: 0 }
  for (const [index, first] of marks.entries()) {
    const inside = marks
      .slice(index, index + snippetLength)
      .filter(({ end }) => end <= first.start + snippetLength)
    const worth = new Set(inside.map(({ term }) => term)).size + inside.length / 1000
    if (worth > best.worth) best = { worth, from: first.start, to: Math.max(...inside.map(({ end }) => end)) }
  }
  // What is left of the window stands half before and half behind.
  const from = Math.max(
    0,
    Math.min(best.from - (snippetLength - (best.to - best.from)) / 2, text.length - snippetLength),
  )
  const start = from <= 0 ? 0 : nextGap(text, Math.floor(from), best.from)
  const to = Math.min(text.length, start + snippetLength)
  return { start, end: to === text.length ? to : lastGap(text, to, Math.max(start, best.to)) }
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

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => entities[character] ?? character)
