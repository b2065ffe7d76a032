import { aliasesOf, type MessageTraits, type NameUse, traitsOf } from './features.ts'

/**
 * Messages of a channel that a new one may answer, and from which names and rare words are known. Kummerfeld et al. (ACL
 * 2019) look back over 100; on their data 1 answer in 100 goes further back.
 */
export const windowSize = 128
/** What is older, in milliseconds, is over: 7 days. */
export const maxAgeMs = 7 * 24 * 3600 * 1000

/**
 * What the score of an earlier message is made of ("it" is the new message), in the order of the rows. All are about
 * 0..1. A `busy` feature counts in proportion to how busy the channel is: where many talk at once, the message before
 * says little and a name says much.
 */
export const featureNames = [
  // How far back, in messages (logarithm) and in time: up to 10 minutes, 6 hours, 7 days.
  'distance',
  'gapMinutes',
  'gapHours',
  'gapDays',
  'busyGapMinutes',
  // Who speaks, and who is named: it speaks to the earlier author, or names somebody else; the earlier message names its
  // author, or somebody else, or nobody.
  'busySameAuthor',
  'addressesAuthor',
  'addressesOther',
  'busyAddressesOther',
  'addressedByEarlier',
  'busyEarlierNamesOther',
  'earlierNamesNobody',
  // The conversation of the earlier message: whether that is its last word, how long it has been silent (in messages),
  // how large it is.
  'conversationLatest',
  'busyConversationLatest',
  'conversationDistance',
  'busyConversationDistance',
  'conversationSize',
  // The part that the author, and those whom it names, have in that conversation.
  'authorTakesPart',
  'authorShare',
  'authorRecentShare',
  'busyAuthorRecentShare',
  'addresseeTakesPart',
  'busyAddresseeTakesPart',
  'addresseeShare',
  // Neither the author nor anybody it names takes part or is named there: it asks, names nobody, is long.
  'busyOutsiderAsks',
  'busyOutsiderNamesNobody',
  'busyOutsiderLength',
  // Words and meaning.
  'rarestSharedWord',
  'busyRarestSharedWord',
  'repeatsItself',
  'closeness',
  'busyCloseness',
  'answersQuestion',
  'busyAnswersQuestion',
  // It starts a new conversation.
  'new',
  'busyNew',
  'newAuthorUnseen',
  'newLength',
] as const
export type FeatureName = (typeof featureNames)[number]
export const featureCount = featureNames.length

const columns = Object.fromEntries(featureNames.map((name, index) => [name, index])) as Record<
  FeatureName,
  number
>

export interface WindowMessage {
  id: string
  author: string
  sentAt: Date
  content: string
  vector: Float32Array | null
}

/** The earlier messages that a message may answer, each with its features, and one row more for starting anew. */
export interface Candidates {
  /** Earlier messages; the row with this index is the one for starting anew. */
  count: number
  /** `count + 1` rows of `featureCount` values. Overwritten by the next call. */
  rows: Float64Array
  idOf(index: number): string
  conversationOf(index: number): string
}

interface Entry {
  id: string
  /** Counts the messages of the channel. */
  sequence: number
  author: string
  /** Milliseconds. */
  time: number
  traits: MessageTraits
  /** At unit length. */
  vector: Float32Array | null
  /** Authors of the window that it names, but not its own. */
  names: Map<string, NameUse>
  conversation: Conversation
}

interface Conversation {
  id: string
  /** In the window, in the order of time. */
  members: Entry[]
  /** Members by author. */
  participants: Map<string, number>
}

interface Author {
  aliases: readonly string[]
  /** In the window, in the order of time. */
  messages: Entry[]
}

/** A new message as it is compared with the earlier ones. */
interface Arrival {
  author: string
  time: number
  traits: MessageTraits
  vector: Float32Array | null
  names: Map<string, NameUse>
}

/** What it has to do with a conversation: the same for all of the conversation's messages. */
interface Relation {
  latest: Entry | undefined
  distance: number
  size: number
  authorTakesPart: boolean
  authorShare: number
  authorRecentShare: number
  addresseeTakesPart: boolean
  addresseeShare: number
  isOutsider: boolean
}

