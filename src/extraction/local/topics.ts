import type { KnownTopic, ProposedTopic } from '../extractor.ts'
import type { Turn } from './dialogue.ts'
import type { PlacedAtom } from './propose.ts'
import {
  headline,
  isGeneric,
  maxReadLength,
  type NounPhrase,
  normalise,
  nounPhrases,
  type Sentence,
  scriptOf,
  withCapital,
} from './text.ts'

/*
 * Themes: conversations that are near each other in meaning, named by the words that are theirs more than the others'.
 */

/** Similarity (1 - cosineDistance / 2) from which conversations are of one topic. */
const sameTopic = 0.85

/** Similarity from which a topic that exists already is meant. */
const knownTopic = 0.85

/** Messages that say something. Fewer make a topic only where an atom was found in them. */
const minMessages = 3

/** Words. A shorter message ("ok", "thanks") says nothing of its theme. */
const minWords = 4

const maxKeywords = 8

interface Cluster {
  conversations: (readonly Turn[])[]
  /** Sum of its messages' vectors, each of length 1; null where none has one. */
  vector: Float32Array | null
  size: number
}

/** The topics of the batch; enters their keys into the atoms. */
export function proposeTopics(
  conversations: readonly (readonly Turn[])[],
  known: readonly KnownTopic[],
  atoms: PlacedAtom[],
): ProposedTopic[] {
  const clusters = clusterConversations(conversations)
  const withAtoms = new Set(atoms.map(({ conversationId }) => conversationId))
  const kept = clusters.filter(({ conversations: own }) => {
    const turns = own.flat()
    return (
      turns.filter(saysSomething).length >= minMessages ||
      turns.some(({ message }) => withAtoms.has(message.conversationId))
    )
  })
  const terms = termsOf(clusters, atoms)
  const topics = new Map<string, ProposedTopic>()
  const topicOf = new Map<string, string>()
  for (const cluster of kept) {
    const topic = describeCluster(cluster, terms, known, atoms, topics.size)
    if (!topic) continue
    const same = topics.get(topic.key) ?? [...topics.values()].find(({ name }) => sameName(name, topic.name))
    if (same) same.messageIds.push(...topic.messageIds)
    else topics.set(topic.key, topic)
    for (const turns of cluster.conversations)
      if (turns[0]) topicOf.set(turns[0].message.conversationId, (same ?? topic).key)
  }
  for (const atom of atoms) atom.topicKey = topicOf.get(atom.conversationId) ?? null
  return [...topics.values()]
}

const wordsIn = ({ sentences }: Turn) => sentences.reduce((sum, { wordCount }) => sum + wordCount, 0)
const saysSomething = (turn: Turn) => wordsIn(turn) >= minWords

/* Clusters */

/**
 * Agglomerative, by average linkage: the two nearest clusters become one as long as they are near enough. The chain of
 * nearest neighbours (Benzécri 1982, Juan 1982) finds the same tree in quadratic time.
 */
function clusterConversations(conversations: readonly (readonly Turn[])[]): Cluster[] {
  const single = conversations.map(
    (turns): Cluster => ({ conversations: [turns], vector: sumOfVectors(turns), size: 1 }),
  )
  const open = single.filter((cluster) => cluster.vector !== null)
  const done = single.filter((cluster) => cluster.vector === null)
  const similarities = open.map((one) =>
    Float32Array.from(open, (other) => similarity(one.vector, other.vector)),
  )
  const alive = new Set(open.keys())
  const chain: number[] = []
  while (alive.size > 0) {
    const start = chain.at(-1) ?? first(alive)
    if (chain.length === 0) chain.push(start)
    const previous = chain.at(-2)
    const nearest = nearestOf(start, alive, similarities, previous)
    if (nearest === null || (similarities[start]?.[nearest] ?? 0) < sameTopic) {
      // Nothing is near enough to this one, and merging others brings nothing nearer than it was.
      const cluster = open[start]
      if (cluster) done.push(cluster)
      alive.delete(start)
      chain.pop()
      continue
    }
    if (nearest !== previous) {
      chain.push(nearest)
      continue
    }
    chain.length -= 2
    merge(start, nearest, open, alive, similarities)
  }
  return done
}

function first(places: ReadonlySet<number>): number {
  for (const place of places) return place
  throw new Error('a set that is not empty has no first value')
}

