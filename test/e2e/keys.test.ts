import { join } from 'node:path'
import { expect, test } from 'vitest'
import { providerEnv } from '../support/apps.ts'
import { preparedFolder } from '../support/databases.ts'
import { runQuarry, startQuarry } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'

async function generate(): Promise<string> {
  const { output, code } = await runQuarry(['keys', 'generate'], {})
  expect(code).toBe(0)
  const key = output.trim()
  expect(Buffer.from(key, 'base64')).toHaveLength(32)
  return key
}

test('an encryption key is replaced: generate, rotate, leave the old one out', async () => {
  await using folder = await preparedFolder()
  await using upstream = await ProviderServer.start()
  const [oldKey, newKey] = [await generate(), await generate()]
  expect(newKey).not.toBe(oldKey)
  const env = (keys: string) => ({
    QUARRY_DATA_DIR: join(folder.path, 'data'),
    QUARRY_ENCRYPTION_KEY: keys,
    PORT: '0',
    ...providerEnv(upstream),
  })

  /** Runs a server under these keys for one mutation, and gives its answer. */
  async function mutate(keys: string, query: string, variables: unknown) {
    await using server = startQuarry(['serve'], env(keys))
    const [, url = ''] = await server.line(/"url":"([^"]+)"/)
    const body = JSON.stringify({ query, variables })
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })
    const answer = await response.text()
    server.child.kill('SIGTERM')
    await server.exit()
    return JSON.parse(answer).data
  }

  const { createProvider } = await mutate(
    oldKey,
    `mutation Create($input: CreateProviderInput!) {
       createProvider(input: $input) { ... on CreateProviderPayload { provider { id state } } }
     }`,
    {
      input: {
        name: 'U',
        type: 'OPENAI',
        baseUrl: `${upstream.url}/v1`,
        apiKey: 'sk-rotated',
        embeddingModel: 'm',
      },
    },
  )
  expect(createProvider.provider.state).toBe('CONNECTED')

  const lost = await runQuarry(['keys', 'rotate'], env(newKey))
  expect(lost.code).toBe(1)
  expect(lost.output).toContain('U: The API key was stored under the encryption key')
  const both = `${newKey},${oldKey}`
  const rotated = await runQuarry(['keys', 'rotate'], env(both))
  expect(rotated).toEqual({ code: 0, output: 'Encrypted 1 key anew' })
  const again = await runQuarry(['keys', 'rotate'], env(both))
  expect(again).toEqual({ code: 0, output: 'Nothing to do: no key was encrypted anew' })

  const { validateProvider } = await mutate(
    newKey,
    `mutation Validate($input: ValidateProviderInput!) {
       validateProvider(input: $input) { ... on ValidateProviderPayload { provider { state error } } }
     }`,
    { input: { id: createProvider.provider.id } },
  )
  expect(validateProvider.provider).toEqual({ state: 'CONNECTED', error: null })
  expect(upstream.last?.headers.authorization).toBe('Bearer sk-rotated')
})

test('without QUARRY_ENCRYPTION_KEY there is nothing to rotate to, and rotate says what to set', async () => {
  await using folder = await preparedFolder()
  const { code, output } = await runQuarry(['keys', 'rotate'], { QUARRY_DATA_DIR: join(folder.path, 'data') })
  expect(code).toBe(1)
  expect(output).toContain('QUARRY_ENCRYPTION_KEY is not set')
})
