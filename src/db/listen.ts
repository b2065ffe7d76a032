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
  const channels = new Map<string, Channel<string | null>>()
  let client: Promise<pg.Client> | null = null
  let closed = false
  let retry: NodeJS.Timeout | null = null

  async function connect(): Promise<pg.Client> {
    const fresh = new pg.Client({ ...connection, keepAlive: true })
    fresh.on('error', (error) => lost(error))
    fresh.on('end', () => lost(new Error('the connection was closed')))
    fresh.on('notification', ({ channel, payload }) => {
      for (const handler of channels.get(channel)?.handlers ?? []) handler(payload ?? '')
    })
    await fresh.connect()
    for (const channel of channels.keys()) await fresh.query(`listen ${pg.escapeIdentifier(channel)}`)
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
          for (const { handlers } of channels.values()) for (const handler of handlers) handler(null)
        },
        (error) => {
          client = null
          log.warn({ error: errorMessage(error) }, 'Still no connection for notifications')
          if (!retry) reconnect(Math.min(delayMs * 2, reconnectMaxMs))
        },
      )
    }, delayMs)
  }

  async function begin(channel: string): Promise<void> {
    if (client === null && !retry) {
      client = connect()
      client.catch(() => {
        client = null
      })
      await client
    } else {
      await (await client)?.query(`listen ${pg.escapeIdentifier(channel)}`)
    }
  }

  return {
    async listen(channel, onNotification) {
      const joined = await join(channels, channel, onNotification, begin)
      return async () => {
        joined.handlers.delete(onNotification)
        if (joined.handlers.size > 0 || channels.get(channel) !== joined) return
        channels.delete(channel)
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
  const channels = new Map<string, Channel<string>>()
  pool.on('connect', (client) => {
    client.on('notification', ({ channel, payload }) => {
      for (const handler of channels.get(channel)?.handlers ?? []) handler(payload ?? '')
    })
  })
  return {
    async listen(channel, onNotification) {
      const { handlers } = await join(channels, channel, onNotification, (name) =>
        pool.query(`listen ${pg.escapeIdentifier(name)}`),
      )
      return async () => {
        handlers.delete(onNotification)
      }
    },
  }
}

interface Channel<Payload> {
  handlers: Set<(payload: Payload) => void>
  /** Fulfilled when the database has been told. */
  begun: Promise<unknown>
}

/** Whoever joins while the first listener is still telling the database waits with it, or would miss what comes then. */
async function join<Payload>(
  channels: Map<string, Channel<Payload>>,
  name: string,
  handler: (payload: Payload) => void,
  begin: (name: string) => Promise<unknown>,
): Promise<Channel<Payload>> {
  const known = channels.get(name)
  const channel = known ?? { handlers: new Set(), begun: Promise.resolve() }
  channel.handlers.add(handler)
  if (!known) {
    channels.set(name, channel)
    channel.begun = begin(name)
  }
  try {
    await channel.begun
  } catch (error) {
    if (channels.get(name) === channel) channels.delete(name)
    throw error
  }
  return channel
}
