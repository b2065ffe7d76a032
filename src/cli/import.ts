import { createWriteStream, type Stats } from 'node:fs'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, relative, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { ZipFile } from 'yazl'
import { InvalidInputError } from '../errors.ts'
import type { Session } from './connect.ts'
import { followExtraction } from './extract.ts'
import { type FinishedJob, followJob, requireSuccess } from './follow.ts'
import { Interrupted } from './interrupt.ts'
import { paint, paintWarning, say, warn } from './terminal.ts'

export interface ImportOptions {
  format: string
  sourceName: string | null
  /** Whether knowledge is extracted from what it brings. */
  extract: boolean
}

/** @throws InvalidInputError if one of them does not exist */
export async function requireFiles(paths: readonly string[]): Promise<void> {
  for (const path of paths) await requireFile(path)
}

/**
 * Imports files and folders one after the other.
 * @throws Interrupted, which names those that were not begun
 */
export async function importPaths(
  session: Session,
  paths: readonly string[],
  options: ImportOptions,
): Promise<void> {
  for (const [index, path] of paths.entries()) {
    try {
      await importPath(session, path, options)
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error
      const left = paths.slice(index + 1)
      throw new Interrupted(
        error.signal,
        [
          error.message || `${path} was not imported.`,
          left.length > 0 ? `Not imported: ${left.join(', ')}` : '',
        ]
          .filter(Boolean)
          .join('\n'),
      )
    }
  }
}

/** Imports one file or folder, extracts it if asked to, and shows how it goes. Returns the ended import. */
export async function importPath(
  session: Session,
  path: string,
  options: ImportOptions,
): Promise<FinishedJob> {
  const { filePath, name, cleanUp } = await asFile(path)
  try {
    const { importChat } = await session.client.upload<{
      importChat: { job?: { id: string }; message?: string }
    }>(
      `mutation Import($file: File!, $format: ChatFormat, $sourceName: String, $extract: Boolean) {
         importChat(input: { file: $file, format: $format, sourceName: $sourceName, extract: $extract }) {
           ... on ImportChatPayload { job { id } }
           ... on UserError { message }
         }
       }`,
      { ...options },
      filePath,
      name,
    )
    if (!importChat.job) throw new InvalidInputError(importChat.message ?? 'The import was refused')
    const ref = { id: importChat.job.id, kind: 'IMPORT' } as const
    const job = await followJob(session, ref, { doing: `Importing ${basename(path)}` })
    reportImport(job)
    const extractJobId = job.result?.extractJobId
    if (typeof extractJobId === 'string') await followExtraction(session, extractJobId)
    return job
  } finally {
    await cleanUp()
  }
}

/** Says what came of an import. */
export function reportImport(job: FinishedJob): void {
  const result = job.result as {
    format?: string
    source?: string
    created?: number
    updated?: number
    unchanged?: number
    rejected?: { position: string; reason: string }[]
  } | null
  if (result?.format) {
    say(
      `${paint.bold(`${result.created} new, ${result.updated} updated, ${result.unchanged} unchanged`)} messages` +
        ` (${result.format}, source ${JSON.stringify(result.source)})` +
        (job.skipped > 0 ? `; ${job.skipped} service messages left out` : ''),
    )
  }
  if (job.failed > 0) {
    const listed = result?.rejected ?? []
    warn(paintWarning.yellow(`${job.failed} records could not be used:`))
    for (const { position, reason } of listed) warn(`  ${position}: ${reason}`)
    if (job.failed > listed.length) warn(`  ... and ${job.failed - listed.length} more`)
  }
  requireSuccess(job)
}

/** A folder (Slack's export, unzipped) travels as a zip, made as a stream beside the upload. */
async function asFile(path: string): Promise<{ filePath: string; name: string; cleanUp(): Promise<void> }> {
  const info = await requireFile(path)
  if (!info.isDirectory()) return { filePath: path, name: basename(path), cleanUp: async () => {} }
  const folder = await mkdtemp(join(tmpdir(), 'quarry-zip-'))
  const cleanUp = () => rm(folder, { recursive: true, force: true })
  const filePath = join(folder, 'folder.zip')
  try {
    const zip = new ZipFile()
    for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const file = join(entry.parentPath, entry.name)
      zip.addFile(file, relative(path, file))
    }
    zip.end()
    await pipeline(zip.outputStream, createWriteStream(filePath))
  } catch (error) {
    await cleanUp()
    throw error
  }
  return { filePath, name: `${basename(resolve(path))}.zip`, cleanUp }
}

async function requireFile(path: string): Promise<Stats> {
  const info = await stat(path).catch(() => null)
  if (!info) throw new InvalidInputError(`There is no file or folder ${path}`)
  return info
}
