-- Updates of a Telegram bot, as they came in: stored first, then worked on by the task telegram_updates.
create table telegram_update (
  -- The name of the source that the messages go to. The source itself is made with its first message.
  source text not null,
  -- Telegram repeats an update until it is answered: the number is how a repetition is known.
  update_id bigint not null,
  -- The text as Telegram sent it. Not jsonb, which refuses what JSON may hold (\u0000, half of a surrogate pair): such
  -- an update could not be stored, and Telegram would send it again and again, and nothing after it.
  body json not null,
  received_at timestamptz(3) not null default now(),
  -- The rest is null until it was worked on.
  processed_at timestamptz(3),
  outcome text check (outcome in ('STORED', 'SUPERSEDED', 'LEFT_OUT', 'FAILED')),
  -- Why it is FAILED.
  error text,
  -- Which version of which message it brought.
  chat_id bigint,
  message_id bigint,
  written_at timestamptz(3),
  primary key (source, update_id),
  check ((processed_at is null) = (outcome is null))
);
create index telegram_update_owed on telegram_update (source, update_id) where processed_at is null;
create index telegram_update_message on telegram_update (source, chat_id, message_id) where outcome = 'STORED';
create index telegram_update_processed on telegram_update (processed_at) where processed_at is not null;

-- How the messages of a chat are told apart in their source. Decided with the first message and kept, because it is
-- part of their identity: a chat that gets a new title would otherwise begin anew.
create table telegram_chat (
  source text not null,
  chat_id bigint not null,
  channel text not null,
  -- What stands before the number of a message in its external id.
  id_prefix text not null,
  primary key (source, chat_id)
);

-- Puts the task for a source into the queue. The updates of a source are worked on one batch at a time.
create function queue_telegram_updates(source text) returns void
language plpgsql as $$
begin
  -- add_job returns nothing, and does nothing, for an entry that a worker takes between two of its statements. That
  -- worker may have looked for updates already; asked again, add_job makes an entry beside the one under way.
  loop
    exit when (graphile_worker.add_job('telegram_updates', json_build_object('source', source),
      queue_name => left('telegram ' || source, 128), job_key => 'telegram ' || source)).id is not null;
  end loop;
end $$;

-- Stores an update and sees to it that it is worked on. False if it is there already.
create function store_telegram_update(source text, update_id bigint, body json) returns boolean
language plpgsql as $$
begin
  insert into telegram_update (source, update_id, body) values ($1, $2, $3) on conflict do nothing;
  if not found then
    return false;
  end if;
  perform queue_telegram_updates($1);
  return true;
end $$;
