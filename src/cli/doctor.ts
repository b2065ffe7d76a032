import { readingOf } from '../doctor/clock.ts'
import { examine, type ServerClient } from '../doctor/examine.ts'
import { type Finding, type FindingState, findingStates, isWell } from '../doctor/finding.ts'
import { doctorQuery, type Readiness, type ServedStanding } from '../doctor/served.ts'
import { errorMessage, SetupError } from '../errors.ts'
import { ApiClient } from './client.ts'
import { paint, say } from './terminal.ts'

/** A server that takes longer is of no use to those who wait for an answer. */
const serverLimitMs = 10_000
/** All is told by then; whatever still keeps the process is stuck. */
const lingerMs = 2_000

/**
 * Prints a finding as soon as it is there, or all as JSON at the end.
 * @returns whether nothing is wrong
 */
export async function runDoctor(
  env: Readonly<Record<string, string | undefined>>,
  isJson: boolean,
): Promise<boolean> {
  const findings: Finding[] = []
  for await (const finding of examine({ env, server: serverClient })) {
    findings.push(finding)
    if (!isJson) for (const line of findingLines(finding)) say(line)
  }
  say(isJson ? JSON.stringify(findings, null, 2) : `\n${summary(findings)}`)
  // A connection on which nobody answers any more would keep the command from ending.
  setTimeout(() => process.exit(), lingerMs).unref()
  return isWell(findings)
}

/** A word for each state, because a colour alone does not reach everybody, and a sign to find it by. */
const looks: Record<FindingState, { sign: string; colour(text: string): string }> = {
  ok: { sign: '✓', colour: (text) => paint.green(text) },
  warning: { sign: '!', colour: (text) => paint.yellow(text) },
  wrong: { sign: '✗', colour: (text) => paint.red(text) },
  unknown: { sign: '?', colour: (text) => paint.yellow(text) },
  skipped: { sign: '-', colour: (text) => paint.dim(text) },
}
const stateWidth = Math.max(...findingStates.map(({ length }) => length))
const nameWidth = 'provider for extraction'.length
const indent = ' '.repeat(2 + stateWidth + 2)

/** One line, and below it what to do, if there is something. */
export function findingLines({ name, state, message, remedy }: Finding): string[] {
  const { sign, colour } = looks[state]
  const head = `${colour(`${sign} ${state.padEnd(stateWidth)}`)}  ${name.padEnd(nameWidth)}  ${message}`
  return remedy === null ? [head] : [head, `${indent}${remedy}`]
}

function summary(findings: readonly Finding[]): string {
  const count = (state: FindingState) => findings.filter((finding) => finding.state === state).length
  const [wrong, warnings, unknown] = [count('wrong'), count('warning'), count('unknown')]
  if (wrong + warnings + unknown === 0) return paint.green('All is well.')
  const counts = [
    `${wrong} wrong`,
    `${warnings} ${warnings === 1 ? 'warning' : 'warnings'}`,
    ...(unknown > 0 ? [`${unknown} not looked at`] : []),
  ]
  return counts.join(', ')
}

/** Asks a running server over HTTP, as everybody does. */
export const serverClient: ServerClient = {
  async readiness(url, onReading) {
    const sentMs = Date.now()
    try {
      const response = await fetch(`${url.replace(/\/+$/, '').replace(/\/graphql$/, '')}/ready`, {
        signal: AbortSignal.timeout(serverLimitMs),
      })
      const dateMs = Date.parse(response.headers.get('date') ?? '')
      if (!Number.isNaN(dateMs)) onReading(readingOf('the server', dateMs, sentMs, Date.now(), 1000))
      return readReadiness(await response.text(), url)
    } catch (error) {
      if (error instanceof SetupError) throw error
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
      throw new SetupError(
        `no Quarry server answers at ${url}: ${errorMessage(cause)}. Start one (quarry serve) or correct QUARRY_URL.`,
      )
    }
  },
  async standing(url) {
    const client = new ApiClient(url, { signal: AbortSignal.timeout(serverLimitMs) })
    try {
      return await client.request<ServedStanding>(doctorQuery)
    } catch (error) {
      if (error instanceof Error && error.name === 'TimeoutError')
        throw new SetupError(`${client.graphqlUrl} has not answered within ${serverLimitMs / 1000} s.`)
      throw error
    } finally {
      await client.close()
    }
  },
}

/** @throws SetupError for what is no answer of ours */
function readReadiness(text: string, url: string): Readiness {
  let value: unknown = null
  try {
    value = JSON.parse(text)
  } catch {}
  const { status, checks } = Object(value)
  if (typeof status === 'string' && typeof checks === 'object' && checks !== null) return { status, checks }
  throw new SetupError(`${url} answers with something that is not of a Quarry server. Correct QUARRY_URL.`)
}
