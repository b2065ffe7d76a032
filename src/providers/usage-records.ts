import type { Sql } from '../db/database.ts'

export const usageKinds = ['EMBEDDING', 'QUERY', 'EXTRACTION', 'VALIDATION'] as const
export type UsageKind = (typeof usageKinds)[number]

/** Told when a person has changed a budget or a price. */
export const budgetChannel = 'quarry_budget'

/** Requests that go to one account, of one kind, for one job. */
export interface UsageEntry {
  /** Id of a provider, or what the environment configures. */
  accountId: string
  kind: UsageKind
  jobId: string | null
  /** It costs nothing, so it needs no price. */
  isFree: boolean
  requests: number
  failedRequests: number
  tokensIn: number
  tokensOut: number
  ms: number
}

const costs =
  'coalesce(u.tokens_in * p.price_per_million_tokens_in, 0) + coalesce(u.tokens_out * p.price_per_million_tokens_out, 0)'
const isPriced = `u.is_free or ((u.tokens_in = 0 or p.price_per_million_tokens_in is not null)
  and (u.tokens_out = 0 or p.price_per_million_tokens_out is not null))`

/** Adds to the sums of today, at the prices of now. */
export async function addUsage(sql: Sql, entries: readonly UsageEntry[]): Promise<void> {
  await sql.query(
    `insert into provider_usage (day, account, account_name, kind, job_id, requests, failed_requests, tokens_in,
       tokens_out, ms, cost, unpriced_requests)
     select (clock_timestamp() at time zone 'UTC')::date, u.account, coalesce(p.name, u.account), u.kind, u.job_id,
       u.requests, u.failed_requests, u.tokens_in, u.tokens_out, round(u.ms)::bigint,
       case when u.is_free then 0 else (${costs}) / 1000000 end,
       case when ${isPriced} then 0 else u.requests end
     from unnest($1::text[], $2::usage_kind[], $3::uuid[], $4::boolean[], $5::bigint[], $6::bigint[], $7::bigint[],
       $8::bigint[], $9::float8[])
       as u(account, kind, job_id, is_free, requests, failed_requests, tokens_in, tokens_out, ms)
     left join provider p on p.id::text = u.account
     -- All processes lock the sums in one order.
     order by u.account, u.kind, u.job_id
     on conflict (account, day, kind, job_id) do update set
       account_name = excluded.account_name,
       requests = provider_usage.requests + excluded.requests,
       failed_requests = provider_usage.failed_requests + excluded.failed_requests,
       tokens_in = provider_usage.tokens_in + excluded.tokens_in,
       tokens_out = provider_usage.tokens_out + excluded.tokens_out,
       ms = provider_usage.ms + excluded.ms,
       cost = provider_usage.cost + excluded.cost,
       unpriced_requests = provider_usage.unpriced_requests + excluded.unpriced_requests`,
    [
      entries.map(({ accountId }) => accountId),
      entries.map(({ kind }) => kind),
      entries.map(({ jobId }) => jobId),
      entries.map(({ isFree }) => isFree),
      entries.map(({ requests }) => requests),
      entries.map(({ failedRequests }) => failedRequests),
      entries.map(({ tokensIn }) => tokensIn),
      entries.map(({ tokensOut }) => tokensOut),
      entries.map(({ ms }) => ms),
    ],
  )
}

/** What may be spent, and what is. US dollars. */
export interface Budget {
  /** Null: as much as one likes. */
  limit: number | null
  spent: number
}

export interface AccountTerms extends Budget {
  /** Of the provider. */
  name: string
  /** Such as 2026-11: the month, by UTC, that the budget is for. */
  month: string
  pricePerMillionTokensIn: number | null
  pricePerMillionTokensOut: number | null
}

/** SQL: the first day of this month. */
const thisMonth = `date_trunc('month', clock_timestamp() at time zone 'UTC')::date`

/** Prices and the budget of this month; null for what is no row: it has neither. */
export async function readAccountTerms(sql: Sql, accountId: string): Promise<AccountTerms | null> {
  const [row] = await sql.query<AccountTerms>(
    `select p.name, p.monthly_budget::float8 as limit, to_char(${thisMonth}, 'YYYY-MM') as month,
       p.price_per_million_tokens_in::float8 as "pricePerMillionTokensIn",
       p.price_per_million_tokens_out::float8 as "pricePerMillionTokensOut",
       (select coalesce(sum(u.cost), 0)::float8 from provider_usage u
         where u.account = p.id::text and u.day >= ${thisMonth}) as spent
     from provider p where p.id::text = $1`,
    [accountId],
  )
  return row ?? null
}

/** Null if the job does not exist. */
export async function readJobBudget(sql: Sql, jobId: string): Promise<Budget | null> {
  const [row] = await sql.query<Budget>(
    `select j.budget::float8 as limit,
       (select coalesce(sum(u.cost), 0)::float8 from provider_usage u where u.job_id = j.id) as spent
     from job j where j.id = $1`,
    [jobId],
  )
  return row ?? null
}

/** What a provider may spend a month, and has spent in this one. */
export interface ProviderSpending extends Budget {
  name: string
}

/** Of all providers that were added. */
export async function readSpending(sql: Sql): Promise<ProviderSpending[]> {
  return sql.query<ProviderSpending>(
    `select p.name, p.monthly_budget::float8 as limit,
       (select coalesce(sum(u.cost), 0)::float8 from provider_usage u
         where u.account = p.id::text and u.day >= ${thisMonth}) as spent
     from provider p order by p.name`,
  )
}

