import { SingleBar } from 'cli-progress'
import { barLine, type Progress, plainLine } from './progress-text.ts'
import { warn } from './terminal.ts'

/** Progress on standard error, so that what a command answers on standard output stays clean. */
export interface ProgressDisplay {
  /** There is news. */
  changed(): void
  /** Shows how it stands for the last time, and leaves it there. */
  stop(): void
}

const plainIntervalMs = 3_000
const framesPerSecond = 5

/**
 * A bar on a terminal; elsewhere a plain line now and then, so that logs stay readable.
 * @param read how it stands now; null as long as there is nothing to show
 */
export function startProgress(label: string, read: () => Progress | null): ProgressDisplay {
  return process.stderr.isTTY ? terminalProgress(label, read) : plainProgress(label, read, warn)
}

function terminalProgress(label: string, read: () => Progress | null): ProgressDisplay {
  let isStarted = false
  const bar = new SingleBar({
    // Asked for with each frame: a rate falls and a wait ends without any news.
    format: (_options, { maxWidth }) => {
      const progress = read()
      return progress ? barLine(label, progress, new Date(), maxWidth) : ''
    },
    fps: framesPerSecond,
    hideCursor: true,
    gracefulExit: false,
    stream: process.stderr,
  })
  return {
    changed() {
      if (isStarted || !read()) return
      isStarted = true
      bar.start(1, 0)
    },
    stop() {
      if (isStarted) bar.stop()
      isStarted = false
    },
  }
}

/** The first line at once, then one every three seconds at most, and the last one. */
export function plainProgress(
  label: string,
  read: () => Progress | null,
  write: (line: string) => void,
): ProgressDisplay {
  let said = ''
  let pause: NodeJS.Timeout | null = null
  let isDue = false
  function sayNow(): void {
    const progress = read()
    const line = progress ? plainLine(label, progress, new Date()) : ''
    if (line === said) return
    said = line
    write(line)
  }
  function changed(): void {
    if (pause) {
      isDue = true
      return
    }
    if (!read()) return
    sayNow()
    pause = setTimeout(() => {
      pause = null
      if (!isDue) return
      isDue = false
      changed()
    }, plainIntervalMs)
  }
  return {
    changed,
    stop() {
      if (pause) clearTimeout(pause)
      pause = null
      sayNow()
    },
  }
}
