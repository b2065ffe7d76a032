-- Providers that administrators add. Those of the environment are not here: what the variables say is true whatever
-- the database says, and how they do is in provider_status, by purpose.
create table provider (
  id uuid primary key,
  name text not null unique,
  type provider_type not null,
  -- Null for LOCAL and for the default address of OPENAI.
  base_url text,
  -- Null: it embeds nothing.
  embedding_model text,
  -- Length of the vectors, as the last validation that succeeded has found it; null until then.
  embedding_dimensions int check (embedding_dimensions > 0),
  -- Null: it extracts nothing.
  extraction_model text,
  is_active boolean not null default true,

  state provider_state not null default 'PENDING',
  -- Why it is in ERROR.
  error text,
  -- When it last did what it was asked.
  validated_at timestamptz(3),
  -- Until when it has asked to be left alone; null or past: it has not.
  waiting_until timestamptz(3),
  -- VALIDATING holds until then only: a process that dies in the middle would leave it behind for ever.
  validating_until timestamptz(3),

  -- The API key, sealed by AES-256-GCM with the row's id as associated data; all null without one.
  key_ciphertext bytea,
  key_nonce bytea check (length(key_nonce) = 12),
  key_tag bytea check (length(key_tag) = 16),
  -- Which encryption key opens it: a fingerprint, not the key.
  key_id text,
  check (num_nonnulls(key_ciphertext, key_nonce, key_tag, key_id) in (0, 4)),

  -- Limits; null: none of ours.
  requests_per_minute int check (requests_per_minute > 0),
  tokens_per_minute int check (tokens_per_minute > 0),
  max_parallel_requests int check (max_parallel_requests > 0),
  -- What the server said of its own limits at the last validation that succeeded; null: nothing.
  stated_requests_per_minute int check (stated_requests_per_minute > 0),
  stated_tokens_per_minute int check (stated_tokens_per_minute > 0),

  -- US dollars for a million tokens; null: not known.
  price_per_million_tokens_in numeric(12, 6) check (price_per_million_tokens_in >= 0),
  price_per_million_tokens_out numeric(12, 6) check (price_per_million_tokens_out >= 0),

  -- Goes up with each change by a person.
  version int not null default 1,
  -- Goes up with a change of address, models or key: what was found out about an earlier one is not stored.
  connection_version int not null default 1,
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now()
);
