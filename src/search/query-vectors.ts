import { LRUCache } from 'lru-cache'
import { poolVectors, splitText } from '../embedding/parts.ts'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import { vectorBytes } from '../embedding/vectors.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'

const maxCached = 1000

/** Vectors of queries, kept so that a page two or a repeated query costs no request. */
export interface QueryVectors {
  /**
   * The query's vector in pgvector's binary format, a long query's in parts like that of a long text; null if the model
   * sees nothing to embed in it.
   * @throws ProviderError
   */
  get(query: string): Promise<Buffer | null>
  /** Keeps a vector that was made elsewhere, so that the query costs no request. @param bytes as `get` gives it */
  keep(query: string, bytes: Buffer | null): void
}

/** @param embeds whose `provider` may become another one that embeds in the same space */
export function createQueryVectors(embeds: {
  readonly provider: EmbeddingProvider
  readonly space: EmbeddingSpace
}): QueryVectors {
  const { space } = embeds
  const cache = new LRUCache<string, { bytes: Buffer | null }>({ max: maxCached })
  // Equal queries that come at once share one request.
  const underWay = new Map<string, Promise<Buffer | null>>()

  async function embed(query: string): Promise<Buffer | null> {
    const { provider } = embeds
    const parts = splitText(query, provider.limits.maxTokensPerText, (part) => provider.countTokens(part))
    const vectors: (Float32Array | null)[] = []
    for (let from = 0; from < parts.length; from += provider.limits.maxTextsPerRequest) {
      const texts = parts.slice(from, from + provider.limits.maxTextsPerRequest).map(({ text }) => text)
      vectors.push(...(await provider.embed(texts)))
    }
    const wrong = vectors.find((part) => part && part.length !== space.dimensions)
    if (wrong) {
      throw new ProviderError(
        'BAD_ANSWER',
        `${provider.model} answered with ${wrong.length} dimensions, not ${space.dimensions}`,
      )
    }
    const vector = poolVectors(parts, vectors)
    const bytes = vector ? vectorBytes(vector) : null
    cache.set(query, { bytes })
    return bytes
  }

  return {
    keep: (query, bytes) => void cache.set(query, { bytes }),
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
