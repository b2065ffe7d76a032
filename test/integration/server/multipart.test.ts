import { readdir } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startProviderApp } from '../../support/apps.ts'
import { temporaryFolder } from '../../support/processes.ts'

let app: Awaited<ReturnType<typeof startProviderApp>>
let temporary: Awaited<ReturnType<typeof temporaryFolder>>
const usual = process.env.TMPDIR

beforeAll(async () => {
  temporary = await temporaryFolder()
  app = await startProviderApp({}, { env: { QUARRY_MAX_UPLOAD_MB: '1', QUARRY_MAX_BODY_KB: '16' } })
  process.env.TMPDIR = temporary.path
})
afterAll(async () => {
  if (usual === undefined) delete process.env.TMPDIR
  else process.env.TMPDIR = usual
  await app[Symbol.asyncDispose]()
  await temporary[Symbol.asyncDispose]()
})

const importQuery = `mutation($file: File!) {
  importChat(input: { file: $file, format: JSONL }) {
    __typename
    ... on ImportChatPayload { job { id } }
    ... on UserError { message code }
  }
}`
const operations = JSON.stringify({ query: importQuery, variables: { file: null } })
const line = JSON.stringify({ id: '1', text: 'hello', author: 'ann', sentAt: '2026-05-04T09:30:00Z' })

type Parts = [name: string, value: string | Blob][]

async function send(parts: Parts, headers: Record<string, string> = {}) {
  const form = new FormData()
  for (const [name, value] of parts) form.append(name, value)
  const response = await fetch(app.client.url, { method: 'POST', body: form, headers })
  return { status: response.status, body: await response.json() }
}

const whole = (map: unknown, file: string | Blob = new Blob([line])): Parts => [
  ['operations', operations],
  ['map', typeof map === 'string' ? map : JSON.stringify(map)],
  ['0', file],
]

/** Folders of uploads are gone when their answer has been sent; that is a moment later. */
const expectNoUploads = () =>
  expect
    .poll(async () => (await readdir(temporary.path)).filter((name) => name.startsWith('quarry-upload-')))
    .toEqual([])

test('an upload beyond the limit of plain bodies is taken', async () => {
  const padding = JSON.stringify({
    id: '2',
    text: 'x'.repeat(100_000),
    author: 'ann',
    sentAt: '2026-05-04T09:30:00Z',
  })
  const { status, body } = await send(whole({ 0: ['variables.file'] }, new Blob([`${line}\n${padding}`])))
  expect({ status, body }).toMatchObject({
    status: 200,
    body: { data: { importChat: { __typename: 'ImportChatPayload' } } },
  })
  expect(await app.client.waitForJob(body.data.importChat.job.id)).toMatchObject({ succeeded: 2 })
  await expectNoUploads()
})

test('an upload beyond its own limit is refused by 413, and leaves nothing behind', async () => {
  const { status, body } = await send(
    whole({ 0: ['variables.file'] }, new Blob([Buffer.alloc(1024 * 1024 + 1, 'x')])),
  )
  expect(status).toBe(413)
  expect(body.errors[0].message).toContain('QUARRY_MAX_UPLOAD_MB')
  await expectNoUploads()
})

describe('a multipart request', () => {
  test.each<[string, Parts]>([
    ['without operations', [['map', '{}']]],
    ['without a map', [['operations', operations]]],
    [
      'whose operations are no JSON',
      [
        ['operations', '{'],
        ['map', '{}'],
      ],
    ],
    [
      'whose operations are a list',
      [
        ['operations', '[]'],
        ['map', '{}'],
      ],
    ],
    ['whose map is no JSON', whole('{')],
    ['whose map names a part that was not sent', whole({ 1: ['variables.file'] })],
    ['whose map leads to nothing', whole({ 0: ['variables.other'] })],
    ['whose map leads through nothing', whole({ 0: ['variables.file.deeper'] })],
    ['whose map leads to a prototype', whole({ 0: ['__proto__.polluted'] })],
    ['whose map leads to the prototype of a variable', whole({ 0: ['variables.__proto__.polluted'] })],
    ['whose map leads to a constructor', whole({ 0: ['variables.constructor.prototype.polluted'] })],
    ['whose map leads to what every object has', whole({ 0: ['variables.toString'] })],
    ['whose map would be a prototype', whole({ 0: ['variables.__proto__'] })],
    ['whose map leads nowhere', whole({ 0: [''] })],
    ['whose map has no list', whole({ 0: 'variables.file' })],
    ['whose map has a number', whole({ 0: 5 })],
    ['whose map has a list of numbers', whole({ 0: [5] })],
    ['whose map has null', whole({ 0: null })],
    [
      'with an oversized field',
      [
        ['operations', 'x'.repeat(2 * 1024 * 1024)],
        ['map', '{}'],
      ],
    ],
  ])('%s is a mistake of the caller', async (_name, parts) => {
    const { status, body } = await send(parts)
    expect({ status, errors: body.errors }).toMatchObject({
      status: 400,
      errors: [{ extensions: { code: 'BAD_REQUEST' } }],
    })
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false)
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
    await expectNoUploads()
  })

  test.each([
    ['without a boundary', 'multipart/form-data', 'x'],
    [
      'that breaks off',
      'multipart/form-data; boundary=b',
      '--b\r\ncontent-disposition: form-data; name="0"; filename="a"\r\n\r\nhalf',
    ],
    ['that is empty', 'multipart/form-data; boundary=b', ''],
    ['that is garbage', 'multipart/form-data; boundary=b', 'garbage'],
  ])('%s is a mistake of the caller', async (_name, type, body) => {
    const response = await fetch(app.client.url, { method: 'POST', headers: { 'content-type': type }, body })
    expect(response.status).toBe(400)
    await expectNoUploads()
  })

  test('with a value that is no file where one belongs is a mistake of the caller', async () => {
    const answer = await app.client.send(importQuery, { file: 'text' })
    expect(answer.errors?.[0]?.message).toContain('multipart request')
  })

  test('of a page of another origin is refused', async () => {
    // fetch keeps `origin` to itself in browsers alone.
    const response = await fetch(app.client.url, {
      method: 'POST',
      headers: { origin: 'https://evil.example', 'content-type': 'multipart/form-data; boundary=b' },
      body: '--b--',
    })
    expect(response.status).toBe(403)
  })
})

test('an upload that is broken off by its sender leaves nothing behind, and the server serves on', async () => {
  const leaving = new AbortController()
  const head = '--b\r\ncontent-disposition: form-data; name="0"; filename="a"\r\n\r\n'
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(Buffer.from(head + 'x'.repeat(1000)))
    },
  })
  const sent = fetch(app.client.url, {
    method: 'POST',
    headers: { 'content-type': 'multipart/form-data; boundary=b' },
    body,
    signal: leaving.signal,
    duplex: 'half',
  } as RequestInit).catch((error: Error) => error)
  await expect.poll(async () => (await readdir(temporary.path)).length).toBeGreaterThan(0)
  leaving.abort()
  expect(await sent).toBeInstanceOf(Error)
  await expectNoUploads()
  expect((await app.client.send('{ __typename }')).data).toEqual({ __typename: 'Query' })
})
