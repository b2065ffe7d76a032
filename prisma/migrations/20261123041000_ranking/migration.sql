-- Ranking ---------------------------------------------------------------------------------------------------------

-- How far a model can be trusted differs from model to model, see Calibration in src/providers/provider.ts.
alter table embedding_space
  -- Share of meaning in a hybrid score, among short texts and among long ones.
  add column meaning_share double precision not null default 0.5 check (meaning_share between 0 and 1),
  add column meaning_share_long double precision not null default 0.4 check (meaning_share_long between 0 and 1),
  -- From this similarity on, two texts say the same.
  add column duplicate double precision not null default 0.95 check (duplicate between 0 and 1);
update embedding_space set meaning_share = 0.4, meaning_share_long = 0.25, duplicate = 0.934 where provider = 'LOCAL';

-- Searches and lists of one channel, as there are for authors and sources.
create index message_channel_sent_at on message (channel, sent_at, id);
