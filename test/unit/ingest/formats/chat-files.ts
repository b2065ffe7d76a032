import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'
import { ZipFile } from 'yazl'
import type { ChatFile, ChatFormat, ChatRecord, MessageDraft } from '../../../../src/ingest/formats/format.ts'

/** A chat file with the content given, as long as the test runs; anything but text and bytes is written as JSON. */
export async function chatFile(name: string, content: unknown): Promise<ChatFile> {
  const folder = await mkdtemp(join(tmpdir(), 'quarry-formats-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'upload')
  await writeFile(
    path,
    typeof content === 'string' || Buffer.isBuffer(content) ? content : JSON.stringify(content),
  )
  return { path, name }
}

/** A zip of the entries given, in their order. */
export async function zipOf(entries: Record<string, unknown>): Promise<Buffer> {
  const zip = new ZipFile()
  for (const [name, content] of Object.entries(entries)) {
    zip.addBuffer(Buffer.from(typeof content === 'string' ? content : JSON.stringify(content)), name)
  }
  zip.end()
  return buffer(zip.outputStream)
}

/** Every record of the file. */
export async function read(format: ChatFormat, name: string, content: unknown): Promise<ChatRecord[]> {
  return (await readUntilError(format, await chatFile(name, content), true)).records
}

/** The records up to the error that ends the reading, and that error. */
export async function readUntilError(format: ChatFormat, file: ChatFile, rethrow = false) {
  const records: ChatRecord[] = []
  try {
    for await (const record of format.read(file)) records.push(record)
  } catch (error) {
    if (rethrow) throw error
    return { records, error }
  }
  return { records, error: undefined }
}

/** The messages among the records. */
export function messages(records: readonly ChatRecord[]): MessageDraft[] {
  return records.flatMap((record) => (record.kind === 'message' ? [record.message] : []))
}

/** `message`, `left-out` or `position: reason` of each record: one line to compare. */
export function kinds(records: readonly ChatRecord[]): string[] {
  return records.map((record) =>
    record.kind === 'rejected' ? `rejected ${record.position}: ${record.reason}` : record.kind,
  )
}
