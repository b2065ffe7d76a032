import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import type { ProviderNetwork } from '../config.ts'
import { InvalidInputError } from '../errors.ts'

/*
 * Which addresses a provider that somebody adds over the API may have. Without these rules, the server could be told to
 * send requests to what only it can reach: the metadata service of a cloud, which gives away credentials, or a database
 * on a private network.
 */

/** Least network that has to be allowed for an address; `never`: none allows it. */
export type AddressClass = ProviderNetwork | 'never'

const heights: Record<AddressClass, number> = { public: 0, loopback: 1, private: 2, never: 3 }

/**
 * Metadata services at addresses that their range alone would let through: EC2 over IPv6, Google Cloud over IPv6, Azure's
 * wire server (a public address), Alibaba Cloud, Oracle Cloud. All others that are known are link-local, which is never
 * allowed.
 */
const metadataAddresses = new Set(
  ['fd00:ec2::254', 'fd20:ce::254', '168.63.129.16', '100.100.100.200', '192.0.0.192'].map((text) =>
    ipaddr.parse(text).toNormalizedString(),
  ),
)

/** Names of metadata services. They are told by their addresses, too, where they resolve to them. */
const metadataNames =
  /^(metadata|instance-data|(metadata|instance-data)\.(google\.internal|goog|ec2\.internal|tencentyun\.com|platformequinix\.com|packet\.net))$/

/** Addresses for the whole internet; what is in no other range, such as IPv4-compatible or site-local ones, is dead. */
const globalUnicast = ipaddr.IPv6.parseCIDR('2000::/3')

/** @param address IPv4 or IPv6, as resolvers answer; anything else is `never` */
export function classOfAddress(address: string): AddressClass {
  // Stricter than the library, which also reads what no resolver answers, such as octal numbers.
  if (isIP(address) === 0) return 'never'
  // An IPv4-mapped address (::ffff:127.0.0.1) is the IPv4 one.
  const parsed = ipaddr.process(address)
  if (metadataAddresses.has(parsed.toNormalizedString())) return 'never'
  switch (parsed.range()) {
    case 'loopback':
      return 'loopback'
    case 'private':
    case 'carrierGradeNat':
    case 'uniqueLocal':
      return 'private'
    case 'unicast':
      return parsed instanceof ipaddr.IPv6 && !parsed.match(globalUnicast) ? 'never' : 'public'
    default:
      // Link-local, unspecified, multicast, reserved; and what carries an IPv4 address inside (NAT64, 6to4, Teredo),
      // behind which anything could be.
      return 'never'
  }
}

/** Of the host of a URL, as far as it says so by itself; null for a name that has to be resolved. */
export function classOfHost(hostname: string): AddressClass | null {
  // With a dot at its end a name means the same, and would pass a comparison.
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.+$/, '')
  if (isIP(host) !== 0) return classOfAddress(host)
  // RFC 6761, 6.3: whatever a resolver says.
  if (host === 'localhost' || host.endsWith('.localhost')) return 'loopback'
  return metadataNames.test(host) || host === '' ? 'never' : null
}

/** Why an address may not be used, for the end of a sentence; null if it may. */
export function refusalOf(found: AddressClass, allowed: ProviderNetwork): string | null {
  if (heights[found] <= heights[allowed]) return null
  if (found === 'never') return 'is a metadata, link-local, multicast, unspecified or reserved address'
  const where = found === 'loopback' ? 'on this machine' : 'in a private network'
  return `is ${where}, which QUARRY_PROVIDER_NETWORK=${allowed} does not allow; with QUARRY_PROVIDER_NETWORK=${found} it would be`
}

/**
 * Checks the form of a base URL, and its host as far as that is an address itself. A name is checked when it is resolved,
 * each time anew: see `createGuardedFetch`.
 * @returns the URL as the platform reads it, without a slash at its end: `http://0x7f.1/` becomes `http://127.0.0.1`
 * @throws InvalidInputError that does not repeat the URL, which may contain a password
 */
export function readBaseUrl(text: string, allowed: ProviderNetwork, path: readonly string[]): string {
  const refuse = (what: string) => new InvalidInputError(`${path.join('.')} ${what}`, path)
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null) throw refuse('is not a URL; it must look like https://api.example.com/v1')
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw refuse(`begins with ${url.protocol}; it must begin with http:// or https://`)
  }
  if (url.username !== '' || url.password !== '') {
    throw refuse('contains a user name or a password: leave them out, and give a key as apiKey')
  }
  // Also an empty one, which the URL does not show.
  if (text.includes('#')) throw refuse('contains a fragment (#): leave it out')
  if (text.includes('?')) throw refuse('contains a query (?), which everybody would see: leave it out')
  const found = classOfHost(url.hostname)
  const reason = found && refusalOf(found, allowed)
  if (reason) throw refuse(`is refused: ${url.hostname} ${reason}`)
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`
}
