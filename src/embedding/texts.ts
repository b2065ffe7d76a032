import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'
import { poolVectors, splitText, type TextPart } from './parts.ts'

/**
 * One vector for each text, in as many requests as the provider's limits make it; null where the model sees nothing to
 * embed. A text that is longer than the model reads is embedded in parts.
 * @throws ProviderError
 */
export async function embedTexts(
  provider: EmbeddingProvider,
  dimensions: number,
  texts: readonly string[],
  signal: AbortSignal,
): Promise<(Float32Array | null)[]> {
  const { maxTokensPerText } = provider.limits
  const cut = texts.map((text) => ({
    parts: splitText(text, maxTokensPerText, (part) => provider.countTokens(part)),
  }))
  return embedParts(provider, dimensions, cut, signal)
}

/** The same for texts that are cut already. */
export async function embedParts(
  provider: EmbeddingProvider,
  dimensions: number,
  texts: readonly { parts: readonly TextPart[] }[],
  signal: AbortSignal,
): Promise<(Float32Array | null)[]> {
  const parts = texts.flatMap((text) => text.parts)
  const vectors: (Float32Array | null)[] = []
  const size = (part: TextPart) => ({ texts: 1, tokens: part.tokens })
  for (const chunk of packBy(parts, size, provider.limits)) {
    vectors.push(
      ...(await provider.embed(
        chunk.map((part) => part.text),
        signal,
      )),
    )
  }
  const wrong = vectors.find((vector) => vector && vector.length !== dimensions)
  if (wrong) {
    throw new ProviderError(
      'MISCONFIGURED',
      `${provider.model} answers with ${wrong.length} dimensions, but this database was embedded with ${dimensions}; ` +
        'set the model and its dimensions back, or use another database',
    )
  }
  let offset = 0
  return texts.map((text) => {
    const own = vectors.slice(offset, offset + text.parts.length)
    offset += text.parts.length
    return poolVectors(text.parts, own)
  })
}

/** Fills requests in order, each within both limits; whatever is larger than a request by itself goes alone. */
export function packBy<Item>(
  items: readonly Item[],
  size: (item: Item) => { texts: number; tokens: number },
  limits: { maxTextsPerRequest: number; maxTokensPerRequest: number },
): Item[][] {
  const packs: Item[][] = []
  let texts = 0
  let tokens = 0
  for (const item of items) {
    const own = size(item)
    const last = packs.at(-1)
    if (
      last &&
      texts + own.texts <= limits.maxTextsPerRequest &&
      tokens + own.tokens <= limits.maxTokensPerRequest
    ) {
      last.push(item)
      texts += own.texts
      tokens += own.tokens
    } else {
      packs.push([item])
      texts = own.texts
      tokens = own.tokens
    }
  }
  return packs
}
