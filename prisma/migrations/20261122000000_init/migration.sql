create extension if not exists vector;

create type atom_type as enum ('PROBLEM', 'SOLUTION', 'DECISION', 'QUESTION', 'INSIGHT', 'PATTERN', 'REQUIREMENT', 'IDEA', 'BLOCKER', 'RISK');
create type review_state as enum ('PENDING', 'APPROVED', 'REJECTED');
create type noise as enum ('NOISE', 'WEAK_SIGNAL', 'SIGNAL');
create type entity_kind as enum ('MESSAGE', 'ATOM', 'TOPIC');
create type embedding_status as enum ('PENDING', 'READY', 'STALE', 'FAILED', 'SKIPPED');
create type provider_type as enum ('LOCAL', 'OPENAI', 'OLLAMA');
create type space_state as enum ('BUILDING', 'ACTIVE', 'RETIRED');
create type job_kind as enum ('IMPORT', 'EMBED', 'BACKFILL', 'EXTRACT', 'MIGRATE_EMBEDDINGS');
create type job_state as enum ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED');

-- Chat ------------------------------------------------------------------------------------------------------------

create table source (
  id uuid primary key,
  name text not null,
  type text not null,
  created_at timestamptz(3) not null default now(),
  unique (type, name)
);

create table topic (
  id uuid primary key,
  name text not null unique,
  description text not null default '',
  keywords text[] not null default '{}',
  color text not null,
  icon text not null,
  archived_at timestamptz(3),
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now()
);

create table message (
  id uuid primary key,
  source_id uuid not null references source on delete cascade,
  -- Empty, not null, where the source has no channels: NULLs never equal each other, and this is part of the identity.
  channel text not null default '',
  external_id text not null,
  thread_id text,
  -- What the message answers, as the source names it; the row itself may arrive later, so there is no foreign key.
  reply_to_external_id text,
  author text not null,
  content text not null,
  sent_at timestamptz(3) not null,
  topic_id uuid references topic on delete set null,
  importance real check (importance between 0 and 1),
  noise noise,
  conversation_id uuid,
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now(),
  unique (source_id, channel, external_id)
);
create index message_sent_at on message (sent_at, id);
create index message_source_sent_at on message (source_id, sent_at, id);
create index message_author_sent_at on message (author, sent_at, id);
create index message_topic_sent_at on message (topic_id, sent_at, id) where topic_id is not null;

-- Knowledge -------------------------------------------------------------------------------------------------------

create table atom (
  id uuid primary key,
  type atom_type not null,
  title text not null,
  content text not null,
  confidence real check (confidence between 0 and 1),
  review_state review_state not null default 'PENDING',
  archived_at timestamptz(3),
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now()
);
create index atom_type_id on atom (type, id);
create index atom_review_state_id on atom (review_state, id);

create table atom_topic (
  atom_id uuid not null references atom on delete cascade,
  topic_id uuid not null references topic on delete cascade,
  primary key (atom_id, topic_id)
);
create index atom_topic_topic on atom_topic (topic_id, atom_id);

-- Words -----------------------------------------------------------------------------------------------------------

-- A tsvector holds at most 1 MiB and raises an error beyond: 1 MB of distinct words would make its row impossible to
-- store. 100,000 characters always fit.
create function search_words(text) returns tsvector
language sql immutable parallel safe
return to_tsvector('simple', left($1, 100000));

create function atom_text(title text, content text) returns text
language sql immutable parallel safe
return title || E'\n\n' || content;

create function topic_text(name text, description text, keywords text[]) returns text
language plpgsql immutable parallel safe as $$
begin
  -- array_to_string is only stable in general, for element types whose output depends on settings; text does not.
  return concat_ws(E'\n\n', name, nullif(description, ''), nullif(array_to_string(keywords, ', '), ''));
end $$;

create index message_words on message using gin (search_words(content));
create index atom_words on atom using gin (search_words(atom_text(title, content)));
create index topic_words on topic using gin (search_words(topic_text(name, description, keywords)));

-- Processes -------------------------------------------------------------------------------------------------------

