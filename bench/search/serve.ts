import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import pg from 'pg'
import { startupOptions } from '../../src/db/connection.ts'

/** As many as Quarry takes by default (QUARRY_DATABASE_POOL), so that no server has more of the database than another. */
const poolSize = 10

/** A pool with the settings of Quarry's own connections, so that all meet the same plans. */
export function openPool(databaseUrl: string): pg.Pool {
  return new pg.Pool({ connectionString: databaseUrl, options: startupOptions, max: poolSize })
}

/** Serves on a free port until the parent lets go of this process; tells it the address. */
export async function serveParent(listener: RequestListener, pool: pg.Pool): Promise<void> {
  const server = createServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  process.send?.({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })
  await once(process, 'disconnect')
  server.close()
  server.closeAllConnections()
  await pool.end()
}
