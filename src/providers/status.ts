import type { Sql } from '../db/database.ts'
import { errorMessage } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { ProviderError } from './provider.ts'

export type ProviderPurpose = 'EMBEDDING' | 'EXTRACTION'

/** Channel on which is said that the status of a provider has changed. */
export const providerChannel = 'quarry_provider'

/** What this process sees of a provider, told to all. Telling never fails: at worst, others know later. */
export interface ProviderStatus {
  /** It did what it was asked. */
  succeeded(): Promise<void>
  /** It did not, for a reason that is not one text's. @param waitMs how long it is left alone now */
  failed(error: ProviderError, waitMs: number): Promise<void>
}

/** That all is well is told again after this long, in case another process had it otherwise. */
const repeatMs = 30_000
/** A wait that ends hardly later than the one that was told last is not worth telling. */
const leastLongerMs = 250

export function createProviderStatus(sql: Sql, purpose: ProviderPurpose, log: Logger): ProviderStatus {
  let connectedAt = Number.NEGATIVE_INFINITY
  let waitingUntil = 0

  const tell = (writing: Promise<void>) =>
    writing.catch((error) =>
      log.warn({ error: errorMessage(error), purpose }, 'The status of a provider could not be written'),
    )

  return {
    async succeeded() {
      const now = performance.now()
      if (now - connectedAt < repeatMs) return
      connectedAt = now
      await tell(writeConnected(sql, purpose))
    },
    async failed(error, waitMs) {
      const until = performance.now() + waitMs
      if (error.failure === 'RATE_LIMITED') {
        if (until < waitingUntil + leastLongerMs) return
        waitingUntil = until
        await tell(writeWaiting(sql, purpose, waitMs))
        return
      }
      connectedAt = Number.NEGATIVE_INFINITY
      await tell(writeError(sql, purpose, error.message, waitMs))
    },
  }
}

async function writeConnected(sql: Sql, purpose: ProviderPurpose): Promise<void> {
  await sql.query(
    `with written as (
       insert into provider_status (purpose, state, validated_at) values ($1, 'CONNECTED', now())
       on conflict (purpose) do update set state = 'CONNECTED', error = null, validated_at = now(),
         waiting_until = case when provider_status.state = 'CONNECTED' then provider_status.waiting_until end
       returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [purpose],
  )
}

async function writeWaiting(sql: Sql, purpose: ProviderPurpose, waitMs: number): Promise<void> {
  await sql.query(
    `with written as (
       insert into provider_status (purpose, state, waiting_until)
       values ($1, 'CONNECTED', now() + make_interval(secs => $2::float8 / 1000))
       on conflict (purpose) do update set
         waiting_until = greatest(provider_status.waiting_until, excluded.waiting_until)
       returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [purpose, waitMs],
  )
}

async function writeError(sql: Sql, purpose: ProviderPurpose, error: string, waitMs: number): Promise<void> {
  await sql.query(
    `with written as (
       insert into provider_status (purpose, state, error, waiting_until)
       values ($1, 'ERROR', $2, now() + make_interval(secs => $3::float8 / 1000))
       on conflict (purpose) do update set state = 'ERROR', error = excluded.error,
         waiting_until = excluded.waiting_until
       returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    [purpose, error, waitMs],
  )
}