-- Who works. Judged by the database's clock: a process whose heartbeat is too old is dead; its row goes, and with it
-- what it had leased is free.
create table process (
  id bigint generated always as identity primary key,
  role text not null,
  host text not null,
  pid int not null,
  -- Its ids in the job queue: what they had locked when it died is unlocked for others.
  workers text[] not null default '{}',
  started_at timestamptz(3) not null default now(),
  heartbeat_at timestamptz(3) not null default now()
);

-- Jobs ------------------------------------------------------------------------------------------------------------

create table job (
  id uuid primary key,
  kind job_kind not null,
  state job_state not null default 'QUEUED',
  total int,
  succeeded int not null default 0,
  failed int not null default 0,
  skipped int not null default 0,
  attempts int not null default 0,
  error text,
  params jsonb not null default '{}',
  result jsonb,
  last_seq bigint not null default 0,
  created_at timestamptz(3) not null default now(),
  started_at timestamptz(3),
  finished_at timestamptz(3)
);
create index job_kind_id on job (kind, id);
create index job_state_id on job (state, id);

create table job_event (
  job_id uuid not null references job on delete cascade,
  seq bigint not null,
  at timestamptz(3) not null default clock_timestamp(),
  message text,
  data jsonb,
  primary key (job_id, seq)
);

-- The file of an IMPORT job, in pieces: any process can do the import, also after the one that received it has died.
create table import_chunk (
  job_id uuid not null references job on delete cascade,
  seq int not null,
  data bytea not null,
  primary key (job_id, seq)
);
alter table import_chunk alter column data set storage external;

-- Numbers the event under the lock of the job's row, in the transaction that makes it true: a reader that sees number
-- n has seen, or can read, all before it.
create function append_job_event(job uuid, message text, details jsonb default '{}') returns void
language plpgsql as $$
declare
  changed record;
begin
  update job j set last_seq = last_seq + 1 where j.id = append_job_event.job
    returning j.last_seq, jsonb_build_object('state', j.state, 'total', j.total, 'succeeded', j.succeeded,
      'failed', j.failed, 'skipped', j.skipped, 'error', j.error) || append_job_event.details as data
    into changed;
  if not found then
    return;
  end if;
  insert into job_event (job_id, seq, message, data)
    values (append_job_event.job, changed.last_seq, append_job_event.message, changed.data);
  perform pg_notify('quarry_job', append_job_event.job || ' ' || changed.last_seq);
end $$;

-- Embeddings ------------------------------------------------------------------------------------------------------

create table embedding_space (
  id int generated always as identity primary key,
  provider provider_type not null,
  model text not null,
  -- pgvector indexes vector up to 2000 dimensions and halfvec up to 4000.
  dimensions int not null check (dimensions between 1 and 4000),
  state space_state not null,
  created_at timestamptz(3) not null default now()
);
create unique index embedding_space_identity on embedding_space (provider, model, dimensions) where state <> 'RETIRED';
create unique index embedding_space_one_active on embedding_space (state) where state = 'ACTIVE';

-- One owner's vector in one space. The rows that are PENDING or STALE are the work queue. A partition for each space,
-- made with it; the vector's dimension is that of the space.
create table embedding (
  space_id int not null references embedding_space,
  kind entity_kind not null,
  owner_id uuid not null,
  status embedding_status not null,
  -- Of the text that is to be embedded: what a vector is compared with before it is stored as READY.
  content_hash uuid not null,
  attempts int not null default 0,
  next_attempt_at timestamptz(3),
  -- The process that is embedding it now. Holds as long as that process is entered in `process`, so a killed one holds
  -- nothing back. In the row itself, so that two that claim at once meet at its lock; in no index, so that a claim
  -- does not re-index the row.
  leased_by bigint,
  last_error text,
  embedded_at timestamptz(3),
  vector vector,
  primary key (space_id, kind, owner_id)
) partition by list (space_id);
create index embedding_owed on embedding (owner_id) where status in ('PENDING', 'STALE');
create index embedding_by_hash on embedding (content_hash) where status = 'READY';
create index embedding_errors on embedding (kind, owner_id) where last_error is not null;

