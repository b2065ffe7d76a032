create type atom_link_type as enum ('CONTINUES', 'SOLVES', 'CONTRADICTS', 'SUPPORTS', 'REFINES', 'RELATES_TO', 'DEPENDS_ON');

-- Conversations ---------------------------------------------------------------------------------------------------

-- The grouped messages of a channel in the order of time: what a new one may answer. Those that wait have an index of
-- their own, so a message is in one of the two.
create index message_grouped on message (source_id, channel, sent_at, id) where conversation_id is not null;
create index message_thread on message (source_id, channel, thread_id, sent_at, id) where thread_id is not null;
create index message_conversation on message (conversation_id) where conversation_id is not null;
-- The queue of those that belong to no conversation yet.
create index message_ungrouped on message (source_id, channel, sent_at, id) where conversation_id is null;

-- Knowledge -------------------------------------------------------------------------------------------------------

-- How near is near enough differs from model to model. Similarities, 1 - cosine distance / 2.
alter table embedding_space
  -- From here on two topics are one.
  add column same_topic real not null default 0.85 check (same_topic between 0 and 1),
  -- Above, a proposed atom is a revision of the one that is there.
  add column same_atom real not null default 0.95 check (same_atom between 0 and 1),
  -- From here on to same_atom, two atoms are related.
  add column related_atom real not null default 0.85 check (related_atom between 0 and 1),
  -- From here on an atom belongs to further topics, too.
  add column further_topic real not null default 0.80 check (further_topic between 0 and 1);

alter table atom
  -- Who proposed it; null if a person wrote it.
  add column extracted_by provider_type,
  add column extraction_model text,
  add column job_id uuid references job on delete set null,
  -- Why it was rejected.
  add column review_note text;
create index atom_job on atom (job_id) where job_id is not null;

alter table topic
  -- The name without what does not tell topics apart (case, accents, plural); see topicKey().
  add column key text,
  add column extracted_by provider_type,
  add column job_id uuid references job on delete set null;
update topic set key = name;
alter table topic alter column key set not null, add unique (key);
create index topic_job on topic (job_id) where job_id is not null;

-- The exact words that an atom was cut from.
create table citation (
  atom_id uuid not null references atom on delete cascade,
  message_id uuid not null references message on delete cascade,
  -- Where the quote began in the message when it was cut, in UTF-16 units.
  start int not null check (start >= 0),
  quote text not null check (quote <> ''),
  primary key (atom_id, message_id, start)
);
create index citation_message on citation (message_id, atom_id);

create table atom_link (
  id uuid primary key,
  from_id uuid not null references atom on delete cascade,
  to_id uuid not null references atom on delete cascade,
  type atom_link_type not null,
  strength real check (strength between 0 and 1),
  created_at timestamptz(3) not null default now(),
  unique (from_id, to_id, type),
  check (from_id <> to_id)
);
create index atom_link_from on atom_link (from_id, id);
create index atom_link_to on atom_link (to_id, id);

-- A change that was proposed: of an atom or of a topic.
create table revision (
  id uuid primary key,
  atom_id uuid references atom on delete cascade,
  topic_id uuid references topic on delete cascade,
  number int not null,
  state review_state not null default 'PENDING',
  changes jsonb not null,
  job_id uuid references job on delete set null,
  created_at timestamptz(3) not null default now(),
  decided_at timestamptz(3),
  check (num_nonnulls(atom_id, topic_id) = 1),
  check ((decided_at is null) = (state = 'PENDING')),
  unique (atom_id, number),
  unique (topic_id, number)
);
create index revision_job on revision (job_id) where job_id is not null;

-- Names under which a topic is found besides its own: those of topics that were merged into it, and its earlier ones.
create table topic_alias (
  key text primary key,
  topic_id uuid not null references topic on delete cascade
);
create index topic_alias_topic on topic_alias (topic_id);

-- Extraction ------------------------------------------------------------------------------------------------------

-- What has become of a message that was given to an extractor. A claim holds as long as its job is under way.
create table message_extraction (
  message_id uuid primary key references message on delete cascade,
  job_id uuid references job on delete set null,
  -- When it was read, with or without a result.
  extracted_at timestamptz(3),
  -- How often its batch has failed, and why the last time.
  failures smallint not null default 0,
  last_error text
);
create index message_extraction_job on message_extraction (job_id) where extracted_at is null;

-- Another text is another message to an extractor, and proves only what it still says.
create function message_text_changed() returns trigger
language plpgsql as $$
begin
  delete from message_extraction e using new_rows n join old_rows o using (id)
    where e.message_id = n.id and n.content <> o.content;
  delete from citation c using new_rows n join old_rows o using (id)
    where c.message_id = n.id and n.content <> o.content and position(c.quote in n.content) = 0;
  return null;
end $$;
create trigger message_text_changed after update on message
  referencing old table as old_rows new table as new_rows for each statement execute function message_text_changed();

-- What nothing proves any more goes: with its last message in any case; with a change of the text unless a person has
-- approved it.
create function citation_gone() returns trigger
language plpgsql as $$
begin
  delete from atom a using old_rows o
    where a.id = o.atom_id and a.extracted_by is not null
      and not exists (select from citation c where c.atom_id = a.id)
      and (a.review_state <> 'APPROVED' or not exists (select from message m where m.id = o.message_id));
  return null;
end $$;
create trigger citation_gone after delete on citation
  referencing old table as old_rows for each statement execute function citation_gone();
