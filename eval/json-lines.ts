import { existsSync, readFileSync } from 'node:fs'
import { z } from 'zod'
import { SetupError } from '../src/errors.ts'

export interface JsonLine<Value> {
  value: Value
  /** For messages: `corpus.jsonl, line 3`, with the folder. */
  place: string
}

/**
 * The lines of a file with one JSON object to a line; blank lines are passed over.
 * @throws SetupError that names the file, and the line with what is wrong about it
 */
export function readJsonLines<Value>(path: string, schema: z.ZodType<Value>): JsonLine<Value>[] {
  if (!existsSync(path)) throw new SetupError(`${path} is not there; it must have one JSON object to a line`)
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((text, index) => {
      if (text.trim() === '') return []
      const place = `${path}, line ${index + 1}`
      const parsed = schema.safeParse(parse(text, place))
      if (parsed.success) return [{ value: parsed.data, place }]
      throw new SetupError(`${place}: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}`)
    })
  if (lines.length === 0) throw new SetupError(`${path} has no lines; it must have one JSON object to a line`)
  return lines
}

function parse(text: string, place: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new SetupError(`${place} is not JSON: ${error instanceof Error ? error.message : error}`)
  }
}
