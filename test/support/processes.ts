import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const quarryBin = fileURLToPath(new URL('../../bin/quarry.js', import.meta.url))

/** A folder under the system's temporary one; `await using` removes it. */
export async function temporaryFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'quarry-test-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 5 }) }
}

export interface QuarryProcess extends AsyncDisposable {
  child: ChildProcess
  /** Everything that it has printed so far, both outputs. */
  output(): string
  /** Resolves with the first line that matches; rejects if the process ends before. */
  line(pattern: RegExp): Promise<RegExpMatchArray>
  exit(): Promise<number | null>
}

/**
 * Starts `quarry` as people do: its own process, configured by the environment alone.
 * @param through a command that runs the one behind it, in its own place
 */
export function startQuarry(
  args: readonly string[],
  env: Record<string, string>,
  through: readonly string[] = [],
): QuarryProcess {
  const [command = process.execPath, ...words] = [...through, process.execPath, quarryBin, ...args]
  const child = spawn(command, words, {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const lines: string[] = []
  const watchers = new Set<() => void>()
  const changed = () => {
    for (const watcher of watchers) watcher()
  }
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line)
      changed()
    })
  }
  const closed = once(child, 'close').then(changed)
  return {
    child,
    output: () => lines.join('\n'),
    line(pattern) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const match = lines.map((line) => line.match(pattern)).find(Boolean)
          const hasEnded = child.exitCode !== null || child.signalCode !== null
          if (!match && !hasEnded) return
          watchers.delete(look)
          if (match) resolve(match)
          else reject(new Error(`quarry ${args.join(' ')} ended without ${pattern}:\n${lines.join('\n')}`))
        }
        watchers.add(look)
        look()
      })
    },
    async exit() {
      await closed
      return child.exitCode
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await closed
    },
  }
}

/** Runs `quarry` to its end. */
export async function runQuarry(
  args: readonly string[],
  env: Record<string, string>,
): Promise<{ code: number | null; output: string }> {
  await using run = startQuarry(args, env)
  return { code: await run.exit(), output: run.output() }
}
