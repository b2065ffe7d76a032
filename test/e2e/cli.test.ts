import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { providerEnv } from '../support/apps.ts'
import { preparedFolder } from '../support/databases.ts'
import { runQuarry, startQuarry } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'

let provider: ProviderServer
/** Where the model does not count: to load the local one takes longer than most commands. */
let quick: Record<string, string>

beforeAll(async () => {
  provider = await ProviderServer.start()
  quick = providerEnv(provider)
})
afterAll(() => provider.close())

const chat = [
  {
    id: '1',
    author: 'ann',
    channel: '#ops',
    sentAt: '2026-05-04T09:00:00Z',
    text: 'The nightly backup fails because the disk is full.',
  },
  {
    id: '2',
    author: 'bo',
    channel: '#ops',
    sentAt: '2026-05-04T09:01:00Z',
    replyTo: '1',
    text: 'Delete the old snapshots, then it has room again.',
  },
  {
    id: '3',
    author: 'ann',
    channel: '#food',
    sentAt: '2026-05-04T12:00:00Z',
    text: 'Who wants pizza for lunch?',
  },
]
const asJsonl = (rows: unknown[]) => rows.map((row) => JSON.stringify(row)).join('\n')

test('import, search and status work without a server, and an import repeated changes nothing', async () => {
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data') }
  const file = join(folder.path, 'chat.jsonl')
  await writeFile(file, asJsonl(chat))

  const first = await runQuarry(['import', file], env)
  expect(first.output).toContain('3 new, 0 updated, 0 unchanged messages (JSONL, source "chat.jsonl")')
  expect(first.code).toBe(0)

  const again = await runQuarry(['import', file], env)
  expect(again.output).toContain('0 new, 0 updated, 3 unchanged')

  const search = await runQuarry(['search', 'storage', 'ran', 'out', '--first', '1'], env)
  expect(search.output).toContain('The nightly backup fails because the disk is full.')
  expect(search.output).not.toContain('pizza')

  const status = await runQuarry(['status'], env)
  expect(status.output).toMatch(/MESSAGE +3 +3 +0 +0 +0 +0 +100/)
})

test('import can extract what it brings, and extract reads what was not read before', async () => {
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), ...quick }
  const file = join(folder.path, 'chat.jsonl')
  const decision = {
    id: 'd',
    author: 'ann',
    sentAt: '2026-05-04T09:00:00Z',
    text: 'We decided to move the backups to the new storage on Monday.',
  }
  await writeFile(file, asJsonl([decision]))
  const imported = await runQuarry(['import', file, '--extract'], env)
  expect(imported.output).toMatch(/1 atoms, 0 links, 0 revisions from 1 messages/)

  const later = {
    ...decision,
    id: 'e',
    sentAt: '2026-05-05T09:00:00Z',
    text: 'We decided to keep the old logs for ninety days.',
  }
  await writeFile(file, asJsonl([decision, later]))
  await runQuarry(['import', file], env)
  const extracted = await runQuarry(['extract', '--from', '2026-05-01T00:00:00Z'], env)
  expect(extracted.output).toMatch(/1 atoms, .* from 1 messages/)
  expect(extracted.output).toMatch(/DECISION .*keep the old logs.*\n.*ann, 2026-05-05: "We decided to keep/)
  const again = await runQuarry(['extract', '--from', '2026-05-01T00:00:00Z'], env)
  expect(again.output).toContain('Nothing new to extract.')
})

test('commands use the server that runs on the same data', async () => {
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), PORT: '0', ...quick }
  const file = join(folder.path, 'chat.jsonl')
  await writeFile(file, asJsonl(chat))
  await using server = startQuarry(['serve'], env)
  const [, url] = await server.line(/"url":"(http:[^"]+)\/graphql"/)

  const imported = await runQuarry(['import', file], env)
  expect(imported.output).toContain('3 new')
  const status = await runQuarry(['status'], env)
  expect(status.output).toContain(`Server    ${url}`)

  const second = await runQuarry(['serve'], env)
  expect(second.code).toBe(1)
  expect(second.output).toMatch(/is held by process \d+ .* serving http/)

  server.child.kill('SIGTERM')
  expect(await server.exit()).toBe(0)
})

