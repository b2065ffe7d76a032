import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { acquireLock, currentHolder, type LockHolder } from '../../../src/db/lock.ts'
import { temporaryFolder } from '../../support/processes.ts'

let folder: Awaited<ReturnType<typeof temporaryFolder>>
let dataDir: string

beforeEach(async () => {
  folder = await temporaryFolder()
  dataDir = folder.path
})
afterEach(() => folder[Symbol.asyncDispose]())

/** Leaves a lock as another process would have. */
function leaveLock(holder: Partial<LockHolder>): void {
  const whole: LockHolder = {
    pid: process.pid,
    owner: process.pid,
    processStart: startOf(process.pid),
    host: hostname(),
    since: '2026-05-04T09:30:00.000Z',
    url: null,
    ...holder,
  }
  writeFileSync(join(dataDir, 'lock.json'), JSON.stringify(whole))
}

function startOf(pid: number): string | null {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null
}

async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  await once(child, 'exit')
  return child.pid ?? 0
}

describe('a folder that nobody holds', () => {
  test('is taken, with who holds it and where its API is', () => {
    const lock = acquireLock(dataDir)
    expect(currentHolder(dataDir)).toMatchObject({ pid: process.pid, host: hostname(), url: null })
    lock.setUrl('http://127.0.0.1:4000')
    expect(currentHolder(dataDir)).toMatchObject({ pid: process.pid, url: 'http://127.0.0.1:4000' })
    lock.release()
    expect(currentHolder(dataDir)).toBeNull()
    expect(readdirSync(dataDir)).toEqual([])
  })
})

describe('a folder that a living process holds', () => {
  test('is refused, and the holder is named', () => {
    leaveLock({ owner: 4711, url: 'http://127.0.0.1:4321' })
    expect(() => acquireLock(dataDir)).toThrow(
      new RegExp(`held by process 4711 on ${hostname()} since 2026.*serving http://127.0.0.1:4321`),
    )
    expect(readdirSync(dataDir)).toEqual(['lock.json'])
  })

  test('is refused also where the start of that process is not known', () => {
    leaveLock({ processStart: null })
    expect(() => acquireLock(dataDir)).toThrow(/is held by process/)
  })

  test('of another machine is refused, whatever its pid is here', async () => {
    leaveLock({ host: 'elsewhere.example', pid: await deadPid() })
    expect(() => acquireLock(dataDir)).toThrow(
      /on elsewhere\.example.*If that machine no longer runs it, delete/,
    )
  })
})

describe('a folder whose holder is gone', () => {
  test('is taken over', async () => {
    leaveLock({ pid: await deadPid() })
    expect(currentHolder(dataDir)).toBeNull()
    const lock = acquireLock(dataDir)
    expect(currentHolder(dataDir)).toMatchObject({ pid: process.pid })
    lock.release()
  })

  test('is taken over also where another process has its pid by now', () => {
    leaveLock({ processStart: '1' })
    expect(currentHolder(dataDir)).toBeNull()
    acquireLock(dataDir).release()
  })

  test('is left to whoever is taking it over right now', async () => {
    leaveLock({ pid: await deadPid() })
    mkdirSync(join(dataDir, 'lock.json.takeover'))
    expect(() => acquireLock(dataDir)).toThrow(/Another process is taking over .*try again/)
  })

  test('is taken over also where an earlier take-over was killed in the middle', async () => {
    leaveLock({ pid: await deadPid() })
    const guard = join(dataDir, 'lock.json.takeover')
    mkdirSync(guard)
    utimesSync(guard, 0, 0)
    acquireLock(dataDir).release()
    expect(readdirSync(dataDir)).toEqual([])
  })
})

test('a lock that cannot be read is not taken for free', () => {
  writeFileSync(join(dataDir, 'lock.json'), '{"pid":')
  expect(() => acquireLock(dataDir)).toThrow(/cannot be read.*delete it/)
})

test('of several that take a left-behind lock at once, one wins', { timeout: 30_000 }, async () => {
  leaveLock({ pid: await deadPid() })
  const takers = Array.from({ length: 4 }, () =>
    fork(fileURLToPath(new URL('./lock-taker.ts', import.meta.url)), [dataDir], {
      execArgv: ['--import', 'tsx'],
    }),
  )
  await Promise.all(takers.map((taker) => once(taker, 'message')))
  const answers = takers.map(answerOf)
  for (const taker of takers) taker.send('take')
  const outcomes = await Promise.all(answers)
  expect(outcomes.filter((outcome) => outcome === 'won')).toEqual(['won'])
  await Promise.all(takers.map(end))
})

async function answerOf(taker: ChildProcess): Promise<unknown> {
  const [answer] = await once(taker, 'message')
  return answer
}

async function end(taker: ChildProcess): Promise<void> {
  const exited = once(taker, 'exit')
  taker.disconnect()
  await exited
}
