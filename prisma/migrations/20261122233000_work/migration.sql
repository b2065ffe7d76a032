-- Jobs ------------------------------------------------------------------------------------------------------------

alter table job
  -- Attempts that ended in an error, and runs whose process died, in a row: progress sets both back to 0.
  add column failures int not null default 0,
  add column deaths int not null default 0,
  -- Until when it waits for a provider; null unless it does.
  add column waiting_until timestamptz(3),
  -- What no event has told yet, because the one before is too fresh; null if there is nothing.
  add column unreported jsonb,
  add column last_event_at timestamptz(3);
create index job_unreported on job (id) where unreported is not null;
create index job_finished on job (finished_at) where finished_at is not null;
create index job_kind_finished on job (kind, finished_at) where state in ('SUCCEEDED', 'FAILED');

-- How close two events of a job may come that only tell counts: with the few others, never more than ten a second.
create function least_event_interval() returns interval language sql immutable parallel safe return interval '150 ms';

-- Numbers the event under the lock of the job's row, in the transaction that makes it true: a reader that sees number
-- n has seen, or can read, all before it. Counts that come too soon after the event before are kept in the row until
-- report_held_jobs(), or until the next event; one that has something to say, and the last one, are never held.
create or replace function append_job_event(job uuid, message text, details jsonb default '{}') returns void
language plpgsql as $$
declare
  found_job record;
begin
  select j.state, j.unreported, j.last_event_at, j.last_seq + 1 as seq into found_job
    from job j where j.id = append_job_event.job for update;
  if not found then
    return;
  end if;
  if append_job_event.message is null and found_job.state in ('QUEUED', 'RUNNING')
    and found_job.last_event_at > clock_timestamp() - least_event_interval()
  then
    update job j set unreported = coalesce(j.unreported, '{}') || append_job_event.details
      where j.id = append_job_event.job;
    if found_job.unreported is null then
      perform pg_notify('quarry_job_held', '');
    end if;
    return;
  end if;
  insert into job_event (job_id, seq, at, message, data)
    select j.id, found_job.seq, clock_timestamp(), append_job_event.message,
      jsonb_build_object('state', j.state, 'total', j.total, 'succeeded', j.succeeded, 'failed', j.failed,
        'skipped', j.skipped, 'error', j.error, 'waitingUntil', j.waiting_until)
      || coalesce(found_job.unreported, '{}') || append_job_event.details
    from job j where j.id = append_job_event.job;
  update job j set last_seq = found_job.seq, last_event_at = clock_timestamp(), unreported = null
    where j.id = append_job_event.job;
  perform pg_notify('quarry_job', append_job_event.job || ' ' || found_job.seq);
end $$;

-- Tells what was held back and is due. Returns how many are held back still.
create function report_held_jobs() returns int
language plpgsql as $$
declare
  held record;
begin
  for held in select id from job
    where unreported is not null and last_event_at <= clock_timestamp() - least_event_interval()
    order by id for update skip locked
  loop
    perform append_job_event(held.id, null);
  end loop;
  return (select count(*) from job where unreported is not null);
end $$;

-- What a job that waits says, by the clock of the database: those of the processes may differ.
create function waiting_message(until timestamptz, reason text) returns text
language sql stable
return format('Waiting for the provider until %s: %s', to_char(until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), reason);

-- Locks ------------------------------------------------------------------------------------------------------------

-- Whoever changes several embeddings locks them in this order first: a deletion of messages and the storing of their
-- vectors would otherwise wait for each other, and Postgres would end one of them. Then requests, then jobs by id.
create function lock_embeddings(space int, kinds entity_kind[], ids uuid[]) returns void
language plpgsql as $$
begin
  perform from embedding e join unnest(kinds, ids) as o(kind, id) on e.kind = o.kind and e.owner_id = o.id
    where e.space_id = lock_embeddings.space order by e.kind, e.owner_id for update of e;
end $$;

create or replace function void_embeddings(kind entity_kind, ids uuid[], texts text[]) returns void
language plpgsql as $$
begin
  perform lock_embeddings(s.id, array_fill(void_embeddings.kind, array[cardinality(ids)]), ids)
    from embedding_space s where s.state in ('BUILDING', 'ACTIVE');
  update embedding e set
      status = (case when is_blank(owner.text) then 'SKIPPED' when e.vector is null then 'PENDING' else 'STALE' end)::embedding_status,
      content_hash = text_hash(owner.text),
      vector = case when is_blank(owner.text) then null else e.vector end,
      attempts = 0, next_attempt_at = null, leased_by = null, last_error = null
    from unnest(ids, texts) as owner(id, text), embedding_space s
    where s.state in ('BUILDING', 'ACTIVE') and e.space_id = s.id and e.kind = void_embeddings.kind and e.owner_id = owner.id;
  perform pg_notify('quarry_embedding_owed', '');
