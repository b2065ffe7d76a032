import type { Calibration, ProviderType } from '../providers/provider.ts'

export const entityKinds = ['MESSAGE', 'ATOM', 'TOPIC'] as const
export type EntityKind = (typeof entityKinds)[number]

/** In what precision vectors are indexed and compared: 4 bytes a number, or 2. They are stored whole in both. */
export const vectorPrecisions = ['FULL', 'HALF'] as const
export type VectorPrecision = (typeof vectorPrecisions)[number]

/** One model at one dimension: vectors are comparable only inside one space. */
export interface EmbeddingSpace extends Calibration {
  id: number
  provider: Uppercase<ProviderType>
  /** Who embeds it, of those that were added by the API; null: the provider of the environment. */
  providerId: string | null
  model: string
  dimensions: number
  /** Whoever holds the space has it changed in place by what follows the spaces. */
  state: 'BUILDING' | 'ACTIVE' | 'RETIRED'
  /**
   * What searches use. Index care changes it in place, when the indexes of another precision are there: who holds the
   * space must read it for each statement.
   */
  precision: VectorPrecision
}

/** pgvector's own limit for an index over `vector`; above, half precision is indexed (up to 4000). */
export const maxFullDimensions = 2000

/** Channel on which is said that spaces have come, changed or gone. */
export const spacesChannel = 'quarry_spaces'

/** A space as people name it, such as `openai/text-embedding-3-small with 1536 dimensions`. */
export const nameOfSpace = ({
  provider,
  model,
  dimensions,
}: Pick<EmbeddingSpace, 'provider' | 'model' | 'dimensions'>) =>
  `${provider.toLowerCase()}/${model} with ${dimensions} dimensions`

/** Names of partitions and indexes follow the space's number, so that a reader of `\d` can tell them apart. */
export const partitionName = (space: Pick<EmbeddingSpace, 'id'>) => `embedding_${space.id}`

/**
 * SQL: joins the embedding of what has the kind and the id (SQL expressions), as `e`. The limit makes it one look by the
 * primary key for each, whatever the planner thinks: of a space that has just been filled it knows nothing yet, and would
 * compare all of them with all rows.
 */
export const leftJoinEmbedding = (space: Pick<EmbeddingSpace, 'id'>, kind: string, id: string) =>
  `left join lateral (select vector, status from ${partitionName(space)}
    where space_id = ${space.id} and kind = ${kind} and owner_id = ${id} limit 1) as e on true`

/** The expression that is indexed; a search must use the same one, or the planner leaves the index. */
export function indexedVector(
  space: Pick<EmbeddingSpace, 'dimensions' | 'precision'>,
  column: string,
): { expression: string; type: string; opclass: string } {
  const type = space.precision === 'FULL' ? 'vector' : 'halfvec'
  return {
    expression: `(${column}::${type}(${space.dimensions}))`,
    type: `${type}(${space.dimensions})`,
    opclass: `${type}_cosine_ops`,
  }
}
