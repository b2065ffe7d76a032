import { type EmbeddingSpace, type EntityKind, indexedVector, partitionName } from '../embedding/spaces.ts'
import { lexeme, phrase } from '../words/lexemes.ts'
import type { WordQuery } from '../words/query.ts'
import { filterConditions, ownerTable, Parameters, type SearchFilter, wordConditions } from './filter.ts'
import type { Statement } from './statements.ts'

/** Of BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009). */
const k1 = 1.2
const b = 0.75
/** What the very form of a word adds to its stem. */
const formWorth = 0.3
/** What a word is worth that only begins like the one that is being typed. */
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

/** A text that has words of the query. */
export interface KeywordCandidate {
  kind: EntityKind
  id: string
  /** BM25, as a share of what a text with all words very many times would have: 0..1. */
  wordScore: number
  /** Cosine distance to the query, 0..2; null where the row has no vector yet. */
  distance: number | null
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
  worth: number
}

function cluesOf({ terms, names }: WordQuery): Clue[] {
  return [
    ...terms.flatMap(({ stem, forms, count, beginning }) => {
      // A word that is said again is meant more, but not twice as much.
      const worth = Math.sqrt(count)
      const others = forms.filter((form) => form !== stem)
      const alternative = others.length > 0 ? others.map(lexeme).join(' | ') : null
      const whole = lexeme(stem)
      return [
        { ...plain, match: whole, alternative, word: stem, worth },
        ...others.map((form) => ({ ...plain, match: lexeme(form), word: form, worth: worth * formWorth })),
        ...(beginning === null ? [] : [{ ...plain, match: `${lexeme(beginning)}:*`, whole, worth }]),
      ]
    }),
    ...names.map((words) => ({ ...plain, match: phrase(words), worth: nameWorth })),
  ]
}

const plain = { alternative: null, word: null, whole: null }

/**
 * The best rows by words, by BM25. Each also gets its distance if a vector of the query is given, so that both legs of
 * a hybrid search can be scored alike.
 * @param reach 'rare' looks up texts by the rarer words only: exact down to the score `unseen`
 */
export function keywordStatement(
  space: EmbeddingSpace,
  kinds: readonly EntityKind[],
  filter: SearchFilter,
  query: WordQuery,
  vector: Buffer | null,
  limit: number,
  reach: 'rare' | 'all',
): Statement {
  const parameters = new Parameters()
  const clues = cluesOf(query)
  const column = (field: keyof Clue, type: string) =>
    `${parameters.add(clues.map((each) => each[field]))}::${type}[]`
  const asked = `unnest(${column('match', 'tsquery')}, ${column('alternative', 'tsquery')}, ${column('word', 'text')}, ${column('whole', 'tsquery')}, ${column('worth', 'float8')})`
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
  const isLookedUp = reach === 'all' ? 'true' : `up_to_here > ${commonShare} * most`
  const legs = kinds.map((kind) => {
    const { table, alias } = ownerTable[kind]
    const words = `${alias}.words`
    const conditions = [
      `${words} @@ (select match from looked_up)`,
      ...filterConditions(kind, filter, parameters),
      ...wordConditions(kind, query, parameters),
    ]
    return `(select '${kind}'::entity_kind as kind, ${alias}.id, (
        select sum(q.worth * ${k1 + 1} * (1 - damping / (damping
          + greatest(occurrences(${words}, q.match), occurrences(${words}, q.alternative)))))
        from clue q, lateral (select s.fixed + s.by_length * ${alias}.word_count as damping) as d
        where q.whole is null or not ${words} @@ q.whole) as score
      from ${table} ${alias}, length_of s
      where s.kind = '${kind}' and ${conditions.join(' and ')} order by score desc nulls last, ${alias}.id limit ${count})`
  })
  return {
    text: `with length_of as materialized (
        select kind, ${k1 * (1 - b)} as fixed, ${k1 * b} / average_length as by_length from word_statistics
      ), counted as materialized (
        select a.match, a.alternative, a.whole, a.worth,
          coalesce((select documents from word_frequency where word = a.word), ${counted})::float8 as documents
        from ${asked} as a(match, alternative, word, whole, worth)
      ), clue as materialized (
        select match, alternative, whole, worth * ln(1 + (greatest(total - documents, 0) + 0.5) / (documents + 0.5))
          * case when exists (select from counted o where o.match = c.whole and o.documents > 0) then ${prefixWorth} else 1 end as worth
        from counted c, (select sum(documents)::float8 as total from word_statistics) as all_texts
      ), ordered as materialized (
        select *, ${k1 + 1} * sum(worth) over (order by worth, match::text) as up_to_here, max(worth) over () as most from clue
      ), looked_up as materialized (
        select string_agg(concat_ws(' | ', match::text, alternative::text), ' | ') filter (where ${isLookedUp})::tsquery as match,
          coalesce(max(up_to_here) filter (where not (${isLookedUp})), 0) as unseen,
          max(up_to_here) as total
        from ordered
      )
      select leg.kind, leg.id, (leg.score / l.total)::float8 as "wordScore", (l.unseen / l.total)::float8 as unseen,
        (${distance})::float8 as distance
      from (${legs.join('\nunion all\n')}) as leg cross join looked_up l
      left join ${partitionName(space)} e on e.space_id = ${space.id} and e.kind = leg.kind and e.owner_id = leg.id
      order by leg.score desc nulls last, leg.id limit ${count}`,
    values: parameters.values,
  }
}