end $$;

drop function drop_embeddings(entity_kind, uuid[]);
create function drop_embeddings(kind entity_kind, ids uuid[]) returns void
language plpgsql as $$
begin
  perform lock_embeddings(s.id, array_fill(drop_embeddings.kind, array[cardinality(ids)]), ids) from embedding_space s;
  delete from embedding e where e.space_id in (select id from embedding_space)
    and e.kind = drop_embeddings.kind and e.owner_id = any (ids);
end $$;

-- Embeddings that a job asked for ---------------------------------------------------------------------------------

-- What the row was before the job made it owed: READY (embedded anew on request) or FAILED (taken up again), with its
-- error. Null: it was owed anyway. When the job is cancelled, what it alone has made owed is taken back.
alter table embedding_request
  add column previous_status embedding_status check (previous_status in ('READY', 'FAILED')),
  add column previous_error text,
  -- Of the text then: one that has changed since is owed anyway.
  add column content_hash uuid;

-- Takes back what a job alone has made owed, and ends its waiting for the rest.
create function withdraw_embedding_requests(job uuid) returns void
language plpgsql as $$
begin
  perform from embedding e join embedding_request r using (space_id, kind, owner_id)
    where r.job_id = withdraw_embedding_requests.job and r.previous_status is not null
    order by e.kind, e.owner_id for update of e;
  with withdrawn as (
    delete from embedding_request r where r.job_id = withdraw_embedding_requests.job returning *
  )
  update embedding e set status = w.previous_status, last_error = w.previous_error, leased_by = null,
      next_attempt_at = null, attempts = 0
    from withdrawn w
    where w.previous_status is not null and e.space_id = w.space_id and e.kind = w.kind and e.owner_id = w.owner_id
      and e.status in ('PENDING', 'STALE') and e.content_hash = w.content_hash
      and not exists (select from embedding_request other
        where other.space_id = w.space_id and other.kind = w.kind and other.owner_id = w.owner_id
          and other.job_id <> w.job_id);
end $$;

drop function count_embedding_results(uuid, int, int, int);

-- Adds to a job's counts; when everything it waited for has ended, so has the job. It has failed if nothing came of it.
create function count_embedding_results(job uuid, succeeded int, failed int, skipped int, reason text) returns void
language plpgsql as $$
declare
  counted record;
begin
  update job j set
      succeeded = j.succeeded + count_embedding_results.succeeded,
      failed = j.failed + count_embedding_results.failed,
      skipped = j.skipped + count_embedding_results.skipped,
      waiting_until = case when j.waiting_until > now() then j.waiting_until end
    where j.id = count_embedding_results.job
    returning j.state, j.total, j.succeeded, j.failed, j.succeeded + j.failed + j.skipped as ended into counted;
  if counted.state = 'RUNNING' and counted.ended >= counted.total then
    update job j set finished_at = now(), waiting_until = null,
        state = (case when counted.failed > 0 and counted.succeeded = 0 then 'FAILED' else 'SUCCEEDED' end)::job_state,
        error = case when counted.failed > 0 and counted.succeeded = 0
          then format('None of the %s texts could be embedded: %s', counted.failed, coalesce(count_embedding_results.reason, 'no reason was kept')) end
      where j.id = count_embedding_results.job;
  end if;
  perform append_job_event(count_embedding_results.job, null);
end $$;

-- Keeps the counts and settles the jobs that wait, in the statement that changes the rows: neither can drift or be
-- forgotten by any code path.
create or replace function embedding_changed() returns trigger
language plpgsql as $$
declare
  result record;
