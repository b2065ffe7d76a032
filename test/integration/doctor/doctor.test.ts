import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { serverClient } from '../../../src/cli/doctor.ts'
import type { DatabaseConfig } from '../../../src/config.ts'
import { examine } from '../../../src/doctor/examine.ts'
import { type Finding, isWell } from '../../../src/doctor/finding.ts'
import { findPlace, type Limits, usualLimits } from '../../../src/doctor/place.ts'
import { deleteOrphanedRows, readTriggers, renewOutdatedRows } from '../../../src/doctor/statements.ts'
import { triggerGroups } from '../../../src/doctor/triggers.ts'
import { createLogger } from '../../../src/log.ts'
import { generateEncryptionKey } from '../../../src/providers/keys.ts'
import { providerEnv, startTestApp } from '../../support/apps.ts'
import { copyTestDatabase, createTestDatabase, reopen, type TestDatabase } from '../../support/databases.ts'
import { ingest } from '../../support/messages.ts'
import { activate, startMigration } from '../../support/migration.ts'
import { temporaryFolder } from '../../support/processes.ts'
import { ProviderServer } from '../../support/provider-server.ts'
import { addProvider } from '../../support/providers.ts'
import { addressOf, startTcpProxy, through } from '../../support/tcp-proxy.ts'

const encryptionKey = generateEncryptionKey()
let upstream: ProviderServer
/** A database on which an app has worked, and that nobody has open: the tests look at copies of it. */
let healthy: TestDatabase
/** The global id of a provider that was added there. */
let acme: string

beforeAll(async () => {
  upstream = await ProviderServer.start({ dimensions: 64, chat: () => ({ text: '{"weekday": "Tuesday"}' }) })
  healthy = await createTestDatabase()
  await using app = await startTestApp({ database: healthy.config, env: environment() })
  await ingest(app.client, ['The river rises', 'The dam holds'])
  acme = await addProvider(app.client, {
    name: 'Acme',
    type: 'OPENAI',
    baseUrl: `${upstream.url}/v1`,
    apiKey: 'sk-acme',
    embeddingModel: 'm',
    extractionModel: 'c',
  })
  await addProvider(app.client, {
    name: 'Retired',
    type: 'OLLAMA',
    baseUrl: upstream.url,
    embeddingModel: 'o',
    isActive: false,
  })
  await app.client.waitUntilEmbedded()
})
afterAll(async () => {
  await healthy[Symbol.asyncDispose]()
  await upstream.close()
})

/** Asks nobody but the test's own server. */
function environment(): Record<string, string> {
  return { ...providerEnv(upstream), QUARRY_ENCRYPTION_KEY: encryptionKey, QUARRY_MAX_UPLOAD_MB: '1' }
}

const variablesOf = (config: DatabaseConfig): Record<string, string> =>
  config.kind === 'embedded' ? { QUARRY_DATA_DIR: config.dataDir } : { DATABASE_URL: config.url }

async function examineAll(
  env: Record<string, string>,
  {
    limits = {},
    onFinding = () => {},
  }: { limits?: Partial<Limits>; onFinding?(finding: Finding): void | Promise<void> } = {},
): Promise<Finding[]> {
  const findings: Finding[] = []
  for await (const finding of examine({ env, server: serverClient, limits })) {
    findings.push(finding)
    await onFinding(finding)
  }
  return findings
}

/** Those that are neither well nor left out, by name. */
const troubles = (findings: readonly Finding[]) =>
  Object.fromEntries(
    findings.flatMap(({ name, state, message }) =>
      state === 'ok' || state === 'skipped' ? [] : [[name, `${state}: ${message}`]],
    ),
  )

/** A copy of the healthy database after these statements, which are run by nobody's rules. */
async function spoilt(statements: readonly string[]): Promise<TestDatabase> {
  const copy = await copyTestDatabase(healthy.config)
  const database = await reopen(copy.config)
  for (const statement of statements) await database.query(statement)
  await database.close()
  return copy
}

const examineSpoilt = async (statements: readonly string[], env: Record<string, string> = environment()) => {
  await using copy = await spoilt(statements)
  return await examineAll({ ...env, ...variablesOf(copy.config) })
}

/** Whatever doctor must not touch. */
async function contents(config: DatabaseConfig): Promise<unknown[]> {
  const database = await reopen(config)
  try {
    return [
      await database.query('select * from provider order by id'),
      await database.query('select * from provider_status order by purpose'),
      await database.query('select * from provider_usage order by 1, 2, 3'),
      await database.query('select * from process'),
      await database.query('select * from vector_index order by space_id, kind'),
      (await readTriggers(database)).map(({ name }) => name).sort(),
    ]
  } finally {
    await database.close()
  }
}

