import type { Sql } from '../db/database.ts'

/** The number that this database has given to pgvector's type `vector`; arrays of vectors in binary name it. */
export async function readVectorType(sql: Sql): Promise<number> {
  const [row] = await sql.query<{ type: number }>(`select 'vector'::regtype::oid::int as type`)
  if (!row) throw new Error('the database has no type vector')
  return row.type
}

/*
 * Vectors travel in Postgres's binary format; pg sends a Buffer as it is. As text a vector of 512 numbers is 5 KB, which
 * costs this process more to write, and the server almost as much to read, as everything else about a result.
 */

/** A `vector`. */
export function vectorBytes(vector: Float32Array): Buffer {
  const bytes = Buffer.allocUnsafe(vectorLength(vector))
  writeVector(bytes, 0, vector)
  return bytes
}

/** A `vector[]`; a Buffer is a vector that is in binary format already. */
export function vectorArrayBytes(
  vectors: readonly (Float32Array | Buffer | null)[],
  vectorType: number,
): Buffer {
  const length = vectors.reduce((sum, vector) => sum + 4 + (vector ? vectorLength(vector) : 0), 20)
  const bytes = Buffer.allocUnsafe(length)
  // Dimensions, whether there are nulls, type of the elements, how many they are, number of the first.
  const header = [1, vectors.includes(null) ? 1 : 0, vectorType, vectors.length, 1]
  let at = 0
  for (const field of header) at = bytes.writeInt32BE(field, at)
  for (const vector of vectors) {
    at = bytes.writeInt32BE(vector ? vectorLength(vector) : -1, at)
    if (vector) at = writeVector(bytes, at, vector)
  }
  return bytes
}

const vectorLength = (vector: Float32Array | Buffer) =>
  Buffer.isBuffer(vector) ? vector.length : 4 + vector.length * Float32Array.BYTES_PER_ELEMENT

function writeVector(bytes: Buffer, offset: number, vector: Float32Array | Buffer): number {
  if (Buffer.isBuffer(vector)) return offset + vector.copy(bytes, offset)
  let at = bytes.writeInt16BE(vector.length, offset)
  at = bytes.writeInt16BE(0, at)
  for (const value of vector) at = bytes.writeFloatBE(value, at)
  return at
}

/** What `vector_send(...)` gives. */
export function parseVector(bytes: Buffer): Float32Array {
  const vector = new Float32Array(bytes.readInt16BE(0))
  for (let index = 0; index < vector.length; index++) vector[index] = bytes.readFloatBE(4 + index * 4)
  return vector
}
