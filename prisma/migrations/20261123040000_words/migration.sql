-- Words -----------------------------------------------------------------------------------------------------------

-- Cut by the application (src/words), the same for every database: Postgres' own parser depends on the locale, keeps
-- file names whole, and knows no word of a script without spaces. NULL: not cut yet; whoever works finds such rows.
drop index message_words, atom_words, topic_words;
drop function search_words(text);
alter table message add column words tsvector, add column word_count int;
alter table atom add column words tsvector, add column word_count int;
alter table topic add column words tsvector, add column word_count int;
create index message_words on message using gin (words);
create index atom_words on atom using gin (words);
create index topic_words on topic using gin (words);
create index message_wordless on message (id) where words is null;
create index atom_wordless on atom (id) where words is null;
create index topic_wordless on topic (id) where words is null;

create function tell_wordless() returns trigger
language plpgsql as $$
begin
  if exists (select from new_rows where words is null) then perform pg_notify('quarry_words_owed', ''); end if;
  return null;
end $$;
create trigger message_wordless after insert on message
  referencing new table as new_rows for each statement execute function tell_wordless();
create trigger atom_wordless after insert on atom
  referencing new table as new_rows for each statement execute function tell_wordless();
create trigger topic_wordless after insert on topic
  referencing new table as new_rows for each statement execute function tell_wordless();

-- Whoever changes a text and not its words leaves words that are no longer in it.
create function forget_words() returns trigger
language plpgsql as $$
begin
  new.words := null;
  perform pg_notify('quarry_words_owed', '');
  return new;
end $$;
create trigger message_words_forgotten before update of content on message for each row
  when (new.content <> old.content and new.words is not distinct from old.words) execute function forget_words();
create trigger atom_words_forgotten before update of title, content on atom for each row
  when ((new.title, new.content) <> (old.title, old.content) and new.words is not distinct from old.words)
  execute function forget_words();
create trigger topic_words_forgotten before update of name, description, keywords on topic for each row
  when ((new.name, new.description, new.keywords) is distinct from (old.name, old.description, old.keywords)
    and new.words is not distinct from old.words)
  execute function forget_words();

-- How many texts have a word, of those in more than one text, as they were counted last.
create table word_frequency (
  word text collate "C" primary key,
  documents int not null
);

-- Of each kind, when the words were counted last.
create table word_statistics (
  kind entity_kind primary key,
  documents int not null,
  -- Words of a text, on average.
  average_length real not null
);
-- Until they are counted, a guess.
insert into word_statistics select kind, 0, 20 from unnest(enum_range(null::entity_kind)) as kind;

-- How often a text has a word. ts_rank of one word that stands n times, every place weighing 1, is (1/1² + ... + 1/n²) /
-- 1.64493406685 (calc_rank_or in Postgres' tsrank.c); what is missing of the whole series, pi² / 6, is close to
-- 1 / (n + 1/2).
create function occurrences(words tsvector, word tsquery) returns float8
language sql immutable parallel safe
return round(1 / (1.64493406685 * (1.0000001 - ts_rank('{1,1,1,1}', words, word))) - 0.5);

-- A word as tsquery reads it; see lexeme() in src/words/lexemes.ts.
create function quote_lexeme(word text) returns text
language sql immutable parallel safe
return '''' || replace(replace(word, '\', '\\'), '''', '''''') || '''';
