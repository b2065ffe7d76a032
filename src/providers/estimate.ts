import type { EmbeddingLimits } from './provider.ts'

/** What a provider is expected to do, before it is asked to. */
export interface WorkEstimate {
  requests: number
  tokensIn: number
  /** Of answers: 0 where only vectors come back; null where nothing is known to judge it by. */
  tokensOut: number | null
  /** US dollars; null without a price. Where `tokensOut` is null, of what is sent alone. */
  cost: number | null
  /** Null where neither a limit nor the pace of earlier requests says it. */
  seconds: number | null
}

/** What an estimate is worked out from, besides the work itself. */
export interface WorkTerms {
  /** This and the next: of each process, 1 or more; null: no limit. */
  requestsPerMinute: number | null
  tokensPerMinute: number | null
  /** Requests under way at once, 1 or more. */
  parallelRequests: number
  /** US dollars for a million tokens; null: not known. */
  pricePerMillionTokensIn: number | null
  pricePerMillionTokensOut: number | null
  /** Of one request, as they have taken so far; null: none was made yet. */
  msPerRequest: number | null
}

/** Requests that carry so many texts with so many tokens, as the pipeline fills them. */
export function requestsFor(
  { texts, tokens }: { texts: number; tokens: number },
  limits: Pick<EmbeddingLimits, 'maxTextsPerRequest' | 'maxTokensPerRequest'>,
): number {
  return Math.ceil(Math.max(texts / limits.maxTextsPerRequest, tokens / limits.maxTokensPerRequest))
}

/**
 * What it takes to embed texts.
 * @param work texts that differ: equal ones are embedded once; tokens as the provider counts them
 * @param limits of the provider that will do it
 */
export function estimateEmbedding(
  work: { texts: number; tokens: number },
  limits: EmbeddingLimits,
  terms: Omit<WorkTerms, 'parallelRequests' | 'pricePerMillionTokensOut'>,
): WorkEstimate {
  const { maxParallelRequests: parallelRequests } = limits
  return estimateWork(
    { requests: requestsFor(work, limits), tokensIn: work.tokens, tokensOut: 0 },
    { ...terms, parallelRequests, pricePerMillionTokensOut: 0 },
  )
}

/** Money and time of work that is known by its size. */
export function estimateWork(
  work: Pick<WorkEstimate, 'requests' | 'tokensIn' | 'tokensOut'>,
  terms: WorkTerms,
): WorkEstimate {
  return { ...work, cost: costOf(work, terms), seconds: secondsFor(work, terms) }
}

/** US dollars; null without a price for what there is of tokens. */
export function costOf(
  { tokensIn, tokensOut }: { tokensIn: number; tokensOut: number | null },
  prices: Pick<WorkTerms, 'pricePerMillionTokensIn' | 'pricePerMillionTokensOut'>,
): number | null {
  const parts = [
    [tokensIn, prices.pricePerMillionTokensIn],
    [tokensOut ?? 0, prices.pricePerMillionTokensOut],
  ] as const
  let cost = 0
  for (const [tokens, price] of parts) {
    if (tokens === 0) continue
    if (price === null) return null
    cost += (tokens * price) / 1_000_000
  }
  return cost
}

const minuteSeconds = 60

/**
 * The longest of what holds the work up: the pace of the requests, and each limit of a minute, whose windows follow one
 * another; within the last of them the work ends at once.
 */
function secondsFor(work: { requests: number; tokensIn: number }, terms: WorkTerms): number | null {
  if (work.requests === 0) return 0
  const bounds: number[] = []
  const { msPerRequest, parallelRequests, requestsPerMinute, tokensPerMinute } = terms
  if (msPerRequest !== null) {
    bounds.push((Math.ceil(work.requests / parallelRequests) * msPerRequest) / 1000)
  }
  if (requestsPerMinute !== null) bounds.push(windowsBefore(work.requests, requestsPerMinute) * minuteSeconds)
  if (tokensPerMinute !== null) bounds.push(windowsBefore(work.tokensIn, tokensPerMinute) * minuteSeconds)
  return bounds.length === 0 ? null : Math.max(...bounds)
}

/** Windows that have to pass before the one in which the last of it is sent. */
const windowsBefore = (amount: number, perWindow: number) => Math.max(0, Math.ceil(amount / perWindow) - 1)
