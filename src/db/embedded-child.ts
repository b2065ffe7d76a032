import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { PGlite } from '@electric-sql/pglite'
import { vector } from '@electric-sql/pglite-pgvector'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { errorMessage } from '../errors.ts'
import { sessionSettings } from './connection.ts'
import type { FromChild, ToChild } from './embedded-protocol.ts'
import { acquireLockWhenFree, aloneLimitMs, type DataLock } from './lock.ts'

/*
 * The process that owns an embedded database: PGlite runs in it, so that a long statement blocks nobody else's event
 * loop, and it holds the folder's lock, so that the lock ends exactly when the folder is no longer open.
 */

const [dataDir] = process.argv.slice(2)
if (!dataDir || !process.send)
  throw new Error('embedded-child.ts is started by db/embedded.ts with a data folder')

const maxConnections = 64
/** Shorter than this process may live without its owner (aloneLimitMs). */
const closeLimitMs = 5_000
const leastFreeBytes = 32 * 1024 * 1024
const errorResponse = 'E'.charCodeAt(0)
let lock: DataLock | null = null
let database: PGlite | null = null
let server: PGLiteSocketServer | null = null
let socketDir: string | null = null
let stopping: Promise<void> | null = null

const say = (message: FromChild) => process.connected && process.send?.(message)

/** A pool behind a broken engine would wait for ever: say why, and end. */
function fail(error: unknown): void {
  say({ type: 'failed', message: errorMessage(error) })
  end(1)
}

/** A broken engine may never finish closing; the process must not outlive that and hold the folder's lock. */
function end(code: number): void {
  setTimeout(() => process.exit(code), closeLimitMs)
  void stop().finally(() => process.exit(code))
}

async function start(folder: string): Promise<void> {
  try {
    mkdirSync(folder, { recursive: true })
    lock = await acquireLockWhenFree(folder, process.ppid)
  } catch (error) {
    say({ type: 'refused', message: describeRefusal(folder, error) })
    process.exitCode = 1
    process.disconnect()
    return
  }
  database = await PGlite.create({ dataDir: join(folder, 'postgres'), extensions: { vector } }).catch(
    (error) => {
      // The engine itself does not say why.
      throw isFull(folder) ? new Error(diskFull(errorMessage(error)), { cause: error }) : error
    },
  )
  for (const [name, value] of Object.entries(sessionSettings)) await database.exec(`set ${name} = '${value}'`)
  socketDir = mkdtempSync(join(tmpdir(), 'quarry-'))
  server = new PGLiteSocketServer({
    db: keepGroupsTogether(database),
    path: join(socketDir, '.s.PGSQL.5432'),
    maxConnections,
  })
  server.addEventListener('error', (event) => fail((event as CustomEvent).detail))
  await server.start()
  say({ type: 'ready', socketDir })
}

function describeRefusal(folder: string, error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  switch (code) {
    case 'EROFS':
    case 'EACCES':
    case 'EPERM':
      return `The data folder ${folder} cannot be written (${code}). Make it writable for this user, or set QUARRY_DATA_DIR to another folder.`
    case 'ENOSPC':
      return `The data folder ${folder} cannot be opened: the disk is full (${code}). Free some space and start again; nothing stored is lost.`
    default:
      return errorMessage(error)
  }
}

/**
 * The socket server hands on one protocol message at a time, and keeps to a connection only while that is in a
 * transaction. A statement with parameters is a group of messages (Parse, Bind, ..., Sync) over one unnamed statement:
 * another connection's Parse in between would replace it, and this one's Bind would meet the wrong statement. Seen so,
 * a group counts as a transaction. An engine that throws here is broken, and the server's queue would wait for ever.
 */
function keepGroupsTogether(engine: PGlite): PGlite {
  const groupEnds = new Set([...'SQX'].map((letter) => letter.charCodeAt(0)))
  let isInGroup = false
  return new Proxy(engine, {
    get(target, name) {
      if (name === 'isInTransaction') return () => isInGroup || target.isInTransaction()
      if (name === 'execProtocolRawStream') {
        return async (...args: Parameters<PGlite['execProtocolRawStream']>) => {
          const [type = 0] = args[0]
          // Start-up messages have no type letter; their first byte is that of a length.
          isInGroup = type !== 0 && !groupEnds.has(type)
          const [message, { onRawData }] = args
          try {
            return await target.execProtocolRawStream(message, {
              ...args[1],
              onRawData(data) {
                onRawData(data)
                const reason = fatalError(data)
                if (reason) fail(reason)
              },
            })
          } catch (error) {
            fail(error)
            throw error
          }
        }
      }
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

const diskFull = (reason: string) =>
  `the disk is full (${reason}). Free some space and start again; nothing stored is lost`

/** A start needs room for its log. */
function isFull(folder: string): boolean {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize < leastFreeBytes
}

/**
 * An error after which the engine cannot go on, among the messages of an answer: a panic, or a full disk (53100),
 * after which the next statement would hang. Format: protocol 3.0, ErrorResponse.
 */
function fatalError(answer: Uint8Array): string | null {
  const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength)
  for (let at = 0; at + 5 <= bytes.length; at += 1 + bytes.readUInt32BE(at + 1)) {
    if (bytes[at] !== errorResponse) continue
    const fields = bytes.toString('utf8', at + 5, at + 1 + bytes.readUInt32BE(at + 1)).split('\0')
    const field = (code: string) => fields.find((text) => text.startsWith(code))?.slice(1)
    if (field('C') === '53100') return diskFull(field('M') ?? '')
    if (field('V') === 'PANIC') return field('M') ?? 'PANIC'
  }
  return null
}

function stop(): Promise<void> {
  stopping ??= (async () => {
    await server?.stop()
    await database?.close()
    if (socketDir) rmSync(socketDir, { recursive: true, force: true })
    lock?.release()
  })()
  return stopping
}

async function obey(message: ToChild): Promise<void> {
  switch (message.type) {
    case 'address':
      lock?.setUrl(message.url)
      say({ type: 'published' })
      break
    case 'stop':
      end(0)
  }
}

process.on('message', (message: ToChild) => void obey(message).catch(fail))
// The owner is gone, perhaps by kill -9: close cleanly and free the folder for the next one.
process.on('disconnect', () => end(0))
// Ctrl-C reaches the whole process group; the owner decides when its database ends.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => {})
process.on('uncaughtException', fail)
process.on('unhandledRejection', fail)

new Worker(new URL('./embedded-watchdog.js', import.meta.url), {
  workerData: { owner: process.ppid, limitMs: aloneLimitMs },
}).unref()
void start(dataDir).catch(fail)