test('bad records are named and the rest is imported; an unknown file is refused with what was seen', async () => {
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), ...quick }
  const file = join(folder.path, 'chat.jsonl')
  await writeFile(file, `${asJsonl(chat)}\n{"id":"4","author":"cy","sentAt":"yesterday","text":"hi"}`)
  const unknown = join(folder.path, 'notes.txt')
  await writeFile(unknown, 'Just some words that nobody said in a chat.\n')

  const partly = await runQuarry(['import', file], env)
  expect(partly.output).toContain('3 new')
  expect(partly.output).toMatch(/1 records could not be used:\n {2}line 4: .*sentAt/)
  expect(partly.code).toBe(0)

  const refused = await runQuarry(['import', unknown], env)
  expect(refused.code).toBe(1)
  expect(refused.output).toContain('Just some words')
})

test('a Slack export is taken as a folder, too', async () => {
  await using folder = await preparedFolder()
  const { mkdir } = await import('node:fs/promises')
  const slack = join(folder.path, 'workspace')
  await mkdir(join(slack, 'general'), { recursive: true })
  await writeFile(
    join(slack, 'users.json'),
    JSON.stringify([{ id: 'U1', name: 'ann', profile: { display_name: 'Ann' } }]),
  )
  await writeFile(join(slack, 'channels.json'), JSON.stringify([{ id: 'C1', name: 'general' }]))
  await writeFile(
    join(slack, 'general', '2026-05-04.json'),
    JSON.stringify([
      { type: 'message', user: 'U1', text: 'Hello <@U1>, the build is green again', ts: '1777885200.000100' },
    ]),
  )
  const { output, code } = await runQuarry(['import', slack], {
    QUARRY_DATA_DIR: join(folder.path, 'data'),
    ...quick,
  })
  expect(output).toContain('1 new, 0 updated, 0 unchanged messages (SLACK')
  expect(code).toBe(0)
})

test('wrong usage and wrong configuration end with their own exit codes and say what to do', async () => {
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), ...quick }
  const [usage, config, worker, nowhere] = await Promise.all([
    runQuarry(['search', 'x', '--first', 'many'], env),
    runQuarry(['status'], { ...env, PORT: 'high', QUARRY_EMBEDDING_PROVIDER: 'magic' }),
    runQuarry(['worker'], env),
    runQuarry(['status'], { ...env, QUARRY_URL: 'http://127.0.0.1:9' }),
  ])
  expect(usage.code).toBe(2)
  expect(config.code).toBe(1)
  expect(config.output).toContain('PORT: must be a number')
  expect(config.output).toContain('QUARRY_EMBEDDING_PROVIDER:')
  expect(worker.output).toContain('set DATABASE_URL')
  expect(nowhere.output).toContain('No Quarry server answers at http://127.0.0.1:9')
})

test('index shows the vector indexes, measured and built anew when asked, also as JSON', async () => {
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), ...quick }
  const file = join(folder.path, 'chat.jsonl')
  await writeFile(file, asJsonl(chat))
  await runQuarry(['import', file], env)

  const shown = await runQuarry(['index', '--measure', '--rebuild', 'message'], env)
  expect(shown.output).toMatch(/MESSAGE +READY +3 .* full +16\/64 .* 1\.000 \(3 rows\)/)
  expect(shown.code).toBe(0)
  const asked = await runQuarry(['index', '--json'], env)
  const json = JSON.parse(asked.output.slice(asked.output.indexOf('[')))
  expect(json).toMatchObject([{ kind: 'MESSAGE', recall: 1 }, { kind: 'ATOM' }, { kind: 'TOPIC' }])
  const wrong = await runQuarry(['index', '--rebuild', 'nothing'], env)
  expect(wrong.output).toContain('It must be one of MESSAGE, ATOM, TOPIC.')
  expect(wrong.code).toBe(2)
})