/** The nearest; of equally near ones the previous link of the chain, which ends it. */
function nearestOf(
  place: number,
  alive: ReadonlySet<number>,
  similarities: readonly Float32Array[],
  previous: number | undefined,
): number | null {
  const row = similarities[place]
  let nearest: number | null = previous ?? null
  let best = previous === undefined ? Number.NEGATIVE_INFINITY : (row?.[previous] ?? Number.NEGATIVE_INFINITY)
  for (const other of alive) {
    const value = row?.[other] ?? Number.NEGATIVE_INFINITY
    if (other !== place && value > best) {
      best = value
      nearest = other
    }
  }
  return nearest
}

function merge(
  one: number,
  other: number,
  open: readonly Cluster[],
  alive: Set<number>,
  similarities: readonly Float32Array[],
): void {
  const [into, from] = [open[one], open[other]]
  const [row, gone] = [similarities[one], similarities[other]]
  if (!into || !from || !row || !gone) return
  for (const third of alive) {
    const mean = ((row[third] ?? 0) * into.size + (gone[third] ?? 0) * from.size) / (into.size + from.size)
    row[third] = mean
    const back = similarities[third]
    if (back) back[one] = mean
  }
  into.conversations.push(...from.conversations)
  into.vector = sumOfVectors(into.conversations.flat())
  into.size += from.size
  alive.delete(other)
}

/** Of the messages that say something, or of all where none does. */
function sumOfVectors(turns: readonly Turn[]): Float32Array | null {
  const telling = turns.filter(saysSomething)
  let sum: Float32Array | null = null
  for (const { message } of telling.length > 0 ? telling : turns) {
    const { vector } = message
    if (!vector) continue
    const length = lengthOf(vector) || 1
    sum ??= new Float32Array(vector.length)
    for (const [place, value] of vector.entries()) sum[place] = (sum[place] ?? 0) + value / length
  }
  return sum
}

function lengthOf(vector: Float32Array): number {
  let squares = 0
  for (const value of vector) squares += value * value
  return Math.sqrt(squares)
}

/** 1 - cosineDistance / 2; 0.5 (unrelated) where one is missing, or they are of different length. */
export function similarity(one: Float32Array | null, other: Float32Array | null): number {
  if (!one || !other || one.length !== other.length) return 0.5
  let product = 0
  let first = 0
  let second = 0
  for (let place = 0; place < one.length; place++) {
    const [a, b] = [one[place] ?? 0, other[place] ?? 0]
    product += a * b
    first += a * a
    second += b * b
  }
  if (first === 0 || second === 0) return 0.5
  return 0.5 + product / Math.sqrt(first * second) / 2
}

/* Names */

interface Term {
  words: string[]
  /** As it was written most often. */
  written: Map<string, number>
  /** Messages of the cluster that hold it. */
  count: number
}

interface Terms {
  byCluster: Map<Cluster, Map<string, Term>>
  /** Of a term in all clusters. */
  total: Map<string, number>
  /** Terms of a cluster, on average. */
  average: number
}

/** Candidate names: noun phrases and their parts, each counted once for a message and once for an atom's title. */
function termsOf(clusters: readonly Cluster[], atoms: readonly PlacedAtom[]): Terms {
  const byCluster = new Map<Cluster, Map<string, Term>>()
  const total = new Map<string, number>()
  let all = 0
  for (const cluster of clusters) {
    const turns = cluster.conversations.flat()
    const authors = new Set(turns.map(({ message }) => message.author.toLowerCase()))
    const terms = new Map<string, Term>()
    const texts = [...turns.map(phrasesOf), ...atomsOf(cluster, atoms).map(({ title }) => phrasesIn(title))]
    for (const phrases of texts) {
      const counted = new Set<string>()
      for (const { words, written } of phrases) {
        if (words.every(isGeneric) || words.some((word) => authors.has(word))) continue
        const key = words.map(stem).join(' ')
        const term = terms.get(key) ?? { words, written: new Map(), count: 0 }
        const form = written.join(' ')
        term.written.set(form, (term.written.get(form) ?? 0) + 1)
        terms.set(key, term)
        if (counted.has(key)) continue
        counted.add(key)
        term.count += 1
        total.set(key, (total.get(key) ?? 0) + 1)
        all += 1
      }
    }
    byCluster.set(cluster, terms)
  }
  return { byCluster, total, average: all / Math.max(1, clusters.length) }
}

