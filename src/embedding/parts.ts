/** A piece of a text that the model can read whole, and its weight in the text's vector. */
export interface TextPart {
  text: string
  tokens: number
}

/**
 * Cuts a text into parts of at most `maxTokens`, at white space where there is any, so that every word of a long text
 * has its share in the vector; models cut or refuse what is beyond their limit. Joined, the parts are the whole text
 * but for the white space at the cuts. A text within the limit is its own single part.
 * @param countTokens must never grow when a text gets shorter
 */
export function splitText(
  text: string,
  maxTokens: number,
  countTokens: (text: string) => number,
): TextPart[] {
  const parts: TextPart[] = []
  let rest = text
  // Looking at more than this at once would make counting quadratic in the length of the text.
  const window = Math.max(maxTokens * 8, 64)
  while (rest.length > 0) {
    const head = rest.length <= window ? rest : rest.slice(0, cutBefore(rest, window))
    const tokens = countTokens(head)
    if (tokens <= maxTokens) {
      parts.push({ text: head, tokens })
      rest = rest.slice(head.length)
      continue
    }
    const length = longestFit(head, maxTokens, countTokens)
    const part = head.slice(0, length)
    parts.push({ text: part, tokens: countTokens(part) })
    rest = rest.slice(length)
  }
  return parts.filter((part) => part.text.trim() !== '')
}

/** The largest prefix that fits, at least one character: found by halving. */
function longestFit(text: string, maxTokens: number, countTokens: (text: string) => number): number {
  let fits = cutBefore(text, 1)
  let tooLong = text.length
  while (tooLong - fits > 1) {
    const middle = (fits + tooLong) >> 1
    if (countTokens(text.slice(0, middle)) <= maxTokens) fits = middle
    else tooLong = middle
  }
  return cutBefore(text, fits)
}

/** A cut at or before `length`: after white space in the second half if there is any, and never inside a surrogate pair. */
function cutBefore(text: string, length: number): number {
  for (let index = length; index > length / 2; index--) {
    if (/\s/.test(text.charAt(index - 1))) return index
  }
  const code = text.charCodeAt(length - 1)
  const isHighSurrogate = code >= 0xd800 && code <= 0xdbff
  if (!isHighSurrogate) return length
  return length > 1 ? length - 1 : Math.min(2, text.length)
}

/**
 * The vector of a text from the vectors of its parts: their mean weighted by tokens, at unit length.
 * @returns null if no part has a vector
 */
export function poolVectors(
  parts: readonly TextPart[],
  vectors: readonly (Float32Array | null)[],
): Float32Array | null {
  const present = vectors.flatMap((vector, index) =>
    vector ? [{ vector, weight: parts[index]?.tokens ?? 0 }] : [],
  )
  const [first] = present
  if (!first) return null
  if (parts.length === 1) return first.vector
  const sum = new Float64Array(first.vector.length)
  for (const { vector, weight } of present) {
    for (let index = 0; index < sum.length; index++)
      sum[index] = (sum[index] ?? 0) + (vector[index] ?? 0) * weight
  }
  const norm = Math.hypot(...sum)
  return norm > 0 ? Float32Array.from(sum, (value) => value / norm) : null
}