/** Of a conversation's messages, the last that count as recent. */
const recentMembers = 6
/** Messages whose pace says how busy a channel is. */
const paceMessages = 16
/** So many words say no more than this many: a pasted text is not a longer question. */
const mostWords = 127
/** Fewer vectors give no mean and deviation to compare with. */
const leastVectors = 8

/** The last messages of one channel, as the next message sees them. Messages come in the order of time. */
export function createWindow() {
  const entries: Entry[] = []
  let sequence = 0
  const conversations = new Map<string, Conversation>()
  const authors = new Map<string, Author>()
  /** The authors in the window that are called so. */
  const aliases = new Map<string, Set<string>>()
  /** The messages in the window that have a word, in the order of time. */
  const postings = new Map<string, Entry[]>()
  /** In how many messages of the window a token stands: as a marked name, and in all. */
  const tokenUses = new Map<string, { marked: number; all: number }>()
  const rows = new Float64Array((windowSize + 1) * featureCount)
  /** Reading a message takes longer than comparing it; the one that is compared is mostly the next to be added. */
  let lastRead: { content: string; traits: MessageTraits } | null = null

  function read({ content }: WindowMessage): MessageTraits {
    if (lastRead?.content !== content) lastRead = { content, traits: traitsOf(content) }
    return lastRead.traits
  }

  function candidatesOf(message: WindowMessage): Candidates {
    const time = message.sentAt.getTime()
    forget(time, windowSize)
    const traits = read(message)
    const it: Arrival = {
      author: message.author,
      time,
      traits,
      vector: message.vector ? unitOf(message.vector) : null,
      names: namesOf(traits, message.author),
    }
    const count = entries.length
    rows.fill(0, 0, (count + 1) * featureCount)
    const busy = busyness(time)
    if (count > 0) fillAnswers(it, busy)
    const row = count * featureCount
    rows[row + columns.new] = 1
    rows[row + columns.busyNew] = busy
    // Where hardly anybody has spoken yet, it says little that somebody has not: all of it after 12 messages.
    rows[row + columns.newAuthorUnseen] = authors.has(it.author) ? 0 : Math.min(1, (count + 4) / 16)
    rows[row + columns.newLength] = lengthOf(traits)
    return {
      count,
      rows,
      idOf: (index) => at(entries, index).id,
      conversationOf: (index) => at(entries, index).conversation.id,
    }
  }

  function fillAnswers(it: Arrival, busy: number): void {
    const self = authors.get(it.author)
    const unseen: Author = { aliases: aliasesOf(it.author), messages: [] }
    const namings = entries.map((entry) =>
      self ? entry.names.get(it.author) : useOf(entry.traits, it.author, unseen),
    )
    const namingConversations = new Set(
      entries.filter((_, index) => namings[index]).map((entry) => entry.conversation),
    )
    const shared = sharedWords(it.traits)
    const closeness = closenessOf(it.vector)
    const relations = new Map<Conversation, Relation>()
    const length = lengthOf(it.traits)
    for (const [index, entry] of entries.entries()) {
      const row = index * featureCount
      const { conversation } = entry
      const relation = relations.get(conversation) ?? relationOf(conversation, it, namingConversations)
      relations.set(conversation, relation)
      const seconds = (it.time - entry.time) / 1000
      const isSame = entry.author === it.author
      const use = it.names.get(entry.author)
      const naming = namings[index]
      const words = shared.get(entry)
      const rarest = words?.rarest ?? 0
      const close = closeness?.[index] ?? 0
      const minutes = ramp(seconds, 20, 600)
      const isLatest = relation.latest === entry ? 1 : 0
      const takesPart = relation.addresseeTakesPart ? 1 : 0

      rows[row + columns.distance] = Math.log2(entries.length - index) / 7
      rows[row + columns.gapMinutes] = minutes
      rows[row + columns.busyGapMinutes] = busy * minutes
      rows[row + columns.gapHours] = ramp(seconds, 600, 6 * 3600)
      rows[row + columns.gapDays] = ramp(seconds, 6 * 3600, 7 * 24 * 3600)
      if (isSame) {
        rows[row + columns.busySameAuthor] = busy
        rows[row + columns.repeatsItself] = words?.overlap ?? 0
      } else {
        const other = it.names.size > 0 && use === undefined ? 1 : 0
        const asks = entry.traits.isQuestion && !it.traits.isQuestion ? 1 : 0
        rows[row + columns.addressesAuthor] = use === 'ADDRESSED' ? 1 : 0
        rows[row + columns.addressesOther] = other
        rows[row + columns.busyAddressesOther] = busy * other
        rows[row + columns.addressedByEarlier] = naming === 'ADDRESSED' ? 1 : 0
        rows[row + columns.busyEarlierNamesOther] = entry.names.size > 0 && !naming ? busy : 0
        rows[row + columns.answersQuestion] = asks
        rows[row + columns.busyAnswersQuestion] = busy * asks
      }
      rows[row + columns.earlierNamesNobody] = entry.names.size === 0 ? 1 : 0
      rows[row + columns.conversationLatest] = isLatest
      rows[row + columns.busyConversationLatest] = busy * isLatest
      rows[row + columns.conversationDistance] = relation.distance
      rows[row + columns.busyConversationDistance] = busy * relation.distance
      rows[row + columns.conversationSize] = relation.size
      rows[row + columns.authorTakesPart] = relation.authorTakesPart ? 1 : 0
      rows[row + columns.authorShare] = relation.authorShare
      rows[row + columns.authorRecentShare] = relation.authorRecentShare
      rows[row + columns.busyAuthorRecentShare] = busy * relation.authorRecentShare
      rows[row + columns.addresseeTakesPart] = takesPart
      rows[row + columns.busyAddresseeTakesPart] = busy * takesPart
      rows[row + columns.addresseeShare] = relation.addresseeShare
      if (relation.isOutsider) {
        rows[row + columns.busyOutsiderAsks] = it.traits.isQuestion ? busy : 0
        rows[row + columns.busyOutsiderNamesNobody] = it.names.size === 0 ? busy : 0
        rows[row + columns.busyOutsiderLength] = busy * length
      }
      rows[row + columns.rarestSharedWord] = rarest
      rows[row + columns.busyRarestSharedWord] = busy * rarest
      rows[row + columns.closeness] = close
      rows[row + columns.busyCloseness] = busy * close
    }
  }

  function relationOf(
    conversation: Conversation,
    { author, names }: Arrival,
    namingConversations: ReadonlySet<Conversation>,
  ): Relation {
    const { members, participants } = conversation
    const latest = members.at(-1)
    const own = participants.get(author) ?? 0
    let addressees = 0
    for (const name of names.keys()) addressees = Math.max(addressees, participants.get(name) ?? 0)
    const recent = members.slice(-recentMembers)
    const isOwn = (entry: Entry) => entry.author === author || entry.names.has(author)
    return {
      latest,
      distance: Math.log2(sequence - (latest?.sequence ?? 0)) / 7,
      size: Math.log2(members.length) / 7,
      authorTakesPart: own > 0,
      authorShare: Math.sqrt(own / members.length),
      authorRecentShare: recent.filter(isOwn).length / recent.length,
      addresseeTakesPart: addressees > 0,
      addresseeShare: Math.sqrt(addressees / members.length),
      isOutsider: own === 0 && addressees === 0 && !namingConversations.has(conversation),
    }
  }

  /**
   * 1 where the last messages came within 5 seconds of each other on average, 0 where it took 10 minutes or more. A
   * channel that has not shown its pace yet is taken as one in between.
   */
  function busyness(now: number): number {
    const count = Math.min(paceMessages, entries.length)
    if (count === 0) return 0.5
    const seconds = (now - at(entries, entries.length - count).time) / 1000
    const [least, most] = [5, 600]
    const missing = (paceMessages - count) * Math.sqrt(least * most)
    return 1 - ramp((seconds + missing) / paceMessages, least, most)
  }

  /**
   * Words that are in both, by how rare they are in the window (inverse document frequency, Spärck Jones 1972, scaled to
   * 0..1): the rarest one, and the overlap of the two texts as a cosine.
   */
  function sharedWords(traits: MessageTraits): Map<Entry, { rarest: number; overlap: number }> {
    const found = new Map<Entry, { rarest: number; overlap: number }>()
    const all = entries.length + 1
    let own = 0
    for (const word of traits.words) {
      const holders = postings.get(word)
      const weight = Math.log(all / (holders?.length ?? 1)) / Math.log(all)
      own += weight ** 2
      for (const entry of holders ?? []) {
        const sum = found.get(entry)
        if (sum) {
          sum.overlap += weight ** 2
          sum.rarest = Math.max(sum.rarest, weight)
        } else found.set(entry, { overlap: weight ** 2, rarest: weight })
      }
    }
    for (const [entry, sum] of found) sum.overlap /= Math.sqrt(Math.max(own, 1) * entry.traits.words.length)
    return found
  }

  /**
   * The cosine with each earlier message, less the mean over the window and in threes of the deviation, -1..1: what
   * counts as close differs from model to model and from channel to channel. 0, which is neutral, without a vector.
   */
  function closenessOf(vector: Float32Array | null): Float64Array | null {
    if (!vector) return null
    const cosines = new Float64Array(entries.length)
    let [count, sum, squares] = [0, 0, 0]
    for (const [index, entry] of entries.entries()) {
      if (entry.vector?.length !== vector.length) continue
      const cosine = dot(vector, entry.vector)
      cosines[index] = cosine
      count++
      sum += cosine
      squares += cosine ** 2
    }
    if (count < leastVectors) return null
    const mean = sum / count
    const deviation = Math.sqrt(Math.max(squares / count - mean ** 2, 1e-6))
    for (const [index, entry] of entries.entries()) {
      if (entry.vector?.length !== vector.length) continue
      cosines[index] = Math.max(-1, Math.min(1, ((cosines[index] ?? 0) - mean) / deviation / 3))
    }
    return cosines
  }

  /** How a message names an author, if it does. */
  function useOf(traits: MessageTraits, name: string, author: Author): NameUse | null {
    let found: NameUse | null = null
    for (const [index, alias] of author.aliases.entries()) {
      const use = traits.tokens.get(alias)
      if (use === undefined) continue
      const holders = aliases.get(alias)
      // A short form that would fit several people names nobody for certain.
      if (index > 0 && holders && holders.size > (holders.has(name) ? 1 : 0)) continue
      if (!traits.markedNames.includes(alias) && isWord(alias)) continue
      if (use === 'ADDRESSED') return use
      found = use
    }
    return found
  }

  /** Some people are called like a common word. It means them only where it is marked as a name. */
  function isWord(token: string): boolean {
    const uses = tokenUses.get(token)
    return uses !== undefined && uses.all >= 4 && uses.all > 3 * uses.marked
  }

  function namesOf(traits: MessageTraits, self: string): Map<string, NameUse> {
    const names = new Map<string, NameUse>()
    for (const token of traits.tokens.keys()) {
      for (const name of aliases.get(token) ?? []) {
        const author = authors.get(name)
        const use = author && name !== self ? useOf(traits, name, author) : null
        if (use) names.set(name, use)
      }
    }
    return names
  }

  /** Appends a message. */
  function push(message: WindowMessage, conversationId: string): void {
    const time = message.sentAt.getTime()
    forget(time, windowSize - 1)
    const traits = read(message)
    const isUnseen = !authors.has(message.author)
    const author = authors.get(message.author) ?? addAuthor(message.author)
    if (isUnseen) {
      for (const earlier of entries) {
        const use = useOf(earlier.traits, message.author, author)
        if (use) earlier.names.set(message.author, use)
      }
    }
    const conversation = conversations.get(conversationId) ?? {
      id: conversationId,
      members: [],
      participants: new Map<string, number>(),
    }
    conversations.set(conversationId, conversation)
    const entry: Entry = {
      id: message.id,
      sequence: sequence++,
      author: message.author,
      time,
      traits,
      vector: message.vector ? unitOf(message.vector) : null,
      names: namesOf(traits, message.author),
      conversation,
    }
    entries.push(entry)
    author.messages.push(entry)
    conversation.members.push(entry)
    addTo(conversation.participants, message.author, 1)
    for (const word of traits.words) {
      const holders = postings.get(word)
      if (holders) holders.push(entry)
      else postings.set(word, [entry])
    }
    countTokens(traits, 1)
  }

  /** Lets go of what is too old at a moment, and of the oldest beyond a number of messages. */
  function forget(now: number, keep: number): void {
    let gone = Math.max(0, entries.length - keep)
    while (gone < entries.length && now - at(entries, gone).time > maxAgeMs) gone++
    for (const entry of entries.splice(0, gone)) remove(entry)
  }

  /** Of the oldest entry only: every list here begins with it. */
  function remove(entry: Entry): void {
    const { conversation, traits } = entry
    conversation.members.shift()
    addTo(conversation.participants, entry.author, -1)
    if (conversation.members.length === 0) conversations.delete(conversation.id)
    for (const word of traits.words) {
      const holders = postings.get(word)
      holders?.shift()
      if (holders?.length === 0) postings.delete(word)
    }
    countTokens(traits, -1)
    const author = authors.get(entry.author)
    author?.messages.shift()
    if (author?.messages.length === 0) removeAuthor(entry.author, author)
  }

  function countTokens(traits: MessageTraits, by: number): void {
    for (const token of traits.tokens.keys()) {
      const uses = tokenUses.get(token) ?? { marked: 0, all: 0 }
      uses.all += by
      if (traits.markedNames.includes(token)) uses.marked += by
      if (uses.all === 0) tokenUses.delete(token)
      else tokenUses.set(token, uses)
    }
  }

  function addAuthor(name: string): Author {
    const author: Author = { aliases: aliasesOf(name), messages: [] }
    authors.set(name, author)
    for (const alias of author.aliases) aliases.set(alias, (aliases.get(alias) ?? new Set()).add(name))
    return author
  }

  function removeAuthor(name: string, author: Author): void {
    authors.delete(name)
    for (const alias of author.aliases) {
      const holders = aliases.get(alias)
      holders?.delete(name)
      if (holders?.size === 0) aliases.delete(alias)
    }
    for (const entry of entries) entry.names.delete(name)
  }

  return { candidatesOf, push }
}

/** 0 up to `from` seconds, 1 from `to` on, and in between by the logarithm. */
function ramp(seconds: number, from: number, to: number): number {
  if (!(seconds > from)) return 0
  return seconds >= to ? 1 : Math.log(seconds / from) / Math.log(to / from)
}

const lengthOf = (traits: MessageTraits): number => Math.log2(1 + Math.min(traits.length, mostWords)) / 7

function addTo(counts: Map<string, number>, key: string, by: number): void {
  const count = (counts.get(key) ?? 0) + by
  if (count === 0) counts.delete(key)
  else counts.set(key, count)
}

function unitOf(vector: Float32Array): Float32Array {
  const norm = Math.sqrt(dot(vector, vector))
  // Vectors that are at unit length already, as most models give them, are not copied.
  if (norm === 0 || Math.abs(norm - 1) < 1e-3) return vector
  return vector.map((value) => value / norm)
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  // The cast spares a branch for each of some 60,000 products per message.
  for (let index = 0; index < a.length; index++) sum += (a[index] as number) * (b[index] as number)
  return sum
}

function at<Item>(items: readonly Item[], index: number): Item {
  const item = items[index]
  if (item === undefined) throw new RangeError(`no item ${index} among ${items.length}`)
  return item
}
