import pg from 'pg'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'

export type Unlisten = () => Promise<void>

export interface NotificationListener {
  listen(channel: string, onNotification: (payload: string | null) => void): Promise<Unlisten>
}

const reconnectMinMs = 100
const reconnectMaxMs = 10_000

/**
 * LISTEN on one connection of its own: a pooled one would lose its channels when it is handed on. Connects at the
 * first listener; after a lost connection it listens again and tells every listener (payload null) to read again.
 */
export function postgresListener(
  connection: pg.ClientConfig,
  log: Logger,
): NotificationListener & { close(): Promise<void> } {
  const handlers = new Map<string, Set<(payload: string | null) => void>>()
  let client: Promise<pg.Client> | null = null
  let closed = false
  let retry: NodeJS.Timeout | null = null

  async function connect(): Promise<pg.Client> {
    const fresh = new pg.Client({ ...connection, keepAlive: true })
    fresh.on('error', (error) => lost(error))
    fresh.on('end', () => lost(new Error('the connection was closed')))
    fresh.on('notification', ({ channel, payload }) => {
      for (const handler of handlers.get(channel) ?? []) handler(payload ?? '')
    })
    await fresh.connect()
    for (const channel of handlers.keys()) await fresh.query(`listen ${pg.escapeIdentifier(channel)}`)
    return fresh
  }

  function lost(error: Error): void {
    if (closed || client === null || retry) return
    client = null
    log.warn({ error: error.message }, 'The connection for notifications was lost; connecting again')
    reconnect(reconnectMinMs)
  }

  function reconnect(delayMs: number): void {
    retry = setTimeout(() => {
      retry = null
      if (closed) return
      const attempt = connect()
      client = attempt
      attempt.then(
        () => {
          for (const set of handlers.values()) for (const handler of set) handler(null)
        },
        (error) => {
          client = null
          log.warn({ error: errorMessage(error) }, 'Still no connection for notifications')
          if (!retry) reconnect(Math.min(delayMs * 2, reconnectMaxMs))
        },
      )
    }, delayMs)
  }

  return {
    async listen(channel, onNotification) {
      let set = handlers.get(channel)
      const isNew = !set
      set ??= new Set()
      handlers.set(channel, set)
      set.add(onNotification)
      if (client === null && !retry) {
        client = connect()
        client.catch(() => {
          client = null
        })
        await client
      } else if (isNew) {
        await (await client)?.query(`listen ${pg.escapeIdentifier(channel)}`)
      }
      return async () => {
        set.delete(onNotification)
        if (set.size > 0 || handlers.get(channel) !== set) return
        handlers.delete(channel)
        await (await client?.catch(() => null))
          ?.query(`unlisten ${pg.escapeIdentifier(channel)}`)
          .catch(() => {})
      }
    },
    async close() {
      closed = true
      if (retry) clearTimeout(retry)
      await (await client?.catch(() => null))?.end()
    },
  }
}

/**
 * LISTEN on an embedded database, where all connections share one session: a notification comes back on whichever
 * connection raised it. This process owns them all, so it hears every one.
 */
export function sharedSessionListener(pool: pg.Pool): NotificationListener {
  const handlers = new Map<string, Set<(payload: string) => void>>()
  pool.on('connect', (client) => {
    client.on('notification', ({ channel, payload }) => {
      for (const handler of handlers.get(channel) ?? []) handler(payload ?? '')
    })
  })
  return {
    async listen(channel, onNotification) {
      const known = handlers.get(channel)
      const set = known ?? new Set()
      set.add(onNotification)
      handlers.set(channel, set)
      if (!known) await pool.query(`listen ${pg.escapeIdentifier(channel)}`)
      return async () => {
        set.delete(onNotification)
      }
    },
  }
}
