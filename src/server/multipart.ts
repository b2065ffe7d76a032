import { createWriteStream, openAsBlob } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import busboy from 'busboy'
import { GraphQLError } from 'graphql'
import type { GraphQLParams, Plugin } from 'graphql-yoga'
import type { UploadedFile } from '../graphql/builder.ts'

const maxFieldBytes = 1024 * 1024

/**
 * Parses multipart requests (GraphQL multipart request specification) as a stream: the file goes to a temporary file
 * and is opened from there, so an upload of any size costs no memory. Yoga's own parser would hold it whole.
 */
export function useStreamedUploads(maxUploadBytes: number): Plugin {
  const folders = new WeakMap<Request, string>()
  return {
    onRequestParse({ request, setRequestParser }) {
      if (!request.headers.get('content-type')?.startsWith('multipart/form-data')) return
      setRequestParser(async (multipart) => {
        const folder = await mkdtemp(join(tmpdir(), 'quarry-upload-'))
        folders.set(request, folder)
        return readMultipart(multipart, folder, maxUploadBytes)
      })
    },
    async onResponse({ request }) {
      const folder = folders.get(request)
      if (folder) await rm(folder, { recursive: true, force: true })
    },
  }
}

async function readMultipart(
  request: Request,
  folder: string,
  maxUploadBytes: number,
): Promise<GraphQLParams> {
  if (!request.body) throw badRequest('The multipart request has no body')
  const fields = new Map<string, string>()
  const files = new Map<string, UploadedFile>()
  const writing: Promise<void>[] = []
  const parser = createParser({
    headers: Object.fromEntries(request.headers),
    limits: { files: 1, fields: 10, fieldSize: maxFieldBytes, fileSize: maxUploadBytes },
    defParamCharset: 'utf8',
  })
  parser.on('field', (name, value, info) => {
    if (info.valueTruncated)
      parser.destroy(badRequest(`The part ${name} has more than ${maxFieldBytes} bytes`))
    fields.set(name, value)
  })
  parser.on('file', (name, stream, { filename, mimeType }) => {
    const path = join(folder, String(files.size))
    let size = 0
    stream.on('data', (chunk: Buffer) => {
      size += chunk.length
    })
    const written = pipeline(stream, createWriteStream(path)).then(async () => {
      if (stream.truncated)
        throw tooLarge(
          `The file has more than the ${maxUploadBytes} bytes that are allowed (QUARRY_MAX_UPLOAD_MB)`,
        )
      const blob = await openAsBlob(path, { type: mimeType })
      files.set(name, { name: filename ?? 'upload', size, stream: () => blob.stream() as never })
    })
    written.catch(() => {})
    writing.push(written)
  })
  try {
    // As an iterable: Yoga's request body is its own class, not one that Readable.fromWeb takes.
    await pipeline(request.body as unknown as AsyncIterable<Uint8Array>, parser)
  } catch (error) {
    throw error instanceof GraphQLError
      ? error
      : badRequest(`The multipart request cannot be read: ${String(error)}`)
  }
  await Promise.all(writing)
  return assemble(fields, files)
}

/** Not all that is wrong with a request shows in its body: busboy throws at once where the boundary is missing. */
function createParser(config: busboy.BusboyConfig): busboy.Busboy {
  try {
    return busboy(config)
  } catch (error) {
    throw badRequest(`The multipart request cannot be read: ${String(error)}`)
  }
}

function assemble(
  fields: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, UploadedFile>,
): GraphQLParams {
  const operations = readJson<GraphQLParams>(fields, 'operations')
  const map = readJson<Record<string, unknown>>(fields, 'map')
  for (const [name, paths] of Object.entries(map)) {
    if (!isStringList(paths)) throw badRequest(`The map has no list of paths for ${JSON.stringify(name)}`)
    const file = files.get(name)
    if (!file) throw badRequest(`The map names the file part ${JSON.stringify(name)}, which was not sent`)
    for (const path of paths) setPath(operations, path.split('.'), file)
  }
  return operations
}

/** Own properties only: a path such as `__proto__.x` must reach nothing. */
function setPath(target: unknown, path: readonly string[], value: unknown): void {
  const last = path.at(-1)
  let parent = target
  for (const key of path.slice(0, -1)) {
    parent = isObject(parent) && Object.hasOwn(parent, key) ? parent[key] : undefined
  }
  if (last === undefined || !isObject(parent) || !Object.hasOwn(parent, last)) {
    throw badRequest(`The map leads to ${path.join('.')}, which operations does not have (put null there)`)
  }
  parent[last] = value
}

const isStringList = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((entry) => typeof entry === 'string')

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null

function readJson<Shape>(fields: ReadonlyMap<string, string>, name: string): Shape {
  const text = fields.get(name)
  if (text === undefined) {
    throw badRequest(
      `The part ${name} is missing; a multipart request has operations, map and the file, in this order`,
    )
  }
  try {
    const value: unknown = JSON.parse(text)
    if (isObject(value) && !Array.isArray(value)) return value as Shape
  } catch {}
  throw badRequest(`The part ${name} is not a JSON object`)
}

const badRequest = (message: string) =>
  new GraphQLError(message, { extensions: { code: 'BAD_REQUEST', http: { status: 400 } } })
const tooLarge = (message: string) =>
  new GraphQLError(message, { extensions: { code: 'TOO_LARGE', http: { status: 413 } } })
