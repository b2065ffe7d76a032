import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createLinker } from '../src/conversations/link.ts'
import { weights as shippedWeights, type WeightTable } from '../src/conversations/weights.ts'
import { featureNames } from '../src/conversations/window.ts'
import { type GoldChannel, readChannels, withVectors } from './conversation-data.ts'
import { fitWeights } from './conversation-fit.ts'
import {
  adjustedRandIndex,
  exactMatches,
  exactMatchF1,
  oneToOneOverlap,
  scaledVariation,
} from './conversation-metrics.ts'
import type { QualityReport } from './report.ts'

export interface EvalConversationsOptions {
  /** Each with messages.jsonl. */
  folders: readonly string[]
  /** Also with weights that were fitted without the channels that are judged. */
  crossValidate: boolean
  /** Fit the shipped weights anew, first. */
  fit: boolean
}

const folds = 6
const weightsPath = join(import.meta.dirname, '../src/conversations/weights.ts')

/** @throws SetupError when a folder or a line of it cannot be read */
export async function evalConversations(options: EvalConversationsOptions): Promise<QualityReport> {
  const without = options.folders.flatMap(readChannels)
  console.log('Embedding, where it has not been done before ...')
  const channels = await withVectors(without)
  let weights = shippedWeights
  if (options.fit) {
    weights = fitWeights(channels)
    writeFileSync(weightsPath, weightsFile(weights, channels))
  }
  const collections = [...new Set(channels.map(({ collection }) => collection))]
  const ofCollection = (collection: string, list = channels) =>
    list.filter((channel) => channel.collection === collection)
  const ours = new Map<string, string[][]>()
  if (options.crossValidate) {
    console.log('Fitting ...')
    for (const [name, found] of crossValidated(channels, without)) ours.set(name, found)
  }
  const rows: string[][] = []
  const speeds: string[] = []
  for (const collection of collections) {
    const judged = ofCollection(collection)
    const row = (what: string, found: readonly string[][]) =>
      rows.push([collection, what, ...figures(judged, found)])
    const of = (found: string[][] | undefined) =>
      found?.filter((_, index) => channels[index]?.collection === collection)
    row(
      'one conversation in each channel',
      judged.map(({ messages }) => messages.map(() => '')),
    )
    row(
      'one conversation for each author',
      judged.map(({ messages }) => messages.map(({ message }) => message.author)),
    )
    const started = performance.now()
    const found = judged.map((channel) => linkAll(channel, weights))
    const seconds = (performance.now() - started) / 1000
    const count = judged.reduce((sum, { messages }) => sum + messages.length, 0)
    speeds.push(`${collection} ${Math.round(count / seconds).toLocaleString('en')}/s`)
    row('shipped weights', found)
    row(
      'shipped weights, no vectors',
      ofCollection(collection, without).map((channel) => linkAll(channel, weights)),
    )
    for (const [name, all] of ours) row(name, of(all) ?? [])
    if (options.crossValidate && collections.length > 1) {
      const fitted = fitWeights(channels.filter((channel) => channel.collection !== collection))
      row(
        'fitted to the other collections only',
        judged.map((channel) => linkAll(channel, fitted)),
      )
      const own = crossValidated(judged, judged).get(crossValidatedName) ?? []
      row('cross-validated within the collection', own)
    }
  }
  return {
    title: 'Conversations',
    tables: [
      {
        caption:
          'Conversations that the linker finds, against those that people marked. In percent: variation of information (1 - VI / log2 n), one-to-one overlap, F1 of conversations found exactly (of two and more messages), adjusted Rand index; first the mean of the channels, then all channels of the collection as one.',
        head: [
          'Collection',
          'How',
          'VI',
          '1-1',
          'F1',
          'ARI',
          'VI, all',
          '1-1, all',
          'F1, all',
          'ARI, all',
          'Found of',
        ],
        rows,
      },
    ],
    notes: [
      `${collections.map((name) => `${name}: ${describe(ofCollection(name))}`).join('; ')}. Answers that people marked are not shown to the linker, and there are no threads. Each channel begins with nothing before it. "Found of": conversations of two and more messages.`,
      'Shipped weights: src/conversations/weights.ts, whose comment says what they were fitted to; on those channels the figures flatter. "No vectors": with the same weights, as before anything is embedded, or where the model does not know the language.',
      ...(options.crossValidate
        ? [
            `Cross-validated: every ${folds}th channel is judged with weights fitted to the others. Which features there are, and the linker's own constants, was decided by these very figures: they flatter a little, too.`,
            'Fitted to the other collections only: what is learnt where people speak one after the other does not carry over to a crowd, so the shipped weights need both.',
          ]
        : []),
      'For scale, Kummerfeld et al. (ACL 2019) report on their test set of #ubuntu (VI / 1-1 / F1, all as one): time alone 80.6 / 53.7 / 8.9, Elsner and Charniak (2008) 82.1 / 51.4 / 15.5, their linear model 88.9 / 69.5 / 21.8, their feed-forward network 91.3 / 75.6 / 36.2. That set has other days, and also the lines that say who came and went, so the figures can be held against each other only roughly.',
      `The linker alone, vectors given, one thread: ${speeds.join(', ')}.`,
    ],
  }
}

