import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** What one process measures of itself, for Prometheus. Made once by the composition root and handed down. */
export interface Metrics {
  readonly registry: Registry
  /** Requests to the embedding provider, in seconds, by how they ended: `ok` or the ProviderFailure in lower case. */
  readonly embeddingRequests: Histogram<'outcome'>
  /** Texts that came to an end, by result: ready, copied (of an equal text), skipped, failed. */
  readonly embeddedTexts: Counter<'result'>
  /** Texts that will be tried again. */
  readonly embeddingRetries: Counter
  /** Builds of vector indexes, in seconds, by kind. */
  readonly indexBuilds: Histogram<'kind'>
  /** Requests to the extracting model, in seconds, by how they ended. */
  readonly extractionRequests: Histogram<'outcome'>
  /** Searches, in seconds, by mode: hybrid, semantic, keyword. */
  readonly searches: Histogram<'mode'>
  /** Runs of jobs, in seconds, by kind and outcome: done, waiting, failed, retried, postponed, handed_back, cancelled. */
  readonly jobRuns: Histogram<'kind' | 'outcome'>
  /** Updates of the Telegram webhook, by what was done: stored, duplicate, refused, failed (answered 503: it comes again). */
  readonly telegramUpdates: Counter<'outcome'>
  /** Subscriptions that are open, by field. */
  readonly subscriptions: Gauge<'field'>
}

/** Upper bounds in seconds: from an index look-up to a model that thinks. */
const latencyBuckets = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const jobBuckets = [0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600]

/** A registry of its own for each call, so that several apps in one process do not add up. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry, prefix: 'quarry_' })
  const histogram = <Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    buckets = latencyBuckets,
  ) => new Histogram<Label>({ name, help, labelNames, buckets, registers })
  return {
    registry,
    embeddingRequests: histogram(
      'quarry_embedding_request_seconds',
      'Requests to the embedding provider, by outcome',
      ['outcome'],
    ),
    embeddedTexts: new Counter({
      name: 'quarry_embedded_texts_total',
      help: 'Texts that came to an end, by result',
      labelNames: ['result'],
      registers,
    }),
    embeddingRetries: new Counter({
      name: 'quarry_embedding_retries_total',
      help: 'Texts put back to be tried again after a failure',
      registers,
    }),
    indexBuilds: histogram(
      'quarry_vector_index_build_seconds',
      'Builds of vector indexes, by kind',
      ['kind'],
      jobBuckets,
    ),
    extractionRequests: histogram(
      'quarry_extraction_request_seconds',
      'Requests to the extracting model, by outcome',
      ['outcome'],
    ),
    searches: histogram('quarry_search_seconds', 'Searches, by mode', ['mode']),
    jobRuns: histogram(
      'quarry_job_run_seconds',
      'Runs of jobs, by kind and outcome',
      ['kind', 'outcome'],
      jobBuckets,
    ),
    telegramUpdates: new Counter({
      name: 'quarry_telegram_updates_total',
      help: 'Updates of the Telegram webhook, by what was done',
      labelNames: ['outcome'],
      registers,
    }),
    subscriptions: new Gauge({
      name: 'quarry_subscriptions',
      help: 'Open subscriptions, by field',
      labelNames: ['field'],
      registers,
    }),
  }
}
