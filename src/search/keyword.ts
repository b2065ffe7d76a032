import {
  type EmbeddingSpace,
  type EntityKind,
  indexedVector,
  leftJoinEmbedding,
} from '../embedding/spaces.ts'
import { lexeme, phrase } from '../words/lexemes.ts'
import type { WordQuery } from '../words/query.ts'
import { leastTrusted } from '../words/statistics.ts'
import { dampingOf, k1 } from './bm25.ts'
import { filterConditions, ownerTable, Parameters, type SearchFilter, wordConditions } from './filter.ts'
import { isRestricted, type Statement } from './statements.ts'

/** What the very form of a word adds to its stem. */
const formWorth = 0.3
/**
 * What a small word ("the", "und", "que") is worth. Among few or short texts these are rare enough to lift what has
 * nothing else of the query; left out, they could not be searched for, and names made of them would be lost.
 */
const smallWorth = 0.3
/**
 * What a word is worth that only begins like the last one of the query, in a text without that one: all, if no text has
 * it, so that it can only be half typed; else so much.
 */
const prefixWorth = 0.3
/** What a name of several words adds to them where it stands whole. */
const nameWorth = 1
/** Rare words are counted when they are asked for; no further than this. */
const maxCounted = 5_000
/**
 * The rarest words are looked up first, as long as they are together in no more texts than this: enough to know how good
 * the best are, so that of the other words only those are looked up that can lift a text among them.
 */
const firstScored = 1_000
/**
 * Words that are together in more texts than this are looked up in texts that have all of them, where these are fewer,
 * and in the newest: to score every text that has such a word would take longer than anybody waits.
 */
const maxScored = 3_000
/** So many of the newest texts that the filter leaves are gone through at the most, until so many have such a word. */
const newestRead = 5_000
const newestScored = 1_000
/** Without a filter not where the other words bring up about so many: they fill the deepest page. */
const deepestPage = 501

/** A text that has words of the query. */
export interface KeywordCandidate {
  kind: EntityKind
  id: string
  /** BM25, as a share of what a text with all words very many times would have: 0..1. */
  wordScore: number
  /** Cosine distance to the query, 0..2; null where the row has no vector yet. */
  distance: number | null
  /** Words of a text of this kind, on average. */
  averageLength: number
  /** No text that was not looked up has a higher score than this. */
  unseen: number
}

/** One thing that a text may have, and what that is worth. */
interface Clue {
  /** tsquery: a word or a phrase. */
  match: string
  /** tsquery that counts as the same: a word of a text whose language has no stems. */
  alternative: string | null
  /** The word whose frequency is kept, if it is one. */
  word: string | null
  /** What words begin with, if it is a beginning. */
  beginning: string | null
  /** tsquery: the word, its forms and its beginning are clues of; null of a name. */
  term: string | null
  /** Else it is there or it is not: ts_rank counts no phrases, and adds up what it finds of each word that begins so. */
  isCounted: boolean
  worth: number
}

function cluesOf({ terms, names }: WordQuery): Clue[] {
  return [
    ...terms.flatMap(({ stem, forms, count, isSmall, beginning }) => {
      // A word that is said again is meant more, but not twice as much.
      const worth = Math.sqrt(count) * (isSmall ? smallWorth : 1)
      const others = forms.filter((form) => form !== stem)
      const alternative = others.length > 0 ? others.map(lexeme).join(' | ') : null
      const term = lexeme(stem)
      return [
        { ...plain, term, match: term, alternative, word: stem, worth },
        ...others.map((form) => ({
          ...plain,
          term,
          match: lexeme(form),
          word: form,
          worth: worth * formWorth,
        })),
        ...(beginning === null
          ? []
          : [{ ...plain, term, match: `${lexeme(beginning)}:*`, beginning, isCounted: false, worth }]),
      ]
    }),
    ...names.map((words) => ({ ...plain, match: phrase(words), isCounted: false, worth: nameWorth })),
  ]
}

/** Unicode's last: what begins with a word stands before the word with this behind it. */
const lastCharacter = '\u{10ffff}'
const plain = { term: null, alternative: null, word: null, beginning: null, isCounted: true }

/**
 * The best rows by words, by BM25. Each also gets its distance if a vector of the query is given, so that both legs of
 * a hybrid search can be scored alike.
 * @param limit of each kind
 * @param floor score, 0..1, of a text that is as good as needed: words that all together cannot lift a text above it are
 * not looked up (Turtle and Flood, "Query evaluation: strategies and optimizations", 1995). Null: not known yet, only the
 * rarer words are looked up. Both are exact down to the score `unseen`, but for words that are in more than `maxScored`
 * texts: these are looked up in the newest, where the floor asks for them.
 * @param total of all kinds
 */
