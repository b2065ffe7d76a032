import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What an evaluation found. All texts are ready to print. */
export interface QualityReport {
  title: string
  tables: QualityTable[]
  /** What a reader needs to know to judge the figures. */
  notes: string[]
}

export interface QualityTable {
  /** What it shows, in a sentence. */
  caption: string
  head: string[]
  rows: string[][]
}

export const documentPath = join(import.meta.dirname, '../docs/quality.md')

export function toMarkdown({ title, tables, notes }: QualityReport): string {
  return [
    `## ${title}`,
    ...tables.map((table) => `${table.caption}\n\n${tableLines(table).join('\n')}`),
    notes.map((note) => `- ${note}`).join('\n'),
  ].join('\n\n')
}

function tableLines({ head, rows }: QualityTable): string[] {
  const widths = head.map((cell, column) =>
    Math.max(3, cell.length, ...rows.map((row) => row[column]?.length ?? 0)),
  )
  const line = (row: string[]) =>
    `| ${widths.map((width, column) => (row[column] ?? '').padEnd(width)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)]
}

/** Puts an evaluation's part into the document; what people wrote round it stays. */
export function writeInto(path: string, name: string, markdown: string, run: string): void {
  const [begin, end] = [`<!-- eval:${name} -->`, `<!-- /eval:${name} -->`]
  const part = `${begin}\n${markdown}\n\n_${run}_\n${end}`
  const text = existsSync(path) ? readFileSync(path, 'utf8') : '# Quality\n'
  const from = text.indexOf(begin)
  const to = text.indexOf(end)
  writeFileSync(
    path,
    from >= 0 && to > from
      ? text.slice(0, from) + part + text.slice(to + end.length)
      : `${text.trimEnd()}\n\n${part}\n`,
  )
}
