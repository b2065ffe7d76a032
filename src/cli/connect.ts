import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from '../config.ts'
import { currentHolder } from '../db/lock.ts'
import { SetupError } from '../errors.ts'
import { createLogger } from '../log.ts'
import { ApiClient } from './client.ts'

/** What a command works with. */
export interface Session {
  client: ApiClient
  /** Whether a server runs on after this command; else the work ends with it. */
  isServer: boolean
}

export interface Connection extends Session {
  /** Resolves with the reason if the work inside this command cannot go on; never for a server. */
  failed: Promise<Error>
  close(): Promise<void>
}

const startingLimitMs = 30_000

/**
 * The API to work with: the server of QUARRY_URL, the one that holds the embedded data folder, or else one that is
 * started inside this command. Commands use nothing but the API, so they do the same in all three cases.
 * @param signal ends what the client has under way
 */
export async function connect(config: Config, signal: AbortSignal): Promise<Connection> {
  const { serverUrl, database } = config
  const dataDir = serverUrl === null && database.kind === 'embedded' ? database.dataDir : null
  const url = serverUrl ?? (dataDir === null ? null : await urlOfHolder(dataDir, signal))
  if (url) {
    const client = new ApiClient(url, {
      signal,
      ...(dataDir === null ? {} : { locate: () => currentHolder(dataDir)?.url ?? null }),
    })
    return { client, isServer: true, failed: new Promise(() => {}), close: () => client.close() }
  }
  // Loaded only where it is needed: beside a server, a command then starts several times faster.
  const { startApp } = await import('../app.ts')
  const app = await startApp({
    config: { ...config, server: { ...config.server, host: '127.0.0.1', port: 0 } },
    log: createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel),
    role: 'server',
  })
  if (!app.url) throw new Error('an app of role server has no address')
  const client = new ApiClient(app.url, { signal })
  return {
    client,
    isServer: false,
    failed: app.failed,
    async close() {
      await client.close()
      await app.stop()
    },
  }
}

/** A server that is just starting holds the folder before it has an address: wait for that. */
async function urlOfHolder(dataDir: string, signal: AbortSignal): Promise<string | null> {
  const until = Date.now() + startingLimitMs
  for (;;) {
    const holder = currentHolder(dataDir)
    if (!holder) return null
    if (holder.url) return holder.url
    if (Date.now() > until) {
      throw new SetupError(
        `Process ${holder.owner} holds ${dataDir} since ${holder.since} but serves no API. Stop it, or try again later.`,
      )
    }
    await delay(100)
    signal.throwIfAborted()
  }
}
