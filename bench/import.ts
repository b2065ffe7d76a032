import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ApiClient } from '../src/cli/client.ts'
import {
  type BenchPostgres,
  createDatabase,
  createFolder,
  peakMemory,
  providerEnv,
  startProvider,
  startServer,
} from './environment.ts'
import { mib, perSecond, type Report, type Row, seconds } from './report.ts'
import { randomNumbers } from './vectors.ts'

const maxBytes = 350 * 2 ** 20
const leastPerSecond = 10_000

/** A Telegram export from the upload to the end of its job: how fast, and in how much memory. */
export async function benchImport(
  postgres: BenchPostgres,
  options: { large: boolean; quick: boolean },
): Promise<Report> {
  const sizes = options.quick ? [10_000] : options.large ? [100_000, 1_000_000] : [100_000]
  const rows: Row[] = []
  for (const count of sizes) {
    const { uploadMs, jobMs, idleBytes, peakBytes, fileBytes } = await measure(postgres, count)
    const rate = (1000 * count) / (uploadMs + jobMs)
    const of = `${count.toLocaleString('en')} messages (${mib(fileBytes)})`
    rows.push(
      {
        what: `upload and import, ${of}`,
        figure: perSecond(rate),
        beside: `${seconds(uploadMs)} upload, ${seconds(jobMs)} job`,
        aim: `>= ${leastPerSecond.toLocaleString('en')}/s`,
        isMet: rate >= leastPerSecond,
      },
      {
        what: `peak memory of the server, ${of}`,
        figure: mib(peakBytes),
        beside: `${mib(idleBytes)} before`,
        aim: `<= ${mib(maxBytes)}`,
        isMet: peakBytes <= maxBytes,
      },
    )
  }
  return {
    title: 'Import of a Telegram export',
    rows,
    notes: [
      'Through `importChat`: sent, stored in pieces, read back, parsed, checked and ingested, with every index, trigger and progress event; until the job has ended.',
      'Nothing is embedded meanwhile: the provider refuses every request, so the pipeline leaves it alone for a minute at a time. The rows that are owed an embedding are made all the same.',
      'Memory: VmHWM of the server process; Postgres is another one.',
    ],
  }
}

async function measure(postgres: BenchPostgres, count: number) {
  await using folder = await createFolder()
  await using database = await createDatabase(postgres)
  await using provider = await startProvider({ refuses: true })
  const path = join(folder.path, 'result.json')
  await writeExport(path, count)
  await using server = await startServer({ DATABASE_URL: database.url, ...providerEnv(provider.url) })
  const client = new ApiClient(new URL(server.url).origin)
  const idleBytes = peakMemory(server.pid)

  const started = performance.now()
  const { importChat } = await client.upload<{ importChat: { job: { id: string } } }>(
    `mutation ($file: File!) {
       importChat(input: { file: $file, format: AUTO }) { ... on ImportChatPayload { job { id } } }
     }`,
    {},
    path,
  )
  const uploaded = performance.now()
  const id = importChat.job.id
  for (;;) {
    const { node } = await client.request<{
      node: { state: string; error: string | null; succeeded: number; failed: number }
    }>('query ($id: ID!) { node(id: $id) { ... on Job { state error succeeded failed } } }', { id })
    if (node.state === 'SUCCEEDED' && node.succeeded === count && node.failed === 0) break
    if (node.state === 'SUCCEEDED' || node.state === 'FAILED') {
      throw new Error(`the import went wrong: ${JSON.stringify(node)}`)
    }
    await delay(50)
  }
  const ended = performance.now()
  const figures = {
    uploadMs: uploaded - started,
    jobMs: ended - uploaded,
    idleBytes,
    peakBytes: peakMemory(server.pid),
    fileBytes: (await stat(path)).size,
  }
  await client.close()
  return figures
}

const vocabulary =
  `the deploy failed again because staging has no space left on its disk so please look at the logs before you
  restart anything we agreed to keep two weeks of backups and to ask first who owns the old bucket thanks I will
  check it after lunch maybe it is the new version of the driver that leaks connections under load`.split(
    /\s+/,
  )

/** What Telegram Desktop writes for a group: 4 to 24 words a message, one in four an answer, one in ten with a link. */
async function writeExport(path: string, count: number): Promise<void> {
  const random = randomNumbers(11)
  const pick = (most: number) => Math.floor(random() * most)
  const file = createWriteStream(path)
  const write = async (text: string) => {
    if (!file.write(text)) await once(file, 'drain')
  }
  await write(
    '{\n "name": "Release crew",\n "type": "private_supergroup",\n "id": 1234567890,\n "messages": [\n',
  )
  for (let id = 1; id <= count; id++) {
    const words = Array.from({ length: 4 + pick(21) }, () => vocabulary[pick(vocabulary.length)])
    const plain = `${words.join(' ')} (${id})`
    const link = { type: 'link', text: `https://example.org/${id}` }
    const hasLink = pick(10) === 0
    const at = new Date(Date.UTC(2024, 0, 1) + id * 20_000)
    const person = pick(40)
    const message = {
      id,
      type: 'message',
      date: at.toISOString().slice(0, 19),
      date_unixtime: String(at.getTime() / 1000),
      from: `Person ${person}`,
      from_id: `user${1000 + person}`,
      ...(pick(4) === 0 && id > 20 ? { reply_to_message_id: id - 1 - pick(20) } : {}),
      text: hasLink ? [`${plain} `, link] : plain,
      text_entities: [{ type: 'plain', text: plain }, ...(hasLink ? [link] : [])],
    }
    // Indented by one space, as the program does: half of such a file is layout.
    const json = JSON.stringify(message, null, 1).replaceAll('\n', '\n  ')
    await write(`  ${json}${id < count ? ',' : ''}\n`)
  }
  await write(' ]\n}')
  file.end()
  await once(file, 'close')
}
