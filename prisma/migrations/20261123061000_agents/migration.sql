-- Who reads messages for knowledge: a chat model of a provider, with instructions.
create table agent (
  id uuid primary key,
  name text not null unique,
  description text not null default '',
  -- A provider that agents use is not deleted.
  provider_id uuid not null references provider,
  model text not null,
  -- Null: those that ship with Quarry, and so always the newest of them.
  instructions text,
  temperature double precision not null default 0 check (temperature between 0 and 2),
  -- Null: up to the provider.
  max_output_tokens int check (max_output_tokens > 0),
  is_active boolean not null default true,
  -- Reads wherever nobody names an agent. None does: what the environment configures.
  is_default boolean not null default false,
  check (is_active or not is_default),
  -- Goes up with each change by a person.
  version int not null default 1,
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now()
);
create unique index agent_default on agent (is_default) where is_default;
create index agent_provider on agent (provider_id);
