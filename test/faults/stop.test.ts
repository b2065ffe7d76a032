import { expect, inject, test } from 'vitest'
import { ideas, importChat, writeChat } from '../support/chats.ts'
import { ExtractDocument } from '../support/extraction.ts'
import { type Fleet, type Member, startFleet } from '../support/fleet.ts'
import { ingest } from '../support/messages.ts'
import { temporaryFolder } from '../support/processes.ts'

const ideaCount = 100
// Enough for several batches, of which the first is seen before the last is stored.
const importCount = inject('template').engine === 'embedded' ? 6_000 : 12_000

interface Handed {
  /** That hold others back: of a process that is entered. */
  leases: number
  processes: number
  locked: number
  jobs: { kind: string; state: string; failures: number; error: string | null }[]
}

/** What a process has left behind; in one statement, because an embedded database is opened for it. */
async function readHanded({ sql }: Fleet): Promise<Handed> {
  const [handed] = await sql<Handed>(
    `select (select count(*)::int from embedding where leased_by in (select id from process)) as leases,
       (select count(*)::int from process) as processes,
       (select count(*)::int from graphile_worker.jobs where locked_by is not null) as locked,
       (select json_agg(json_build_object('kind', kind, 'state', state, 'failures', failures, 'error', error) order by kind::text)
        from job where state in ('QUEUED', 'RUNNING')) as jobs`,
  )
  if (!handed) throw new Error('no row')
  return handed
}

async function expectCleanStop(member: Member): Promise<void> {
  const { code, ms } = await member.stop()
  expect({ code, output: code === 0 ? '' : member.output() }).toEqual({ code: 0, output: '' })
  expect(ms).toBeLessThan(10_000)
}

test('SIGTERM in the middle of everything: exit 0 within 10 s, all is handed back, and the next one goes on with it', async () => {
  await using folder = await temporaryFolder()
  await using fleet = await startFleet()
  const { provider, sql } = fleet
  let chats = 0
  let isHanging = false
  let tellHanging = () => {}
  provider.options.fault = ({ texts, messages }) => {
    if (messages.length > 0) {
      chats++
      if (isHanging && chats > 1) {
        tellHanging()
        return { end: 'hang' }
      }
    }
    return isHanging && texts.some((text) => text.startsWith('import')) ? { end: 'hang' } : null
  }
  const untilHanging = () =>
    new Promise<void>((resolve) => {
      tellHanging = resolve
    })

  const server = fleet.start('serve')
  const client = await server.client()
  await ingest(client, ideas(ideaCount, 'stop'))
  await client.waitUntilEmbedded()
  isHanging = true
  // Most have nothing to embed, which would take long: what counts is that the import does.
  const texts = Array.from({ length: importCount }, (_, n) => (n % 10 === 0 ? `imported ${n}` : ' '))
  const path = await writeChat(folder.path, 'chat', texts)
  const secondBatch = untilHanging()
  const { extractKnowledge } = await client.run(ExtractDocument, {
    input: { period: { to: '2030-01-01T00:00:00Z' } },
  })
  if (extractKnowledge?.__typename !== 'ExtractKnowledgePayload')
    throw new Error('the extraction was refused')
  await secondBatch
  await importChat(client, path)
  const readImport = () => sql<{ succeeded: number }>(`select succeeded from job where kind = 'IMPORT'`)
  await expect
    .poll(async () => (await readImport())[0]?.succeeded, { timeout: 30_000, interval: 10 })
    .toBeGreaterThanOrEqual(1000)
  await expect
    .poll(
      async () => (await sql('select from embedding where leased_by in (select id from process)')).length,
      {
        interval: 10,
      },
    )
    .toBeGreaterThan(0)
  await expectCleanStop(server)

  const jobs = [
    { kind: 'EXTRACT', state: 'QUEUED', failures: 0, error: null },
    { kind: 'IMPORT', state: 'QUEUED', failures: 0, error: null },
  ]
  expect(await readHanded(fleet)).toEqual({ leases: 0, processes: 0, locked: 0, jobs })

  if (inject('template').engine === 'postgres') {
    // The same with a worker, which takes up what the server had in hand.
    const worker = fleet.start('worker')
    await untilHanging()
    await expect
      .poll(
        async () => (await sql('select from embedding where leased_by in (select id from process)')).length,
      )
      .toBeGreaterThan(0)
    await expectCleanStop(worker)
    const handed = await readHanded(fleet)
    expect(handed).toMatchObject({ leases: 0, processes: 0, locked: 0 })
    expect(handed.jobs).toContainEqual(jobs[0])
  }

  isHanging = false
  chats = 0
  const next = fleet.start(inject('template').engine === 'postgres' ? 'worker' : 'serve')
  await next.ready
  await fleet.expectTruth(90_000)
  // 100 ideas are two batches, the first of which was done; a batch that nobody answered is asked for once more.
  expect(chats).toBe(1)
  const [counts] = await sql(
    `select (select count(*)::int from message) as messages, (select count(*)::int from atom) as atoms,
       (select count(distinct content)::int from atom) as contents, (select count(*)::int from topic) as topics`,
  )
  expect(counts).toEqual({
    messages: ideaCount + importCount,
    atoms: ideaCount,
    contents: ideaCount,
    topics: 1,
  })
  const ended = await sql(
    `select kind, state, total, succeeded, failed, skipped, error, failures, (result ->> 'created')::int as created
     from job order by kind::text`,
  )
  const right = { state: 'SUCCEEDED', failed: 0, skipped: 0, error: null, failures: 0 }
  expect(ended).toEqual([
    { ...right, kind: 'EXTRACT', total: ideaCount, succeeded: ideaCount, created: null },
    { ...right, kind: 'IMPORT', total: importCount, succeeded: importCount, created: importCount },
  ])
  expect(await next.stop()).toMatchObject({ code: 0 })
}, 180_000)
