import { stat, statfs } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { bytesText } from '../bytes.ts'
import { type Judgement, ok, warning, wrong } from './finding.ts'

const MIB = 1024 ** 2

/** Postgres keeps 80 MiB of its log (min_wal_size), and a checkpoint or a sort takes as much again. */
const leastBytes = 256 * MIB
/** Below, one import of some size fills the disk. */
const fewBytes = 1024 * MIB

/** Bytes that an ordinary user may still write where a path is, or would be. */
export async function freeBytesAt(path: string): Promise<number> {
  const { bavail, bsize } = await statfs(await nearestThatExists(path))
  return bavail * bsize
}

/** The path itself, or the folder above in which it would be made. */
export async function nearestThatExists(path: string): Promise<string> {
  for (let at = resolve(path); ; at = dirname(at)) {
    const isThere = await stat(at).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return false
        throw error
      },
    )
    if (isThere || at === dirname(at)) return at
  }
}

/** @param databaseBytes what the database takes now; null: not known */
export function judgeDataDisk(path: string, freeBytes: number, databaseBytes: number | null): Judgement {
  const size = databaseBytes === null ? '' : `; the database takes ${bytesText(databaseBytes)}`
  const found = `${bytesText(freeBytes)} free for ${path}${size}`
  if (freeBytes < leastBytes) {
    return wrong(
      `${found}: less than ${bytesText(leastBytes)}, the database may stop at any moment`,
      'Make room on that disk, or move the folder and set QUARRY_DATA_DIR.',
    )
  }
  const wanted = Math.max(fewBytes, databaseBytes ?? 0)
  if (freeBytes >= wanted) return ok(found)
  return warning(
    `${found}: less than ${bytesText(wanted)}. While an index is built anew, or another model embeds everything, both are there`,
    'Make room before the next large import, index build or migration.',
  )
}

/** @param largestBytes of an upload that is allowed */
export function judgeUploadDisk(path: string, freeBytes: number, largestBytes: number): Judgement {
  const found = `${bytesText(freeBytes)} free in ${path}`
  if (freeBytes >= largestBytes) return ok(`${found}; an upload takes ${bytesText(largestBytes)} at most`)
  const judge = freeBytes < leastBytes ? wrong : warning
  return judge(
    `${found}: less than the ${bytesText(largestBytes)} that an upload may take (QUARRY_MAX_UPLOAD_MB)`,
    'Make room, set TMPDIR to a larger disk, or lower QUARRY_MAX_UPLOAD_MB.',
  )
}
