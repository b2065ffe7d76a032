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

/** A provider that is a row, as it was when a client of it was made. */
export interface ConnectedRow {
  providerId: string
  /** What is seen of an earlier address, model or key says nothing of the row as it is now. */
  connectionVersion: number
}

/** @param of a purpose: what the environment configures for it */
export function createProviderStatus(
  sql: Sql,
  of: ProviderPurpose | ConnectedRow,
  log: Logger,
): ProviderStatus {
  const write = typeof of === 'string' ? writesOfPurpose(sql, of) : writesOfRow(sql, of)
  let connectedAt = Number.NEGATIVE_INFINITY
  let waitingUntil = 0

  const tell = (writing: Promise<void>) =>
    writing.catch((error) =>
      log.warn({ error: errorMessage(error), of }, 'The status of a provider could not be written'),
    )

  return {
    async succeeded() {
      const now = performance.now()
      if (now - connectedAt < repeatMs) return
      connectedAt = now
      await tell(write.connected())
    },
    async failed(error, waitMs) {
      // It was not asked, so nothing is seen of it; whoever waits says what for.
      if (error.isOverBudget) return
      const until = performance.now() + waitMs
      if (error.failure === 'RATE_LIMITED') {
        if (until < waitingUntil + leastLongerMs) return
        waitingUntil = until
        await tell(write.waiting(waitMs))
        return
      }
      connectedAt = Number.NEGATIVE_INFINITY
      await tell(write.failed(error.message, waitMs))
    },
  }
}

interface StatusWrites {
  connected(): Promise<void>
  waiting(waitMs: number): Promise<void>
  failed(error: string, waitMs: number): Promise<void>
}

function writesOfPurpose(sql: Sql, purpose: ProviderPurpose): StatusWrites {
  return {
    connected: () => writeConnected(sql, purpose),
    waiting: (waitMs) => writeWaiting(sql, purpose, waitMs),
    failed: (error, waitMs) => writeError(sql, purpose, error, waitMs),
  }
}

function writesOfRow(sql: Sql, { providerId, connectionVersion }: ConnectedRow): StatusWrites {
  const write = (set: string, values: readonly unknown[]) =>
    writeRow(sql, set, [providerId, connectionVersion, ...values])
  const until = (ms: string) => `clock_timestamp() + make_interval(secs => ${ms}::float8 / 1000)`
  return {
    connected: () => write(`state = 'CONNECTED', error = null, validated_at = now()`, []),
    waiting: (waitMs) => write(`waiting_until = greatest(waiting_until, ${until('$3')})`, [waitMs]),
    failed: (error, waitMs) =>
      write(`state = 'ERROR', error = $3, waiting_until = ${until('$4')}`, [error, waitMs]),
  }
}

/** One that is being tried out is left to that. */
async function writeRow(sql: Sql, set: string, values: readonly unknown[]): Promise<void> {
  await sql.query(
    `with written as (
       update provider set ${set} where id = $1 and connection_version = $2
         and (state <> 'VALIDATING' or validating_until < clock_timestamp()) returning 1)
     select pg_notify('${providerChannel}', '') from written`,
    values,
  )
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