function atomsOf(cluster: Cluster, atoms: readonly PlacedAtom[]): PlacedAtom[] {
  const own = new Set(cluster.conversations.map(([turn]) => turn?.message.conversationId))
  return atoms.filter(({ conversationId }) => own.has(conversationId))
}

/** Characters of a message that candidates are taken from. */
const maxNamedLength = 2_000

function phrasesOf({ sentences }: Turn): NounPhrase[] {
  const read: Sentence[] = []
  let length = 0
  for (const sentence of sentences) {
    length += sentence.text.length
    if (length > maxNamedLength) break
    read.push(sentence)
  }
  const latin = read.filter(({ script }) => script === 'latin').map(({ plain }) => plain)
  const others = read.filter(({ script }) => script !== 'latin').map(({ plain }) => plain)
  return [...(latin.length > 0 ? phrasesIn(latin.join('\n')) : []), ...others.flatMap(longWords)]
}

function phrasesIn(text: string): NounPhrase[] {
  if (scriptOf(text) !== 'latin') return longWords(text)
  return nounPhrases(text).flatMap(({ words, written }) => {
    const kept = words.flatMap((word, place) => (emptyWords.has(word) ? [] : [place]))
    return partsOf(
      kept.map((place) => words[place] ?? ''),
      kept.map((place) => written[place] ?? ''),
    )
  })
}

/** Without parts of speech, long words stand for nouns. */
function longWords(text: string): NounPhrase[] {
  const found = text.toLowerCase().match(/\p{L}{5,}/gu) ?? []
  return found
    .filter((word) => !emptyWords.has(word) && !/^x+$/.test(word))
    .map((word) => ({ words: [word], written: [word] }))
}

/** A phrase, its last two words, and its last one: "short row lock", "row lock", "lock". */
function partsOf(words: readonly string[], written: readonly string[]): NounPhrase[] {
  return [3, 2, 1]
    .filter((length) => length <= words.length)
    .map((length) => ({ words: words.slice(-length), written: written.slice(-length) }))
}

const emptyWords = new Set(
  (
    'all any some every each other another last next same new old many much more most few several such own good bad great nice ' +
    'big small little long short high low late early full whole real main second single different able sure free ok lol ' +
    'это этот чтобы когда тоже если можно нужно надо только очень просто будет было были есть после перед через потому ' +
    'сейчас теперь опять снова кто-нибудь спасибо привет всем коллеги почему какой какая какие который которая которые'
  ).split(' '),
)

/** Enough of a stem to count "booking" and "bookings" as one. */
function stem(word: string): string {
  if (scriptOf(word) !== 'latin') return word.slice(0, 6)
  return word
    .replace(/(?:'s|s')$/, '')
    .replace(/ies$/, 'y')
    .replace(/(?<=[^su])s$/, '')
}

function describeCluster(
  cluster: Cluster,
  terms: Terms,
  known: readonly KnownTopic[],
  atoms: readonly PlacedAtom[],
  place: number,
): ProposedTopic | null {
  const turns = cluster.conversations.flat()
  const messageIds = turns.map(({ message }) => message.id)
  const ranked = rank(terms.byCluster.get(cluster) ?? new Map(), terms)
  const name = nameOf(ranked)
  const existing = known.find(
    (topic) =>
      similarity(cluster.vector, topic.vector) >= knownTopic ||
      (name !== null && sameName(topic.name, name)) ||
      ranked.slice(0, nameReach).some((term) => sameName(topic.name, term.words.join(' '))),
  )
  if (existing)
    return {
      key: existing.id,
      name: existing.name,
      description: existing.description,
      keywords: [...existing.keywords],
      confidence: Math.max(knownTopic, similarity(cluster.vector, existing.vector)),
      messageIds,
    }
  if (name === null) return null
  const keywords = keywordsOf(ranked)
  const stems = keywords.flatMap((keyword) => keyword.split(' ').map(stem))
  const telling = turns.filter(saysSomething)
  const named = telling.filter(({ message }) => {
    const words = new Set(normalise(message.content.slice(0, maxReadLength)).split(' ').map(stem))
    return stems.some((word) => words.has(word))
  })
  return {
    key: `topic-${place + 1}`,
    name,
    description: descriptionOf(cluster, atoms),
    keywords,
    // The share of its messages that hold one of its keywords, shrunk towards 0.8 as if two more had been seen.
    confidence: (named.length + 1.6) / (telling.length + 2),
    messageIds,
  }
}

