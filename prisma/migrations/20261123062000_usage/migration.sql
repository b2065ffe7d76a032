-- What was asked of providers, and what it cost ---------------------------------------------------------------------

create type usage_kind as enum ('EMBEDDING', 'QUERY', 'EXTRACTION', 'VALIDATION');

-- Sums of a day, written every second by each process, not a row for each request.
create table provider_usage (
  -- By UTC, as the database's clock has it.
  day date not null,
  -- Id of a provider, which may be deleted by now, or what the environment configures: environment, extraction.
  account text not null,
  -- What it was called last.
  account_name text not null,
  kind usage_kind not null,
  -- For which job, which may be cleared by now; null: for none.
  job_id uuid,
  requests bigint not null,
  failed_requests bigint not null,
  tokens_in bigint not null,
  tokens_out bigint not null,
  -- How long the requests have taken, together.
  ms bigint not null,
  -- US dollars, by the prices of the moment.
  cost numeric(20, 10) not null,
  -- Those of which nobody said what they cost: they are not in the cost.
  unpriced_requests bigint not null,
  unique nulls not distinct (account, day, kind, job_id)
);
create index provider_usage_day on provider_usage (day);
create index provider_usage_job on provider_usage (job_id) where job_id is not null;

-- Budgets -------------------------------------------------------------------------------------------------------------

alter table provider
  -- US dollars for a calendar month; null: no budget.
  add column monthly_budget numeric(14, 6) check (monthly_budget >= 0);
alter table job
  -- US dollars for all that it asks of providers; null: no budget.
  add column budget numeric(14, 6) check (budget >= 0);
