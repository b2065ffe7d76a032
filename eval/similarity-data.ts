import { basename, join, resolve } from 'node:path'
import { z } from 'zod'
import { SetupError } from '../src/errors.ts'
import { maxQueryLength } from '../src/search/search.ts'
import { readJsonLines } from './json-lines.ts'

/** Two texts, and how much they say the same by the judgement of people, 0..5. */
export interface JudgedPair {
  a: string
  b: string
  score: number
}

export interface PairCollection {
  /** The folder's name. */
  name: string
  pairs: JudgedPair[]
}

const text = z
  .string()
  .refine((own) => own.trim() !== '', 'must not be blank')
  .refine((own) => own.length <= maxQueryLength, `must have at most ${maxQueryLength} characters`)
const pair = z.object({ a: text, b: text, score: z.number().min(0).max(5) })

/** From here on, two texts count as saying the same: in the STS benchmark 4 is "mostly equivalent". */
export const duplicateScore = 4

/**
 * The pairs of pairs.jsonl {a, b, score} in a folder.
 * @throws SetupError that names the file and the line that is wrong, or says that all pairs or none are duplicates
 */
export function readPairs(folder: string): PairCollection {
  const path = join(folder, 'pairs.jsonl')
  const pairs = readJsonLines(path, pair).map(({ value }) => value)
  const duplicates = pairs.filter(({ score }) => score >= duplicateScore).length
  if (duplicates === 0 || duplicates === pairs.length)
    throw new SetupError(
      `${path}: ${duplicates} of ${pairs.length} pairs have a score of ${duplicateScore} and above; without both sides no threshold can be judged`,
    )
  return { name: basename(resolve(folder)), pairs }
}
