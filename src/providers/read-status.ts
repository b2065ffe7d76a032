import type { Sql } from '../db/database.ts'
import type { ProviderPurpose } from './status.ts'

/** How the provider for a purpose does, as whoever asked it last has seen it. */
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

/** Those of the purposes that have been asked for something, in any order. */
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
