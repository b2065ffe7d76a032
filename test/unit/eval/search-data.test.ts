import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readCollection } from '../../../eval/search-data.ts'
import { SetupError } from '../../../src/errors.ts'
import { messageLimits } from '../../../src/ingest/normalise.ts'

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'quarry-eval-test-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const good = {
  corpus: '{"id":"d1","text":"one"}\n\n{"id":"d2","text":""}\n',
  queries: '{"id":"q1","text":"first"}\n{"id":"q2","text":"second"}',
  qrels: '{"q":"q1","d":"d1","rel":2}\n{"q":"q1","d":"d2","rel":0}\n',
}

function read(files: Partial<Record<keyof typeof good, string>> = {}) {
  for (const [name, text] of Object.entries({ ...good, ...files }))
    writeFileSync(join(folder, `${name}.jsonl`), text)
  return readCollection(folder)
}

test('leaves out queries that nothing is relevant for, and says how many', () => {
  const { documents, queries, unjudged, cut } = read()
  expect(documents.map(({ id }) => id)).toEqual(['d1', 'd2'])
  expect(queries).toEqual([{ id: 'q1', text: 'first', relevant: new Map([['d1', 2]]) }])
  expect({ unjudged, cut }).toEqual({ unjudged: 1, cut: 0 })
})

test('cuts a text to what a message may hold, between characters', () => {
  // Three bytes each: the limit falls into one of them.
  const text = '字'.repeat(Math.ceil(messageLimits.content / 3) + 5)
  const { documents, cut } = read({ corpus: `{"id":"d1","text":"${text}"}\n{"id":"d2","text":"two"}` })
  expect(cut).toBe(1)
  expect(documents[0]?.text).toBe('字'.repeat(Math.floor(messageLimits.content / 3)))
})

test.each([
  { files: { corpus: '' }, message: /corpus\.jsonl has no lines/ },
  { files: { corpus: '{"id":"d1","text":"one"}\nnonsense' }, message: /corpus\.jsonl, line 2 is not JSON/ },
  { files: { corpus: '\n{"id":1,"text":"one"}' }, message: /corpus\.jsonl, line 2: .*expected string/ },
  { files: { corpus: '{"id":" ","text":"one"}' }, message: /corpus\.jsonl, line 1: .*blank/ },
  { files: { corpus: `${good.corpus}{"id":"d1","text":"x"}` }, message: /corpus\.jsonl, line 4: .*"d1"/ },
  { files: { queries: '{"id":"q1","text":" "}' }, message: /queries\.jsonl, line 1: .*blank/ },
  { files: { qrels: '{"q":"q9","d":"d1","rel":1}' }, message: /qrels\.jsonl, line 1: .*no query "q9"/ },
  { files: { qrels: '{"q":"q1","d":"d9","rel":1}' }, message: /qrels\.jsonl, line 1: .*no document "d9"/ },
  { files: { qrels: '{"q":"q1","d":"d1","rel":-1}' }, message: /qrels\.jsonl, line 1: / },
  {
    files: { qrels: `${good.qrels}{"q":"q1","d":"d2","rel":1}` },
    message: /qrels\.jsonl, line 3: .*earlier/,
  },
  { files: { qrels: '{"q":"q1","d":"d1","rel":0}' }, message: /rel above 0/ },
])('refuses $files', ({ files, message }) => {
  expect(() => read(files)).toThrow(SetupError)
  expect(() => read(files)).toThrow(message)
})

test('says which file is not there', () => {
  expect(() => readCollection(join(folder, 'nowhere'))).toThrow(/nowhere\/corpus\.jsonl is not there/)
})
