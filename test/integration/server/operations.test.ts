import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import WebSocket from 'ws'
import { startApp } from '../../../src/app.ts'
import { parseConfig } from '../../../src/config.ts'
import { createLogger } from '../../../src/log.ts'
import { startProviderApp } from '../../support/apps.ts'
import { createTestDatabase, runOnServer } from '../../support/databases.ts'
import { graphql } from '../../support/generated/index.ts'
import { ingest } from '../../support/messages.ts'
import { eventually, startTestServer, type TestServer } from '../../support/server.ts'

const SearchDocument = graphql(`
  query OperationsSearch($mode: SearchMode!) {
    search(query: "database", mode: $mode) { nodes { __typename } }
  }
`)

const acme = '01a205b4-5aeb-74e5-9d26-e9f9d4492509'

async function get(url: string, init: RequestInit = {}) {
  const response = await fetch(url, init)
  const body = await response.text()
  return { status: response.status, headers: response.headers, body }
}

/** Makes the database answer nothing more until this is disposed of. */
async function hangDatabase({ database }: TestServer): Promise<AsyncDisposable> {
  const connection = await database.pool.connect()
  // Embedded, an open transaction has the database for itself.
  await connection.query('begin')
  await connection.query('lock table job, embedding_space in access exclusive mode')
  return {
    async [Symbol.asyncDispose]() {
      await connection.query('rollback')
      connection.release()
    },
  }
}

describe('/health', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await startTestServer()
  })
  afterAll(() => server[Symbol.asyncDispose]())

  test('says that the process is alive, whatever the database does', async () => {
    await using _hanging = await hangDatabase(server)
    const { status, body, headers } = await get(`${server.url}/health`)
    expect([status, JSON.parse(body)]).toEqual([200, { status: 'ok' }])
    expect(headers.get('cache-control')).toBe('no-store')
  })

  test('answers HEAD without a body, refuses what would change something, and any host may ask', async () => {
    const { port, hostname } = new URL(server.url)
    expect(await get(`${server.url}/health`, { method: 'HEAD' })).toMatchObject({ status: 200, body: '' })
    for (const path of ['/health', '/ready', '/metrics']) {
      const refused = await get(server.url + path, { method: 'POST', body: '{}' })
      expect(refused.status).toBe(405)
      expect(refused.headers.get('allow')).toBe('GET, HEAD')
    }
    const asked = async (path: string) => {
      const sent = request({ hostname, port, path, headers: { host: 'quarry.cluster.internal' } }).end()
      const [response] = (await once(sent, 'response')) as [IncomingMessage]
      await text(response)
      return response.statusCode
    }
    expect([await asked('/health'), await asked('/ready'), await asked('/metrics')]).toEqual([200, 200, 403])
  })
})

