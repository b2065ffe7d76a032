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
