-- Moving to another embedding model: a new space is filled beside the active one, searches change over to it, and the
-- one before stays in step, so that they can change back, until it is retired.

alter table embedding_space
  -- Who embeds it; null: the provider of the environment.
  add column provider_id uuid references provider,
  -- Whether the length of the vectors was chosen: then it is asked for with each request.
  add column has_chosen_dimensions boolean not null default false,
  -- Whether what is owed is embedded: not before the job that fills the space has asked for its rows, so that it counts
  -- them, nor while that is cancelled.
  add column is_filled boolean not null default true,
  -- When searches last changed over to it; null: never.
  add column activated_at timestamptz(3),
  add column retired_at timestamptz(3),
  -- When its vectors were dropped: some time after it was retired, when no process can use it any more.
  add column dropped_at timestamptz(3),
  -- The job that fills it.
  add column job_id uuid references job on delete set null,
  -- How its answers compare with those of the active space; null: not compared yet. See src/search/compare.ts.
  add column comparison jsonb,
  -- Why its provider does nothing, and until when it is left alone. Only of a space that has a provider_id: for the
  -- environment's, provider_status says it.
  add column provider_error text,
  add column provider_waiting_until timestamptz(3);
update embedding_space set activated_at = created_at where state = 'ACTIVE';

drop index embedding_space_identity;
create unique index embedding_space_identity on embedding_space (provider, model, dimensions, provider_id)
  nulls not distinct where state <> 'RETIRED';
-- One migration at a time; a space that was active before and stays in step is none.
create unique index embedding_space_one_building on embedding_space (state)
  where state = 'BUILDING' and activated_at is null;
create index embedding_space_provider on embedding_space (provider_id);
create index embedding_space_job on embedding_space (job_id);

-- Which processes may use a space. The vectors of a retired one are dropped when nobody is entered here any more; a
-- process that was killed is taken out of `process` within half a minute, and with that from here.
create table space_use (
  space_id int not null references embedding_space on delete cascade,
  process_id bigint not null references process on delete cascade,
  primary key (space_id, process_id)
);
create index space_use_process on space_use (process_id);

-- A retired space is history: it does not hold its provider.
create function provider_leaves_retired_spaces() returns trigger
language plpgsql as $$
begin
  delete from embedding_space where provider_id = old.id and state = 'RETIRED' and dropped_at is not null;
  return old;
end $$;
create trigger provider_leaves_retired_spaces before delete on provider
  for each row execute function provider_leaves_retired_spaces();

-- A migration that is cancelled costs nothing more: what it has embedded stays, and the rest waits until its job is taken
-- up again. In the statement that changes the job, so that no way of ending it can forget to.
create function migration_job_changed() returns trigger
language plpgsql as $$
begin
  if new.state = 'CANCELLED' then
    update embedding_space set is_filled = false where job_id = new.id and activated_at is null;
  end if;
  perform pg_notify('quarry_spaces', ''), pg_notify('quarry_index_care', '');
  return null;
end $$;
create trigger migration_job_changed after update of state on job
  for each row when (new.kind = 'MIGRATE_EMBEDDINGS' and new.state <> old.state)
  execute function migration_job_changed();

-- Rows of a retired space are nobody's any more: whoever deletes a message must not wait for whoever drops them.
create or replace function drop_embeddings(kind entity_kind, ids uuid[]) returns void
language plpgsql as $$
begin
  perform lock_embeddings(s.id, array_fill(drop_embeddings.kind, array[cardinality(ids)]), ids)
    from embedding_space s where s.state <> 'RETIRED';
  delete from embedding e where e.space_id in (select id from embedding_space where state <> 'RETIRED')
    and e.kind = drop_embeddings.kind and e.owner_id = any (ids);
end $$;

-- Queries that the answers of two spaces are compared with. Those that people have saved stay; of the others, which
-- searches have asked lately, the newest few hundred.
create table search_query (
  id uuid primary key,
  query text not null,
  is_saved boolean not null,
  asked_at timestamptz(3) not null default now()
);
-- By its hash: a query may be longer than an entry of an index.
create unique index search_query_text on search_query (text_hash(query));
create index search_query_recent on search_query (asked_at) where not is_saved;

-- What people have found to be a right answer to a saved query.
create table search_judgement (
  query_id uuid not null references search_query on delete cascade,
  kind entity_kind not null,
  owner_id uuid not null,
  -- 1 helps, 2 answers, 3 is the best.
  grade int not null check (grade between 1 and 3),
  primary key (query_id, owner_id)
);