/** The best terms of a cluster: one of them may be how an existing topic is called. */
const nameReach = 3

const sameName = (one: string, other: string) => keyOf(one) === keyOf(other)
const keyOf = (name: string) => normalise(name).split(' ').map(stem).join(' ')

interface RankedTerm extends Term {
  score: number
}

/** By c-TF-IDF (Grootendorst 2022): the term's share in the cluster times log(1 + average terms of a cluster / its total). */
function rank(terms: ReadonlyMap<string, Term>, { total, average }: Terms): RankedTerm[] {
  const length = [...terms.values()].reduce((sum, { count }) => sum + count, 0)
  return [...terms]
    .map(([key, term]) => {
      const share = term.count / Math.max(1, length)
      const weight = Math.log(1 + average / (total.get(key) ?? 1))
      // Words that stand together again are one name; a phrase seen once is only as good as its words.
      const bonus = term.count > 1 ? 1 + 0.5 * (term.words.length - 1) : 1
      return { ...term, score: share * weight * bonus }
    })
    .sort((a, b) => b.score - a.score || b.words.length - a.words.length)
}

/**
 * The best term. One word says little: rather the best phrase that holds it, or else it and the next that shares nothing
 * with it.
 */
function nameOf(ranked: readonly RankedTerm[]): string | null {
  const named = ranked.filter((term) => scriptOf(term.words.join(' ')) === 'latin' || term.count > 1)
  const [best] = named
  if (!best) return null
  if (best.words.length > 1) return headline(writtenForm(best))
  const phrase = named.find((term) => term.words.length > 1 && overlap(term, best))
  if (phrase) return headline(writtenForm(phrase))
  const second = named.slice(1, 6).find((term) => term.count > 1 && term.score >= best.score * nearlyAsGood)
  return headline([best, ...(second ? [second] : [])].map(writtenForm).join(' and '))
}

/** Share of the best score from which a second word belongs into the name. */
const nearlyAsGood = 0.6

const overlap = (one: Term, other: Term) =>
  one.words.some((word) => other.words.some((rest) => stem(rest) === stem(word)))

function writtenForm({ written }: Term): string {
  const [form] = [...written].sort((a, b) => b[1] - a[1] || b[0].length - a[0].length)
  return form?.[0] ?? ''
}

function keywordsOf(ranked: readonly RankedTerm[]): string[] {
  const keywords: string[] = []
  for (const term of ranked) {
    if (keywords.length === maxKeywords) break
    const form = writtenForm(term)
    const isPart = keywords.some((keyword) => ` ${keyword} `.includes(` ${form} `))
    if (!isPart) keywords.push(form)
  }
  return keywords
}

/** Characters. */
const maxDescriptionLength = 240

/** The sentence of the most central message: first of an atom, else of any. */
function descriptionOf(cluster: Cluster, atoms: readonly PlacedAtom[]): string {
  const atomOf = new Map(
    atomsOf(cluster, atoms).map((atom) => [atom.citations[0]?.messageId ?? '', atom] as const),
  )
  const byCentrality = cluster.conversations
    .flat()
    .filter(saysSomething)
    .map((turn) => ({ turn, nearness: similarity(turn.message.vector, cluster.vector) }))
    .sort((a, b) => b.nearness - a.nearness)
  const central = byCentrality.find(({ turn }) => atomOf.has(turn.message.id)) ?? byCentrality[0]
  if (!central) return ''
  const text =
    atomOf.get(central.turn.message.id)?.title ??
    [...central.turn.sentences].sort((a, b) => b.wordCount - a.wordCount)[0]?.clean ??
    ''
  const line = text.replace(/\s+/g, ' ').trim()
  if (line.length <= maxDescriptionLength) return sentenceEnd(line)
  return `${line.slice(0, line.lastIndexOf(' ', maxDescriptionLength))}…`
}

const sentenceEnd = (line: string) => {
  const start = withCapital(line)
  return /[.!?…]$/.test(start) ? start : `${start}.`
}
