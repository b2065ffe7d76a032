import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { providerEnv } from '../support/apps.ts'
import { TestClient } from '../support/client.ts'
import { preparedFolder } from '../support/databases.ts'
import { byMarks, readByMarks } from '../support/extraction.ts'
import { runQuarry, startQuarry } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'
import { addAgent, addProvider } from '../support/providers.ts'

test('agents are listed, and extract reads by the one that is named', async () => {
  await using folder = await preparedFolder()
  await using upstream = await ProviderServer.start({
    ...byMarks,
    chat: (request) =>
      request.messages.some(({ content }) => content.includes('BEGIN DATA'))
        ? readByMarks(request)
        : { text: '{"weekday":"Tuesday"}' },
  })
  await using embedder = await ProviderServer.start()
  const env = {
    QUARRY_DATA_DIR: join(folder.path, 'data'),
    QUARRY_AUTO_EXTRACT: 'off',
    PORT: '0',
    ...providerEnv(embedder),
  }
  await using server = startQuarry(['serve'], env)
  const [, url = ''] = await server.line(/"url":"([^"]+)\/graphql"/)
  const client = new TestClient(url)
  const none = await runQuarry(['agents'], env)
  expect(none.output).toContain('There are no agents: what the environment configures reads.')

  const providerId = await addProvider(client, {
    name: 'Upstream',
    type: 'OLLAMA',
    baseUrl: upstream.url,
    extractionModel: 'marks',
  })
  await addAgent(client, { name: 'Usual', providerId, isDefault: true })
  await addAgent(client, { name: 'Risks', providerId, instructions: 'Risks only.', temperature: 0.5 })
  const { output } = await runQuarry(['agents'], env)
  expect(output).toMatch(/Risks +Upstream +CONNECTED +marks +0\.5 +its own +when named/)
  expect(output).toMatch(/Usual +Upstream +CONNECTED +marks +0 +as shipped +by default/)

  const file = join(folder.path, 'chat.jsonl')
  const text = 'RISK: The crane may fall #harbour'
  await writeFile(file, JSON.stringify({ id: '1', author: 'ann', sentAt: '2026-05-04T09:00:00Z', text }))
  await runQuarry(['import', file], env)
  const wrong = await runQuarry(['extract', '--from', '2026-05-04T00:00:00Z', '--agent', 'Risk'], env)
  expect(wrong).toMatchObject({ code: 1 })
  expect(wrong.output).toContain('There is no agent named "Risk"; there are "Risks", "Usual"')
  const run = await runQuarry(['extract', '--from', '2026-05-04T00:00:00Z', '--agent', 'Risks'], env)
  expect(run.output).toContain('1 topics, 1 atoms')
  expect(upstream.last?.messages[0]?.content).toMatch(/^Risks only\./)
  await client.close()
})
