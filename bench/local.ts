import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { createEmbeddingProvider } from '../src/providers/create.ts'
import { ms, perSecond, type Report, type Row } from './report.ts'

/** The timer of the monitor fires this often; its histogram counts that as delay, so it is taken off again. */
const resolutionMs = 1
const maxDelayMs = 30

/** The model in its threads, and what the thread that serves feels of it. */
export async function benchLocal(options: { quick: boolean }): Promise<Report> {
  const texts = readFileSync(join(import.meta.dirname, '../examples/sample-chat.jsonl'), 'utf8')
    .split('\n')
    .flatMap((line) => (line.trim() === '' ? [] : [(JSON.parse(line) as { text: string }).text]))
    .filter((text) => text.trim() !== '')
  const idle = await watchLoop(() => delay(2000))
  const rows: Row[] = []
  for (const threads of [1, 2]) {
    const { rate, p99, max } = await measure(texts, threads, options.quick ? 3_000 : 20_000)
    const of = threads === 1 ? '1 thread' : `${threads} threads`
    rows.push(
      { what: `texts, ${of}`, figure: perSecond(rate) },
      {
        what: `event loop delay p99, ${of}`,
        figure: ms(p99),
        beside: `${ms(idle.p99)} idle; at most ${ms(max)}`,
        aim: `<= ${maxDelayMs} ms`,
        isMet: p99 <= maxDelayMs,
      },
    )
  }
  const words = texts.reduce((sum, text) => sum + text.split(/\s+/).length, 0) / texts.length
  return {
    title: 'Local embedder',
    rows,
    notes: [
      `The ${texts.length} texts of examples/sample-chat.jsonl (${words.toFixed(0)} words on average), again and again, in requests as the pipeline makes them.`,
      'The delay is that of the thread that hands over the texts and takes the vectors, as a server does; it also tokenizes and checks them.',
    ],
  }
}

async function measure(texts: readonly string[], threads: number, durationMs: number) {
  const provider = createEmbeddingProvider({ type: 'local', threads })
  const { maxTextsPerRequest, maxTokensPerText, maxParallelRequests } = provider.limits
  const short = texts.filter((text) => provider.countTokens(text) <= maxTokensPerText)
  let next = 0
  const take = () => Array.from({ length: maxTextsPerRequest }, () => short[next++ % short.length] ?? '')
  try {
    await Promise.all(Array.from({ length: maxParallelRequests }, () => provider.embed(take())))
    let done = 0
    const started = performance.now()
    const { p99, max } = await watchLoop(async () => {
      await Promise.all(
        Array.from({ length: maxParallelRequests }, async () => {
          while (performance.now() - started < durationMs) done += (await provider.embed(take())).length
        }),
      )
    })
    return { rate: (1000 * done) / (performance.now() - started), p99, max }
  } finally {
    await provider.close()
  }
}

async function watchLoop(work: () => Promise<unknown>): Promise<{ p99: number; max: number }> {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  histogram.enable()
  await work()
  histogram.disable()
  const toMs = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - resolutionMs)
  return { p99: toMs(histogram.percentile(99)), max: toMs(histogram.max) }
}
