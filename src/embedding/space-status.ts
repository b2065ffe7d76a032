import type { Sql } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import { createProviderStatus, type ProviderStatus, providerChannel } from '../providers/status.ts'
import type { SpaceRecord } from './spaces.ts'

/** That all is well is told again after this long, in case another process had it otherwise. */
const repeatMs = 30_000
/** A wait that ends hardly later than the one that was told last is not worth telling. */
const leastLongerMs = 250

/**
 * How whoever embeds a space does, told to all: at its provider, and, because a provider may embed two spaces with
 * different models, at the space. Telling never fails: at worst, others know later.
 */
export function createSpaceStatus(sql: Sql, space: SpaceRecord, log: Logger): ProviderStatus {
  const { id, providerId, connectionVersion } = space
  if (providerId === null || connectionVersion === null) return createProviderStatus(sql, 'EMBEDDING', log)
  const provider = createProviderStatus(sql, { providerId, connectionVersion }, log)
  let connectedAt = Number.NEGATIVE_INFINITY
  let waitingUntil = 0

  const tell = (writing: Promise<void>) =>
    writing.catch((error) =>
      log.warn({ error: errorMessage(error), space: id }, 'The status of a space could not be written'),
    )

  return {
    async succeeded() {
      await provider.succeeded()
      const now = performance.now()
      if (now - connectedAt < repeatMs) return
      connectedAt = now
      await tell(writeConnected(sql, id))
    },
    async failed(error, waitMs) {
      await provider.failed(error, waitMs)
      const until = performance.now() + waitMs
      if (error.failure === 'RATE_LIMITED') {
        if (until < waitingUntil + leastLongerMs) return
        waitingUntil = until
        return tell(writeWaiting(sql, id, waitMs, null))
      }
      connectedAt = Number.NEGATIVE_INFINITY
      await tell(writeWaiting(sql, id, waitMs, error.message))
    },
  }
}

async function writeConnected(sql: Sql, spaceId: number): Promise<void> {
  await sql.query(
    `with written as (
       update embedding_space set provider_error = null, provider_waiting_until = null
       where id = $1 and (provider_error is not null or provider_waiting_until is not null) returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [spaceId],
  )
}

/** @param error null: it has only asked to wait */
async function writeWaiting(sql: Sql, spaceId: number, waitMs: number, error: string | null): Promise<void> {
  await sql.query(
    `with written as (
       update embedding_space set provider_error = coalesce($3, provider_error),
         provider_waiting_until = clock_timestamp() + make_interval(secs => $2::float8 / 1000)
       where id = $1 and state <> 'RETIRED' returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [spaceId, waitMs, error],
  )
}