/** On Postgres, what is free on the disk of its server cannot be seen. */
const always = (config: DatabaseConfig) => (config.kind === 'postgres' ? ['disk'] : [])

describe('a database that is well', () => {
  test('is well in every check, each provider having been asked, and is left as it was', async () => {
    await using copy = await spoilt([])
    const before = await contents(copy.config)
    const requests = upstream.requests
    const findings = await examineAll({ ...environment(), ...variablesOf(copy.config) })
    expect(Object.keys(troubles(findings))).toEqual(always(copy.config))
    expect(isWell(findings)).toBe(true)
    expect(findings.map(({ name }) => name)).toEqual([
      'configuration',
      'variables',
      'Node.js',
      'database',
      'migrations',
      'pgvector',
      'triggers',
      'embedding space',
      'vector index message',
      'vector index atom',
      'vector index topic',
      'embeddings',
      'embedding rows',
      'words',
      'jobs',
      'job queue',
      'encryption keys',
      'provider for embedding',
      'provider for extraction',
      'provider Acme',
      'provider Retired',
      'disk',
      'upload folder',
      'clock',
    ])
    const messageOf = (name: string) => findings.find((finding) => finding.name === name)?.message
    expect(messageOf('embeddings')).toBe('2 ready, 0 owed, 0 failed')
    expect(messageOf('provider Acme')).toMatch(/embeds by m and extracts by c, 64 dimensions/)
    expect(messageOf('provider Retired')).toMatch(/not active/)
    expect(messageOf('clock')).toMatch(/openai|Acme/)
    // One text by the environment's; one text and one question by the row. The one that is not active is left alone.
    expect(upstream.requests - requests).toBe(3)
    expect(await contents(copy.config)).toEqual(before)
    // A new trigger of a migration belongs into the list.
    expect(before.at(-1)).toEqual(triggerGroups.flatMap(({ names }) => names).sort())
  })
})

test('whatever doctor runs on a database can change nothing there', async () => {
  await using copy = await copyTestDatabase(healthy.config)
  const place = await findPlace(
    { serverUrl: null, database: copy.config },
    createLogger('silent'),
    usualLimits,
  )
  if (place.kind !== 'database') throw new Error(place.judgement?.message)
  try {
    await expect(place.sql.query('delete from message')).rejects.toThrow(/read-only transaction/)
    await expect(place.sql.query('select from message')).resolves.toHaveLength(2)
  } finally {
    await place.database.close()
  }
})

