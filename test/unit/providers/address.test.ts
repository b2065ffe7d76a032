import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidInputError } from '../../../src/errors.ts'
import { classOfAddress, classOfHost, readBaseUrl } from '../../../src/providers/address.ts'

const read = (url: string, network: 'public' | 'loopback' | 'private' = 'private') =>
  readBaseUrl(url, network, ['baseUrl'])

describe('never allowed', () => {
  test.each([
    // Link-local, and with it the metadata services of EC2, Azure, Google, Oracle, DigitalOcean.
    'http://169.254.169.254/latest',
    'http://169.254.0.1',
    'http://[fe80::1]',
    'http://[febf::1]',
    // The same in the notations that inet_aton and browsers read.
    'http://2852039166',
    'http://0xa9fea9fe',
    'http://0251.0376.0251.0376',
    'http://0xa9.0xfe.0xa9.0xfe',
    'http://169.254.43518',
    'http://169.16689662',
    'http://169.254.169.254.',
    'http://%31%36%39.254.169.254',
    'http://１６９.254.169.254',
    'http://169。254。169。254',
    // Inside IPv6.
    'http://[::ffff:169.254.169.254]',
    'http://[::ffff:a9fe:a9fe]',
    'http://[::169.254.169.254]',
    'http://[64:ff9b::169.254.169.254]',
    'http://[64:ff9b::7f00:1]',
    'http://[2002:a9fe:a9fe::]',
    'http://[2001:0:a9fe:a9fe::]',
    'http://[::ffff:0:127.0.0.1]',
    // Other metadata services.
    'http://[fd00:ec2::254]',
    'http://[fd00:0ec2:0:0:0:0:0:0254]',
    'http://[fd20:ce::254]',
    'http://168.63.129.16',
    'http://100.100.100.200',
    'http://192.0.0.192',
    'http://metadata.google.internal',
    'http://METADATA.google.internal',
    'http://metadata.google.internal.',
    'http://metadata.google.internal../computeMetadata',
    'http://metadata',
    'http://metadata.goog',
    'http://instance-data.ec2.internal',
    // Unspecified, multicast, broadcast, reserved, documentation.
    'http://0.0.0.0',
    'http://0',
    'http://0.1.2.3',
    'http://[::]',
    'http://[::ffff:0.0.0.0]',
    'http://224.0.0.1',
    'http://239.255.255.250',
    'http://[ff02::1]',
    'http://255.255.255.255',
    'http://240.0.0.1',
    'http://192.0.2.1',
    'http://198.18.0.1',
    'http://[2001:db8::1]',
    'http://[fec0::1]',
    'http://[100::1]',
  ])('%s', (url) => {
    expect(() => read(url)).toThrow('metadata, link-local, multicast, unspecified or reserved')
    expect(() => read(url)).toThrow(InvalidInputError)
  })
})

describe('only with loopback', () => {
  test.each([
    'http://127.0.0.1:11434',
    'http://127.255.0.9',
    'http://127.1',
    'http://2130706433',
    'http://0x7f000001',
    'http://0177.0.0.1',
    'http://127.0.0.1.',
    'http://[::1]:11434',
    'http://[0:0:0:0:0:0:0:1]',
    'http://[::ffff:127.0.0.1]',
    'http://[::ffff:7f00:1]',
    'http://localhost:11434',
    'http://LOCALHOST',
    'http://localhost.',
    'http://ollama.localhost',
  ])('%s', (url) => {
    expect(() => read(url, 'public')).toThrow(
      'is on this machine, which QUARRY_PROVIDER_NETWORK=public does not allow',
    )
    expect(read(url, 'loopback')).toMatch(/^http:/)
    expect(read(url, 'private')).toMatch(/^http:/)
  })
})

describe('only with private', () => {
  test.each([
    'http://10.0.0.1',
    'http://172.16.0.1',
    'http://172.31.255.255',
    'http://192.168.1.1',
    'http://3232235777',
    'http://0xc0a80101',
    'http://0300.0250.01.01',
    'http://100.64.0.1',
    'http://100.127.255.255',
    'http://[fc00::1]',
    'http://[fd12:3456::1]',
    'http://[::ffff:10.0.0.1]',
  ])('%s', (url) => {
    for (const network of ['public', 'loopback'] as const)
      expect(() => read(url, network)).toThrow('is in a private network')
    expect(read(url, 'private')).toMatch(/^http:/)
  })
})

describe('of any form but an http address without more', () => {
  test.each([
    ['nonsense', 'is not a URL'],
    ['', 'is not a URL'],
    ['//example.com', 'is not a URL'],
    ['http://', 'is not a URL'],
    ['http://[fe80::1%eth0]', 'is not a URL'],
    ['http://256.256.256.256', 'is not a URL'],
    ['file:///etc/passwd', 'begins with file:'],
    ['ftp://example.com', 'begins with ftp:'],
    ['gopher://example.com', 'begins with gopher:'],
    ['javascript:alert(1)', 'begins with javascript:'],
    ['https://user:hunter2@example.com', 'contains a user name or a password'],
    ['https://user@example.com', 'contains a user name or a password'],
    ['https://:hunter2@example.com', 'contains a user name or a password'],
    ['https://example.com@169.254.169.254/', 'contains a user name or a password'],
    ['https://example.com/v1#there', 'contains a fragment'],
    ['https://example.com/v1#', 'contains a fragment'],
    ['https://example.com/v1?key=hunter2', 'contains a query'],
    ['https://example.com/v1?', 'contains a query'],
  ])('%s is refused', (url, message) => {
    expect(() => read(url)).toThrow(message)
    expect(() => read(url)).not.toThrow('hunter2')
  })
})

test.each([
  ['https://api.openai.com/v1', 'https://api.openai.com/v1'],
  ['https://api.openai.com/v1/', 'https://api.openai.com/v1'],
  ['HTTPS://API.Example.COM:443/v1', 'https://api.example.com/v1'],
  ['http://8.8.8.8', 'http://8.8.8.8'],
  ['http://[2606:4700::1111]:8080', 'http://[2606:4700::1111]:8080'],
  ['http://0x8080808', 'http://8.8.8.8'],
])('%s is allowed everywhere, as %s', (url, expected) => {
  for (const network of ['public', 'loopback', 'private'] as const) expect(read(url, network)).toBe(expected)
  expect(read(expected)).toBe(expected)
})

test('names are left to be resolved, unless they mean something by themselves', () => {
  expect(classOfHost('api.openai.com')).toBeNull()
  // A name may begin like one, or be in a zone of that name.
  expect(classOfHost('metadata.example.com')).toBeNull()
  expect(classOfHost('localhost.example.com')).toBeNull()
})

test('an IPv4 address is the same inside IPv6, and in every notation', () => {
  fc.assert(
    fc.property(fc.ipV4(), (address) => {
      const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number)
      const found = classOfAddress(address)
      expect(classOfAddress(`::ffff:${address}`)).toBe(found)
      for (const host of [
        String(((a * 256 + b) * 256 + c) * 256 + d),
        `0x${a.toString(16)}.0x${b.toString(16)}.0x${c.toString(16)}.0x${d.toString(16)}`,
        `0${a.toString(8)}.0${b.toString(8)}.0${c.toString(8)}.0${d.toString(8)}`,
      ])
        expect(classOfHost(new URL(`http://${host}`).hostname)).toBe(found)
    }),
  )
})

test.each(['', 'example.com', '1.2.3', '::g', '1.2.3.4/8'])(
  '%j is no address, and so never one to connect to',
  (text) => {
    expect(classOfAddress(text)).toBe('never')
  },
)
