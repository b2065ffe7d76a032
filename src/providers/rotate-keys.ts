import type { Database } from '../db/database.ts'
import { SetupError } from '../errors.ts'
import { type KeyRing, ProviderKeyError } from './keys.ts'
import { lockSealedKey, readProvidersToRotate, storeSealedKey } from './records.ts'

export interface Rotation {
  /** API keys that are under the first encryption key now and were not before. */
  rotated: number
  /** Providers whose API key could not be opened, each with the reason; they are as they were. */
  failed: { name: string; reason: string }[]
}

/**
 * Encrypts all stored API keys with the first key of QUARRY_ENCRYPTION_KEY. One transaction for each: broken off, it goes
 * on with the rest when it is called again, and done twice it changes nothing.
 * @throws SetupError without an encryption key
 */
export async function rotateKeys(database: Database, keys: KeyRing): Promise<Rotation> {
  const { sealingKeyId } = keys
  if (sealingKeyId === null) {
    throw new SetupError(
      'QUARRY_ENCRYPTION_KEY is not set: there is no key to encrypt with. Set it to the new key and the old ones behind it, separated by commas.',
    )
  }
  const rotation: Rotation = { rotated: 0, failed: [] }
  for (const { id, name } of await readProvidersToRotate(database, sealingKeyId)) {
    try {
      const isRotated = await database.transaction(async (transaction) => {
        const sealed = await lockSealedKey(transaction, id)
        // Deleted, or rotated by somebody else, meanwhile.
        if (!sealed || sealed.keyId === sealingKeyId) return false
        await storeSealedKey(transaction, id, keys.seal(keys.open(sealed, id), id))
        return true
      })
      if (isRotated) rotation.rotated++
    } catch (error) {
      if (!(error instanceof ProviderKeyError)) throw error
      rotation.failed.push({ name, reason: error.message })
    }
  }
  return rotation
}
