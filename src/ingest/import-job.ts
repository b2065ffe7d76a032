import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { ScoreRules } from '../config.ts'
import type { Database, Sql, Transaction } from '../db/database.ts'
import { InvalidInputError, QuarryError } from '../errors.ts'
import { enqueueJob } from '../jobs/queue.ts'
import { addJobProgress, type JobRun } from '../jobs/records.ts'
import type { JobHandler } from '../jobs/runner.ts'
import { detectFormat } from './formats/detect.ts'
import type { ChatFile, ChatFormatName, ChatRecord, MessageDraft } from './formats/format.ts'
import { ensureSource, storeMessages } from './messages.ts'
import { findViolation } from './normalise.ts'

export interface ImportParams {
  fileName: string
  bytes: number
  format: ChatFormatName | 'AUTO'
  /** Null: the name that the export states, else the file's. */
  sourceName: string | null
  /** Whether knowledge is extracted from what it brought. */
  extract: boolean
}

/** What an IMPORT job says of itself in `Job.result`. */
interface ImportResult {
  format: ChatFormatName
  source: string
  created: number
  updated: number
  unchanged: number
  /** Records read so far, of any kind: where the next attempt goes on. */
  records: number
  /** The first records that could not be used; `Job.failed` counts all. */
  rejected: { position: string; reason: string }[]
}

/** Larger ones cost memory that the allocator does not give back. */
const chunkBytes = 64 * 1024
const batchSize = 1000
/** A batch is also closed by the size of its texts, so that long messages do not add up in memory. */
const batchBytes = 8 * 1024 * 1024
const maxRejectedListed = 100

/** Stores the file in pieces and queues its import, all or nothing. Memory does not grow with the file. */
export async function startImport(
  database: Database,
  params: ImportParams,
  content: AsyncIterable<Uint8Array>,
): Promise<string> {
  return database.transaction(async (transaction) => {
    const jobId = await enqueueJob(transaction, 'IMPORT', { ...params })
    let seq = 0
    for await (const chunk of inChunks(content, chunkBytes)) {
      await insertChunk(transaction, jobId, seq++, chunk)
    }
    if (seq === 0) throw new InvalidInputError('The file is empty', ['file'])
    return jobId
  })
}