-- Rows whose end a job waits for.
create table embedding_request (
  job_id uuid not null references job on delete cascade,
  space_id int not null,
  kind entity_kind not null,
  owner_id uuid not null,
  primary key (space_id, kind, owner_id, job_id)
);
create index embedding_request_job on embedding_request (job_id);

-- Kept counts: the sum of n is the number of rows. Changes are appended, never updated in place, because every writer
-- would wait for the same few rows; compact_embedding_counts() folds them.
create table embedding_count (
  space_id int not null,
  kind entity_kind not null,
  status embedding_status not null,
  n bigint not null
);

create function compact_embedding_counts() returns void
language sql as $$
  with gone as (delete from embedding_count returning *)
  insert into embedding_count (space_id, kind, status, n)
    select space_id, kind, status, sum(n) from gone group by 1, 2, 3 having sum(n) <> 0;
$$;

create function text_hash(text) returns uuid
language sql immutable parallel safe
return md5($1)::uuid;

-- White space, zero-width and byte-order marks alone are nothing to embed.
create function is_blank(text) returns boolean
language sql immutable parallel safe
return btrim($1, E' \t\n\v\f\r\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff') = '';

-- What is embedded of each owner; the one place that says so.
create view embeddable as
  select 'MESSAGE'::entity_kind as kind, id as owner_id, content as text from message
  union all
  select 'ATOM', id, atom_text(title, content) from atom
  union all
  select 'TOPIC', id, topic_text(name, description, keywords) from topic;

-- Rows for owners that are new, in every space that is filled or used; owners that have one are left as they are.
create function owe_embeddings(kind entity_kind, ids uuid[], texts text[]) returns void
language plpgsql as $$
begin
  insert into embedding (space_id, kind, owner_id, status, content_hash)
    select s.id, owe_embeddings.kind, owner.id,
      case when is_blank(owner.text) then 'SKIPPED' else 'PENDING' end::embedding_status, text_hash(owner.text)
    from unnest(ids, texts) as owner(id, text), embedding_space s
    where s.state in ('BUILDING', 'ACTIVE')
    on conflict do nothing;
  perform pg_notify('quarry_embedding_owed', '');
end $$;

-- The text changed: what was known of it is void. A vector of the old text stays findable (STALE) until the new one is
-- there; one that is under way now is not stored, because its hash no longer fits.
create function void_embeddings(kind entity_kind, ids uuid[], texts text[]) returns void
language plpgsql as $$
begin
  update embedding e set
      status = (case when is_blank(owner.text) then 'SKIPPED' when e.vector is null then 'PENDING' else 'STALE' end)::embedding_status,
      content_hash = text_hash(owner.text),
      vector = case when is_blank(owner.text) then null else e.vector end,
      attempts = 0, next_attempt_at = null, leased_by = null, last_error = null
    from unnest(ids, texts) as owner(id, text), embedding_space s
    where s.state in ('BUILDING', 'ACTIVE') and e.space_id = s.id and e.kind = void_embeddings.kind and e.owner_id = owner.id;
  perform pg_notify('quarry_embedding_owed', '');
end $$;

create function drop_embeddings(kind entity_kind, ids uuid[]) returns void
language sql as $$
  delete from embedding e where e.space_id in (select id from embedding_space)
    and e.kind = drop_embeddings.kind and e.owner_id = any (ids);
$$;

create function message_embedding_trigger() returns trigger
language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform owe_embeddings('MESSAGE', array_agg(id), array_agg(content)) from new_rows having count(*) > 0;
  elsif tg_op = 'UPDATE' then
    perform void_embeddings('MESSAGE', array_agg(n.id), array_agg(n.content))
      from new_rows n join old_rows o using (id) where n.content <> o.content having count(*) > 0;
  else
    perform drop_embeddings('MESSAGE', array_agg(id)) from old_rows having count(*) > 0;
  end if;
  return null;
end $$;
create trigger message_embedding_insert after insert on message
  referencing new table as new_rows for each statement execute function message_embedding_trigger();
create trigger message_embedding_update after update on message
  referencing old table as old_rows new table as new_rows for each statement execute function message_embedding_trigger();