const crossValidatedName = 'cross-validated'

/** What is found in each channel with weights that were fitted without it. */
function crossValidated(
  channels: readonly GoldChannel[],
  without: readonly GoldChannel[],
): Map<string, string[][]> {
  const found = channels.map((): string[] => [])
  const foundWithout = channels.map((): string[] => [])
  for (let fold = 0; fold < folds; fold++) {
    const isHeldOut = (index: number) => index % folds === fold
    const fittable = channels.filter((_, index) => !isHeldOut(index))
    if (fittable.length === 0 || fittable.length === channels.length) continue
    const weights = fitWeights(fittable)
    for (const [index, channel] of channels.entries()) {
      if (!isHeldOut(index)) continue
      found[index] = linkAll(channel, weights)
      foundWithout[index] = linkAll(without[index] ?? channel, weights)
    }
  }
  return new Map([
    [crossValidatedName, found],
    [`${crossValidatedName}, no vectors`, foundWithout],
  ])
}

/** The conversation of each message, as the linker gives them one after the other. */
function linkAll({ messages }: GoldChannel, weights: WeightTable): string[] {
  const linker = createLinker([], weights)
  return messages.map(({ message }) => {
    const conversationId = linker.link(message).conversationId ?? message.id
    linker.remember({ ...message, conversationId })
    return conversationId
  })
}

function figures(channels: readonly GoldChannel[], found: readonly (readonly string[])[]): string[] {
  const truth = channels.map(({ messages }) => messages.map(({ cluster }) => cluster))
  type Measure = (truth: readonly string[], found: readonly string[]) => number
  const percent = (share: number) => (100 * share).toFixed(1)
  const mean = (measure: Measure) =>
    percent(truth.reduce((sum, own, index) => sum + measure(own, found[index] ?? []), 0) / truth.length)
  const named = (lists: readonly (readonly string[])[]) =>
    lists.flatMap((list, index) => list.map((label) => `${index} ${label}`))
  const all = (measure: Measure) => percent(measure(named(truth), named(found)))
  const measures = [scaledVariation, oneToOneOverlap, exactMatchF1, adjustedRandIndex]
  const { expected, proposed } = exactMatches(named(truth), named(found))
  return [...measures.map(mean), ...measures.map(all), `${proposed} of ${expected}`]
}

function describe(channels: readonly GoldChannel[]): string {
  const messages = channels.flatMap((channel) => channel.messages)
  const clusters = new Set(
    channels.flatMap(({ name, messages }) => messages.map(({ cluster }) => `${name} ${cluster}`)),
  )
  const count = (number: number) => number.toLocaleString('en')
  return `${count(channels.length)} channels, ${count(messages.length)} messages, ${count(clusters.size)} conversations`
}

function weightsFile(weights: WeightTable, channels: readonly GoldChannel[]): string {
  const collections = [...new Set(channels.map(({ collection }) => collection))]
  const described = collections
    .map((name) => `${name} (${describe(channels.filter(({ collection }) => collection === name))})`)
    .join(' and ')
  return `import type { FeatureName } from './window.ts'

/** What each feature adds to the score of an answer. */
export type WeightTable = Readonly<Record<FeatureName, number>>

/**
 * Made by \`npm run eval -- conversations --fit\` (eval/conversation-fit.ts), from collections whose conversations people
 * marked: ${described}.
 */
export const weights: WeightTable = {
${featureNames.map((name) => `  ${name}: ${Number(weights[name].toFixed(3))},`).join('\n')}
}
`
}