/** Reads the stored file and ingests its messages; goes on behind the last committed batch when it is run again. */
export function importHandler(database: Database, rules: ScoreRules): JobHandler {
  return async ({ job, signal, log }) => {
    const params = job.params as unknown as ImportParams
    const folder = await mkdtemp(join(tmpdir(), 'quarry-import-'))
    try {
      const file = { name: params.fileName, path: join(folder, 'upload') }
      await pipeline(Readable.from(readChunks(database, job.id)), createWriteStream(file.path), { signal })
      const earlier = job.result as unknown as ImportResult | null
      await importFile(database, rules, job, file, params, earlier, signal)
    } catch (error) {
      // A file that is no chat export will not become one: nobody can take it up again.
      if (error instanceof QuarryError) await deleteChunks(database, job.id)
      throw error
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
    log.info({ file: params.fileName }, 'Imported a chat')
    return (transaction) => finishImport(transaction, job, params)
  }
}

/** The file goes and the extraction is queued as the job ends: a crash loses nothing and repeats nothing. */
async function finishImport(transaction: Transaction, job: JobRun, params: ImportParams): Promise<void> {
  await deleteChunks(transaction, job.id)
  if (!params.extract) return
  const [source] = await transaction.query<{ id: string }>(
    `select s.id from job j join source s on s.name = j.result ->> 'source' and s.type = lower(j.result ->> 'format')
     where j.id = $1`,
    [job.id],
  )
  if (!source) return
  const extractJobId = await enqueueJob(transaction, 'EXTRACT', { sourceId: source.id })
  await addJobProgress(transaction, job, { succeeded: 0, failed: 0, skipped: 0 }, { extractJobId }, {})
}

async function importFile(
  database: Database,
  rules: ScoreRules,
  job: JobRun,
  file: ChatFile,
  params: ImportParams,
  earlier: ImportResult | null,
  signal: AbortSignal,
): Promise<void> {
  const format = await detectFormat(file, params.format)
  const sourceName = params.sourceName ?? (await format.sourceName(file)) ?? basename(file.name)
  const source = await database.transaction((transaction) =>
    ensureSource(transaction, sourceName, format.name.toLowerCase()),
  )
  const result: ImportResult = earlier ?? {
    format: format.name,
    source: source.name,
    created: 0,
    updated: 0,
    unchanged: 0,
    records: 0,
    rejected: [],
  }
  let toSkip = result.records
  let bytesRead = 0
  const onRead = (bytes: number) => {
    bytesRead += bytes
  }
  let batch = emptyBatch()
  let storing: Promise<void> = Promise.resolve()

  async function flush(): Promise<void> {
    const full = batch
    const read = Math.min(bytesRead, params.bytes)
    batch = emptyBatch()
    // The next batch is read while this one is being stored; a third waits, so memory stays bounded.
    await storing
    signal.throwIfAborted()
    storing = database.transaction((transaction) =>
      storeBatch(transaction, rules, job, source.id, full, result, {
        bytesRead: read,
        bytes: params.bytes,
      }),
    )
    storing.catch(() => {})
  }

  for await (const record of format.read({ ...file, onRead })) {
    signal.throwIfAborted()
    if (toSkip > 0) {
      toSkip--
      continue
    }
    addRecord(batch, record)
    if (batch.records >= batchSize || batch.bytes >= batchBytes) await flush()
  }
  await flush()
  await storing
}

interface Batch {
  records: number
  bytes: number
  drafts: MessageDraft[]
  rejected: { position: string; reason: string }[]
  leftOut: number
}

const emptyBatch = (): Batch => ({ records: 0, bytes: 0, drafts: [], rejected: [], leftOut: 0 })

function addRecord(batch: Batch, record: ChatRecord): void {
  batch.records++
  switch (record.kind) {
    case 'left-out':
      batch.leftOut++
      return
    case 'rejected':
      batch.rejected.push({ position: record.position, reason: record.reason })
      return
    case 'message': {
      const violation = findViolation(record.message)
      if (violation) {
        batch.rejected.push({ position: record.position, reason: `${violation.field} ${violation.problem}` })
        return
      }
      batch.drafts.push(record.message)
      batch.bytes += record.message.content.length
    }
  }
}

/** Messages, counts and the place in the file change together: a crash between batches repeats or skips nothing. */
async function storeBatch(
  transaction: Transaction,
  rules: ScoreRules,
  job: JobRun,
  sourceId: string,
  batch: Batch,
  result: ImportResult,
  details: { bytesRead: number; bytes: number },
): Promise<void> {
  if (batch.records === 0) return
  const outcome = await storeMessages(transaction, rules, sourceId, batch.drafts)
  result.created += outcome.created
  result.updated += outcome.updated
  result.unchanged += outcome.unchanged
  result.records += batch.records
  result.rejected.push(...batch.rejected.slice(0, maxRejectedListed - result.rejected.length))
  const counts = { succeeded: batch.drafts.length, failed: batch.rejected.length, skipped: batch.leftOut }
  await addJobProgress(transaction, job, counts, { ...result }, details)
}

async function* inChunks(content: AsyncIterable<Uint8Array>, size: number): AsyncIterable<Buffer> {
  let parts: Uint8Array[] = []
  let length = 0
  for await (const part of content) {
    parts.push(part)
    length += part.length
    if (length >= size) {
      yield Buffer.concat(parts)
      parts = []
      length = 0
    }
  }
  if (length > 0) yield Buffer.concat(parts)
}

async function insertChunk(
  transaction: Transaction,
  jobId: string,
  seq: number,
  data: Buffer,
): Promise<void> {
  await transaction.query('insert into import_chunk (job_id, seq, data) values ($1, $2, $3)', [
    jobId,
    seq,
    data,
  ])
}

async function* readChunks(sql: Sql, jobId: string): AsyncIterable<Buffer> {
  for (let seq = 0; ; seq++) {
    // As hexadecimal, which is what pg reads a bytea from, it would be half as long again.
    const [chunk] = await sql.query<{ data: string }>(
      `select encode(data, 'base64') as data from import_chunk where job_id = $1 and seq = $2`,
      [jobId, seq],
    )
    if (!chunk) return
    yield Buffer.from(chunk.data, 'base64')
  }
}

async function deleteChunks(sql: Sql, jobId: string): Promise<void> {
  await sql.query('delete from import_chunk where job_id = $1', [jobId])
}