/** What each account has spent this month, US dollars; accounts that have spent nothing are left out. */
export async function readSpentThisMonth(
  sql: Sql,
  accountIds: readonly string[],
): Promise<{ accountId: string; spent: number }[]> {
  return sql.query(
    `select account as "accountId", sum(cost)::float8 as spent from provider_usage
     where account = any ($1::text[]) and day >= ${thisMonth} group by account`,
    [accountIds],
  )
}

export interface UsageSum {
  /** This and the next four: null where the sum goes over all of them; `jobId` also where there was no job. */
  day: string | null
  accountId: string | null
  accountName: string | null
  kind: UsageKind | null
  jobId: string | null
  requests: number
  failedRequests: number
  tokensIn: number
  tokensOut: number
  ms: number
  cost: number
  unpricedRequests: number
}

const sums = `coalesce(sum(requests), 0)::float8 as requests, coalesce(sum(failed_requests), 0)::float8 as "failedRequests",
  coalesce(sum(tokens_in), 0)::float8 as "tokensIn", coalesce(sum(tokens_out), 0)::float8 as "tokensOut",
  coalesce(sum(ms), 0)::float8 as ms, coalesce(sum(cost), 0)::float8 as cost,
  coalesce(sum(unpriced_requests), 0)::float8 as "unpricedRequests"`

export const usageDimensions = ['DAY', 'PROVIDER', 'KIND', 'JOB'] as const
export type UsageDimension = (typeof usageDimensions)[number]

const columnOf = { DAY: 'day', PROVIDER: 'account', KIND: 'kind', JOB: 'job_id' } as const
/** As they are selected where they are grouped by, in the order of the rows. */
const selected: Record<UsageDimension, string> = {
  DAY: `to_char(day, 'YYYY-MM-DD') as day`,
  PROVIDER: 'account as "accountId", max(account_name) as "accountName"',
  KIND: 'kind',
  JOB: 'job_id as "jobId"',
}
const absent: Record<UsageDimension, string> = {
  DAY: 'null as day',
  PROVIDER: 'null as "accountId", null as "accountName"',
  KIND: 'null as kind',
  JOB: 'null as "jobId"',
}

/** Fields by AND, values of a list by OR; what is left out does not restrict. */
export interface UsageFilter {
  accountIds?: readonly string[] | undefined
  kinds?: readonly UsageKind[] | undefined
  jobIds?: readonly string[] | undefined
  /** Days (UTC) of this moment and later, and before this one. */
  from?: Date | undefined
  to?: Date | undefined
}

/** Sums by the dimensions, the newest day first, then by account, kind and job. */
export async function readUsage(
  sql: Sql,
  filter: UsageFilter,
  groupBy: ReadonlySet<UsageDimension>,
  page: { limit: number; offset: number },
): Promise<UsageSum[]> {
  const columns = usageDimensions.map((dimension) =>
    groupBy.has(dimension) ? selected[dimension] : absent[dimension],
  )
  const groups = usageDimensions.filter((dimension) => groupBy.has(dimension))
  const names = groups.map((dimension) => columnOf[dimension])
  const order = groups.map((dimension) => `${columnOf[dimension]}${dimension === 'DAY' ? ' desc' : ''}`)
  return sql.query<UsageSum>(
    `select ${columns.join(', ')}, ${sums} from provider_usage
     where ($1::text[] is null or account = any ($1)) and ($2::usage_kind[] is null or kind = any ($2))
       and ($3::uuid[] is null or job_id = any ($3))
       and ($4::timestamptz is null or day >= ($4 at time zone 'UTC')::date)
       and ($5::timestamptz is null or day < ($5 at time zone 'UTC')::date)
     ${names.length === 0 ? 'having count(*) > 0' : `group by ${names.join(', ')} order by ${order.join(', ')}`}
     limit $6 offset $7`,
    [
      filter.accountIds ?? null,
      filter.kinds ?? null,
      filter.jobIds ?? null,
      filter.from ?? null,
      filter.to ?? null,
      page.limit,
      page.offset,
    ],
  )
}

/** All that each job has asked of providers; those that have asked for nothing are left out. */
export async function readUsageOfJobs(sql: Sql, jobIds: readonly string[]): Promise<UsageSum[]> {
  return sql.query<UsageSum>(
    `select ${absent.DAY}, ${absent.PROVIDER}, ${absent.KIND}, job_id as "jobId", ${sums} from provider_usage
     where job_id = any ($1::uuid[]) group by job_id`,
    [jobIds],
  )
}

export interface Pace {
  /** Of a request that succeeded or not; null: none was made. */
  msPerRequest: number | null
  /** Tokens of answers for each one that was sent; null: none was. */
  tokensOutPerTokenIn: number | null
}

/** How requests to an account have gone in the last 30 days. */
export async function readPace(sql: Sql, accountId: string, kinds: readonly UsageKind[]): Promise<Pace> {
  const [row] = await sql.query<Pace>(
    `select sum(ms)::float8 / nullif(sum(requests), 0)::float8 as "msPerRequest",
       sum(tokens_out)::float8 / nullif(sum(tokens_in), 0)::float8 as "tokensOutPerTokenIn"
     from provider_usage where account = $1 and kind = any ($2::usage_kind[]) and day > current_date - 30`,
    [accountId, kinds],
  )
  return row ?? { msPerRequest: null, tokensOutPerTokenIn: null }
}

/** Sets the budget of a job, US dollars; null takes it away. False if there is no such job. */
export async function setJobBudget(sql: Sql, jobId: string, budget: number | null): Promise<boolean> {
  const rows = await sql.query(
    `with changed as (update job set budget = $2 where id = $1 returning 1)
     select pg_notify('${budgetChannel}', '') from changed`,
    [jobId, budget],
  )
  return rows.length > 0
}
