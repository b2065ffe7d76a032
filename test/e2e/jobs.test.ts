import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, type TestContext, test } from 'vitest'
import { providerEnv } from '../support/apps.ts'
import { preparedFolder } from '../support/databases.ts'
import { type QuarryProcess, runQuarry, startQuarry } from '../support/processes.ts'
import { type Fault, ProviderServer } from '../support/provider-server.ts'
import { noTerminal, startInTerminal } from '../support/terminal.ts'

/** A provider at which requests wait while its gate is closed, and fail while it has a fault. */
async function startProvider() {
  let gate = Promise.resolve()
  let open = () => {}
  const state = { fault: null as Fault | null }
  const server = await ProviderServer.start({
    dimensions: 64,
    fault: async () => {
      await gate
      return state.fault
    },
  })
  return {
    env: providerEnv(server),
    state,
    close: () => server.close(),
    closeGate() {
      gate = new Promise((resolve) => {
        open = resolve
      })
    },
    openGate: () => open(),
  }
}

/** How a terminal is told what to do: the sequence behind the escape character. */
const control = (sequence: string) => `\u001b[${sequence}`
const ctrlC = '\u0003'

let provider: Awaited<ReturnType<typeof startProvider>>
let folder: Awaited<ReturnType<typeof preparedFolder>>
let env: Record<string, string>
let files = 0

beforeAll(async () => {
  provider = await startProvider()
  folder = await preparedFolder()
  env = { QUARRY_DATA_DIR: join(folder.path, 'data'), PORT: '0', QUARRY_AUTO_EXTRACT: 'off', ...provider.env }
})
afterAll(async () => {
  await folder[Symbol.asyncDispose]()
  await provider.close()
})
beforeEach(() => provider.openGate())

/** A file of three messages that nobody has imported before. */
async function newFile(): Promise<string> {
  const number = ++files
  const path = join(folder.path, `chat-${number}.jsonl`)
  const messages = ['disk', 'snapshot', 'restore'].map((about, index) => ({
    id: `${number}-${index}`,
    author: 'ann',
    sentAt: '2026-05-04T09:00:00Z',
    text: `What to do about ${about} number ${number}?`,
  }))
  await writeFile(path, messages.map((message) => JSON.stringify(message)).join('\n'))
  return path
}

/** Three messages that wait before the provider's gate. */
async function importBeforeGate(): Promise<void> {
  provider.closeGate()
  const { output, code } = await runQuarry(['import', await newFile(), '--no-wait'], env)
  expect(output).toContain('3 new')
  expect(code).toBe(0)
}

async function newestJob(kind: string): Promise<string> {
  const { output } = await runQuarry(['jobs', '--kind', kind, '-n', '1'], env)
  const [, id] = output.match(/^([0-9a-f]{8}) {2}/m) ?? []
  if (!id) throw new Error(`No ${kind} job in:\n${output}`)
  return id
}

