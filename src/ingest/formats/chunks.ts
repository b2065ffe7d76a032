import { createReadStream } from 'node:fs'
import type { ChatFile } from './format.ts'

export const chunkBytes = 256 * 1024

/** The bytes of a file as a stream; says how far it has come. */
export async function* readChunks(file: ChatFile): AsyncGenerator<Buffer, void> {
  for await (const chunk of createReadStream(file.path, {
    highWaterMark: chunkBytes,
  }) as AsyncIterable<Buffer>) {
    file.onRead?.(chunk.length)
    yield chunk
  }
}
