import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DatabaseConfig } from '../../../src/config.ts'
import { type Database, openDatabase } from '../../../src/db/database.ts'
import { currentHolder } from '../../../src/db/lock.ts'
import { createLogger } from '../../../src/log.ts'
import { createTestDatabase, openTestDatabase, reopen } from '../../support/databases.ts'

let own: Awaited<ReturnType<typeof openTestDatabase>>
let database: Database

beforeAll(async () => {
  own = await openTestDatabase()
  database = own.database
})
afterAll(() => own[Symbol.asyncDispose]())

describe('many connections at once', () => {
  /** A statement of its own shape, with a number of parameters, and its answer. */
  function question(seed: number): { text: string; values: unknown[]; answer: object } {
    const values = Array.from({ length: seed % 5 }, (_, index) => seed * 10 + index)
    const columns = values.map((_, index) => `$${index + 1}::int as p${index}`)
    return {
      text: `select ${[`${seed} as seed`, ...columns].join(', ')}`,
      values,
      answer: { seed, ...Object.fromEntries(values.map((value, index) => [`p${index}`, value])) },
    }
  }

  test('never mix up their statements or their answers', async () => {
    const asked = Array.from({ length: 400 }, async (_, seed) => {
      const { text, values, answer } = question(seed)
      if (seed % 7 !== 0) {
        expect(await database.query(text, values)).toEqual([answer])
        return
      }
      const [first, second] = await database.transaction(async (transaction) => [
        await transaction.query(text, values),
        await transaction.query<{ same: boolean }>('select $1::int = $2::int as same', [seed, seed]),
      ])
      expect(first).toEqual([answer])
      expect(second).toEqual([{ same: true }])
    })
    await Promise.all(asked)
  })

  test('of which one fails leave the others their answers', async () => {
    const asked = Array.from({ length: 100 }, async (_, seed) => {
      const { text, values, answer } = question(seed)
      if (seed % 10 === 0) {
        await expect(database.query('select 1 / $1::int', [0])).rejects.toThrow('division by zero')
        await expect(database.query(`select ${seed} from nowhere`)).rejects.toThrow('nowhere')
      } else expect(await database.query(text, values)).toEqual([answer])
    })
    await Promise.all(asked)
  })

  test('share with Prisma', async () => {
    const asked = Array.from({ length: 60 }, async (_, seed) => {
      const { text, values, answer } = question(seed)
      const [found, rows] = await Promise.all([
        database.prisma.topic.findMany({ where: { name: `missing ${seed}` }, take: (seed % 5) + 1 }),
        database.query(text, values),
      ])
      expect(found).toEqual([])
      expect(rows).toEqual([answer])
    })
    await Promise.all(asked)
  })
})

describe('a transaction', () => {
  const insert = `insert into source (id, name, type) values (gen_random_uuid(), $1, 'test')`
  const names = async () =>
    (await database.query<{ name: string }>('select name from source order by 1')).map((row) => row.name)

  test('is kept when its work is done, and undone when it throws', async () => {
    const result = await database.transaction(async (transaction) => {
      await transaction.query(insert, ['kept'])
      return 'result'
    })
    expect(result).toBe('result')
    const failing = database.transaction(async (transaction) => {
      await transaction.query(insert, ['undone'])
      throw new Error('on purpose')
    })
    await expect(failing).rejects.toThrow('on purpose')
    expect(await names()).toEqual(['kept'])
  })

  test('whose statement fails is undone, and its connection serves on', async () => {
    const failing = database.transaction(async (transaction) => {
      await transaction.query(insert, ['undone'])
      await transaction.query(insert, [null])
    })
    await expect(failing).rejects.toThrow(/null value/)
    expect(await names()).not.toContain('undone')
    const all = Array.from({ length: 20 }, (_, seed) => database.query('select $1::int as seed', [seed]))
    expect((await Promise.all(all)).flat()).toEqual(Array.from({ length: 20 }, (_, seed) => ({ seed })))
  })
})

