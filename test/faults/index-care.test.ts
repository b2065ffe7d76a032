import { describe, expect, test, vi } from 'vitest'
import { type Fleet, needsPostgres, startFleet } from '../support/fleet.ts'
import { graphql } from '../support/generated/index.ts'
import { hashVector } from '../support/provider-server.ts'

const rows = 12_000
const name = 'embedding_1_message_vector'

const RebuildMessagesDocument = graphql(`
  mutation RebuildMessages {
    rebuildVectorIndexes(input: { kinds: [MESSAGE] }) { ... on RebuildVectorIndexesPayload { vectorIndexes { state } } }
  }
`)
const FindMeanwhileDocument = graphql(`
  query FindMeanwhile { search(query: "message 77", mode: SEMANTIC, kinds: [MESSAGE], first: 10) { edges { rank } } }
`)

const eventually = (check: () => Promise<void>) => vi.waitFor(check, { timeout: 100_000, interval: 100 })

async function fill({ sql, start }: Fleet): Promise<void> {
  const first = start('worker')
  await first.ready
  await first.stop()
  await sql(`drop index ${name}`)
  await sql(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
  await sql(
    `insert into message (id, source_id, external_id, author, content, sent_at)
     select gen_random_uuid(), (select id from source), i::text, 'ann', 'message ' || i, now() from generate_series(1, ${rows}) as i`,
  )
  const owed = await sql<{ id: string }>('select owner_id as id from embedding')
  for (let from = 0; from < owed.length; from += 1000) {
    const ids = owed.slice(from, from + 1000).map(({ id }) => id)
    await sql(
      `update embedding e set status = 'READY', vector = f.vector::vector, embedded_at = now()
       from unnest($1::uuid[], $2::text[]) as f(id, vector) where e.owner_id = f.id`,
      [ids, ids.map((id) => `[${hashVector(id, 64).join(',')}]`)],
    )
  }
}

const isBuilding = ({ sql }: Fleet) =>
  eventually(async () => {
    const [build] = await sql<{ done: number }>(
      `select tuples_done::int as done from pg_stat_progress_create_index where relid = 'embedding_1'::regclass`,
    )
    expect(build?.done).toBeGreaterThan(0)
  })

const indexes = ({ sql }: Fleet) =>
  sql<{ name: string; isValid: boolean; id: number }>(
    `select c.relname as name, i.indisvalid as "isValid", c.oid::int as id from pg_index i join pg_class c on c.oid = i.indexrelid
     where c.relname like '${name}%'`,
  )

/** Starts another process, which puts a new index in the place of the one of this number, and leaves nothing beside it. */
async function expectBuiltByNext(fleet: Fleet, before: number | undefined): Promise<void> {
  await fleet.start('worker').ready
  await eventually(async () => {
    const now = await indexes(fleet)
    expect(now).toEqual([{ name, isValid: true, id: expect.any(Number) }])
    expect(now[0]?.id).not.toBe(before)
  })
}

describe('a process that is killed while it builds a vector index', () => {
  test('leaves it to the next one, and searches have the old one meanwhile', async ({ skip }) => {
    // Embedded, the process of the database ends with the one that builds.
    needsPostgres(skip)
    await using fleet = await startFleet()
    await fill(fleet)

    // There is none yet: the next start drops what was left, and builds it.
    const first = fleet.start('worker')
    first.ready.catch(() => {})
    await isBuilding(fleet)
    await first.kill()
    const server = fleet.start('serve')
    const client = await server.client()
    const [built] = await indexes(fleet)
    expect(await indexes(fleet)).toEqual([{ name, isValid: true, id: built?.id }])

    // It is built anew beside: another process goes on.
    const other = fleet.start('serve')
    const otherClient = await other.client()
    await client.run(RebuildMessagesDocument)
    await isBuilding(fleet)
    expect((await otherClient.run(FindMeanwhileDocument)).search.edges).toHaveLength(10)
    await Promise.all([server.kill(), other.kill()])
    expect(await indexes(fleet)).toContainEqual({ name, isValid: true, id: built?.id })
    await expectBuiltByNext(fleet, built?.id)
    const [asked] = await fleet.sql('select rebuild_requested_at as at from vector_index where kind = $1', [
      'MESSAGE',
    ])
    expect(asked).toEqual({ at: null })
  })
})

describe('a process that is stopped while it builds a vector index', () => {
  test('ends in order, and the next one builds it', async ({ skip }) => {
    // Embedded, an index is built in the process of the database, which answers nothing else meanwhile.
    needsPostgres(skip)
    await using fleet = await startFleet()
    await fill(fleet)
    const server = fleet.start('serve')
    const client = await server.client()
    const [built] = await indexes(fleet)
    await client.run(RebuildMessagesDocument)
    await isBuilding(fleet)
    expect(await server.stop()).toMatchObject({ code: 0 })
    expect(server.output()).not.toContain('Not all has ended')
    expect(await indexes(fleet)).toContainEqual({ name, isValid: true, id: built?.id })
    await expectBuiltByNext(fleet, built?.id)
  })
})