describe('what is wrong in the database', () => {
  test('is found, each by its check, and the rest is looked at all the same', async () => {
    const findings = await examineSpoilt([
      'drop trigger message_embedding_insert on message',
      'alter table message disable trigger message_words_forgotten',
      `insert into source (id, name, type) values ('00000000-0000-7000-8000-000000000001', 'Loaded', 'test')`,
      `insert into message (id, source_id, external_id, author, content, sent_at)
       values ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', '1', 'A', 'x', now())`,
      `update embedding set status = 'FAILED', last_error = 'too odd for words'
       where owner_id = (select min(id::text)::uuid from message where content like 'The %')`,
      `update pg_index set indisvalid = false where indexrelid = 'embedding_1_message_vector'::regclass`,
      'drop index embedding_1_atom_vector',
      `insert into vector_index (space_id, kind, recall, measured_at) values (1, 'TOPIC', 0.9, now())
       on conflict (space_id, kind) do update set recall = 0.9`,
      `insert into alert (id, kind, failures, error) values (gen_random_uuid(), 'IMPORT', 3, 'no chat export')`,
      `select graphile_worker.add_job('check_alerts', '{"kind": "IMPORT"}')`,
    ])
    expect(troubles(findings)).toMatchObject({
      triggers: expect.stringMatching(
        /^wrong: message_embedding_insert \(missing\).*message_words_forgotten \(disabled\)/,
      ),
      'vector index message': expect.stringMatching(/^wrong: .*is invalid/),
      'vector index atom': expect.stringMatching(/^wrong: .*is missing/),
      'vector index topic': expect.stringMatching(/^wrong: .*90 %/),
      embeddings: expect.stringMatching(/^warning: 1 ready, 0 owed, 1 failed.*too odd for words/),
      'embedding rows': expect.stringMatching(/^wrong: 1 text has none/),
      words: expect.stringMatching(/^warning: 1 text is not cut/),
      jobs: expect.stringMatching(/^wrong: .*3 IMPORT jobs in a row.*no chat export/),
      'job queue': expect.stringMatching(/^(wrong|warning): 1 to be begun.*nobody works/),
    })
    for (const finding of findings.filter(({ state }) => state === 'wrong'))
      expect(finding.remedy).not.toBeNull()
    expect(findings.find(({ name }) => name === 'provider Acme')?.state).toBe('ok')
    expect(isWell(findings)).toBe(false)
  })

  test.each([
    [`update _prisma_migrations set checksum = 'other'`, /^wrong: .*was changed after/, false],
    [`delete from _prisma_migrations where migration_name like '%usage'`, /^warning: .*usage/, true],
  ])('migrations: after %s', async (statement, message, hidesTables) => {
    const found = troubles(await examineSpoilt([statement]))
    expect(found.migrations).toMatch(message)
    if (hidesTables) expect(found.triggers).toMatch(/^unknown: .*see migrations/)
    else expect(found.triggers).toBeUndefined()
  })

  test('rows of earlier texts and of what is deleted are found, and gone after what doctor says is done', async () => {
    await using copy = await spoilt([
      'alter table message disable trigger user',
      `update message set content = 'The dam broke' where content = 'The dam holds'`,
      `delete from message where content = 'The river rises'`,
      'alter table message enable trigger user',
    ])
    const env = { ...environment(), ...variablesOf(copy.config) }
    const rows = (await examineAll(env)).find(({ name }) => name === 'embedding rows')
    expect(rows?.message).toMatch(/^1 is of an earlier text.*; 1 is of something that is deleted$/)
    for (const statement of [renewOutdatedRows, deleteOrphanedRows]) expect(rows?.remedy).toContain(statement)
    const database = await reopen(copy.config)
    await database.query(renewOutdatedRows)
    await database.query(deleteOrphanedRows)
    await database.close()
    const found = troubles(await examineAll(env))
    expect(found['embedding rows']).toBeUndefined()
    expect(found.embeddings).toMatch(/^warning: 0 ready, 1 owed, 0 failed, and nobody works/)
  })

  test('a partition that is gone is told, and what needs it is told apart', async () => {
    const found = troubles(await examineSpoilt(['drop table embedding_1']))
    expect(found['embedding space']).toMatch(/^wrong: .*embedding_1/)
    expect(found['embedding rows']).toMatch(/^wrong: 2 texts have none/)
  })
})

describe('providers', () => {
  test('whose keys another encryption key has sealed are named, and not asked; another model is told, too', async () => {
    const env = {
      ...environment(),
      QUARRY_ENCRYPTION_KEY: generateEncryptionKey(),
      OPENAI_EMBEDDING_MODEL: 'another',
    }
    const found = troubles(await examineSpoilt([], env))
    expect(found['encryption keys']).toMatch(/^wrong: 1 key .*Acme: The API key was stored under/)
    expect(found['provider Acme']).toMatch(/^unknown: .*see encryption keys/)
    expect(found['embedding space']).toMatch(/^wrong: .*text-embedding-3-small.*openai\/another/)
  })

  test('that answer with an error are told in their words and without their keys; nothing of it is stored', async () => {
    await using copy = await spoilt([])
    const before = await contents(copy.config)
    upstream.options.fault = ({ headers }) => ({
      status: 401,
      body: JSON.stringify({ error: { message: `no such key ${headers.authorization}` } }),
    })
    // Under a later key of the list: a rotation is asked for.
    const QUARRY_ENCRYPTION_KEY = `${generateEncryptionKey()},${encryptionKey}`
    try {
      const findings = await examineAll({
        ...environment(),
        ...variablesOf(copy.config),
        QUARRY_ENCRYPTION_KEY,
      })
      const found = troubles(findings)
      expect(found['encryption keys']).toMatch(/^warning: .*not under the first key: Acme/)
      expect(found['provider for embedding']).toMatch(/^wrong: .*answered 401: no such key/)
      expect(found['provider Acme']).toMatch(/^wrong: .*answered 401: no such key/)
      expect(JSON.stringify(findings)).not.toContain('sk-acme')
    } finally {
      delete upstream.options.fault
    }
    expect(await contents(copy.config)).toEqual(before)
  })

  test('that are not there are wrong', async () => {
    const gone = await ProviderServer.start()
    const { host } = new URL(gone.url)
    await gone.close()
    const found = troubles(
      await examineSpoilt([], { ...environment(), OPENAI_BASE_URL: `http://${host}/v1` }),
    )
    expect(found['provider for embedding']).toContain(`${host} (text-embedding-3-small) cannot be reached`)
  })
})