describe('/ready', () => {
  async function ready(server: TestServer) {
    const { status, body } = await get(`${server.url}/ready`)
    return { code: status, ...(JSON.parse(body) as { status: string; checks: object; providers: object }) }
  }

  test('names what it has looked at, and what is wrong', async () => {
    let wrong: string | null = null
    await using server = await startTestServer({ checks: { jobs: () => wrong } })
    const well = { stopping: 'ok', database: 'ok', space: 'ok', process: 'ok', jobs: 'ok' }
    expect(await ready(server)).toEqual({ code: 200, status: 'ready', checks: well, providers: {} })

    wrong = 'The job runner has ended'
    expect(await ready(server)).toMatchObject({
      code: 503,
      status: 'unready',
      checks: { ...well, jobs: wrong },
    })
    wrong = null

    await server.database.query(`update embedding_space set state = 'RETIRED'`)
    expect((await ready(server)).checks).toMatchObject({ space: expect.stringContaining('RETIRED') })
    await server.database.query(`update embedding_space set state = 'ACTIVE'`)

    await server.database.query(`update process set heartbeat_at = now() - interval '40 s'`)
    expect((await ready(server)).checks).toMatchObject({
      process: expect.stringMatching(/heartbeat is 4\d s/),
    })
    await server.database.query('delete from process')
    expect((await ready(server)).checks).toMatchObject({ process: expect.stringContaining('dead') })
  })

  test('tells the state of the providers, and is ready while one is in ERROR', async () => {
    await using server = await startTestServer()
    await server.database.query(
      `insert into provider_status (purpose, state, error) values ('EMBEDDING', 'ERROR', 'key refused')`,
    )
    expect(await ready(server)).toMatchObject({ status: 'ready', providers: { EMBEDDING: 'ERROR' } })
  })

  test('tells how those do that embed the active space and extract by default, once they are not the environment', async () => {
    await using server = await startTestServer()
    const { database } = server
    await database.query(
      `insert into provider_status (purpose, state) values ('EMBEDDING', 'ERROR'), ('EXTRACTION', 'ERROR')`,
    )
    await database.query(
      `insert into provider (id, name, type, state, monthly_budget) values ($1, 'Acme', 'OLLAMA', 'CONNECTED', 5)`,
      [acme],
    )
    await database.query('update embedding_space set provider_id = $1', [acme])
    expect((await ready(server)).providers).toEqual({ EMBEDDING: 'CONNECTED', EXTRACTION: 'ERROR' })
    await database.query(
      `insert into agent (id, name, provider_id, model, is_default) values ($1, 'Reader', $1, 'm', true)`,
      [acme],
    )
    expect((await ready(server)).providers).toEqual({ EMBEDDING: 'CONNECTED', EXTRACTION: 'CONNECTED' })
    await database.query(`update embedding_space set provider_error = 'no such model'`)
    expect((await ready(server)).providers).toEqual({ EMBEDDING: 'ERROR', EXTRACTION: 'CONNECTED' })

    await database.query(
      `insert into provider_usage (day, account, account_name, kind, requests, failed_requests, tokens_in, tokens_out, ms,
         cost, unpriced_requests)
       select (now() at time zone 'UTC')::date - days, $1, 'Acme', 'QUERY', 1, 0, 1, 0, 1, 0.5, 0 from unnest(array[0, 40]) as days`,
      [acme],
    )
    const lines = await scrape(server.url)
    expect(lines.get('quarry_provider_spent_usd{provider="Acme"}')).toBe(0.5)
    expect(lines.get('quarry_provider_budget_usd{provider="Acme"}')).toBe(5)
    expect(lines.get('quarry_provider_state{purpose="EMBEDDING",state="ERROR"}')).toBe(1)
  })

  test('is over as soon as the process stops', async () => {
    await using server = await startTestServer()
    server.operations.stopping()
    expect(await ready(server)).toMatchObject({
      status: 'unready',
      checks: { stopping: expect.stringContaining('stopping'), database: 'ok' },
    })
    const changes = server.log.filter((line) => line.includes('is not ready'))
    await ready(server)
    expect(changes).toHaveLength(1)
    expect(server.log.filter((line) => line.includes('is not ready'))).toHaveLength(1)
  })

  test('says within seconds that the database does not answer, and that it does again', async () => {
    await using server = await startTestServer()
    {
      await using _hanging = await hangDatabase(server)
      const before = performance.now()
      const answers = await Promise.all(Array.from({ length: 20 }, () => ready(server)))
      expect(performance.now() - before).toBeLessThan(10_000)
      for (const answer of answers) {
        expect(answer).toMatchObject({
          status: 'unready',
          checks: {
            database: expect.stringContaining('2000 ms'),
            space: expect.stringContaining('Unknown'),
          },
        })
      }
    }
    await eventually(async () => (await ready(server)).status).toBe('ready')
  })

  test('says at once that the database is gone', async () => {
    await using server = await startTestServer()
    const { database } = server
    if (database.engine === 'embedded') await database.close()
    else {
      const [row] = await database.query<{ name: string; url: string }>('select current_database() as name')
      const serverUrl = process.env.QUARRY_TEST_DATABASE_URL ?? ''
      await runOnServer(serverUrl, `alter database ${row?.name} allow_connections false`)
      await runOnServer(
        serverUrl,
        `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${row?.name}'`,
      )
    }
    await eventually(async () => (await ready(server)).checks).toMatchObject({
      database: expect.not.stringMatching(/^ok$|2000 ms/),
    })
    expect((await get(`${server.url}/health`)).status).toBe(200)
  })
})

