import { type EmbeddingSpace, type EntityKind, indexedVector, partitionName } from '../embedding/spaces.ts'
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
 * Words in so many texts that all of them together cannot lift one above a text with the rarest word are not looked up,
 * only counted in those that are found: the sum of what they can be worth, as a share of what the rarest word is.
 */
const commonShare = 0.8

/**
 * So many texts are scored at the most because of words that are looked up in all texts: more would take longer than
 * anybody waits, and words in so many say little.
 */
const maxScored = 10_000
/** Words in more texts than that are looked up in about so many of the newest. */
const newestScored = 2_500

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
  /** Of a beginning: the clue of the whole word. */
  whole: string | null
  /** Of several words: it is there or it is not, because ts_rank counts no phrases. */
  isPhrase: boolean
  worth: number
}

function cluesOf({ terms, names }: WordQuery): Clue[] {
  return [
    ...terms.flatMap(({ stem, forms, count, isSmall, beginning }) => {
      // A word that is said again is meant more, but not twice as much.
      const worth = Math.sqrt(count) * (isSmall ? smallWorth : 1)
      const others = forms.filter((form) => form !== stem)
      const alternative = others.length > 0 ? others.map(lexeme).join(' | ') : null
      const whole = lexeme(stem)
      return [
        { ...plain, match: whole, alternative, word: stem, worth },
        ...others.map((form) => ({ ...plain, match: lexeme(form), word: form, worth: worth * formWorth })),
        ...(beginning === null ? [] : [{ ...plain, match: `${lexeme(beginning)}:*`, whole, worth }]),
      ]
    }),
    ...names.map((words) => ({ ...plain, match: phrase(words), isPhrase: true, worth: nameWorth })),
  ]
}

const firstId = '00000000-0000-0000-0000-000000000000'
const plain = { alternative: null, word: null, whole: null, isPhrase: false }

/**
 * The best rows by words, by BM25. Each also gets its distance if a vector of the query is given, so that both legs of
 * a hybrid search can be scored alike.
 * @param limit of each kind
 * @param reach 'rare' looks up texts by the rarer words only: exact down to the score `unseen`. 'all' looks up the rest,
 * too; words that are in more than `maxScored` texts in the newest ones only
 * @param total of all kinds
 */
export function keywordStatement(
  space: EmbeddingSpace,
  kinds: readonly EntityKind[],
  filter: SearchFilter,
  query: WordQuery,
  vector: Buffer | null,
  limit: number,
  reach: 'rare' | 'all',
  total = limit,
): Statement {
  const parameters = new Parameters()
  const clues = cluesOf(query)
  const column = (field: keyof Clue, type: string) =>
    `${parameters.add(clues.map((each) => each[field]))}::${type}[]`
  const asked = `unnest(${column('match', 'tsquery')}, ${column('alternative', 'tsquery')}, ${column('word', 'text')}, ${column('whole', 'tsquery')}, ${column('isPhrase', 'bool')}, ${column('worth', 'float8')})`
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
  const isBearable = `texts_up_to_here <= ${maxScored}`
  const isLookedUp = reach === 'all' ? isBearable : `${isBearable} and up_to_here > ${commonShare} * most`
  const matchOf = (clues: string) =>
    `string_agg(concat_ws(' | ', match::text, alternative::text), ' | ') filter (where ${clues})::tsquery`
  const legs = kinds.map((kind) => {
    const { table, alias } = ownerTable[kind]
    const words = `${alias}.words`
    const among =
      reach === 'rare'
        ? `${words} @@ (select match from looked_up)`
        : `(${words} @@ (select match from looked_up) or ${words} @@ (select common from looked_up) and ${alias}.id >= coalesce(
            (select id from ${table} order by id desc offset (select newest from looked_up) limit 1), '${firstId}'))`
    const conditions = [
      among,
      ...filterConditions(kind, filter, parameters),
      ...wordConditions(kind, query, parameters),
    ]
    // The inner query stands for itself (offset 0): its damping is computed once, not for each clue.
    return `(select '${kind}'::entity_kind as kind, text.id, (
        select sum(q.worth * ${k1 + 1} * (1 - damping / (damping
          + case when q.is_phrase then (text.words @@ q.match)::int
            else greatest(occurrences(text.words, q.match), occurrences(text.words, q.alternative)) end)))
        from clue q where q.whole is null or not text.words @@ q.whole) as score
      from (
        select ${alias}.id, ${words}, ${dampingOf(kind, `${alias}.word_count`)} as damping
        from ${table} ${alias} where ${conditions.join(' and ')} offset 0
      ) as text order by score desc nulls last, text.id limit ${count})`
  })
  return {
    text: `with all_texts as materialized (
        select sum(documents)::float8 as total from word_statistics
      ), counted as materialized (
        select a.match, a.alternative, a.whole, a.is_phrase, a.worth,
          coalesce((select f.documents from word_frequency f
            where f.word = a.word and f.documents >= ${leastTrusted('total')}), ${counted})::float8 as documents
        from ${asked} as a(match, alternative, word, whole, is_phrase, worth), all_texts
      ), clue as materialized (
        select match, alternative, whole, is_phrase, documents, worth * ln(1 + (greatest(total - documents, 0) + 0.5) / (documents + 0.5))
          * case when exists (select from counted o where o.match = c.whole and o.documents > 0) then ${prefixWorth} else 1 end as worth
        from counted c, all_texts
      ), ordered as materialized (
        select *, ${k1 + 1} * sum(worth) over (order by worth, match::text) as up_to_here, max(worth) over () as most,
          sum(documents) over (order by documents, match::text) as texts_up_to_here
        from clue
      ), looked_up as materialized (
        select ${matchOf(isLookedUp)} as match, ${matchOf(`not (${isLookedUp})`)} as common,
          coalesce(max(up_to_here) filter (where not (${isLookedUp})), 0) as unseen,
          ceil(${newestScored} * max(total) / nullif(sum(documents) filter (where not (${isLookedUp})), 0))::bigint as newest,
          max(up_to_here) as total
        from ordered, all_texts
      )
      select leg.kind, leg.id, (leg.score / l.total)::float8 as "wordScore", (l.unseen / l.total)::float8 as unseen,
        (select average_length::float8 from word_statistics s where s.kind = leg.kind) as "averageLength",
        (${distance})::float8 as distance
      from (${legs.join('\nunion all\n')}) as leg cross join looked_up l
      left join ${partitionName(space)} e on e.space_id = ${space.id} and e.kind = leg.kind and e.owner_id = leg.id
      order by leg.score desc nulls last, leg.id limit ${parameters.add(total)}`,
    values: parameters.values,
    // What it looks up is known only while it runs: no plan depends on the values.
    ...(isRestricted(filter, query)
      ? {}
      : {
          name: `words ${space.id} ${space.precision} ${kinds.join(' ')} ${reach}${vector === null ? '' : ' near'}`,
        }),
  }
}
