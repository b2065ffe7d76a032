import { once } from 'node:events'
import { createServer } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ProviderNetwork } from '../../../src/config.ts'
import {
  createGuardedFetch,
  type Resolver,
  requireAllowedHost,
} from '../../../src/providers/guarded-fetch.ts'
import { OllamaProvider } from '../../../src/providers/ollama.ts'
import { OpenAiProvider } from '../../../src/providers/openai.ts'
import { hashVector, ProviderServer } from '../../support/provider-server.ts'

/** A resolver that answers so, one after the other; the last one for ever. */
function answering(...answers: string[][]): Resolver {
  return async () => {
    const addresses = (answers.length > 1 ? answers.shift() : answers[0]) ?? []
    return addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  }
}

let server: ProviderServer
beforeAll(async () => {
  server = await ProviderServer.start()
})
afterAll(() => server.close())

const port = () => new URL(server.url).port

describe.each(['openai', 'ollama'] as const)('%s', (type) => {
  function providerOf(host: string, allowed: ProviderNetwork, resolve?: Resolver) {
    const guarded = createGuardedFetch(allowed, resolve)
    const { fetch } = guarded
    const url = `http://${host}:${port()}`
    const provider =
      type === 'openai'
        ? new OpenAiProvider({ apiKey: 'sk-1', baseUrl: `${url}/v1`, model: 'm', fetch })
        : new OllamaProvider({ baseUrl: url, model: 'm', fetch })
    return {
      embed: () => provider.embed(['text']),
      async [Symbol.asyncDispose]() {
        await provider.close()
        await guarded.close()
      },
    }
  }

  test('reaches an allowed address, by name and by number', async () => {
    const expected = [Float32Array.from(hashVector('text', 64))]
    await using named = providerOf('ollama.example', 'loopback', answering(['127.0.0.1']))
    expect(await named.embed()).toEqual(expected)
    await using numbered = providerOf('127.0.0.1', 'loopback')
    expect(await numbered.embed()).toEqual(expected)
  })

  test.each<[string, ProviderNetwork, string[], string]>([
    ['this machine', 'public', ['127.0.0.1'], 'is on this machine'],
    ['this machine inside IPv6', 'public', ['::ffff:127.0.0.1'], 'is on this machine'],
    ['a private network', 'loopback', ['10.1.2.3'], 'is in a private network'],
    ['the metadata service', 'private', ['169.254.169.254'], 'is a metadata'],
    ['an allowed address and one that is not', 'loopback', ['127.0.0.1', '169.254.169.254'], 'is a metadata'],
  ])('does not connect to a name of %s', async (_what, allowed, addresses, reason) => {
    const before = server.requests
    await using provider = providerOf('innocent.example', allowed, answering(addresses))
    const failure = provider.embed()
    await expect(failure).rejects.toMatchObject({ failure: 'MISCONFIGURED', isRetryable: false })
    await expect(failure).rejects.toThrow(reason)
    expect(server.requests).toBe(before)
  })

  test('does not connect to a number that is not allowed, for which nothing is resolved', async () => {
    await using provider = providerOf('127.0.0.1', 'public')
    await expect(provider.embed()).rejects.toMatchObject({ failure: 'MISCONFIGURED' })
  })

  test('says what cannot be resolved', async () => {
    const resolve: Resolver = () =>
      Promise.reject(Object.assign(new Error('getaddrinfo ENOTFOUND gone.example'), { code: 'ENOTFOUND' }))
    await using provider = providerOf('gone.example', 'public', resolve)
    const failure = provider.embed()
    await expect(failure).rejects.toMatchObject({ failure: 'UNAVAILABLE' })
    await expect(failure).rejects.toThrow('cannot be reached: getaddrinfo ENOTFOUND gone.example')
  })

  test('is not fooled by a name that has another address when it is connected to', async () => {
    const resolve = answering(['8.8.8.8'], ['127.0.0.1'])
    const url = `http://rebinding.example:${port()}`
    await requireAllowedHost(url, 'public', ['baseUrl'], new AbortController().signal, resolve)
    const before = server.requests
    await using provider = providerOf('rebinding.example', 'public', resolve)
    await expect(provider.embed()).rejects.toThrow('rebinding.example (127.0.0.1) is not connected to')
    expect(server.requests).toBe(before)
  })
})

test('a redirect is not followed, whether it leads to another place or to the same', async () => {
  const asked: (string | undefined)[] = []
  const redirecting = createServer((request, response) => {
    asked.push(request.url)
    response.writeHead(302, { location: '/elsewhere' }).end()
  }).listen(0, '127.0.0.1')
  await once(redirecting, 'listening')
  const address = redirecting.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port.')
  const guarded = createGuardedFetch('loopback')
  const response = await guarded.fetch(`http://127.0.0.1:${address.port}/first`)
  expect(response.status).toBe(302)
  expect(asked).toEqual(['/first'])
  await guarded.close()
  redirecting.close()
})

describe('the host of a base URL that is given', () => {
  const never = new AbortController().signal

  test('is refused for what it resolves to', async () => {
    const check = requireAllowedHost(
      'http://a.example/v1',
      'public',
      ['baseUrl'],
      never,
      answering(['10.0.0.1']),
    )
    await expect(check).rejects.toMatchObject({ path: ['baseUrl'] })
    await expect(check).rejects.toThrow('a.example resolves to 10.0.0.1, which is in a private network')
  })

  test('passes where it cannot be resolved, now or in time', async () => {
    const failing: Resolver = () => Promise.reject(new Error('ENOTFOUND'))
    await requireAllowedHost('http://a.example', 'public', ['baseUrl'], never, failing)
    const hanging: Resolver = () => new Promise(() => {})
    const controller = new AbortController()
    const check = requireAllowedHost('http://a.example', 'public', ['baseUrl'], controller.signal, hanging)
    controller.abort()
    await check
  })
})
