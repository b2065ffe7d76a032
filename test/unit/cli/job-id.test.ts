import { expect, test } from 'vitest'
import { databaseId, matchingJobs, shortId } from '../../../src/cli/job-id.ts'

const globalId = (id: string) => Buffer.from(`Job:${id}`).toString('base64')
const first = '019aac61-7c3e-7000-8000-00aa7c9d1f3a'
const second = '019aac61-7c3e-7000-8000-00bb7c9d1f3a'
const other = '019aac61-7c3e-7000-8000-00bbc0ffee00'
const jobs = [first, second, other].map((id) => ({ id: globalId(id) }))
const found = (text: string) => matchingJobs(jobs, text).map(({ id }) => databaseId(id))

test('a job is called by the end of the id that the logs show', () => {
  expect(databaseId(globalId(first))).toBe(first)
  expect(shortId(globalId(first))).toBe('7c9d1f3a')
  expect(globalId(first).length).toBeGreaterThan(50)
})

test('an id of another form is shown as it is', () => {
  for (const id of ['Sm9iOjE=', 'job_12', '']) expect(databaseId(id)).toBe(id)
})

test.each([
  ['c0ffee00', [other]],
  ['C0FFEE00', [other]],
  ['ee00', [other]],
  [other, [other]],
  [globalId(other), [other]],
  ['7c9d1f3a', [first, second]],
  ['bb7c9d1f3a', [second]],
  // Too short to be meant, and no end of an id.
  ['e00', []],
  ['019aac61', []],
  ['coffee', []],
  ['', []],
])('%j means %j', (text, ids) => {
  expect(found(text)).toEqual(ids)
})
