import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SetupError } from '../errors.ts'

/**
 * Begins to listen; port 0 means any free one.
 * @param variable the environment variable that names the port, for the message
 * @throws SetupError if the address cannot be had
 */
export async function listen(
  server: Server,
  { host, port, variable }: { host: string; port: number; variable: 'PORT' | 'QUARRY_WORKER_PORT' },
): Promise<void> {
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code === 'EADDRINUSE') {
      throw new SetupError(
        `${host}:${port} is in use by another program. Stop it, or set ${variable} to a free one.`,
      )
    }
    if (code === 'EADDRNOTAVAIL' || code === 'EACCES' || code === 'ENOTFOUND') {
      throw new SetupError(
        `Cannot listen on ${host}:${port} (${String(code)}). Correct HOST and ${variable}.`,
      )
    }
    throw error
  }
}

/** The address of a server, as others write it. */
export const urlOf = ({ family, address, port }: AddressInfo): string =>
  `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
