import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { SetupError } from '../errors.ts'
import type { FromChild, ToChild } from './embedded-protocol.ts'

/** A running embedded database: PGlite in a child process, reached through a socket that only this user can open. */
export interface EmbeddedServer {
  socketDir: string
  /** Writes the address of the API into the folder's lock, for commands that run beside the server. Resolves when it is there. */
  publishAddress(url: string): Promise<void>
  stop(): Promise<void>
}

/** Compiled, also when this module is not (tests): Node 20 runs no TypeScript. */
const childPath = fileURLToPath(new URL('../../dist/db/embedded-child.js', import.meta.url))
const stopLimitMs = 10_000

/**
 * Opens the folder as a Postgres; creates it at the first start.
 * @param onFailure the child died or its engine broke; nothing more will be answered
 * @throws SetupError if another process holds the folder
 */
export async function startEmbeddedServer(
  dataDir: string,
  onFailure: (error: Error) => void,
): Promise<EmbeddedServer> {
  const child = fork(childPath, [dataDir], {
    execArgv: ['--enable-source-maps'],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    serialization: 'json',
  })
  let errorOutput = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errorOutput = (errorOutput + text).slice(-4000)
  })
  const socketDir = await ready(child, () => errorOutput)

  let stopping = false
  child.on('message', (message: FromChild) => {
    if (message.type === 'failed') report(message.message)
  })
  child.once('exit', (code, signal) => report(`it ended with ${signal ?? `code ${code}`}. ${errorOutput}`))

  let reported = false
  function report(reason: string): void {
    if (stopping || reported) return
    reported = true
    onFailure(new SetupError(`The embedded database in ${dataDir} stopped: ${reason}`))
  }
  const tell = (message: ToChild) => {
    if (child.connected) child.send(message)
  }

  return {
    socketDir,
    publishAddress: (url) =>
      new Promise((resolve) => {
        const settle = () => {
          child.off('message', onMessage)
          child.off('exit', settle)
          resolve()
        }
        const onMessage = ({ type }: FromChild) => {
          if (type === 'published') settle()
        }
        child.on('message', onMessage)
        // Whoever has opened the database is told of its end by onFailure.
        child.once('exit', settle)
        tell({ type: 'address', url })
        if (!child.connected) settle()
      }),
    async stop() {
      stopping = true
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      tell({ type: 'stop' })
      const killer = setTimeout(() => child.kill('SIGKILL'), stopLimitMs)
      await exited
      clearTimeout(killer)
    },
  }
}

function ready(child: ChildProcess, errorOutput: () => string): Promise<string> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void) => {
      child.off('message', onMessage)
      child.off('exit', onExit)
      finish()
    }
    const onMessage = (message: FromChild) => {
      if (message.type === 'ready') settle(() => resolve(message.socketDir))
      if (message.type === 'refused' || message.type === 'failed') {
        settle(() => reject(new SetupError(message.message)))
      }
    }
    const onExit = (code: number | null, signal: string | null) =>
      settle(() =>
        reject(
          new SetupError(
            `The embedded database did not start (${signal ?? `code ${code}`}). ${errorOutput()}`,
          ),
        ),
      )
    child.on('message', onMessage)
    child.on('exit', onExit)
  })
}
