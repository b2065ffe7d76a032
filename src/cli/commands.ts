import { createWriteStream } from 'node:fs'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, relative, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { ZipFile } from 'yazl'
import { InvalidInputError, QuarryError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { duration, paint, say, startProgress, table, warn } from './terminal.ts'

interface JobEvent {
  message: string | null
  data: {
    state: string
    total: number | null
    succeeded: number
    failed: number
    skipped: number
    error: string | null
    /** Of an import: how far the file has been read. */
    bytesRead?: number
    bytes?: number
  }
}

interface FinishedJob {
  state: string
  error: string | null
  total: number | null
  succeeded: number
  failed: number
  skipped: number
  result: Record<string, unknown> | null
}

interface Coverage {
  kind: string
  total: number
  ready: number
  pending: number
  stale: number
  failed: number
  skipped: number
  percentReady: number
}

const coverageFields = 'kind total ready pending stale failed skipped percentReady'

export interface ImportOptions {
  format: string
  sourceName: string | null
  /** Whether knowledge is extracted from what it brings. */
  extract: boolean
}

/** Imports one file or folder, extracts it if asked to, and shows how it goes. Returns the ended import. */
export async function importPath(
  client: ApiClient,
  path: string,
  options: ImportOptions,
): Promise<FinishedJob> {
  const { filePath, name, cleanUp } = await asFile(path)
  try {
    const { importChat } = await client.upload<{ importChat: { job?: { id: string }; message?: string } }>(
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
    const job = await followJob(client, importChat.job.id, `Importing ${basename(path)}`)
    reportImport(job)
    const extractJobId = job.result?.extractJobId
    if (typeof extractJobId === 'string') await followExtraction(client, extractJobId)
    return job
  } finally {
    await cleanUp()
  }
}

function reportImport(job: FinishedJob): void {
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
    warn(paint.yellow(`${job.failed} records could not be used:`))
    for (const { position, reason } of listed) warn(`  ${position}: ${reason}`)
    if (job.failed > listed.length) warn(`  ... and ${job.failed - listed.length} more`)
  }
  if (job.state !== 'SUCCEEDED') throw new QuarryError(job.error ?? `The import ended as ${job.state}`)
}

/** Follows a job to its end with a progress bar. */
export async function followJob(client: ApiClient, id: string, label: string): Promise<FinishedJob> {
  const progress = startProgress(label)
  const started = Date.now()
  try {
    const events = client.subscribe<{ jobEvents: JobEvent }>(
      'subscription Follow($id: ID!) { jobEvents(jobId: $id) { message data } }',
      { id },
    )
    for await (const { jobEvents } of events) {
      const { total, succeeded, failed, skipped, bytes, bytesRead } = jobEvents.data
      const done = succeeded + failed + skipped
      const seconds = (Date.now() - started) / 1000
      const rate = done > 0 && seconds >= 1 ? `${Math.round(done / seconds)}/s` : ''
      // How many records a file has shows at its end; until then its bytes say how far the import is.
      if (total === null && bytes && bytesRead)
        progress.update(done, Math.ceil((done * bytes) / bytesRead), rate)
      else if (total !== null || done > 0) progress.update(done, total, rate)
    }
  } finally {
    progress.stop()
  }
  const { node } = await client.request<{ node: FinishedJob }>(
    'query Job($id: ID!) { node(id: $id) { ... on Job { state error total succeeded failed skipped result } } }',
    { id },
  )
  return node
}

/** Waits until nothing is owed any more, with a progress bar. Returns the coverage then. */
export async function waitForEmbeddings(client: ApiClient): Promise<Coverage[]> {
  const progress = startProgress('Embedding')
  try {
    const snapshots = client.subscribe<{
      embeddingProgress: {
        coverage: Coverage[]
        ratePerSecond: number
        etaSeconds: number | null
        lastError: string | null
      }
    }>(
      `subscription Progress { embeddingProgress { ratePerSecond etaSeconds lastError coverage { ${coverageFields} } } }`,
    )
    for await (const { embeddingProgress } of snapshots) {
      const { coverage, ratePerSecond, etaSeconds, lastError } = embeddingProgress
      const sum = (count: (kind: Coverage) => number) =>
        coverage.reduce((total, kind) => total + count(kind), 0)
      const owed = sum((kind) => kind.pending + kind.stale)
      const embeddable = sum((kind) => kind.total - kind.skipped)
      const rate = ratePerSecond > 0 ? `${Math.round(ratePerSecond)}/s` : ''
      const eta = etaSeconds !== null && owed > 0 ? `${duration(etaSeconds)} left` : ''
      const trouble = owed > 0 && lastError ? paint.yellow(lastError.slice(0, 80)) : ''
      progress.update(embeddable - owed, embeddable, [rate, eta, trouble].filter(Boolean).join(', '))
      if (owed === 0) return coverage
    }
  } finally {
    progress.stop()
  }
  throw new QuarryError('The server ended the progress before everything was embedded')
}

export interface SearchOptions {
  mode: string
  kinds: string[] | null
  first: number
}

interface SearchAnswer {
  search: {
    edges: {
      rank: number
      score: number
      similarity: number | null
      snippet: string | null
      node: {
        __typename: string
        author?: string
        channel?: string | null
        sentAt?: string
        title?: string
        name?: string
        type?: string
      }
    }[]
    coverage: { eligible: number; ready: number; pending: number; stale: number; failed: number }
  }
}

/** Searches and prints the hits. Returns how many there are. */
export async function search(client: ApiClient, query: string, options: SearchOptions): Promise<number> {
  const { search: answer } = await client.request<SearchAnswer>(
    `query Search($query: String!, $mode: SearchMode, $kinds: [EntityKind!], $first: Int) {
       search(query: $query, mode: $mode, kinds: $kinds, first: $first) {
         edges {
           rank score similarity snippet
           node {
             __typename
             ... on Message { author channel sentAt }
             ... on Atom { type title }
             ... on Topic { name }
           }
         }
         coverage { eligible ready pending stale failed }
       }
     }`,
    { query, ...options },
  )
  for (const { rank, similarity, snippet, node } of answer.edges) {
    const where =
      node.title ??
      node.name ??
      [node.author, node.channel, node.sentAt?.slice(0, 10)].filter(Boolean).join(' · ')
    const meaning = similarity === null ? '' : ` ${similarity.toFixed(3)}`
    say(
      `${paint.bold(String(rank).padStart(2))}${paint.cyan(meaning)} ${node.__typename === 'Message' ? '' : `${node.__typename} `}${paint.dim(where)}`,
    )
    if (snippet) say(`   ${plainSnippet(snippet)}`)
  }
  if (answer.edges.length === 0) say('Nothing found.')
  const { eligible, ready, pending, stale, failed } = answer.coverage
  if (ready < eligible) {
    warn(
      paint.yellow(
        `${ready} of ${eligible} can be found by meaning (${pending + stale} queued, ${failed} failed).`,
      ),
    )
  }
  return answer.edges.length
}

const entities: Record<string, string> = {
  '&amp;': '&',
  '&lt;': '<',
  '&gt;': '>',
  '&quot;': '"',
  '&#39;': "'",
}

function plainSnippet(html: string): string {
  return html
    .replace(/<mark>(.*?)<\/mark>/g, (_, text: string) => paint.underline(text))
    .replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => entities[entity] ?? entity)
    .replace(/\s+/g, ' ')
}