describe('beside a server', () => {
  let server: QuarryProcess

  async function startServer(): Promise<QuarryProcess> {
    const started = startQuarry(['serve'], env)
    await started.line(/"url":"(http:[^"]+)\/graphql"/)
    return started
  }

  beforeAll(async () => {
    server = await startServer()
  })
  afterAll(async () => {
    server.child.kill('SIGTERM')
    await server.exit()
  })

  test('a job goes on without its command; it is listed, followed, cancelled and taken up again', async () => {
    await importBeforeGate()
    await using backfill = startQuarry(['backfill'], env)
    await backfill.line(/^Embedding 0\/3 \(0 %\)$/)
    backfill.child.kill('SIGINT')
    expect(await backfill.exit()).toBe(130)
    const id = await newestJob('backfill')
    expect(backfill.output()).toContain(`The backfill (job ${id}) goes on in the server.`)
    expect(backfill.output()).toContain(`quarry jobs watch ${id}`)

    await using watch = startQuarry(['jobs', 'watch', id], env)
    await watch.line(/^Embedding 0\/3/)
    const listed = await runQuarry(['jobs', '--state', 'running'], env)
    expect(listed.output).toMatch(
      new RegExp(
        `^ID +KIND +STATE +DONE +FAILED +AGE +TOOK +NOTE\n${id} +BACKFILL +RUNNING +0/3 +0 +\\d+ s +[\\d.]+ s$`,
      ),
    )

    const cancelled = await runQuarry(['jobs', 'cancel', id], env)
    expect(cancelled).toEqual({ code: 0, output: `Cancelled: BACKFILL ${id}, 0 of 3 done` })
    expect(await watch.exit()).toBe(1)
    expect(watch.output()).toContain('The backfill was cancelled')

    const retried = await runQuarry(['jobs', 'retry', id, '--no-wait'], env)
    expect(retried).toEqual({ code: 0, output: `Taken up again: BACKFILL ${id}` })
    await using again = startQuarry(['jobs', 'watch', id.slice(2)], env)
    await again.line(/^Embedding 0\/3/)
    provider.openGate()
    expect(await again.exit()).toBe(0)
    expect(again.output()).toMatch(/^Embedding 3\/3, .*\n3 embedded, 0 failed, 0 skipped$/m)
  })

  test('what cannot be done to a job is refused with the reason', async () => {
    const id = await newestJob('backfill')
    const [none, unknown, over, usage, state, ended] = await Promise.all([
      runQuarry(['jobs', '--state', 'failed'], env),
      runQuarry(['jobs', 'cancel', 'no-such-job'], env),
      runQuarry(['jobs', 'retry', id], env),
      runQuarry(['jobs', 'cancle', id], env),
      runQuarry(['jobs', '--state', 'busy'], env),
      runQuarry(['jobs', 'watch', id], env),
    ])
    expect(none).toEqual({ code: 0, output: 'There are no such jobs.' })
    expect(unknown.code).toBe(1)
    expect(unknown.output).toMatch(/^No job has the id no-such-job, .* quarry jobs lists them/)
    expect(over).toEqual({
      code: 1,
      output: `BACKFILL ${id}: The job has done all that it was to do: there is nothing left to retry`,
    })
    expect(usage.code).toBe(2)
    expect(usage.output).toContain("unknown command 'jobs cancle'")
    expect(state.code).toBe(2)
    expect(state.output).toContain('QUEUED, RUNNING, SUCCEEDED')
    expect(ended).toEqual({
      code: 0,
      output: `BACKFILL ${id} has ended: SUCCEEDED\n3 embedded, 0 failed, 0 skipped`,
    })
  })

  test('commands that follow go on when the server was killed and is back', async () => {
    await importBeforeGate()
    await using status = startQuarry(['status', '--watch'], env)
    await status.line(/^\S+ embedded \d+\/\d+ \(\d\d? %\)/)
    await using backfill = startQuarry(['backfill'], env)
    await backfill.line(/^Embedding 0\/3/)
    await status.line(/; BACKFILL [0-9a-f]{8} RUNNING 0\/3/)

    server.child.kill('SIGKILL')
    await server.exit()
    await status.line(/no connection to the server, trying again/)
    await backfill.line(/^Embedding 0\/3 .*no connection to the server, trying again/)
    server = await startServer()
    await status.line(/ connected again; embedded \d+\/\d+ \(\d\d? %\)/)
    provider.openGate()
    expect(await backfill.exit()).toBe(0)
    expect(backfill.output()).toMatch(/^3 embedded, 0 failed, 0 skipped$/m)
    // Two feeds: either may be the first to tell.
    await status.line(/; BACKFILL [0-9a-f]{8} SUCCEEDED 3\/3/)
    await status.line(/embedded (\d+)\/\1 \(100 %\)/)

    status.child.kill('SIGINT')
    expect(await status.exit()).toBe(0)
  })

  describe('on a terminal', () => {
    const skipWithoutTerminal = ({ skip }: TestContext) => {
      const reason = noTerminal()
      if (reason) skip(reason)
    }

    test('a bar is drawn where it is, and Ctrl-C leaves the work to the server', async (context) => {
      skipWithoutTerminal(context)
      await importBeforeGate()
      await using first = startInTerminal(['backfill'], env)
      await first.until(/Embedding ░{30} {3}0% 0\/3/)
      first.type(ctrlC)
      expect(await first.exit()).toBe(130)
      const left = stripVTControlCharacters(first.output())
      expect(left).toMatch(/0% 0\/3\^C\r\nThe backfill \(job [0-9a-f]{8}\) goes on in the server\./)
      // The cursor and the wrapping of lines are given back.
      const given = first.output().split(control('?25l')).at(-1)
      expect(given).toContain(control('?25h') + control('?7h'))

      await using second = startInTerminal(['jobs', 'watch', await newestJob('backfill')], env)
      await second.until(/░{30} {3}0% 0\/3/)
      provider.openGate()
      expect(await second.exit()).toBe(0)
      expect(stripVTControlCharacters(second.output())).toMatch(/█{30} 100% 3\/3, .*\r\n3 embedded/)
    })

    test('the status is drawn on a screen of its own, and its last state is left behind', async (context) => {
      skipWithoutTerminal(context)
      await using status = startInTerminal(['status', '--watch'], env)
      await status.until(/MESSAGE .* 100% (\d+)\/\1/)
      status.type(ctrlC)
      expect(await status.exit()).toBe(0)
      const [before, inside = ''] = status.output().split(control('?1049h'))
      expect(before).toBe('')
      const [screen = '', after = ''] = inside.split(control('?1049l'))
      expect(stripVTControlCharacters(screen)).toContain('Ctrl-C ends this view')
      expect(stripVTControlCharacters(after)).toMatch(
        /^Server {4}http:\S+ .*\r\nSpace {5}ACTIVE .*\r\nProvider {2}.* CONNECTED\r\n\r\nEmbedded {2}nothing is queued\r\n {2}MESSAGE {2}█+ 100% (\d+)\/\1/,
      )
    })
  })

  test('status tells of alerts and of a provider that refuses', async () => {
    const unknown = join(folder.path, 'notes.txt')
    await writeFile(unknown, 'Just some words that nobody said in a chat.\n')
    await using watch = startQuarry(['status', '--watch'], env)
    await watch.line(/embedded \d+\/\d+ \(100 %\)/)
    for (let n = 0; n < 3; n++) expect((await runQuarry(['import', unknown], env)).code).toBe(1)
    const [, advice = ''] = await watch.line(
      /; ALERT 3 IMPORT jobs in a row have failed, at [\d:]{8}: .*\((quarry .*)\)/,
    )

    const alerted = await runQuarry(['status'], env)
    expect(alerted.output).toContain('\nAlert  3 IMPORT jobs in a row have failed')
    expect(alerted.output).toContain(`(${advice})`)
    expect(alerted.output).toMatch(
      /^[0-9a-f]{8} {2}IMPORT +FAILED .*notes.txt: no known chat export, but text .*…$/m,
    )

    provider.state.fault = { status: 401, body: '{"error":{"message":"no such key"}}' }
    await runQuarry(['import', await newFile(), '--no-wait'], env)
    await watch.line(/embedded \d+\/\d+ \(\d\d? %\).*no such key/)
    const { output } = await runQuarry(['status'], env)
    expect(output).toMatch(/^Provider {2}openai \(environment\) ERROR: .*no such key/m)
    expect(output).toMatch(/^MESSAGE +\d+ +\d+ +3 +0 +0 +0 /m)
    // An import that works is the end of the alert.
    expect(output).not.toContain('Alert')
    watch.child.kill('SIGTERM')
    expect(await watch.exit()).toBe(0)
    provider.state.fault = null
  })
})