describe('notifications', () => {
  /** Payloads of a channel as they come; `next` waits for one. */
  async function follow(channel: string, on = database) {
    const heard: (string | null)[] = []
    const waiting: (() => void)[] = []
    const unlisten = await on.listen(channel, (payload) => {
      heard.push(payload)
      for (const wake of waiting.splice(0)) wake()
    })
    return {
      heard,
      unlisten,
      async next(): Promise<string | null> {
        while (heard.length === 0) await new Promise<void>((wake) => waiting.push(wake))
        return heard.shift() ?? null
      },
    }
  }

  const notify = (channel: string, payload: string) =>
    database.query('select pg_notify($1, $2)', [channel, payload])

  test('reach every listener of their channel, with what they carry', async () => {
    const [first, second, other] = [await follow('one'), await follow('one'), await follow('other')]
    await notify('one', 'hello')
    expect([await first.next(), await second.next()]).toEqual(['hello', 'hello'])
    await notify('other', '')
    expect(await other.next()).toBe('')
    expect(first.heard).toEqual([])
    for (const listener of [first, second, other]) await listener.unlisten()
  })

  test('come when a transaction is kept, and not when it is undone', async () => {
    const listener = await follow('kept')
    await database
      .transaction(async (transaction) => {
        await transaction.query(`select pg_notify('kept', 'undone')`)
        throw new Error('on purpose')
      })
      .catch(() => {})
    await database.transaction((transaction) => transaction.query(`select pg_notify('kept', 'kept')`))
    expect(await listener.next()).toBe('kept')
    await listener.unlisten()
  })

  test('end for who has left, and go on for the others', async () => {
    const [leaves, stays] = [await follow('left'), await follow('left')]
    await leaves.unlisten()
    await notify('left', 'after')
    expect(await stays.next()).toBe('after')
    expect(leaves.heard).toEqual([])
    await stays.unlisten()
    const again = await follow('left')
    await notify('left', 'again')
    expect(await again.next()).toBe('again')
    await again.unlisten()
  })

  test('reach whoever listens at the same time as another begins to', async () => {
    await using fresh = await openTestDatabase()
    const beginning = follow('together', fresh.database)
    const listener = await follow('together', fresh.database)
    await fresh.database.query(`notify together, 'hello'`)
    expect(await listener.next()).toBe('hello')
    await listener.unlisten()
    await (await beginning).unlisten()
  })

  test('go on after the connection was lost, and say that some may have been missed', async ({ skip }) => {
    if (own.config.kind === 'embedded') skip('embedded: there is no connection of its own to lose')
    const listener = await follow('survives')
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and query like 'listen%survives%' and pid <> pg_backend_pid()`,
    )
    expect(await listener.next()).toBeNull()
    await notify('survives', 'after')
    expect(await listener.next()).toBe('after')
    await listener.unlisten()
  })
})

test('statements are observed, also those of Prisma', async () => {
  const seen: string[] = []
  await using other = await createTestDatabase()
  const opened = await openDatabase(other.config, {
    log: createLogger('silent'),
    onFailure: () => {},
    onStatement: (text) => seen.push(text),
  })
  await opened.query('select 42')
  await opened.prisma.source.count()
  await opened.close()
  expect(seen).toContain('select 42')
  expect(seen.some((text) => text.includes('"source"'))).toBe(true)
})

describe('a data folder', () => {
  function folderOf(config: DatabaseConfig, skip: (reason: string) => never): string {
    return config.kind === 'embedded' ? config.dataDir : skip('Postgres: there is no data folder')
  }

  test('has one owner: a second one is refused, and the first is named', async ({ skip }) => {
    const folder = folderOf(own.config, skip)
    await expect(reopen(own.config)).rejects.toThrow(
      new RegExp(`${folder} is held by process ${process.pid} on .*QUARRY_DATA_DIR`),
    )
    expect(await database.query('select 1 as one')).toEqual([{ one: 1 }])
  })

  test('says where its API is', async ({ skip }) => {
    const folder = folderOf(own.config, skip)
    await database.publishAddress('http://127.0.0.1:4321')
    expect(currentHolder(folder)?.url).toBe('http://127.0.0.1:4321')
  })

  test('is free again after its owner was killed', async ({ skip }) => {
    await using other = await createTestDatabase()
    const folder = folderOf(other.config, skip)
    const owner = fork(fileURLToPath(new URL('./folder-owner.ts', import.meta.url)), [folder], {
      execArgv: ['--import', 'tsx'],
    })
    await once(owner, 'message')
    await expect(reopen(other.config)).rejects.toThrow(/is held by process/)
    owner.kill('SIGKILL')
    await once(owner, 'exit')
    await expect.poll(() => currentHolder(folder), { timeout: 10_000 }).toBeNull()
    const opened = await reopen(other.config)
    expect(await opened.query(`select name from source where type = 'owner'`)).toEqual([
      { name: 'acknowledged' },
    ])
    await opened.close()
  })

  test('whose engine is killed says so, once', async ({ skip }) => {
    await using other = await createTestDatabase()
    const folder = folderOf(other.config, skip)
    const failures: string[] = []
    const failed = new Promise<void>((resolve) => {
      void reopen(other.config, (error) => {
        failures.push(error.message)
        resolve()
      }).then((opened) => {
        closing = () => opened.close()
        process.kill(currentHolder(folder)?.pid ?? 0, 'SIGKILL')
      })
    })
    let closing: () => Promise<void> = async () => {}
    await failed
    await closing()
    expect(failures).toEqual([expect.stringMatching(/The embedded database in .* stopped: .*SIGKILL/)])
  })
})

test('a Postgres that cannot be reached is refused, without its password', async () => {
  const config = { kind: 'postgres', url: 'postgres://me:secret@127.0.0.1:1/none', poolSize: 2 } as const
  const error = await reopen(config).catch((reason: Error) => reason)
  expect(String(error)).toMatch(/me:\*\*\*@127\.0\.0\.1:1\/none\) cannot be reached.*unset it/)
  expect(String(error)).not.toContain('secret')
})
