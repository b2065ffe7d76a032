import { closestMatch } from 'leven'
import { knownVariables } from '../config.ts'

/** Variables of the tests, the benchmarks, the evaluations and the scripts of this repository; see CONTRIBUTING.md. */
const ofDevelopers = /^QUARRY_(TEST|BENCH|EVAL|POSTGRES)_/

/** Of letters; as far as commander goes where it asks `Did you mean`. */
const furthest = 3

export interface UnknownVariable {
  name: string
  /** The known name that is most like it; null if none is. */
  nearest: string | null
}

/** Variables with our prefix that nobody reads: most are known ones with a slip of the pen, and silently do nothing. */
export function findUnknownVariables(env: Readonly<Record<string, string | undefined>>): UnknownVariable[] {
  return Object.entries(env)
    .filter(([name, value]) => name.startsWith('QUARRY_') && value?.trim())
    .map(([name]) => name)
    .filter((name) => !knownVariables.includes(name) && !ofDevelopers.test(name))
    .sort()
    .map((name) => ({
      name,
      nearest: closestMatch(name, knownVariables, { maxDistance: furthest }) ?? null,
    }))
}
