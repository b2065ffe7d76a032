import { stripVTControlCharacters } from 'node:util'
import pc from 'picocolors'

/** Colours on a terminal only, and not where NO_COLOR is set (picocolors looks at both). */
export const paint = pc.createColors(Boolean(process.stdout.isTTY) && pc.isColorSupported)

/** The same for what `warn` writes. */
export const paintWarning = pc.createColors(Boolean(process.stderr.isTTY) && pc.isColorSupported)

// `quarry status | head -1` closes the pipe early: that is no error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

export function say(text = ''): void {
  process.stdout.write(`${text}\n`)
}

export function warn(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Columns padded to their widest cell; numbers to the right. Cells may be coloured. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const widthOf = (cell: string | number) => stripVTControlCharacters(String(cell)).length
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => widthOf(row[column] ?? ''))),
  )
  const line = (cells: readonly (string | number)[]) =>
    cells
      .map((cell, column) => {
        const gap = ' '.repeat((widths[column] ?? 0) - widthOf(cell))
        return typeof cell === 'number' ? gap + cell : cell + gap
      })
      .join('  ')
      .trimEnd()
  return [paint.dim(line(head)), ...rows.map(line)].join('\n')
}
