import type { EntityKind } from '../embedding/spaces.ts'
import { smallWords } from '../words/language.ts'
import { dampingOf } from './bm25.ts'
import { ownerTable, Parameters } from './filter.ts'
import type { Statement } from './statements.ts'

/*
 * Words of the best hits tell what else belongs to them: what people call pseudo-relevance feedback (Lavrenko and Croft,
 * "Relevance-based language models", 2001), weighed by BM25. It only orders what was found; looked for in all texts, such
 * words would bring up more that does not belong than what does (docs/quality.md).
 */

/** The best hits whose words are taken. */
export const teachers = 3
/** Hits that are ordered by them. */
export const learners = 100
const maxWords = 20
/** A word that is in a larger share of all texts says nothing of these. */
const maxShare = 0.2

/**
 * How well hits fit the words of the best among them: rows of `RelatedScore`, not scaled. None while words are not
 * counted.
 * @param hits best first; the first `teachers` with what they are worth
 */
export function relatedStatement(
  hits: readonly { kind: EntityKind; id: string; score: number }[],
): Statement {
  const parameters = new Parameters()
  const asked = `unnest(${parameters.add(hits.map(({ kind }) => kind))}::entity_kind[],
    ${parameters.add(hits.map(({ id }) => id))}::uuid[],
    ${parameters.add(hits.map(({ score }, index) => (index < teachers ? score : 0)))}::float8[])`
  const kinds = [...new Set(hits.map(({ kind }) => kind))]
  const texts = kinds.map((kind) => {
    const { table, alias } = ownerTable[kind]
    return `select asked.id, asked.weight, ${alias}.words, ${dampingOf(kind, `${alias}.word_count`)} as damping
      from asked join ${table} ${alias} using (id)
      where asked.kind = '${kind}' and ${alias}.words is not null`
  })
  return {
    text: `with asked as materialized (
        select * from ${asked} as a(kind, id, weight)
      ), text as materialized (
        ${texts.join('\nunion all\n')}
      ), all_texts as materialized (
        select sum(documents)::float8 as total from word_statistics
      ), known as (
        select t.weight, t.damping, f.word, ln(1 + (total - f.documents + 0.5) / (f.documents + 0.5)) as rarity,
          cardinality(u.positions) as occurrences
        from text t cross join lateral unnest(t.words) as u join word_frequency f on f.word = u.lexeme, all_texts
        where t.weight > 0 and f.documents <= ${maxShare} * total and f.word <> all (${parameters.add(smallWords)}::text[])
      ), word as materialized (
        select quote_lexeme(word)::tsquery as match,
          rarity * sum(weight * rarity * occurrences / (occurrences + damping)) as worth
        from known group by word, rarity order by sum(weight * rarity * occurrences / (occurrences + damping)) desc, word
        limit ${maxWords}
      )
      select t.id, (select coalesce(sum(w.worth * (1 - t.damping / (t.damping + occurrences(t.words, w.match)))), 0) from word w) as score
      from text t where exists (select from word)`,
    values: parameters.values,
    name: `related ${kinds.join(' ')}`,
  }
}

export interface RelatedScore {
  id: string
  score: number
}
