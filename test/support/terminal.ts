import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const quarryBin = fileURLToPath(new URL('../../bin/quarry.js', import.meta.url))

/** Why no terminal can be made here; null if one can. `script` of util-linux makes them. */
export function noTerminal(): string | null {
  const { stdout, error } = spawnSync('script', ['--version'], { encoding: 'utf8' })
  if (error) return `there is no program \`script\` (${error.message})`
  return stdout.includes('util-linux') ? null : 'the program `script` is not that of util-linux'
}

/** `quarry` in a terminal of its own, as a person sees it. */
export interface TerminalRun extends AsyncDisposable {
  /** Everything that it has written so far, control sequences included. */
  output(): string
  /** Resolves when the output matches; rejects if the program ends before. */
  until(pattern: RegExp): Promise<void>
  /** Types, such as `\x03` for Ctrl-C. */
  type(keys: string): void
  exit(): Promise<number | null>
}

/** Starts `quarry` in a terminal of 100 columns and 30 rows. */
export function startInTerminal(args: readonly string[], env: Record<string, string>): TerminalRun {
  const command = [process.execPath, quarryBin, ...args].map((word) => `'${word}'`).join(' ')
  const child = spawn('script', ['-qec', `stty cols 100 rows 30; exec ${command}`, '/dev/null'], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, TERM: 'xterm', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let output = ''
  const watchers = new Set<() => void>()
  const changed = () => {
    for (const watcher of [...watchers]) watcher()
  }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    changed()
  })
  const closed = once(child, 'close').then(changed)
  return {
    output: () => output,
    until(pattern) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const isMatch = pattern.test(output)
          const hasEnded = child.exitCode !== null || child.signalCode !== null
          if (!isMatch && !hasEnded) return
          watchers.delete(look)
          if (isMatch) resolve()
          else reject(new Error(`quarry ${args.join(' ')} ended without ${pattern}:\n${output}`))
        }
        watchers.add(look)
        look()
      })
    },
    type: (keys) => child.stdin.write(keys),
    async exit() {
      await closed
      return child.exitCode
    },
    async [Symbol.asyncDispose]() {
      // The terminal goes with it, which ends the program inside (SIGHUP).
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await closed
    },
  }
}
