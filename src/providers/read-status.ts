import type { Sql } from '../db/database.ts'
import type { ProviderPurpose } from './status.ts'

/** How a provider does, as whoever asked it last has seen it. */
export interface ProviderStatusRow {
  purpose: ProviderPurpose
  state: 'PENDING' | 'VALIDATING' | 'CONNECTED' | 'ERROR'
  /** Why it is in ERROR. */
  error: string | null
  /** When it last did what it was asked. */
  validatedAt: Date | null
  /** Until when it is left alone; null if it is not. */
  waitingUntil: Date | null
}

/** Of the environment's providers for these purposes, those that have been asked for something, in any order. */
export async function readProviderStatus(
  sql: Sql,
  purposes: readonly ProviderPurpose[],
): Promise<ProviderStatusRow[]> {
  return sql.query<ProviderStatusRow>(
    `select purpose, state, error, validated_at as "validatedAt",
       case when waiting_until > clock_timestamp() then waiting_until end as "waitingUntil"
     from provider_status where purpose = any ($1::provider_purpose[])`,
    [purposes],
  )
}

/**
 * Who serves each purpose now, if it has been asked for something: who embeds the active space, and who extracts where no
 * agent is named (that of the default agent). Else the environment's.
 */
export async function readServingStatus(sql: Sql): Promise<ProviderStatusRow[]> {
  return sql.query<ProviderStatusRow>(
    `select u.purpose, case when u.error is not null then 'ERROR' else coalesce(p.state, e.state) end as state,
       coalesce(u.error, p.error, e.error) as error, coalesce(p.validated_at, e.validated_at) as "validatedAt",
       case when w.waiting_until > clock_timestamp() then w.waiting_until end as "waitingUntil"
     from (
       select 'EMBEDDING'::provider_purpose as purpose, provider_id, provider_error as error,
         provider_waiting_until as waiting_until
       from embedding_space where state = 'ACTIVE'
       union all
       select 'EXTRACTION', (select provider_id from agent where is_default and is_active), null, null
     ) as u
     left join provider p on p.id = u.provider_id
     left join provider_status e on e.purpose = u.purpose and u.provider_id is null,
     -- A provider that embeds is left alone for the sake of one space: it may embed another.
     lateral (select coalesce(u.waiting_until, case when u.purpose = 'EXTRACTION' then p.waiting_until end,
       e.waiting_until) as waiting_until) as w
     where coalesce(p.state, e.state) is not null`,
  )
}