test('after a move to another model each space is looked at, and of one that a provider embeds the environment says nothing', async () => {
  await using copy = await copyTestDatabase(healthy.config)
  {
    await using app = await startTestApp({ database: copy.config, env: environment() })
    const { space, jobId } = await startMigration(app.client, {
      providerId: acme,
      dimensions: 96,
    })
    await app.client.waitForJob(jobId)
    await activate(app.client, space.id)
  }
  const env = { ...environment(), ...variablesOf(copy.config) }
  const findings = await examineAll(env)
  expect(Object.keys(troubles(findings))).toEqual(always(copy.config))
  const messages = Object.fromEntries(findings.map(({ name, message }) => [name, message]))
  expect(messages).toMatchObject({
    'embedding space': expect.stringMatching(/96 dimensions, embedded by Acme$/),
    'embedding space 1': expect.stringMatching(
      /64 dimensions, which is kept in step to go back to, as configured$/,
    ),
    'vector index message of space 1': expect.stringContaining('2 vectors'),
    embeddings: '2 ready, 0 owed, 0 failed',
    'embeddings of space 1': '2 ready, 0 owed, 0 failed',
    'embedding rows of space 1': 'every text has its own',
  })
  const found = troubles(await examineAll({ ...env, OPENAI_EMBEDDING_MODEL: 'another' }))
  expect(found['embedding space']).toBeUndefined()
  expect(found['embedding space 1']).toMatch(/^wrong: .*openai\/another/)
})

describe('a configuration with mistakes', () => {
  test('is told whole, and what does not depend on them is looked at', async () => {
    const { OPENAI_API_KEY: _, ...env } = environment()
    const mistakes = { PORT: 'x', QUARRY_ENCRYPTION_KEY: 'short', QUARRY_DATADIR: 'y' }
    const found = troubles(await examineSpoilt([], { ...env, ...mistakes }))
    expect(found.configuration).toMatch(/^wrong: 3 mistakes: .*PORT/)
    expect(found.variables).toMatch(/^warning: .*QUARRY_DATADIR \(did you mean QUARRY_DATA_DIR\?\)/)
    expect(found['encryption keys']).toMatch(/^unknown: .*QUARRY_ENCRYPTION_KEY cannot be read/)
    expect(found['provider for embedding']).toMatch(/^unknown: .*QUARRY_EMBEDDING_PROVIDER cannot be read/)
    expect(found['provider Acme']).toMatch(/^unknown: /)
    expect(found.triggers).toBeUndefined()
  })

  test('looks at no other database than the one that is meant', async () => {
    const found = troubles(await examineAll({ ...environment(), DATABASE_URL: 'mysql://x' }))
    expect(found.configuration).toMatch(/DATABASE_URL/)
    expect(found.database).toMatch(/^unknown: .*DATABASE_URL cannot be read/)
    expect(found.migrations).toMatch(/^unknown: /)
  })
})

