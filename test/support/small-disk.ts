import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryFolder } from './processes.ts'

/** A disk that can be full or read-only for real, and that only processes started through it can see. */
export interface SmallDisk extends AsyncDisposable {
  /** Where it is, for those processes. */
  path: string
  /** Put before a command, it runs that command with the disk in sight. */
  through: readonly string[]
  /** Copies a folder onto it, as `name`. @returns the path of the copy */
  copy(folder: string, name: string): Promise<string>
  /** MiB that are taken. */
  used(): Promise<number>
  /** Gives or takes space; MiB in all. */
  resize(megabytes: number): Promise<void>
  setReadOnly(isReadOnly: boolean): Promise<void>
}

const run = promisify(execFile)
const isRoot = process.getuid?.() === 0
/** With a namespace of users a mount needs no root, where the system allows it. */
const unshare = isRoot ? ['--mount'] : ['--mount', '--map-root-user']

/** Why there can be no such disk here; null if there can. */
export async function whyNoSmallDisk(): Promise<string | null> {
  return run('unshare', [...unshare, 'mount', '-t', 'tmpfs', 'none', '/mnt']).then(
    () => null,
    (error: Error) => `no disk can be mounted here, neither as root nor in a namespace: ${error.message}`,
  )
}

/** A tmpfs in a mount namespace of its own: nothing of it is left when the test ends, however it ends. */
export async function mountSmallDisk(megabytes: number): Promise<SmallDisk> {
  const folder = await temporaryFolder()
  const path = join(folder.path, 'disk')
  await mkdir(path)
  // Keeps the namespace until its input ends, which it does with this process at the latest.
  const script = 'mount -t tmpfs -o "size=$2m" none "$1" && echo mounted && exec cat'
  const holder = spawn('unshare', [...unshare, 'sh', '-c', script, 'sh', path, String(megabytes)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = once(holder, 'exit')
  await once(holder.stdout, 'data')
  const through = [
    'nsenter',
    '--mount',
    ...(isRoot ? [] : ['--user', '--preserve-credentials']),
    `--target=${holder.pid}`,
    '--',
  ]
  async function inside(...command: string[]): Promise<string> {
    const [program = '', ...words] = [...through, ...command]
    return (await run(program, words)).stdout
  }
  return {
    path,
    through,
    async copy(source, name) {
      await inside('cp', '-r', source, join(path, name))
      return join(path, name)
    },
    used: async () => Number.parseInt(await inside('du', '-sm', path), 10),
    resize: async (size) => void (await inside('mount', '-o', `remount,size=${size}m`, path)),
    setReadOnly: async (isReadOnly) =>
      void (await inside('mount', '-o', `remount,${isReadOnly ? 'ro' : 'rw'}`, path)),
    async [Symbol.asyncDispose]() {
      holder.stdin.end()
      await ended
      await folder[Symbol.asyncDispose]()
    },
  }
}
