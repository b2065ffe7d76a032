import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import type { Config } from '../config.ts'

/**
 * Why a request is not let in; null if it is. Browsers let a page send requests to any server (CORS only hides the
 * answer), so a foreign site could change data through a visitor's browser: the origin that the browser names must be
 * ours or listed. And a foreign site may point its own name at this machine (DNS rebinding), which makes it the same
 * origin: while we listen on this machine only, the host must be one of its names.
 */
export function refusal(
  { headers }: IncomingMessage,
  { host: listenHost, corsOrigins }: Pick<Config['server'], 'host' | 'corsOrigins'>,
): string | null {
  const { origin, host = '' } = headers
  const isLocal = (name: string) =>
    name === 'localhost' || name.endsWith('.localhost') || isIP(name.replace(/[[\]]/g, '')) > 0
  const hostName = URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : ''
  if (
    isLocal(listenHost) &&
    !isLocal(hostName) &&
    hostName !== listenHost &&
    listenHost !== '0.0.0.0' &&
    listenHost !== '::'
  ) {
    return `The host ${JSON.stringify(host)} is not a name of this machine; use its address`
  }
  if (origin === undefined || corsOrigins.includes(origin)) return null
  if (URL.canParse(origin) && new URL(origin).host === host) return null
  return `The origin ${origin} is not allowed; list it in QUARRY_CORS_ORIGINS`
}
