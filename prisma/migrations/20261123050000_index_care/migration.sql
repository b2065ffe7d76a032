-- Vector indexes --------------------------------------------------------------------------------------------------

-- In what precision the vectors of a space are indexed and compared; they are stored whole. HALF takes half of the room.
create type vector_precision as enum ('FULL', 'HALF');
alter table embedding_space
  add column precision vector_precision not null default 'FULL',
  -- Being indexed beside; searches change over when all indexes are there. Null: none.
  add column next_precision vector_precision;
-- pgvector indexes `vector` up to 2000 dimensions only.
update embedding_space set precision = 'HALF' where dimensions > 2000;

-- What is known of the vector index of a kind in a space besides what Postgres' own catalogues say.
create table vector_index (
  space_id int not null references embedding_space on delete cascade,
  kind entity_kind not null,
  -- Set when somebody asks, null when it was done.
  rebuild_requested_at timestamptz(3),
  measure_requested_at timestamptz(3),
  built_at timestamptz(3),
  build_seconds real,
  -- Why it was built.
  build_reason text,
  -- Share of the ten nearest rows that a scan of the index finds, of an exact scan: of so many queries.
  recall real check (recall between 0 and 1),
  recall_queries int not null default 0,
  recall_source text check (recall_source in ('SEARCHES', 'STORED')),
  measured_at timestamptz(3),
  -- Rows with a vector when it was measured.
  measured_rows int,
  -- What went wrong last; null when all went well since.
  last_error text,
  primary key (space_id, kind)
);

-- Vectors of searches, the newest few hundred: what recall is measured with. No words, nobody's name.
create table search_sample (
  id bigint generated always as identity primary key,
  space_id int not null references embedding_space on delete cascade,
  vector vector not null
);
create index search_sample_space on search_sample (space_id, id);

-- Somebody has asked for something: whoever works looks at once.
create function index_care_requested() returns trigger
language plpgsql as $$
begin
  perform pg_notify('quarry_index_care', '');
  return null;
end $$;
create trigger vector_index_requested after insert or update of rebuild_requested_at, measure_requested_at on vector_index
  for each statement execute function index_care_requested();

-- Alerts ----------------------------------------------------------------------------------------------------------

-- Not only of jobs any more.
create type alert_type as enum ('JOBS_FAILING', 'RECALL_LOW');
alter table alert
  add column type alert_type not null default 'JOBS_FAILING',
  -- Of which index: RECALL_LOW only.
  add column space_id int references embedding_space on delete cascade,
  add column entity_kind entity_kind,
  alter column kind drop not null,
  alter column failures set default 0,
  add constraint alert_subject check (
    case type when 'JOBS_FAILING' then kind is not null and entity_kind is null and space_id is null
      else kind is null and entity_kind is not null and space_id is not null end);
create unique index alert_recall_open on alert (space_id, entity_kind) where resolved_at is null and type = 'RECALL_LOW';
