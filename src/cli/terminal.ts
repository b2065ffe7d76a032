import { Presets, SingleBar } from 'cli-progress'
import pc from 'picocolors'

/** Colours on a terminal only, and not where NO_COLOR is set (picocolors looks at both). */
export const paint = pc.createColors(Boolean(process.stdout.isTTY) && pc.isColorSupported)

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

export interface Progress {
  /** `total` null: not known yet. `note` stands behind the counts. */
  update(done: number, total: number | null, note: string): void
  stop(): void
}

const plainIntervalMs = 2_000

/** A bar on a terminal; elsewhere a plain line now and then, so that logs stay readable. */
export function startProgress(label: string): Progress {
  return process.stdout.isTTY ? terminalProgress(label) : plainProgress(label)
}

function terminalProgress(label: string): Progress {
  const bar = new SingleBar(
    {
      format: `${label} {bar} {percentage}% {value}/{total} {note}`,
      hideCursor: true,
      clearOnComplete: false,
      barsize: 30,
      gracefulExit: false,
    },
    Presets.shades_classic,
  )
  let isStarted = false
  return {
    update(done, total, note) {
      const shown = total ?? Math.max(done, 1)
      if (!isStarted) {
        bar.start(shown, done, { note })
        isStarted = true
      }
      bar.setTotal(shown)
      bar.update(done, { note })
    },
    stop() {
      if (isStarted) bar.stop()
    },
  }
}

function plainProgress(label: string): Progress {
  let last = 0
  let unsaid: string | null = null
  return {
    update(done, total, note) {
      const line = `${label} ${done}${total === null ? '' : `/${total}`} ${note}`.trimEnd()
      unsaid = line
      if (Date.now() - last < plainIntervalMs) return
      last = Date.now()
      unsaid = null
      say(line)
    },
    stop() {
      if (unsaid) say(unsaid)
    },
  }
}

/** Columns padded to their widest cell; numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => String(row[column] ?? '').length)),
  )
  const line = (cells: readonly (string | number)[]) =>
    cells
      .map((cell, column) => {
        const width = widths[column] ?? 0
        return typeof cell === 'number' ? String(cell).padStart(width) : cell.padEnd(width)
      })
      .join('  ')
      .trimEnd()
  return [paint.dim(line(head)), ...rows.map(line)].join('\n')
}

/** Whole seconds as people say them: `45 s`, `3 min`, `2 h`. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`
  if (seconds < 5400) return `${Math.ceil(seconds / 60)} min`
  return `${Math.ceil(seconds / 3600)} h`
}