describe('a database that cannot be asked', () => {
  test('because its server is not there is wrong by its address without the password', async () => {
    const findings = await examineAll({
      ...environment(),
      DATABASE_URL: 'postgresql://me:secret@127.0.0.1:1/x',
    })
    expect(troubles(findings).database).toMatch(/^wrong: .*me:\*\*\*@127\.0\.0\.1:1.*cannot be reached/)
    expect(JSON.stringify(findings)).not.toContain('secret')
    expect(
      findings.filter(({ name }) => ['migrations', 'words'].includes(name)).map(({ state }) => state),
    ).toEqual(['unknown', 'unknown'])
    expect(findings.find(({ name }) => name === 'provider for embedding')?.state).toBe('ok')
  })

  test('because its server says nothing is given up after the limit', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await new Promise((resolve) => silent.once('listening', resolve))
    const address = silent.address()
    const port = typeof address === 'object' ? address?.port : 0
    try {
      const url = `postgresql://me@127.0.0.1:${port}/x`
      const found = troubles(
        await examineAll({ ...environment(), DATABASE_URL: url }, { limits: { connectMs: 100 } }),
      )
      expect(found.database).toMatch(/^wrong: .*cannot be reached: .*timeout/)
    } finally {
      silent.close()
    }
  })

  test.for([
    ['resets its connections', 'refuse', /^wrong: the database has stopped answering: /],
    ['goes silent', 'stall', /^wrong: the database has stopped answering: there was no answer within 1 s/],
  ] as const)(
    'because its network %s half-way is told once, and of the rest why it is not looked at',
    async ([, breaks, message], { skip }) => {
      if (healthy.config.kind === 'embedded') return skip('embedded: there is no network')
      await using proxy = await startTcpProxy(addressOf(healthy.config.url))
      const broken = async ({ name }: Finding) => {
        if (name === 'triggers') await proxy[breaks]()
      }
      const findings = await examineAll(
        { ...environment(), DATABASE_URL: through(proxy, healthy.config.url) },
        { limits: { statementMs: 1000, closeMs: 100 }, onFinding: broken },
      )
      const found = troubles(findings)
      expect(found.triggers).toBeUndefined()
      expect(found['embedding space']).toMatch(message)
      expect(found.words).toMatch(/^unknown: .*see embedding space/)
      expect(findings.find(({ name }) => name === 'provider for embedding')?.state).toBe('ok')
    },
  )

  test('because there is none yet is no fault, and none is made', async () => {
    await using folder = await temporaryFolder()
    const env = { ...environment(), QUARRY_DATA_DIR: join(folder.path, 'new') }
    const findings = await examineAll(env)
    expect(findings.find(({ name }) => name === 'database')).toMatchObject({
      state: 'ok',
      message: expect.stringContaining('does not exist yet'),
    })
    expect(isWell(findings)).toBe(true)
    expect(await readdir(folder.path)).toEqual([])
    await mkdir(join(folder.path, 'new'))
    const empty = await examineAll(env)
    expect(empty).toContainEqual({
      name: 'migrations',
      state: 'skipped',
      message: 'there is no database yet',
      remedy: null,
    })
    expect(troubles(empty)).toEqual({})
    expect(await readdir(join(folder.path, 'new'))).toEqual([])
  })

  test('because its folder is a file is wrong', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'file')
    await writeFile(path, '')
    expect(troubles(await examineAll({ ...environment(), QUARRY_DATA_DIR: path })).database).toMatch(
      /is a file/,
    )
  })

  test('because there is no way to its folder is wrong', async () => {
    await using folder = await temporaryFolder()
    const path = join(folder.path, 'loop')
    await symlink(path, path)
    const found = troubles(await examineAll({ ...environment(), QUARRY_DATA_DIR: path }))
    expect(found.database).toMatch(/^wrong: the data folder cannot be reached: ELOOP/)
    expect(found.disk).toMatch(/^wrong: .*ELOOP/)
  })

  test('because its lock cannot be read is wrong, with the lock to delete', async () => {
    await using folder = await temporaryFolder()
    await writeFile(join(folder.path, 'lock.json'), '{"pid":')
    const found = troubles(await examineAll({ ...environment(), QUARRY_DATA_DIR: folder.path }))
    expect(found.database).toMatch(/^wrong: .*lock\.json cannot be read.*delete it/)
  })
})

describe('beside a running server', () => {
  test('what it tells is told, and of the rest how to see it', async () => {
    await using copy = await copyTestDatabase(healthy.config)
    await using app = await startTestApp({ database: copy.config, env: environment() })
    const url = app.app.url ?? ''
    const isHeld = copy.config.kind === 'embedded'
    const findings = await examineAll({
      ...environment(),
      ...(isHeld ? variablesOf(copy.config) : { QUARRY_URL: url }),
    })
    for (const name of ['server', 'embeddings', 'vector index message', 'provider Acme', 'clock'])
      expect(findings.find((finding) => finding.name === name)).toMatchObject({ name, state: 'ok' })
    const triggers = findings.find(({ name }) => name === 'triggers')
    expect(triggers?.state).toBe('unknown')
    expect(triggers?.remedy).toMatch(isHeld ? /Stop the server \(process \d+\)/ : /where the server runs/)
    if (isHeld) {
      expect(findings.find(({ name }) => name === 'database')).toMatchObject({
        state: 'ok',
        message: expect.stringContaining(`held by process ${process.pid}`),
      })
    }
    expect(isWell(findings)).toBe(true)
  })

  test('an address at which nobody answers is wrong', async () => {
    const found = troubles(await examineAll({ ...environment(), QUARRY_URL: 'http://127.0.0.1:1' }))
    expect(found.server).toMatch(/^wrong: no Quarry server answers/)
    expect(found.triggers).toMatch(/^unknown: /)
  })

  test('an address of something else is wrong', async () => {
    const found = troubles(await examineAll({ ...environment(), QUARRY_URL: upstream.url }))
    expect(found.server).toMatch(/^wrong: .*not of a Quarry server/)
  })
})
