import { LRUCache } from 'lru-cache'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import { vectorBytes } from '../embedding/vectors.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'

const maxCached = 1000

/** Vectors of queries, kept so that a page two or a repeated query costs no request. */
export interface QueryVectors {
  /**
   * The query's vector in pgvector's binary format; null if the model sees nothing to embed in it.
   * @throws ProviderError
   */
  get(query: string): Promise<Buffer | null>
}

export function createQueryVectors(provider: EmbeddingProvider, space: EmbeddingSpace): QueryVectors {
  const cache = new LRUCache<string, { bytes: Buffer | null }>({ max: maxCached })
  // Equal queries that come at once share one request.
  const underWay = new Map<string, Promise<Buffer | null>>()

  async function embed(query: string): Promise<Buffer | null> {
    const tokens = provider.countTokens(query)
    if (tokens > provider.limits.maxTokensPerText) {
      throw new ProviderError(
        'REFUSED',
        `The query has about ${tokens} tokens, more than the ${provider.limits.maxTokensPerText} that ${provider.model} reads; shorten it`,
      )
    }
    const [vector] = await provider.embed([query])
    if (vector && vector.length !== space.dimensions) {
      throw new ProviderError(
        'BAD_ANSWER',
        `${provider.model} answered with ${vector.length} dimensions, not ${space.dimensions}`,
      )
    }
    const bytes = vector ? vectorBytes(vector) : null
    cache.set(query, { bytes })
    return bytes
  }

  return {
    get(query) {
      const cached = cache.get(query)
      if (cached) return Promise.resolve(cached.bytes)
      const running = underWay.get(query)
      if (running) return running
      const request = embed(query).finally(() => underWay.delete(query))
      underWay.set(query, request)
      return request
    },
  }
}
