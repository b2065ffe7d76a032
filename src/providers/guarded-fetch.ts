import type { LookupAddress, LookupAllOptions } from 'node:dns'
import { lookup } from 'node:dns/promises'
import type { LookupFunction } from 'node:net'
import type { Agent } from 'undici'
import type { ProviderNetwork } from '../config.ts'
import { InvalidInputError } from '../errors.ts'
import { classOfAddress, classOfHost, refusalOf } from './address.ts'
import { ProviderError } from './provider.ts'

/** All addresses of a name; rejects if it has none. */
export type Resolver = (hostname: string, options: LookupAllOptions) => Promise<LookupAddress[]>

/** Requests to addresses that somebody else has chosen. */
export interface GuardedFetch {
  /**
   * As the platform's, except that it connects to allowed addresses only and follows no redirect. What a name resolves to
   * is checked by the very connection that uses it: checked before, it could be another one by then (DNS rebinding).
   */
  readonly fetch: typeof fetch
  /** Ends its connections. */
  close(): Promise<void>
}

/**
 * @param allowed where requests may go
 * @param resolve the system's resolver unless given
 */
export function createGuardedFetch(allowed: ProviderNetwork, resolve: Resolver = lookup): GuardedFetch {
  let loading: Promise<{ agent: Agent; fetch: typeof fetch }> | null = null
  // Loading the package takes some 50 ms: not at the start of a process that may never ask.
  const load = () => {
    loading ??= import('undici').then(({ Agent, fetch }) => ({
      agent: new Agent({ connect: { lookup: guardedLookup(allowed, resolve) } }),
      // The same functions with types of their own; with the platform's fetch an agent of another version might fail.
      fetch: fetch as unknown as typeof globalThis.fetch,
    }))
    return loading
  }
  return {
    async fetch(input, init) {
      const url = new URL(input instanceof Request ? input.url : input)
      // An address in the URL is connected to without a lookup.
      const found = classOfHost(url.hostname)
      const reason = found && refusalOf(found, allowed)
      if (reason) throw refused(url.hostname, reason)
      const { agent, fetch } = await load()
      // A redirect would lead, with the key, where nobody has allowed it.
      const guarded = { ...init, redirect: 'manual', dispatcher: agent } as RequestInit
      return fetch(input, guarded)
    },
    async close() {
      const loaded = await loading
      await loaded?.agent.destroy()
    },
  }
}

/**
 * Resolves the host of a base URL and checks what comes, to refuse it where it is given. A name that cannot be resolved
 * passes: its server may come later.
 * @param signal ends the wait for the resolver, and then the name passes, too
 * @throws InvalidInputError
 */
export async function requireAllowedHost(
  baseUrl: string,
  allowed: ProviderNetwork,
  path: readonly string[],
  signal: AbortSignal,
  resolve: Resolver = lookup,
): Promise<void> {
  const { hostname } = new URL(baseUrl)
  if (classOfHost(hostname) !== null) return
  const ended = new Promise<[]>((done) => signal.addEventListener('abort', () => done([]), { once: true }))
  const addresses = await Promise.race([resolve(hostname, { all: true }).catch(() => []), ended])
  for (const { address } of addresses) {
    const reason = refusalOf(classOfAddress(address), allowed)
    if (reason) {
      const what = `${path.join('.')} is refused: ${hostname} resolves to ${address}, which ${reason}`
      throw new InvalidInputError(what, path)
    }
  }
}

/** One refused address refuses the name: which of them a connection takes is the network's choice. */
function guardedLookup(allowed: ProviderNetwork, resolve: Resolver): LookupFunction {
  async function allowedAddresses(hostname: string, options: LookupAllOptions): Promise<LookupAddress[]> {
    const addresses = await resolve(hostname, options)
    for (const { address } of addresses) {
      const reason = refusalOf(classOfAddress(address), allowed)
      if (reason) throw refused(`${hostname} (${address})`, reason)
    }
    return addresses
  }
  return (hostname, options, callback) => {
    allowedAddresses(hostname, { ...options, all: true }).then(
      (addresses) => {
        const [first] = addresses
        if (options.all) callback(null, addresses)
        else if (first) callback(null, first.address, first.family)
        else callback(notFound(hostname), '', 0)
      },
      (error) => callback(error, '', 0),
    )
  }
}

function refused(host: string, reason: string): ProviderError {
  return new ProviderError('MISCONFIGURED', `${host} is not connected to: it ${reason}.`)
}

function notFound(hostname: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${hostname} has no address`), { code: 'ENOTFOUND' })
}