/** Prints coverage, space and the newest jobs. */
export async function status(client: ApiClient): Promise<void> {
  const answer = await client.request<{
    embeddingCoverage: Coverage[]
    embeddingSpaces: { model: string; dimensions: number; state: string; provider: { name: string } }[]
    jobs: {
      nodes: {
        kind: string
        state: string
        succeeded: number
        failed: number
        skipped: number
        createdAt: string
        error: string | null
      }[]
    }
  }>(
    `query Status {
       embeddingCoverage { ${coverageFields} }
       embeddingSpaces { model dimensions state provider { name } }
       jobs(first: 5) { nodes { kind state succeeded failed skipped createdAt error } }
     }`,
  )
  say(`${paint.bold('Server')}  ${client.url}`)
  for (const space of answer.embeddingSpaces) {
    say(
      `${paint.bold('Space')}   ${space.state} ${space.provider.name} ${space.model}, ${space.dimensions} dimensions`,
    )
  }
  say()
  say(
    table(
      ['KIND', 'TOTAL', 'READY', 'PENDING', 'STALE', 'FAILED', 'SKIPPED', '% READY'],
      answer.embeddingCoverage.map((kind) => [
        kind.kind,
        kind.total,
        kind.ready,
        kind.pending,
        kind.stale,
        kind.failed,
        kind.skipped,
        Math.floor(kind.percentReady * 10) / 10,
      ]),
    ),
  )
  if (answer.jobs.nodes.length === 0) return
  say()
  say(
    table(
      ['JOB', 'STATE', 'DONE', 'FAILED', 'SKIPPED', 'QUEUED AT', 'ERROR'],
      answer.jobs.nodes.map((job) => [
        job.kind,
        job.state,
        job.succeeded,
        job.failed,
        job.skipped,
        job.createdAt.slice(0, 19).replace('T', ' '),
        job.error?.slice(0, 60) ?? '',
      ]),
    ),
  )
}