test('a command that does the work itself hands it back when it is interrupted', async () => {
  await using own = await preparedFolder()
  const alone = { ...env, QUARRY_DATA_DIR: join(own.path, 'data') }
  provider.closeGate()
  const [first, second] = [await newFile(), await newFile()]
  const missing = await runQuarry(['import', first, join(own.path, 'missing.jsonl')], alone)
  expect(missing).toMatchObject({ code: 1, output: expect.stringContaining('There is no file or folder') })

  await using imported = startQuarry(['import', first, second], alone)
  await imported.line(/^Embedding 0\/6/)
  imported.child.kill('SIGINT')
  expect(await imported.exit()).toBe(130)
  expect(imported.output()).toContain('stays queued: quarry serve, or the next command, goes on with it.')

  await using backfill = startQuarry(['backfill'], alone)
  await backfill.line(/^Embedding 0\/6/)
  backfill.child.kill('SIGTERM')
  expect(await backfill.exit()).toBe(143)
  const [, id = ''] = backfill.output().match(/The backfill \(job ([0-9a-f]{8})\) is handed back/) ?? []

  provider.openGate()
  const watched = await runQuarry(['jobs', 'watch', id], alone)
  expect(watched.output).toMatch(/^6 embedded, 0 failed, 0 skipped$/m)
  expect(watched.code).toBe(0)
})
