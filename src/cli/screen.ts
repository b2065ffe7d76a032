/** A view of the whole terminal that is drawn again and again, like that of `top`. */
export interface Screen {
  /** Lines from the top, no more than there are rows; what is longer than a row ends at its edge. */
  draw(lines: readonly string[]): void
  /** Gives the terminal back as it was before. */
  close(): void
}

// The second screen of a terminal: nothing has to be counted back, whatever was resized or printed by others meanwhile.
// Without the cursor, and without wrapping, so that a long line ends at the edge.
const enter = '\x1b[?1049h\x1b[?25l\x1b[?7l'
const leave = '\x1b[?7h\x1b[?25h\x1b[?1049l'
const home = '\x1b[H'
const clearToEndOfLine = '\x1b[K'
const clearBelow = '\x1b[J'

export function openScreen(stream: NodeJS.WriteStream): Screen {
  stream.write(enter)
  const giveBack = () => stream.write(leave)
  // However the process ends, as far as it can do something about it.
  process.once('exit', giveBack)
  return {
    draw(lines) {
      stream.write(home + lines.map((line) => line + clearToEndOfLine).join('\n') + clearBelow)
    },
    close() {
      process.off('exit', giveBack)
      giveBack()
    },
  }
}