/** What to extract: the time up to now, or from one moment to another. */
export interface ExtractOptions {
  last: string | null
  from: string | null
  to: string | null
}

/** Starts an extraction and follows it. Returns the ended job. */
export async function extract(client: ApiClient, period: ExtractOptions): Promise<FinishedJob> {
  const { extractKnowledge } = await client.request<{
    extractKnowledge: { job?: { id: string }; message?: string }
  }>(
    `mutation Extract($period: PeriodInput!) {
       extractKnowledge(input: { period: $period }) {
         ... on ExtractKnowledgePayload { job { id } }
         ... on UserError { message }
       }
     }`,
    { period },
  )
  if (!extractKnowledge.job)
    throw new InvalidInputError(extractKnowledge.message ?? 'The extraction was refused')
  return followExtraction(client, extractKnowledge.job.id)
}

async function followExtraction(client: ApiClient, jobId: string): Promise<FinishedJob> {
  // Conversations are found by meaning, too: the extraction waits for the embeddings, and so does the reader.
  await waitForEmbeddings(client)
  const job = await followJob(client, jobId, 'Extracting')
  const result = job.result as {
    topicsCreated?: number
    atomsCreated?: number
    linksCreated?: number
    revisionsProposed?: number
    failures?: { messages: number; reason: string }[]
  } | null
  if (job.state === 'SUCCEEDED' && job.total === 0) say('Nothing new to extract.')
  else {
    const { topicsCreated = 0, atomsCreated = 0, linksCreated = 0, revisionsProposed = 0 } = result ?? {}
    const counts = `${topicsCreated} topics, ${atomsCreated} atoms, ${linksCreated} links, ${revisionsProposed} revisions`
    say(`${paint.bold(counts)} from ${job.succeeded} messages`)
  }
  for (const { messages, reason } of result?.failures ?? []) {
    warn(paint.yellow(`${messages} messages could not be read: ${reason}`))
  }
  if (job.state !== 'SUCCEEDED') throw new QuarryError(job.error ?? `The extraction ended as ${job.state}`)
  return job
}

interface KnowledgeAnswer {
  topics: { nodes: { name: string; keywords: string[]; messages: { nodes: unknown[] } }[] }
  atoms: {
    nodes: {
      type: string
      title: string
      confidence: number | null
      extractedBy: string | null
      citations: { quote: string; message: { author: string; sentAt: string } }[]
      links: { nodes: { type: string; to: { type: string; title: string } }[] }
    }[]
  }
}

