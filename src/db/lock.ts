import { randomUUID } from 'node:crypto'
import {
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SetupError } from '../errors.ts'

/** Who owns a data folder. Two owners at once silently lose data, so there is never a second one. */
export interface LockHolder {
  pid: number
  /** The process to stop: the one that a person started, and that has started the holder. */
  owner: number
  /** Start of that process in clock ticks since boot; tells a live owner from another process with a reused pid. */
  processStart: string | null
  host: string
  since: string
  /** Address of the server that works on this folder, once it listens. */
  url: string | null
}

export interface DataLock {
  /** Publishes where the server of this folder can be reached. */
  setUrl(url: string): void
  release(): void
}

const fileName = 'lock.json'
const takeOverLimitMs = 10_000
/** How long the process of an embedded database may outlive its owner; then its watchdog ends it. */
export const aloneLimitMs = 10_000
/** Longer than that, or a restart would be told of a holder that ends at this moment. */
const closingLimitMs = 2 * aloneLimitMs

/**
 * Takes the folder for this process, for as long as it lives.
 * A lock is taken over only from a process that is provably gone on this machine.
 * @param owner the process that a person would stop to free the folder
 * @throws SetupError that names the holder
 */
export function acquireLock(dataDir: string, owner: number = process.pid): DataLock {
  const path = join(dataDir, fileName)
  const me: LockHolder = {
    pid: process.pid,
    owner,
    processStart: processStart(process.pid),
    host: hostname(),
    since: new Date().toISOString(),
    url: null,
  }
  if (!create(path, me)) takeOver(path, me)
  return {
    setUrl(url) {
      me.url = url
      replace(path, me)
    },
    release() {
      if (readLock(dataDir)?.pid === me.pid) unlinkSync(path)
    },
  }
}

/**
 * The same, but waits for a holder that is about to end: its owner was killed, and it is closing the database. A
 * restart right after kill -9 must not fail for that.
 */
export async function acquireLockWhenFree(dataDir: string, owner: number): Promise<DataLock> {
  const until = Date.now() + closingLimitMs
  for (;;) {
    try {
      return acquireLock(dataDir, owner)
    } catch (error) {
      const holder = readLock(dataDir)
      if (!holder || !isClosing(holder) || Date.now() > until) throw error
      await delay(50)
    }
  }
}

/** The process that holds the folder now and goes on holding it, or null. */
export function currentHolder(dataDir: string): LockHolder | null {
  const holder = readLock(dataDir)
  return holder && mayBeAlive(holder) && !isClosing(holder) ? holder : null
}

const isClosing = (holder: LockHolder) => holder.host === hostname() && !isRunning(holder.owner)

function readLock(dataDir: string): LockHolder | null {
  try {
    return JSON.parse(readFileSync(join(dataDir, fileName), 'utf8')) as LockHolder
  } catch (error) {
    if (isCode(error, 'ENOENT')) return null
    throw new SetupError(
      `The lock ${join(dataDir, fileName)} cannot be read (${String(error)}). If no Quarry runs on this folder, delete it.`,
    )
  }
}

/** link() fails if the name exists, and a reader never sees a half-written file: create-or-fail in one step. */
function create(path: string, holder: LockHolder): boolean {
  const draft = writeDraft(path, holder)
  try {
    linkSync(draft, path)
    return true
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false
    throw error
  } finally {
    unlinkSync(draft)
  }
}

function replace(path: string, holder: LockHolder): void {
  renameSync(writeDraft(path, holder), path)
}

function writeDraft(path: string, holder: LockHolder): string {
  const draft = `${path}.${randomUUID()}`
  writeFileSync(draft, JSON.stringify(holder, null, 2))
  return draft
}

/** Only one process at a time may judge and replace a left-behind lock, or two could both win. */
function takeOver(path: string, me: LockHolder): void {
  const guard = `${path}.takeover`
  try {
    mkdirSync(guard)
  } catch (error) {
    if (!isCode(error, 'EEXIST')) throw error
    if (isFresh(guard) || !replaceFolder(guard)) {
      throw new SetupError(
        `Another process is taking over ${path} at this moment; try again in a few seconds.`,
      )
    }
  }
  try {
    const dataDir = join(path, '..')
    const holder = readLock(dataDir)
    if (holder && mayBeAlive(holder)) throw new SetupError(describeHolder(dataDir, holder))
    if (holder) unlinkSync(path)
    if (!create(path, me)) throw new SetupError(`Another process took ${path} first.`)
  } finally {
    rmdirSync(guard)
  }
}

/** A guard that is not there any more was given back this moment: as busy as a fresh one. */
const isFresh = (guard: string) =>
  Date.now() - (statSync(guard, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) < takeOverLimitMs

/** False if another process was quicker. */
function replaceFolder(path: string): boolean {
  try {
    rmdirSync(path)
    mkdirSync(path)
    return true
  } catch (error) {
    if (isCode(error, 'ENOENT') || isCode(error, 'EEXIST')) return false
    throw error
  }
}

function describeHolder(dataDir: string, holder: LockHolder): string {
  const where = holder.url ? `, serving ${holder.url}` : ''
  const who = `process ${holder.owner} on ${holder.host} since ${holder.since}${where}`
  const remedy =
    holder.host === hostname()
      ? 'Stop it first, use its address (QUARRY_URL), or set QUARRY_DATA_DIR to another folder.'
      : `If that machine no longer runs it, delete ${join(dataDir, fileName)}.`
  return `The data folder ${dataDir} is held by ${who}. ${remedy}`
}

/** Another machine's processes cannot be seen from here: they count as alive. */
function mayBeAlive(holder: LockHolder): boolean {
  if (holder.host !== hostname()) return true
  if (!isRunning(holder.pid)) return false
  const start = processStart(holder.pid)
  return start === null || holder.processStart === null || start === holder.processStart
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return isCode(error, 'EPERM')
  }
}

/** Field 22 of /proc/PID/stat (proc(5)); null where there is no /proc. */
function processStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null
  } catch {
    return null
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