create trigger message_embedding_delete after delete on message
  referencing old table as old_rows for each statement execute function message_embedding_trigger();

create function atom_embedding_trigger() returns trigger
language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform owe_embeddings('ATOM', array_agg(id), array_agg(atom_text(title, content))) from new_rows having count(*) > 0;
  elsif tg_op = 'UPDATE' then
    perform void_embeddings('ATOM', array_agg(n.id), array_agg(atom_text(n.title, n.content)))
      from new_rows n join old_rows o using (id)
      where atom_text(n.title, n.content) <> atom_text(o.title, o.content) having count(*) > 0;
  else
    perform drop_embeddings('ATOM', array_agg(id)) from old_rows having count(*) > 0;
  end if;
  return null;
end $$;
create trigger atom_embedding_insert after insert on atom
  referencing new table as new_rows for each statement execute function atom_embedding_trigger();
create trigger atom_embedding_update after update on atom
  referencing old table as old_rows new table as new_rows for each statement execute function atom_embedding_trigger();
create trigger atom_embedding_delete after delete on atom
  referencing old table as old_rows for each statement execute function atom_embedding_trigger();

create function topic_embedding_trigger() returns trigger
language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    perform owe_embeddings('TOPIC', array_agg(id), array_agg(topic_text(name, description, keywords))) from new_rows having count(*) > 0;
  elsif tg_op = 'UPDATE' then
    perform void_embeddings('TOPIC', array_agg(n.id), array_agg(topic_text(n.name, n.description, n.keywords)))
      from new_rows n join old_rows o using (id)
      where topic_text(n.name, n.description, n.keywords) <> topic_text(o.name, o.description, o.keywords) having count(*) > 0;
  else
    perform drop_embeddings('TOPIC', array_agg(id)) from old_rows having count(*) > 0;
  end if;
  return null;
end $$;
create trigger topic_embedding_insert after insert on topic
  referencing new table as new_rows for each statement execute function topic_embedding_trigger();
create trigger topic_embedding_update after update on topic
  referencing old table as old_rows new table as new_rows for each statement execute function topic_embedding_trigger();
create trigger topic_embedding_delete after delete on topic
  referencing old table as old_rows for each statement execute function topic_embedding_trigger();

-- Adds to a job's counts; when everything it waited for has ended, so has the job.
create function count_embedding_results(job uuid, succeeded int, failed int, skipped int) returns void
language plpgsql as $$
declare
  counted record;
begin
  update job j set
      succeeded = j.succeeded + count_embedding_results.succeeded,
      failed = j.failed + count_embedding_results.failed,
      skipped = j.skipped + count_embedding_results.skipped
    where j.id = count_embedding_results.job
    returning j.state, j.total, j.succeeded + j.failed + j.skipped as ended into counted;
  if counted.state = 'RUNNING' and counted.ended >= counted.total then
    update job j set state = 'SUCCEEDED', finished_at = now() where j.id = count_embedding_results.job;
  end if;
  perform append_job_event(count_embedding_results.job, null);
end $$;

-- Keeps the counts and settles the jobs that wait, in the statement that changes the rows: neither can drift or be
-- forgotten by any code path.
create function embedding_changed() returns trigger
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
      perform count_embedding_results(result.job_id, 0, 0, result.skipped);
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
            and n.status in ('READY', 'FAILED', 'SKIPPED') returning r.job_id, n.status)
      select job_id, count(*) filter (where status = 'READY')::int as succeeded,
        count(*) filter (where status = 'FAILED')::int as failed,
        count(*) filter (where status = 'SKIPPED')::int as skipped
      from settled group by job_id order by job_id
    loop
      perform count_embedding_results(result.job_id, result.succeeded, result.failed, result.skipped);
    end loop;
  end if;
  perform pg_notify('quarry_embedding_changed', '');
  return null;
end $$;
create trigger embedding_inserted after insert on embedding
  referencing new table as new_rows for each statement execute function embedding_changed();
create trigger embedding_updated after update on embedding
  referencing old table as old_rows new table as new_rows for each statement execute function embedding_changed();
create trigger embedding_deleted after delete on embedding
  referencing old table as old_rows for each statement execute function embedding_changed();