begin
  if tg_op = 'INSERT' then
    insert into embedding_count (space_id, kind, status, n)
      select space_id, kind, status, count(*) from new_rows group by 1, 2, 3;
  elsif tg_op = 'DELETE' then
    insert into embedding_count (space_id, kind, status, n)
      select space_id, kind, status, -count(*) from old_rows group by 1, 2, 3;
    for result in
      with settled as (
        delete from embedding_request r using old_rows o
          where r.space_id = o.space_id and r.kind = o.kind and r.owner_id = o.owner_id returning r.job_id)
      select job_id, count(*)::int as skipped from settled group by job_id order by job_id
    loop
      perform count_embedding_results(result.job_id, 0, 0, result.skipped, null);
    end loop;
  else
    -- A claim changes no status: nothing to count, nothing to tell.
    if not exists (select from new_rows n join old_rows o using (space_id, kind, owner_id) where n.status <> o.status) then
      return null;
    end if;
    insert into embedding_count (space_id, kind, status, n)
      select space_id, kind, status, sum(n) from (
        select space_id, kind, status, 1 as n from new_rows union all select space_id, kind, status, -1 from old_rows
      ) as change group by 1, 2, 3 having sum(n) <> 0;
    for result in
      with settled as (
        delete from embedding_request r using new_rows n
          where r.space_id = n.space_id and r.kind = n.kind and r.owner_id = n.owner_id
            and n.status in ('READY', 'FAILED', 'SKIPPED') returning r.job_id, n.status, n.last_error)
      select job_id, count(*) filter (where status = 'READY')::int as succeeded,
        count(*) filter (where status = 'FAILED')::int as failed,
        count(*) filter (where status = 'SKIPPED')::int as skipped,
        max(last_error) filter (where status = 'FAILED') as reason
      from settled group by job_id order by job_id
    loop
      perform count_embedding_results(result.job_id, result.succeeded, result.failed, result.skipped, result.reason);
    end loop;
  end if;
  perform pg_notify('quarry_embedding_changed', '');
  return null;
end $$;

-- Of what is read: a reason why something was SKIPPED is no error.
drop index embedding_errors;
create index embedding_errors on embedding (kind, owner_id) where last_error is not null and status <> 'SKIPPED';

-- Providers -------------------------------------------------------------------------------------------------------

create type provider_state as enum ('PENDING', 'VALIDATING', 'CONNECTED', 'ERROR');
create type provider_purpose as enum ('EMBEDDING', 'EXTRACTION');

-- How the provider for each purpose does, as the process that asked it last has seen it.
create table provider_status (
  purpose provider_purpose primary key,
  state provider_state not null,
  -- Why it is in ERROR.
  error text,
  -- When it last did what it was asked.
  validated_at timestamptz(3),
  -- Until when it has asked to be left alone; null or past: it has not.
  waiting_until timestamptz(3)
);

-- Alerts ----------------------------------------------------------------------------------------------------------

-- Jobs of one kind fail in a row. Open until one of that kind succeeds.
create table alert (
  id uuid primary key,
  kind job_kind not null,
  -- How many have failed in a row.
  failures int not null,
  -- Why the last one failed.
  error text,
  -- The last one.
  job_id uuid references job on delete set null,
  raised_at timestamptz(3) not null default now(),
  -- When the webhook has taken it; null if there is none, or not yet.
  notified_at timestamptz(3),
  resolved_at timestamptz(3)
);
create unique index alert_open on alert (kind) where resolved_at is null;

-- Whether it is time for an alert is decided by a task of the queue, one at a time: the end of a job, which may come by
-- any statement of any process, only asks for that, and cannot forget to.
create function job_ended() returns trigger
language plpgsql as $$
begin
  if new.state = 'FAILED' or exists (select from alert a where a.kind = new.kind and a.resolved_at is null) then
    perform graphile_worker.add_job('check_alerts', json_build_object('kind', new.kind), queue_name => 'alerts',
      max_attempts => 10, job_key => 'check_alerts ' || new.kind);
  end if;
  return null;
end $$;
create trigger job_ended after update of state on job
  for each row when (new.state <> old.state and new.state in ('SUCCEEDED', 'FAILED')) execute function job_ended();

-- Live news -------------------------------------------------------------------------------------------------------

-- Tells the ids of new rows, as many at once as fit into a notification (8,000 bytes).
create function notify_ids(channel text, ids uuid[]) returns void
language sql as $$
  select pg_notify(channel, string_agg(id::text, ' ' order by n))
  from unnest(ids) with ordinality as new(id, n) group by (n - 1) / 200 order by (n - 1) / 200;
$$;

create function message_ingested() returns trigger
language plpgsql as $$
begin
  perform notify_ids('quarry_message_ingested', array_agg(id order by sent_at, id)) from new_rows having count(*) > 0;
  return null;
end $$;
create trigger message_ingested after insert on message
  referencing new table as new_rows for each statement execute function message_ingested();

create function atom_extracted() returns trigger
language plpgsql as $$
begin
  perform notify_ids('quarry_atom_extracted', array_agg(id order by id)) from new_rows
    where extracted_by is not null having count(*) > 0;
  return null;
end $$;
create trigger atom_extracted after insert on atom
  referencing new table as new_rows for each statement execute function atom_extracted();
