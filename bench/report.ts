import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'

/** One line of a benchmark's table. All texts are ready to print. */
export interface Row {
  what: string
  figure: string
  /** What it is held against, measured in the same run. */
  beside?: string
  /** Figure to limit, as the aim states it: `1.4x` or `87 %`. */
  ratio?: string
  aim?: string
  isMet?: boolean
}

export interface Report {
  title: string
  rows: Row[]
  /** Figures that are compared with each other rather than with an aim; the first row is the head. */
  tables?: { title: string; rows: string[][] }[]
  /** What a reader needs to know to judge the figures. */
  notes: string[]
}

export function toMarkdown({ title, rows, tables = [], notes }: Report): string {
  const cells = rows.map((row) => [
    row.what,
    row.figure,
    row.beside ?? '',
    row.ratio ?? '',
    row.aim ?? '',
    row.isMet === undefined ? '' : row.isMet ? 'met' : '**missed**',
  ])
  return [
    `### ${title}`,
    '',
    ...aligned([['What', 'Quarry', 'Beside it', 'Ratio', 'Aim', ''], ...cells]),
    '',
    ...tables.flatMap((table) => [`#### ${table.title}`, '', ...aligned(table.rows), '']),
    ...notes.map((note) => `- ${note}`),
  ].join('\n')
}

/** Lines of a Markdown table that can be read as plain text, too. */
function aligned(table: string[][]): string[] {
  const [head = [], ...body] = table
  const widths = head.map((_, column) => Math.max(3, ...table.map((row) => (row[column] ?? '').length)))
  const line = (row: string[]) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)]
}

/** Where and when a figure was measured: without it, it says nothing. */
export function describeRun(postgres: string | null): string {
  const [cpu] = cpus()
  const machine = `${cpu?.model.trim() ?? 'unknown CPU'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`
  const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8' }).trim()
  const commit = git('rev-parse', '--short', 'HEAD')
  const isChanged = git('status', '--porcelain', '--', 'src', 'prisma', 'package-lock.json') !== ''
  const versions = [`Node ${process.versions.node}`, ...(postgres ? [postgres] : [])].join(', ')
  const date = new Date().toISOString().slice(0, 10)
  return `${date}, commit ${commit}${isChanged ? ' with changes' : ''}; ${machine}; ${versions}`
}

/**
 * Puts a measured part into a document; what people wrote round it stays.
 * @param name marks the part, such as `bench:search`
 */
export function writeInto(path: string, name: string, markdown: string, run: string): void {
  const [begin, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
  const part = `${begin}\n${markdown}\n\n_${run}_\n${end}`
  const text = readFileSync(path, 'utf8')
  const from = text.indexOf(begin)
  const to = text.indexOf(end)
  writeFileSync(
    path,
    from >= 0 && to > from
      ? text.slice(0, from) + part + text.slice(to + end.length)
      : `${text.trimEnd()}\n\n${part}\n`,
  )
}

export const documentPath = join(import.meta.dirname, '../docs/benchmarks.md')

/** The value below which the given share (0..1) of the values lies. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export const median = (values: readonly number[]): number => percentile(values, 0.5)

export const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`
export const seconds = (value: number): string => `${(value / 1000).toFixed(2)} s`
export const perSecond = (value: number, unit = ''): string =>
  `${Math.round(value).toLocaleString('en')}${unit && ` ${unit}`}/s`
export const times = (value: number): string => `${value.toFixed(2)}x`
export const percent = (value: number): string => `${(100 * value).toFixed(0)} %`
export const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`
export const kib = (bytes: number): string => `${(bytes / 2 ** 10).toFixed(1)} KiB`
