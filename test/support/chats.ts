import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { TestClient } from './client.ts'
import { graphql } from './generated/index.ts'

const ImportChatDocument = graphql(`
  mutation ImportWholeChat($file: File!, $sourceName: String, $extract: Boolean) {
    importChat(input: { file: $file, sourceName: $sourceName, extract: $extract }) {
      __typename
      ... on ImportChatPayload { job { id } }
      ... on UserError { message }
    }
  }
`)

/** Texts in which a provider by marks finds one atom each, all of one topic; `name` makes them its own. */
export function ideas(count: number, name: string): string[] {
  return Array.from({ length: count }, (_, n) => `IDEA: Thought ${n} of ${name} #theme-${name}`)
}

/** A chat export of one channel, `name`: each text is a message, a minute after the one before. @returns its path */
export async function writeChat(folder: string, name: string, texts: readonly string[]): Promise<string> {
  const rows = texts.map((text, n) =>
    JSON.stringify({
      id: `${name}-${n}`,
      author: 'ann',
      channel: name,
      sentAt: new Date(Date.UTC(2026, 4, 4, 9, n)).toISOString(),
      text,
    }),
  )
  const path = join(folder, `${name}.jsonl`)
  await writeFile(path, rows.join('\n'))
  return path
}

/** Uploads a chat export. @returns the id of the job that imports it */
export async function importChat(
  client: TestClient,
  path: string,
  options: { sourceName?: string; extract?: boolean } = {},
): Promise<string> {
  const { importChat: answer } = await client.upload(ImportChatDocument, options, path)
  if (answer?.__typename !== 'ImportChatPayload') throw new Error(answer?.message ?? 'importChat is null')
  return answer.job.id
}
