import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/** A network between two programs that a test can break, for real: the programs have sockets to it, not to each other. */
export interface TcpProxy extends AsyncDisposable {
  readonly host: string
  /** Stays the same over refuse() and resume(). */
  readonly port: number
  /** Connections that were cut by cut() and refuse() so far. */
  readonly wereCut: number
  /** Resets all connections that there are; new ones are taken. @returns how many there were */
  cut(): number
  /** Resets all connections, and refuses new ones until resume(), as a machine does on which nothing listens. */
  refuse(): Promise<void>
  /** Nothing more comes through, in neither direction, and nobody is told: a network that has gone silent. */
  stall(): void
  /** Ends refuse() and stall(); what was held back by a stall comes through now. */
  resume(): Promise<void>
}

/** Listens on a free port of this machine and passes everything on to the target. */
export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const host = '127.0.0.1'
  const pairs = new Set<readonly [Socket, Socket]>()
  let isStalled = false
  let wereCut = 0

  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ ...target, noDelay: true })
    const pair = [near, far] as const
    pairs.add(pair)
    for (const [from, to] of [pair, [far, near] as const]) {
      // One side that breaks breaks the other: whoever is behind must not wait for it.
      from.on('error', () => to.resetAndDestroy())
      from.on('close', () => {
        pairs.delete(pair)
        to.destroy()
      })
      if (!isStalled) from.pipe(to)
    }
  })

  async function listen(port: number): Promise<number> {
    server.listen(port, host)
    await once(server, 'listening')
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
    return address.port
  }

  function cut(): number {
    const open = [...pairs]
    wereCut += open.length
    for (const pair of open) for (const socket of pair) socket.resetAndDestroy()
    return open.length
  }

  /** close() stops the listening at once; its event waits for connections that cut() has torn down. */
  async function close(): Promise<void> {
    if (!server.listening) return
    const closed = once(server, 'close')
    server.close()
    cut()
    await closed
  }

  const port = await listen(0)
  return {
    host,
    port,
    get wereCut() {
      return wereCut
    },
    cut,
    refuse: close,
    stall() {
      isStalled = true
      for (const pair of pairs) for (const socket of pair) socket.unpipe().pause()
    },
    async resume() {
      if (!server.listening) await listen(port)
      if (!isStalled) return
      isStalled = false
      for (const [near, far] of pairs) {
        near.pipe(far)
        far.pipe(near)
      }
    },
    [Symbol.asyncDispose]: close,
  }
}

/** The same URL, through the proxy. */
export function through(proxy: TcpProxy, url: string): string {
  const proxied = new URL(url)
  proxied.hostname = proxy.host
  proxied.port = String(proxy.port)
  return proxied.href
}

/** Where a URL points to: what a proxy is put in front of. */
export function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}
