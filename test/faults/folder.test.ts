import { join } from 'node:path'
import { expect, inject, test } from 'vitest'
import { preparedFolder } from '../support/databases.ts'
import { type Fleet, startFleet } from '../support/fleet.ts'
import { message, tryIngest } from '../support/messages.ts'
import { startQuarry } from '../support/processes.ts'
import { mountSmallDisk, type SmallDisk, whyNoSmallDisk } from '../support/small-disk.ts'

const roomyMegabytes = 400

/** A fleet whose data folder is on a small disk. Skips the test where there is none to be had, and says why. */
async function startOnSmallDisk(skip: (reason: string) => never): Promise<{
  disk: SmallDisk
  fleet: Fleet
}> {
  const { engine, location } = inject('template')
  if (engine === 'postgres') skip('Postgres: there is no data folder')
  const reason = await whyNoSmallDisk()
  if (reason) skip(reason)
  const disk = await mountSmallDisk(roomyMegabytes)
  const dataDir = await disk.copy(location, 'data')
  const fleet = await startFleet({ database: { kind: 'embedded', dataDir }, through: disk.through })
  return { disk, fleet }
}

/** Stores messages until that fails. @returns their texts, those that were acknowledged only */
async function fill(fleet: Fleet, name: string, limit: number): Promise<string[]> {
  const server = fleet.start('serve')
  const client = await server.client()
  const acknowledged: string[] = []
  while (acknowledged.length < limit) {
    const texts = Array.from(
      { length: 50 },
      (_, n) => `${name} ${acknowledged.length + n} ${'of no use '.repeat(200)}`,
    )
    const messages = texts.map((text) => message(text))
    const answer = await tryIngest(client, messages).catch(() => null)
    if (answer?.__typename !== 'IngestMessagesPayload') break
    acknowledged.push(...texts)
  }
  return acknowledged
}

async function expectStored(fleet: Fleet, texts: readonly string[]): Promise<void> {
  const [stored] = await fleet.sql<{ n: number }>(
    'select count(distinct content)::int as n from message where content = any ($1)',
    [texts],
  )
  expect(stored).toEqual({ n: texts.length })
}

test('a disk that gets full ends the server with what to do; with more space all that was acknowledged is there', async ({
  skip,
}) => {
  const { disk, fleet } = await startOnSmallDisk(skip)
  await using _disk = disk
  await using _fleet = fleet
  const first = fleet.start('serve')
  await first.ready
  expect((await first.stop()).code).toBe(0)

  await disk.resize((await disk.used()) + 12)
  const acknowledged = await fill(fleet, 'fills the disk', 20_000)
  expect(acknowledged.length).toBeGreaterThan(0)
  expect(acknowledged.length).toBeLessThan(20_000)
  const full = fleet.members.at(-1)
  expect(await full?.exit()).toBe(1)
  expect(full?.output()).toMatch(/disk is full.*[Ff]ree some space and start again/)

  // Nobody has made room yet.
  const again = fleet.start('serve')
  await again.ready.catch(() => {})
  if (!again.isAlive()) expect(again.output()).toMatch(/disk is full.*[Ff]ree some space and start again/)
  await again.kill()

  await disk.resize(roomyMegabytes)
  const last = fleet.start('serve')
  await last.ready
  await expectStored(fleet, acknowledged)
  await fleet.expectTruth(60_000)
  expect((await last.stop()).code).toBe(0)
}, 180_000)

test('a data folder that is read-only is refused with what to do, and nothing in it is changed', async ({
  skip,
}) => {
  const { disk, fleet } = await startOnSmallDisk(skip)
  await using _disk = disk
  await using _fleet = fleet
  const acknowledged = await fill(fleet, 'kept', 100)
  const [server] = fleet.members
  expect((await server?.stop())?.code).toBe(0)

  await disk.setReadOnly(true)
  const refused = fleet.start('serve')
  expect(await refused.exit()).toBe(1)
  expect(refused.output()).toMatch(/cannot be written|read-only/)
  expect(refused.output()).toMatch(/QUARRY_DATA_DIR/)
  // What a person can act on needs no stack.
  expect(refused.output()).not.toMatch(/\n {4}at /)

  await disk.setReadOnly(false)
  const last = fleet.start('serve')
  await last.ready
  await expectStored(fleet, acknowledged)
  await fleet.expectTruth(30_000)
}, 120_000)

test('a second process on the same data folder is refused and names the first, which goes on', async ({
  skip,
}) => {
  if (inject('template').engine === 'postgres') skip('Postgres: there is no data folder')
  await using fleet = await startFleet()
  const first = fleet.start('serve')
  const client = await first.client()
  for (const role of ['serve', 'worker'] as const) {
    const second = fleet.start(role)
    expect(await second.exit()).toBe(1)
    if (role === 'serve') {
      expect(second.output()).toContain(`is held by process ${first.pid} on `)
      expect(second.output()).toContain(client.url.replace('/graphql', ''))
    } else expect(second.output()).toContain('DATABASE_URL')
  }
  const answer = await tryIngest(client, [message('the first goes on')])
  expect(answer.__typename).toBe('IngestMessagesPayload')
  await fleet.expectTruth(20_000)
})

test('two processes that start on the same data folder in the same moment: one serves, the other is refused', async ({
  skip,
}) => {
  if (inject('template').engine === 'postgres') skip('Postgres: there is no data folder')
  await using folder = await preparedFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), PORT: '0', QUARRY_EMBEDDING_THREADS: '1' }
  await using one = startQuarry(['serve'], env)
  await using two = startQuarry(['serve'], env)
  const serves = /"url":"(http:[^"]+)\/graphql"/
  const outcomes = await Promise.all(
    [one, two].map((server) =>
      server.line(serves).then(
        () => 'serves',
        async () => ((await server.exit()) === 1 ? 'refused' : server.output()),
      ),
    ),
  )
  expect(outcomes.toSorted()).toEqual(['refused', 'serves'])
})
