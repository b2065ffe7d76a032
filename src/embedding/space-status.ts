import type { Sql } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { ProviderError } from '../providers/provider.ts'
import { createProviderStatus, type ProviderStatus, providerChannel } from '../providers/status.ts'
import type { EmbeddingSpace } from './space.ts'

/** That all is well is told again after this long, in case another process had it otherwise. */
const repeatMs = 30_000
/** A wait that ends hardly later than the one that was told last is not worth telling. */
const leastLongerMs = 250

/**
 * How whoever embeds a space does, told to all: at the space, because one provider may embed two with different models,
 * and at the provider. Telling never fails: at worst, others know later.
 */
export function createSpaceStatus(sql: Sql, space: EmbeddingSpace, log: Logger): ProviderStatus {
  if (space.providerId === null) return createProviderStatus(sql, 'EMBEDDING', log)
  const { id } = space
  let connectedAt = Number.NEGATIVE_INFINITY
  let waitingUntil = 0

  const tell = (writing: Promise<void>) =>
    writing.catch((error) =>
      log.warn({ error: errorMessage(error), space: id }, 'The status of a provider could not be written'),
    )

  return {
    async succeeded() {
      const now = performance.now()
      if (now - connectedAt < repeatMs) return
      connectedAt = now
      await tell(writeConnected(sql, id))
    },
    async failed(error: ProviderError, waitMs: number) {
      const until = performance.now() + waitMs
      if (error.failure === 'RATE_LIMITED') {
        if (until < waitingUntil + leastLongerMs) return
        waitingUntil = until
        await tell(writeWaiting(sql, id, waitMs, null))
        return
      }
      connectedAt = Number.NEGATIVE_INFINITY
      await tell(writeWaiting(sql, id, waitMs, error.message))
    },
  }
}

async function writeConnected(sql: Sql, spaceId: number): Promise<void> {
  await sql.query(
    `with written as (
       update embedding_space set provider_error = null, provider_waiting_until = null where id = $1
       returning provider_id
     ), provided as (
       update provider p set validated_at = now(),
         state = case when p.state = 'VALIDATING' or other.error is not null then p.state else 'CONNECTED' end,
         error = case when p.state = 'VALIDATING' then p.error else other.error end,
         waiting_until = case when other.error is null then null else p.waiting_until end
       from written w, lateral (
         select max(s.provider_error) as error from embedding_space s
         where s.provider_id = w.provider_id and s.id <> $1 and s.state <> 'RETIRED'
       ) as other where p.id = w.provider_id
     )
     select pg_notify('${providerChannel}', '') from written`,
    [spaceId],
  )
}

/** @param error null: it has only asked to wait */
async function writeWaiting(sql: Sql, spaceId: number, waitMs: number, error: string | null): Promise<void> {
  await sql.query(
    `with written as (
       update embedding_space set provider_error = coalesce($3, provider_error),
         provider_waiting_until = now() + make_interval(secs => $2::float8 / 1000)
       where id = $1 returning provider_id, provider_waiting_until
     ), provided as (
       update provider p set waiting_until = w.provider_waiting_until,
         state = case when $3::text is null or p.state = 'VALIDATING' then p.state else 'ERROR' end,
         error = coalesce($3, p.error)
       from written w where p.id = w.provider_id
     )
     select pg_notify('${providerChannel}', '') from written`,
    [spaceId, waitMs, error],
  )
}
