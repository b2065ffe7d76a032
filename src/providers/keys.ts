import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { QuarryError } from '../errors.ts'

/*
 * API keys at rest: AES-256-GCM with a random nonce of 96 bits (NIST SP 800-38D, 8.2.2, which allows 2^32 of them under
 * one key).
 */

const algorithm = 'aes-256-gcm'
const nonceBytes = 12
const tagBytes = 16

/** An API key as it is stored. */
export interface SealedKey {
  ciphertext: Buffer
  /** 12 bytes. */
  nonce: Buffer
  /** 16 bytes. */
  tag: Buffer
  /** Which encryption key opens it. */
  keyId: string
}

/** The encryption keys of QUARRY_ENCRYPTION_KEY by their ids: the first seals, all open. */
export interface KeyRing {
  /** The id of the key that seals; null if there is none. */
  readonly sealingKeyId: string | null
  has(keyId: string): boolean
  /** @throws ProviderKeyError without an encryption key */
  seal(apiKey: string, providerId: string): SealedKey
  /** @throws ProviderKeyError without its encryption key, or if what is stored was changed or is another provider's */
  open(sealed: SealedKey, providerId: string): string
}

/** An API key cannot be stored or read; the message says what to do, and no key. */
export class ProviderKeyError extends QuarryError {}

/** @param encryptionKeys of 32 bytes each; may be empty */
export function createKeyRing(encryptionKeys: readonly Buffer[]): KeyRing {
  const keys = new Map(encryptionKeys.map((key) => [idOf(key), key]))
  const [first] = encryptionKeys
  const sealingKeyId = first ? idOf(first) : null
  return {
    sealingKeyId,
    has: (keyId) => keys.has(keyId),
    seal(apiKey, providerId) {
      if (!first || sealingKeyId === null) {
        throw new ProviderKeyError(
          'API keys cannot be stored: QUARRY_ENCRYPTION_KEY is not set. Set it to a key of `npm run quarry -- keys generate` and start again.',
        )
      }
      const nonce = randomBytes(nonceBytes)
      const cipher = createCipheriv(algorithm, first, nonce, { authTagLength: tagBytes })
      cipher.setAAD(associatedData(providerId))
      const ciphertext = Buffer.concat([cipher.update(apiKey, 'utf8'), cipher.final()])
      return { ciphertext, nonce, tag: cipher.getAuthTag(), keyId: sealingKeyId }
    },
    open({ ciphertext, nonce, tag, keyId }, providerId) {
      const key = keys.get(keyId)
      if (!key) throw new ProviderKeyError(missingKey(keyId))
      try {
        const decipher = createDecipheriv(algorithm, key, nonce, { authTagLength: tagBytes })
        decipher.setAAD(associatedData(providerId))
        decipher.setAuthTag(tag)
        return Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString('utf8')
      } catch {
        // Not as the cause: what OpenSSL says about it helps nobody but an attacker.
        throw new ProviderKeyError(
          'The stored API key cannot be opened: it was changed in the database, or belongs to another provider. Set the API key of this provider again.',
        )
      }
    },
  }
}

/** Why a stored API key cannot be read, and what to do. */
export function missingKey(keyId: string): string {
  return `The API key was stored under the encryption key ${keyId}, which QUARRY_ENCRYPTION_KEY does not hold. Put that key back into the list and start again, or set the API key of this provider again.`
}

/** A new encryption key, as QUARRY_ENCRYPTION_KEY takes it. */
export function generateEncryptionKey(): string {
  return randomBytes(32).toString('base64')
}

/** A fingerprint to find the key by. Of 256 random bits it tells nothing that could be used. */
function idOf(key: Buffer): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 16)
}

/** Bound to row and field: moved to another row, a sealed key does not open. */
function associatedData(providerId: string): Buffer {
  return Buffer.from(`provider.api_key:${providerId}`)
}