/** The lines of a scrape, without comments: name and labels, then the value. */
async function scrape(url: string): Promise<Map<string, number>> {
  const { status, headers, body } = await get(`${url}/metrics`)
  expect(status).toBe(200)
  expect(headers.get('content-type')).toContain('text/plain; version=0.0.4')
  const lines = body.split('\n').filter((line) => line && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ')
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}

const seriesOf = (lines: Map<string, number>, name: string) =>
  [...lines.keys()].filter((line) => line === name || line.startsWith(`${name}{`))

describe('/metrics', () => {
  test('tells of all that was done', async () => {
    await using app = await startProviderApp()
    const url = app.app.url ?? ''
    await ingest(app.client, ['the database was restarted', 'and then it was slow', ''])
    for (const mode of ['HYBRID', 'SEMANTIC', 'KEYWORD'] as const)
      await app.client.run(SearchDocument, { mode })
    await app.client.waitUntilEmbedded()
    const following = app.client.subscribe(FollowDocument)
    await following.next()
    await app.client.send('{ nothing }')
    await app.sql(
      `insert into job (id, kind, state, finished_at) values ('01a205b4-5aeb-74e5-9d26-e9f9d4492508', 'EXTRACT', 'FAILED', now())`,
    )
    await app.sql(
      `insert into alert (id, kind, failures, job_id) select id, 'EXTRACT', 3, id from job where kind = 'EXTRACT'`,
    )
    await app.sql(
      `insert into provider_status (purpose, state, waiting_until) values ('EXTRACTION', 'CONNECTED', now() + interval '30 s')
       on conflict (purpose) do update set waiting_until = excluded.waiting_until`,
    )

    const lines = await scrape(url)
    const expected: [string, number | ReturnType<typeof expect.any>][] = [
      ['quarry_database_up', 1],
      ['quarry_queue_entries{state="ready"}', expect.any(Number)],
      ['quarry_queue_entries{state="scheduled"}', expect.any(Number)],
      ['quarry_queue_entries{state="locked"}', expect.any(Number)],
      ['quarry_queue_oldest_ready_seconds', expect.any(Number)],
      ['quarry_jobs{kind="EXTRACT",state="FAILED"}', 1],
      ['quarry_jobs{kind="IMPORT",state="RUNNING"}', 0],
      ['quarry_alerts{kind="EXTRACT"}', 3],
      ['quarry_alerts{kind="IMPORT"}', 0],
      ['quarry_embeddings{kind="MESSAGE",status="READY"}', 2],
      ['quarry_embeddings{kind="MESSAGE",status="SKIPPED"}', 1],
      ['quarry_embeddings{kind="ATOM",status="PENDING"}', 0],
      ['quarry_embedding_coverage_ratio{kind="MESSAGE"}', 1],
      ['quarry_embedding_oldest_owed_seconds', 0],
      ['quarry_provider_state{purpose="EXTRACTION",state="CONNECTED"}', 1],
      ['quarry_provider_state{purpose="EXTRACTION",state="ERROR"}', 0],
      ['quarry_processes{role="server"}', 1],
      ['quarry_subscriptions{field="embeddingProgress"}', 1],
      ['quarry_search_seconds_count{mode="hybrid"}', 1],
      ['quarry_search_seconds_count{mode="semantic"}', 1],
      ['quarry_search_seconds_count{mode="keyword"}', 1],
      ['quarry_graphql_operation_seconds_count{type="mutation"}', 1],
      ['quarry_graphql_operation_seconds_count{type="query"}', 3],
      ['quarry_graphql_errors_total{type="query",phase="validate"}', 1],
      ['quarry_http_request_seconds_count{method="POST",route="graphql",status="200"}', expect.any(Number)],
      ['quarry_process_cpu_user_seconds_total', expect.any(Number)],
    ]
    expect(Object.fromEntries(expected.map(([name]) => [name, lines.get(name)]))).toEqual(
      Object.fromEntries(expected),
    )
    const waiting = lines.get('quarry_provider_waiting_seconds{purpose="EXTRACTION"}') ?? 0
    expect(waiting).toBeGreaterThan(0)
    expect(waiting).toBeLessThanOrEqual(30)
    await following.return(undefined)
    await eventually(async () =>
      (await scrape(url)).get('quarry_subscriptions{field="embeddingProgress"}'),
    ).toBe(0)
  })

  test('tells how old the oldest text is that is owed an embedding', async () => {
    await using server = await startTestServer()
    await ingest(server.client, ['one', 'two'])
    const anHourAgo = (Date.now() - 3_600_000).toString(16).padStart(12, '0')
    await server.database.query(
      `update message set id = $1 where id = (select id from message order by id desc limit 1)`,
      [`${anHourAgo.slice(0, 8)}-${anHourAgo.slice(8)}-7000-8000-000000000000`],
    )
    await server.database.query(
      `update embedding set owner_id = (select id from message order by id limit 1)
       where owner_id not in (select id from message)`,
    )
    const lines = await scrape(server.url)
    expect(lines.get('quarry_embeddings{kind="MESSAGE",status="PENDING"}')).toBe(2)
    expect(lines.get('quarry_embedding_oldest_owed_seconds')).toBeGreaterThan(3_590)
    expect(lines.get('quarry_embedding_oldest_owed_seconds')).toBeLessThan(3_700)
  })

  test('has no more series than there are things, whatever clients send', async () => {
    await using server = await startTestServer()
    for (let n = 0; n < 30; n++) {
      await server.client.send(`query Name${n} { __typename }`)
      await server.client.send(`query Wrong${n} { field${n} }`)
      await server.client.send(`{ broken${n}`)
      await server.client.send(`fragment F${n} on Query { __typename } query Q${n} { ...F${n} }`)
      await get(`${server.url}/path/${n}`)
      await get(`${server.url}/graphql?query={__typename}&operationName=O${n}`)
      await get(`${server.url}/telegram/${n}`, { method: `M${n}` }).catch(() => null)
    }
    const lines = await scrape(server.url)
    const operations = seriesOf(lines, 'quarry_graphql_operation_seconds_count')
    expect(operations).toEqual(['quarry_graphql_operation_seconds_count{type="query"}'])
    expect(lines.get('quarry_graphql_operation_seconds_count{type="query"}')).toBe(60)
    expect(seriesOf(lines, 'quarry_graphql_errors_total').sort()).toEqual([
      'quarry_graphql_errors_total{type="query",phase="validate"}',
      'quarry_graphql_errors_total{type="unknown",phase="parse"}',
    ])
    expect(seriesOf(lines, 'quarry_http_request_seconds_count').length).toBeLessThan(10)
    expect([...lines.keys()].filter((line) => /Name|Wrong|broken|path\//.test(line))).toEqual([])
  })

  test('asks the database once, however many scrape', async () => {
    await using server = await startTestServer()
    const before = server.statements('as scheduled')
    await Promise.all(Array.from({ length: 20 }, () => server.metrics.registry.metrics()))
    expect(server.statements('as scheduled')).toBe(before + 1)
  })

  test('is answered without the database, too, and then says nothing of it', async () => {
    await using server = await startTestServer()
    await server.client.send('{ __typename }')
    expect((await scrape(server.url)).get('quarry_database_up')).toBe(1)
    {
      await using _hanging = await hangDatabase(server)
      // What was read a moment ago is still given out.
      let lines = new Map<string, number>()
      await eventually(async () => {
        lines = await scrape(server.url)
        return lines.get('quarry_database_up')
      }).toBe(0)
      expect(lines.get('quarry_graphql_operation_seconds_count{type="query"}')).toBe(1)
      for (const name of [
        'quarry_queue_entries',
        'quarry_queue_oldest_ready_seconds',
        'quarry_jobs',
        'quarry_embeddings',
        'quarry_embedding_coverage_ratio',
        'quarry_embedding_oldest_owed_seconds',
      ]) {
        expect(seriesOf(lines, name)).toEqual([])
      }
      const asked = server.statements('as scheduled')
      const before = performance.now()
      await Promise.all(Array.from({ length: 20 }, () => scrape(server.url)))
      expect(performance.now() - before).toBeLessThan(10_000)
      expect(server.statements('as scheduled')).toBe(asked)
    }
    await eventually(async () => (await scrape(server.url)).get('quarry_database_up')).toBe(1)
    expect((await scrape(server.url)).get('quarry_queue_oldest_ready_seconds')).toBe(0)
  })
})

const FollowDocument = graphql(`
  subscription OperationsFollow {
    embeddingProgress { seq }
  }
`)

test('a worker answers on a port of its own, and nothing else', async () => {
  await using own = await createTestDatabase()
  const lines: string[] = []
  const log = createLogger('silent')
  const heard = { ...log, info: (fields: object) => lines.push(JSON.stringify(fields)), child: () => log }
  const app = await startApp({
    config: {
      ...parseConfig({ QUARRY_WORKER_PORT: '0', QUARRY_EMBEDDING_THREADS: '1', QUARRY_AUTO_EXTRACT: 'off' }),
      database: own.config,
    },
    log: heard as unknown as typeof log,
    role: 'worker',
  })
  try {
    const url = lines.map((line) => (JSON.parse(line) as { url?: string }).url).find(Boolean) ?? ''
    expect((await get(`${url}/health`)).status).toBe(200)
    expect((await get(`${url}/ready`)).status).toBe(200)
    expect((await scrape(url)).get('quarry_processes{role="worker"}')).toBe(1)
    expect((await get(`${url}/graphql`)).status).toBe(404)
  } finally {
    await app.stop()
  }
})

describe('the id of a request', () => {
  let server: TestServer
  beforeAll(async () => {
    server = await startTestServer()
  })
  afterAll(() => server[Symbol.asyncDispose]())

  const json = { 'content-type': 'application/json' }
  const idOf = (line: string | undefined) => (JSON.parse(line ?? '{}') as { requestId?: string }).requestId

  test('is what a proxy gave it, if that is sane, else a new one, and stands in the answer and in the log', async () => {
    const ask = async (id: string | null) => {
      const headers = id === null ? json : { ...json, 'x-request-id': id }
      const body = JSON.stringify({ query: 'query Named { __typename }' })
      const answer = await get(server.client.url, { method: 'POST', headers, body })
      return answer.headers.get('x-request-id') ?? ''
    }
    expect(await ask('a1b2-c3.4')).toBe('a1b2-c3.4')
    const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/
    for (const insane of [null, '', 'two words', 'x'.repeat(129), '{"level":60}']) {
      expect(await ask(insane)).toMatch(uuid)
    }
    const own = await ask(null)
    const lines = server.log.filter((line) => idOf(line) === own)
    expect(lines.some((line) => line.includes('"operation":"Named"'))).toBe(true)
    await eventually(() =>
      server.log.some((line) => idOf(line) === own && line.includes('"status":200')),
    ).toBe(true)
  })

  test('leads from a masked error to its line in the log, over HTTP and over WebSocket', async () => {
    await server.database.query('alter table topic rename to hidden_topic')
    const query = 'query Failing { topics { nodes { name } } }'
    const over = {
      http: await (
        await fetch(server.client.url, {
          method: 'POST',
          headers: { ...json, 'x-request-id': 'over-http' },
          body: JSON.stringify({ query }),
        })
      ).text(),
      socket: await askOverSocket(server.client.url, 'over-socket', query),
    }
    for (const [answer, id] of [
      [over.http, 'over-http'],
      [over.socket, 'over-socket.1'],
    ] as const) {
      expect(JSON.parse(answer)).toMatchObject({
        errors: [
          { message: 'Unexpected error.', extensions: { code: 'INTERNAL_SERVER_ERROR', requestId: id } },
        ],
      })
      expect(answer).not.toContain('hidden_topic')
      const errors = server.log.filter((line) => idOf(line) === id && line.includes('"level":50'))
      expect(errors).toHaveLength(1)
      expect(JSON.parse(errors[0] ?? '')).toMatchObject({
        msg: 'A GraphQL operation failed',
        operation: 'Failing',
        path: ['topics'],
        err: { message: expect.stringContaining('does not exist') },
      })
    }
    expect(server.log.filter((line) => line.includes('"connectionId":"over-socket"')).length).toBeGreaterThan(
      2,
    )
    await server.database.query('alter table hidden_topic rename to topic')
  })

  test('also of what goes wrong before there is an operation', async () => {
    const form = new FormData()
    form.set('operations', JSON.stringify({ query: '{ __typename }' }))
    form.set('map', '{}')
    const temporary = process.env.TMPDIR
    // Where an upload is written to.
    process.env.TMPDIR = '/nowhere/at/all'
    const answer = await fetch(server.client.url, {
      method: 'POST',
      headers: { 'x-request-id': 'upload' },
      body: form,
    }).finally(() => {
      if (temporary === undefined) delete process.env.TMPDIR
      else process.env.TMPDIR = temporary
    })
    const body = await answer.text()
    expect(answer.status).toBe(500)
    expect(JSON.parse(body)).toEqual({
      errors: [
        {
          message: 'Unexpected error.',
          extensions: { code: 'INTERNAL_SERVER_ERROR', requestId: 'upload' },
        },
      ],
    })
    const errors = server.log.filter((line) => line.includes('/nowhere/at/all'))
    expect(errors).toHaveLength(1)
    expect(JSON.parse(errors[0] ?? '')).toMatchObject({
      level: 50,
      requestId: 'upload',
      msg: 'A GraphQL request failed',
    })
  })

  test('also of a subscription that breaks off', async () => {
    await server.database.query('alter table embedding_count rename to hidden_count')
    const query = 'subscription Breaking { embeddingProgress { seq } }'
    const answer = await askOverSocket(server.client.url, 'socket', query)
    const stream = await get(server.client.url, {
      method: 'POST',
      headers: { ...json, accept: 'text/event-stream', 'x-request-id': 'stream' },
      body: JSON.stringify({ query }),
    })
    for (const [told, id] of [
      [answer, 'socket.1'],
      [stream.body, 'stream'],
    ] as const) {
      expect(told).toContain(`"requestId":"${id}"`)
      expect(told).toContain('Unexpected error.')
      expect(told).not.toContain('hidden_count')
      expect(server.log.find((line) => idOf(line) === id && line.includes('"level":50'))).toContain(
        'Breaking',
      )
    }
    await eventually(() => server.metric('quarry_subscriptions{field="embeddingProgress"}')).toBe(0)
    await eventually(server.listeners).toBe(0)
    await server.database.query('alter table hidden_count rename to embedding_count')
  })

  test('is all that the log keeps of what a client sends: no key, no cookie, no variable', async () => {
    const secret = 'c0ffee-secret'
    const headers = {
      ...json,
      authorization: `Bearer ${secret}`,
      cookie: `session=${secret}`,
      'x-telegram-bot-api-secret-token': secret,
      'x-api-key': secret,
    }
    const query =
      'query Secret($text: String!) { search(query: $text, mode: KEYWORD) { nodes { __typename } } }'
    const body = JSON.stringify({ query, variables: { text: secret } })
    const send = async () => {
      await get(server.client.url, { method: 'POST', headers, body })
      await get(`${server.client.url}?query={__typename}&variables={"text":"${secret}"}`, { headers })
      await get(`${server.url}/telegram/chat?token=${secret}`, { method: 'POST', headers, body })
      await get(`${server.url}/ready?token=${secret}`, { headers })
      await askOverSocket(server.client.url, 'secret', query, { text: secret }, headers)
    }
    await send()
    await server.database.query('alter table message rename to hidden_message')
    await send()
    await server.database.query('alter table hidden_message rename to message')
    expect(server.log.some((line) => line.includes('A GraphQL operation failed'))).toBe(true)
    expect(server.log.length).toBeGreaterThan(15)
    expect(server.log.filter((line) => line.includes(secret))).toEqual([])
  })
})

/** The first result of an operation over graphql-ws, as JSON: of one that fails as a whole, `{errors}`. */
async function askOverSocket(
  url: string,
  requestId: string,
  query: string,
  variables: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Promise<string> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), 'graphql-transport-ws', {
    headers: { ...headers, 'x-request-id': requestId },
  })
  const messages: { type: string; payload: unknown }[] = []
  socket.on('message', (data) => messages.push(JSON.parse(String(data))))
  await once(socket, 'open')
  socket.send(JSON.stringify({ type: 'connection_init' }))
  await eventually(() => messages.length).toBe(1)
  socket.send(JSON.stringify({ id: 'same', type: 'subscribe', payload: { query, variables } }))
  await eventually(() => messages.length).toBeGreaterThan(1)
  socket.close()
  await once(socket, 'close')
  const { type, payload } = messages[1] ?? { type: 'none', payload: null }
  return JSON.stringify(type === 'error' ? { errors: payload } : payload)
}