/** Prints the newest topics, and atoms with the words that prove them and one of their links; linked ones first. */
export async function showKnowledge(client: ApiClient, count: number): Promise<void> {
  const { topics, atoms } = await client.request<KnowledgeAnswer>(
    `query Knowledge {
       topics(first: 8, orderBy: { field: CREATED_AT, direction: DESC }) {
         nodes { name keywords messages(first: 100) { nodes { id } } }
       }
       atoms(first: 100) {
         nodes {
           type title confidence extractedBy
           citations { quote message { author sentAt } }
           links(direction: OUT) { nodes { type to { type title } } }
         }
       }
     }`,
  )
  say(paint.bold('Topics'))
  for (const topic of topics.nodes) {
    say(
      `  ${topic.name} ${paint.dim(`${topic.messages.nodes.length} messages; ${topic.keywords.join(', ')}`)}`,
    )
  }
  say(paint.bold('Atoms'))
  const isLinked = (atom: (typeof atoms.nodes)[number]) =>
    atom.links.nodes.some(({ type }) => type !== 'RELATES_TO')
  const shown = [...atoms.nodes].sort((a, b) => Number(isLinked(b)) - Number(isLinked(a))).slice(0, count)
  for (const { type, title, confidence, citations, links } of shown) {
    say(`  ${paint.cyan(type)} ${title} ${paint.dim(confidence === null ? '' : confidence.toFixed(2))}`)
    for (const { quote, message } of citations.slice(0, 2)) {
      const words = quote.replace(/\s+/g, ' ')
      say(`      ${paint.dim(`${message.author}, ${message.sentAt.slice(0, 10)}:`)} "${words.slice(0, 160)}"`)
    }
    for (const link of links.nodes.slice(0, 1)) {
      say(`      ${paint.green(`${link.type} ${link.to.type}`)} ${link.to.title}`)
    }
  }
}

/** Starts a backfill and follows it. Returns the ended job. */
export async function backfill(
  client: ApiClient,
  kinds: string[] | null,
  retryFailed: boolean,
): Promise<FinishedJob> {
  const { backfillEmbeddings } = await client.request<{
    backfillEmbeddings: { job?: { id: string }; message?: string }
  }>(
    `mutation Backfill($kinds: [EntityKind!], $retryFailed: Boolean) {
       backfillEmbeddings(input: { kinds: $kinds, retryFailed: $retryFailed }) {
         ... on BackfillEmbeddingsPayload { job { id } }
         ... on UserError { message }
       }
     }`,
    { kinds, retryFailed },
  )
  if (!backfillEmbeddings.job)
    throw new InvalidInputError(backfillEmbeddings.message ?? 'The backfill was refused')
  const job = await followJob(client, backfillEmbeddings.job.id, 'Embedding')
  say(`${paint.bold(`${job.succeeded} embedded, ${job.failed} failed, ${job.skipped} skipped`)}`)
  return job
}

/** A folder (Slack's export, unzipped) travels as a zip, made as a stream beside the upload. */
async function asFile(path: string): Promise<{ filePath: string; name: string; cleanUp(): Promise<void> }> {
  const info = await stat(path).catch(() => null)
  if (!info) throw new InvalidInputError(`There is no file or folder ${path}`)
  if (!info.isDirectory()) return { filePath: path, name: basename(path), cleanUp: async () => {} }
  const folder = await mkdtemp(join(tmpdir(), 'quarry-zip-'))
  const filePath = join(folder, 'folder.zip')
  const zip = new ZipFile()
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = join(entry.parentPath, entry.name)
    zip.addFile(file, relative(path, file))
  }
  zip.end()
  await pipeline(zip.outputStream, createWriteStream(filePath))
  return {
    filePath,
    name: `${basename(resolve(path))}.zip`,
    cleanUp: () => rm(folder, { recursive: true, force: true }),
  }
}
