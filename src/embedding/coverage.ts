import type { Sql } from '../db/database.ts'
import { type EntityKind, entityKinds } from './spaces.ts'

export type EmbeddingStatus = 'PENDING' | 'READY' | 'STALE' | 'FAILED' | 'SKIPPED'

/** How much of one kind is embedded in a space. `total` counts every row, also the SKIPPED. */
export interface EmbeddingCoverage {
  kind: EntityKind
  total: number
  ready: number
  pending: number
  stale: number
  failed: number
  skipped: number
}

export interface CoverageSnapshot {
  /** Grows with every committed change of the database: a later snapshot never has a smaller one. As text. */
  seq: string
  /** Whether nothing was under way: only then does an equal `seq` mean that nothing has changed. */
  isSettled: boolean
  at: Date
  coverage: EmbeddingCoverage[]
  /** Until when the provider is left alone; null if it is not. */
  waitingUntil: Date | null
  /** Why the provider does nothing that it is asked; null if it does. */
  providerError: string | null
}

/** An owner's embedding in the active space. */
export interface EmbeddingState {
  ownerId: string
  status: EmbeddingStatus
  embeddedAt: Date | null
  error: string | null
}

/** Channel on which the triggers say that a status has changed. */
export const coverageChannel = 'quarry_embedding_changed'

/**
 * Reads the kept counts: costs the same at ten rows and at ten million. Counts and `seq` are of one moment: the
 * number is that of the oldest transaction that the counts do not show yet.
 */
export async function readCoverage(sql: Sql, spaceId: number): Promise<CoverageSnapshot> {
  const rows = await sql.query<{
    kind: EntityKind | null
    status: EmbeddingStatus
    n: number
    seq: string
    isSettled: boolean
    at: Date
    waitingUntil: Date | null
    providerError: string | null
  }>(
    `with counted as (
       select kind, status, sum(n)::float8 as n from embedding_count where space_id = $1 group by 1, 2
     )
     select c.kind, c.status, c.n, pg_snapshot_xmin(now.snapshot)::text as seq,
       pg_snapshot_xmin(now.snapshot) = pg_snapshot_xmax(now.snapshot) as "isSettled", clock_timestamp() as at,
       case when p.waiting_until > clock_timestamp() then p.waiting_until end as "waitingUntil", p.error as "providerError"
     from (select pg_current_snapshot() as snapshot) as now left join counted c on true
       left join (
         select waiting_until, case when state = 'ERROR' then error end as error from provider_status
         where purpose = 'EMBEDDING' and exists (select from embedding_space where id = $1 and provider_id is null)
         union all
         select provider_waiting_until, provider_error from embedding_space where id = $1 and provider_id is not null
       ) as p on true`,
    [spaceId],
  )
  const [first] = rows
  if (!first) throw new Error('the coverage query returned no row')
  return {
    seq: first.seq,
    isSettled: first.isSettled,
    at: first.at,
    waitingUntil: first.waitingUntil,
    providerError: first.providerError,
    coverage: entityKinds.map((kind) => {
      const count = (status: EmbeddingStatus) =>
        rows.find((row) => row.kind === kind && row.status === status)?.n ?? 0
      const [ready, pending, stale, failed, skipped] = [
        count('READY'),
        count('PENDING'),
        count('STALE'),
        count('FAILED'),
        count('SKIPPED'),
      ]
      return {
        kind,
        total: ready + pending + stale + failed + skipped,
        ready,
        pending,
        stale,
        failed,
        skipped,
      }
    }),
  }
}

/** Share of what can be embedded that is READY, 0..100; 100 when there is nothing to embed. */
export function percentReady(coverage: EmbeddingCoverage): number {
  const embeddable = coverage.total - coverage.skipped
  return embeddable === 0 ? 100 : (100 * coverage.ready) / embeddable
}

/** The embedding states of owners of one kind, in any order; an id that does not exist has no row. */
export async function readStates(
  sql: Sql,
  spaceId: number,
  kind: EntityKind,
  ownerIds: readonly string[],
): Promise<EmbeddingState[]> {
  return sql.query<EmbeddingState>(
    `select owner_id as "ownerId", status, embedded_at as "embeddedAt", last_error as error from embedding
     where space_id = $1 and kind = $2 and owner_id = any ($3::uuid[])`,
    [spaceId, kind, ownerIds],
  )
}

/**
 * The reason at the newest owner that could not be embedded, of the first of the kinds that has one; null if there is
 * none. One look into the index for each kind: sorting them all would take long when much has failed.
 */
export async function readLastError(
  sql: Sql,
  spaceId: number,
  kinds: readonly EntityKind[],
): Promise<string | null> {
  const [row] = await sql.query<{ error: string }>(
    `select newest.last_error as error
     from unnest($2::entity_kind[]) with ordinality as k(kind, place), lateral (
       select e.last_error from embedding e
       where e.space_id = $1 and e.kind = k.kind and e.status <> 'SKIPPED' and e.last_error is not null
       order by e.owner_id desc limit 1) as newest
     order by k.place limit 1`,
    [spaceId, kinds],
  )
  return row?.error ?? null
}