export function keywordStatement(
  space: EmbeddingSpace,
  kinds: readonly EntityKind[],
  filter: SearchFilter,
  query: WordQuery,
  vector: Buffer | null,
  limit: number,
  floor: number | null,
  total = limit,
): Statement {
  const parameters = new Parameters()
  const clues = cluesOf(query)
  const column = (field: keyof Clue, type: string) =>
    `${parameters.add(clues.map((each) => each[field]))}::${type}[]`
  const asked = `unnest(${column('match', 'tsquery')}, ${column('alternative', 'tsquery')}, ${column('word', 'text')}, ${column('beginning', 'text')}, ${column('term', 'tsquery')}, ${column('isCounted', 'bool')}, ${column('worth', 'float8')})`
  const count = parameters.add(limit)
  const { expression, type } = indexedVector(space, 'e.vector')
  const distance =
    vector === null ? 'null::float8' : `${expression} <=> ${parameters.add(vector)}::vector::${type}`
  const counted = Object.values(ownerTable)
    .map(
      ({ table }) =>
        `(select count(*) from (select from ${table} where words @@ a.match limit ${maxCounted}) as c)`,
    )
    .join(' + ')
  const isNeeded =
    floor === null
      ? `texts_up_to_here <= ${firstScored}`
      : `up_to_here > ${parameters.add(floor)}::float8 * max(up_to_here) over ()`
  const any = `string_agg(concat_ws(' | ', match::text, alternative::text), ' | ')`
  const legs = kinds.map((kind) => {
    const { table, alias, newestFirst } = ownerTable[kind]
    const words = `${alias}.words`
    const conditions = [
      ...filterConditions(kind, filter, parameters),
      ...wordConditions(kind, query, parameters),
    ]
    const columns = `${alias}.id, ${words}, ${alias}.word_count`
    const among = [
      `select ${columns} from ${table} ${alias}
        where ${[`${words} @@ (select match from looked_up)`, ...conditions].join(' and ')}`,
    ]
    // Not by the index of words: it would bring up each text that has the word before it is asked how new it is.
    if (floor !== null) {
      among.push(`(select newest.* from (
          select ${columns} from ${table} ${alias} where ${['(select common from looked_up) is not null', ...conditions].join(' and ')}
          order by ${newestFirst} limit ${newestRead}
        ) as newest where words @@ (select common from looked_up) and words @@ (select match from looked_up) is not true
        limit ${newestScored})`)
    }
    // The inner query stands for itself (offset 0): its damping is computed once, not for each clue.
    return `(select '${kind}'::entity_kind as kind, text.id, (
        select sum(q.worth * ${k1 + 1} * (1 - damping / (damping
          + case when q.is_counted then greatest(occurrences(text.words, q.match), occurrences(text.words, q.alternative))
            else (text.words @@ q.match)::int end)))
        from clue q where q.beginning is null or not text.words @@ q.term) as score
      from (
        select id, words, ${dampingOf(kind, 'word_count')} as damping
        from (${among.join('\nunion all\n')}) as found offset 0
      ) as text order by score desc nulls last, text.id limit ${count})`
  })
  return {
    text: `with all_texts as materialized (
        select greatest(sum(documents), 1)::float8 as total from word_statistics
      ), counted as materialized (
        select a.match, a.alternative, a.beginning, a.term, a.is_counted, a.worth,
          coalesce((select f.documents from word_frequency f
              where f.word = a.word and f.documents >= ${leastTrusted('total')}),
            (select least(sum(f.documents), total) from word_frequency f
              where f.word >= a.beginning and f.word < a.beginning || '${lastCharacter}'
              having sum(f.documents) >= ${maxCounted}),
            ${counted})::float8 as documents
        from ${asked} as a(match, alternative, word, beginning, term, is_counted, worth), all_texts
      ), clue as materialized (
        select match, alternative, beginning, term, is_counted, documents,
          worth * ln(1 + (greatest(total - documents, 0) + 0.5) / (documents + 0.5)) * case when c.beginning is not null
            and exists (select from counted o where o.match = c.term and o.documents > 0) then ${prefixWorth} else 1 end as worth
        from counted c, all_texts
      ), ordered as materialized (
        select *, ${k1 + 1} * sum(worth) over (order by worth, match::text) as up_to_here,
          total * (1 - exp(sum(ln(greatest(1 - documents / total, 1e-9))) over (order by documents, match::text))) as texts_up_to_here
        from clue, all_texts
      ), needed as materialized (
        select *, ${isNeeded} as is_needed, texts_up_to_here <= ${maxScored} as is_bearable from ordered
      ), common_term as materialized (
        select ${any} as any_form, max(documents) as documents from needed
        where is_needed and not is_bearable and term is not null group by term
      ), with_all as materialized (
        select string_agg('(' || any_form || ')', ' & ') as match, max(total) * exp(sum(ln(documents / total))) as documents
        from common_term, all_texts having max(total) * exp(sum(ln(documents / total))) <= ${maxScored}
      ), looked_up as materialized (
        select nullif(concat_ws(' | ', ${any} filter (where is_needed and is_bearable), (select match from with_all)), '')::tsquery as match,
          case when ${isRestricted(filter, query)}
            or coalesce(max(texts_up_to_here) filter (where is_needed and is_bearable), 0)
            + coalesce((select documents from with_all), 0) < ${deepestPage}
            then ${any} filter (where is_needed and not is_bearable) end::tsquery as common,
          coalesce(max(up_to_here) filter (where not (is_needed and is_bearable)), 0) as unseen,
          max(up_to_here) as total
        from needed
      )
      select leg.kind, leg.id, (leg.score / l.total)::float8 as "wordScore", (l.unseen / l.total)::float8 as unseen,
        (select average_length::float8 from word_statistics s where s.kind = leg.kind) as "averageLength",
        (${distance})::float8 as distance
      from (${legs.join('\nunion all\n')}) as leg cross join looked_up l
      ${leftJoinEmbedding(space, 'leg.kind', 'leg.id')}
      order by leg.score desc nulls last, leg.id limit ${parameters.add(total)}`,
    values: parameters.values,
    // What it looks up is known only while it runs: no plan depends on the values.
    ...(isRestricted(filter, query)
      ? {}
      : {
          name: `words ${space.id} ${space.precision} ${kinds.join(' ')}${floor === null ? '' : ' above'}${vector === null ? '' : ' near'}`,
        }),
  }
}
