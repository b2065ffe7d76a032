import type { WeightTable } from '../src/conversations/weights.ts'
import { createWindow, featureCount, featureNames } from '../src/conversations/window.ts'
import type { GoldChannel } from './conversation-data.ts'

/** A message with what it may answer, and what it does answer. */
interface Example {
  /** Rows of features, as in `Candidates`; the last is for starting anew. */
  rows: Float32Array
  /** For each row: whether it is right, 1 or 0. Several are, where the conversation has several earlier messages. */
  isRight: Uint8Array
  /** What it counts beside the others. */
  weight: number
}

/** Chosen by cross-validation: from 3e-5 to 3e-4 no figure moves by more than two points. */
const l2 = 1e-4
const rounds = 10
const batchSize = 32
const learningRate = 0.1
/** Of Adam (Kingma and Ba, ICLR 2015), as published. */
const [meanDecay, squareDecay, epsilon] = [0.9, 0.999, 1e-8]
/** Each message counts so much again without its vector, so that the other features can do without it. */
const withoutVector = 1 / 3
const vectorColumns = featureNames.flatMap((name, column) => (/closeness$/i.test(name) ? [column] : []))

/**
 * Fits the weights of the linker to channels whose conversations are known: the log-likelihood that a message answers
 * any earlier message of its conversation that is still in the window, or starts anew if there is none, by gradient
 * ascent (Adam) with an L2 penalty. Earlier messages are in their true conversations. Collections count the same
 * whatever their size. The same input gives the same weights.
 */
export function fitWeights(channels: readonly GoldChannel[]): WeightTable {
  const examples = channels.flatMap((channel) => {
    const size = channels
      .filter(({ collection }) => collection === channel.collection)
      .reduce((sum, { messages }) => sum + messages.length, 0)
    return examplesOf(channel).map((example) => ({ ...example, weight: example.weight / size }))
  })
  const values = ascend(examples)
  return Object.fromEntries(featureNames.map((name, column) => [name, values[column] ?? 0])) as Record<
    (typeof featureNames)[number],
    number
  >
}

const known = new WeakMap<GoldChannel, Example[]>()

/** Kept, because cross-validation asks for each channel many times. */
function examplesOf(channel: GoldChannel): Example[] {
  const examples = known.get(channel) ?? readExamples(channel)
  known.set(channel, examples)
  return examples
}

function readExamples(channel: GoldChannel): Example[] {
  const window = createWindow()
  const clusters = new Map(channel.messages.map(({ message, cluster }) => [message.id, cluster]))
  const examples: Example[] = []
  for (const { message, cluster } of channel.messages) {
    const { count, rows, idOf } = window.candidatesOf(message)
    const isRight = new Uint8Array(count + 1)
    for (let row = 0; row < count; row++) isRight[row] = clusters.get(idOf(row)) === cluster ? 1 : 0
    if (!isRight.includes(1)) isRight[count] = 1
    const own = Float32Array.from(rows.subarray(0, (count + 1) * featureCount))
    if (count > 0) {
      examples.push({ rows: own, isRight, weight: 1 })
      if (message.vector) examples.push({ rows: blank(own), isRight, weight: withoutVector })
    }
    window.push(message, cluster)
  }
  return examples
}

function blank(rows: Float32Array): Float32Array {
  const copy = rows.slice()
  for (let row = 0; row < copy.length; row += featureCount)
    for (const column of vectorColumns) copy[row + column] = 0
  return copy
}

function ascend(examples: readonly Example[]): Float64Array {
  const weights = new Float64Array(featureCount)
  const means = new Float64Array(featureCount)
  const squares = new Float64Array(featureCount)
  const gradient = new Float64Array(featureCount)
  const total = examples.reduce((sum, { weight }) => sum + weight, 0)
  const random = seededRandom(1)
  const steps = rounds * Math.ceil(examples.length / batchSize)
  let step = 0
  for (let round = 0; round < rounds; round++) {
    const order = shuffled(examples, random)
    for (let from = 0; from < order.length; from += batchSize) {
      const batch = order.slice(from, from + batchSize)
      const scale = examples.length / batch.length / total
      for (let column = 0; column < featureCount; column++)
        gradient[column] = -2 * l2 * value(weights, column)
      for (const example of batch) addGradient(example, weights, gradient, scale * example.weight)
      const rate = learningRate * (1 - step / steps)
      step++
      for (let column = 0; column < featureCount; column++) {
        const slope = value(gradient, column)
        means[column] = meanDecay * value(means, column) + (1 - meanDecay) * slope
        squares[column] = squareDecay * value(squares, column) + (1 - squareDecay) * slope ** 2
        const mean = value(means, column) / (1 - meanDecay ** step)
        const square = value(squares, column) / (1 - squareDecay ** step)
        weights[column] = value(weights, column) + (rate * mean) / (Math.sqrt(square) + epsilon)
      }
    }
  }
  return weights
}

/** Adds the gradient of log(sum over the right rows of exp(score)) - log(sum over all rows of exp(score)). */
function addGradient(
  { rows, isRight }: Example,
  weights: Float64Array,
  gradient: Float64Array,
  scale: number,
): void {
  const masses = new Float64Array(isRight.length)
  let [all, right] = [0, 0]
  for (let row = 0; row < masses.length; row++) {
    let score = 0
    for (let column = 0; column < featureCount; column++)
      score += value(rows, row * featureCount + column) * value(weights, column)
    const mass = Math.exp(score)
    masses[row] = mass
    all += mass
    if (isRight[row]) right += mass
  }
  for (let row = 0; row < masses.length; row++) {
    const mass = value(masses, row)
    const share = scale * ((isRight[row] ? mass / right : 0) - mass / all)
    for (let column = 0; column < featureCount; column++)
      gradient[column] = value(gradient, column) + share * value(rows, row * featureCount + column)
  }
}

/** The cast spares a branch for each of billions of products. */
const value = (list: Float32Array | Float64Array, index: number): number => list[index] as number

/** Fisher-Yates. */
function shuffled<Item>(items: readonly Item[], random: () => number): Item[] {
  const order = [...items]
  for (let index = order.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1))
    const [a, b] = [order[index], order[other]]
    if (a === undefined || b === undefined) continue
    order[index] = b
    order[other] = a
  }
  return order
}

/** 0..1, the same numbers for the same seed: the generator "minimal standard" of Park and Miller (1988). */
function seededRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 48271) % 2147483647
    return state / 2147483647
  }
}
