import { type ClusteredVectors, randomNumbers } from '../vectors.ts'

const syllables = [
  'ba ce di fo gu ha ki lo me nu pa qui ra se ti vo wa xe yo zu',
  'bra cle dri flo gru pla sko ste tri vlu',
  'an en in on un ar er or al el',
]
  .join(' ')
  .split(' ')

/** Distinct words of a language, as a corpus of some ten thousand chat messages has them. */
const vocabularySize = 20_000
/** Zipf (1949): the frequency of the word of rank r goes with 1 / r. */
const cumulative = zipf(vocabularySize)
/** A topic's own words come from below the 200 most frequent ones, which belong to no topic. */
const firstTopicRank = 200
const wordsOfTopic = 30
const topicCumulative = zipf(wordsOfTopic)
/** Of the words of a message, how many are its topic's. */
const topicShare = 0.3
const messageWords = { least: 6, most: 36 }
const queryWords = { least: 2, most: 6 }

/**
 * Texts made from numbers alone, as the vectors are, and of the same topics: messages whose vectors are near share rare
 * words, all share frequent ones, so that a query has words that nearly every row has and words that few have.
 */
export class ZipfTexts {
  readonly #vectors: ClusteredVectors
  readonly #seed: number

  constructor(vectors: ClusteredVectors, seed: number) {
    this.#vectors = vectors
    this.#seed = seed
  }

  /** 6 to 36 words. */
  message(number: number): string {
    const random = this.#randomOf(number, 0x51ed270b)
    return this.#words(number, random, between(messageWords, random)).join(' ')
  }

  /** 2 to 6 different words, as one who looks for the number's topic may type them. */
  query(number: number): string {
    const random = this.#randomOf(number, 0x2545f491)
    const count = between(queryWords, random)
    const words = new Set<string>()
    while (words.size < count) for (const word of this.#words(number, random, 1)) words.add(word)
    return [...words].join(' ')
  }

  #words(number: number, random: () => number, count: number): string[] {
    const cluster = this.#vectors.clusterOf(number)
    return Array.from({ length: count }, () =>
      random() < topicShare ? topicWord(cluster, random) : word(drawn(cumulative, random)),
    )
  }

  #randomOf(number: number, purpose: number): () => number {
    return randomNumbers(Math.imul(this.#seed ^ purpose ^ (number + 1), 0x9e3779b1))
  }
}

/** The n-th word of the vocabulary: its syllables are the digits of its number, so no two are the same. */
function word(rank: number): string {
  let text = ''
  let rest = rank + syllables.length
  while (rest > 0) {
    text += syllables[rest % syllables.length]
    rest = Math.floor(rest / syllables.length)
  }
  return text
}

function topicWord(cluster: number, random: () => number): string {
  const ofCluster = randomNumbers(Math.imul(cluster + 1, 0x85ebca6b))
  const index = drawn(topicCumulative, random)
  let rank = firstTopicRank
  for (let draw = 0; draw <= index; draw++) {
    rank = firstTopicRank + Math.floor(ofCluster() * (vocabularySize - firstTopicRank))
  }
  return word(rank)
}

function zipf(count: number): Float64Array {
  const sums = new Float64Array(count)
  let sum = 0
  for (let rank = 0; rank < count; rank++) {
    sum += 1 / (rank + 1)
    sums[rank] = sum
  }
  return sums.map((value) => value / sum)
}

/** The first place whose sum is not below an even random number, by halving. */
function drawn(sums: Float64Array, random: () => number): number {
  const wanted = random()
  let [low, high] = [0, sums.length - 1]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sums[middle] ?? 1) < wanted) low = middle + 1
    else high = middle
  }
  return low
}

const between = ({ least, most }: { least: number; most: number }, random: () => number) =>
  least + Math.floor(random() * (most - least + 1))
