import type { Transaction } from '../db/database.ts'
import type { AtomType } from '../db/generated/prisma/client.ts'
import { advisoryLock } from '../db/locks.ts'
import { storeVectors } from '../embedding/queue.ts'
import type { EmbeddingSpace } from '../embedding/spaces.ts'
import { embedTexts } from '../embedding/texts.ts'
import { addAtomTopics, createAtom } from '../knowledge/atoms.ts'
import { addCitations, type Quote } from '../knowledge/citations.ts'
import { addLink } from '../knowledge/links.ts'
import { proposeRevision, type RevisionChanges } from '../knowledge/revisions.ts'
import { topicKey } from '../knowledge/topic-key.ts'
import { createTopic, findTopicByName, type Origin } from '../knowledge/topics.ts'
import type { EmbeddingProvider } from '../providers/provider.ts'
import type { ExtractionBatch, ProposedTopic } from './extractor.ts'
import { lookOf } from './look.ts'
import { findNear } from './near.ts'
import type { ProvenAtom, ProvenExtraction } from './prove.ts'

/** What a batch has brought. */
export interface SaveCounts {
  topicsCreated: number
  topicsMatched: number
  atomsCreated: number
  /** Atoms that are there already, with the same words to prove them or as a proposal that was rejected. */
  atomsMatched: number
  revisionsProposed: number
  linksCreated: number
  messagesAssigned: number
}

export const noCounts: SaveCounts = {
  topicsCreated: 0,
  topicsMatched: 0,
  atomsCreated: 0,
  atomsMatched: 0,
  revisionsProposed: 0,
  linksCreated: 0,
  messagesAssigned: 0,
}

export interface SaveOptions {
  origin: Origin
  /** Everything goes to this topic, and no other is made or looked for. */
  topicId: string | null
  /** Least confidence at which an atom of a type is approved by itself; none where it is missing. */
  autoApprove: Partial<Record<AtomType, number>>
}

/** How near is near enough, in this space. Similarities. */
interface Nearness {
  sameTopic: number
  sameAtom: number
  relatedAtom: number
  furtherTopic: number
}

const maxFurtherTopics = 5
const limits = { name: 200, title: 500, content: 100_000, keywords: 8 }

/** A proposal with what it will be embedded as. */
interface Embedded<Item> {
  item: Item
  text: string
  /** Null if the model sees nothing to embed. */
  vector: Float32Array | null
}

export interface PreparedExtraction {
  topics: Embedded<ProposedTopic>[]
  atoms: Embedded<ProvenAtom>[]
  links: ProvenExtraction['links']
}

/**
 * Embeds what is to be saved: whether it is new shows in its vector. Before the transaction, which must not wait for a
 * provider.
 * @throws ProviderError
 */
export async function prepareExtraction(
  extraction: ProvenExtraction,
  batch: ExtractionBatch,
  provider: EmbeddingProvider,
  dimensions: number,
  signal: AbortSignal,
): Promise<PreparedExtraction> {
  const known = new Set(batch.topics.map(({ id }) => id))
  const topics = extraction.topics.map((topic) => shortenTopic(topic, known.has(topic.key)))
  const atoms = extraction.atoms.map((atom) => ({
    ...atom,
    title: shorten(atom.title, limits.title),
    content: shorten(atom.content, limits.content),
  }))
  const topicTexts = topics.map(topicText)
  const atomTexts = atoms.map(({ title, content }) => `${title}\n\n${content}`)
  const vectors = await embedTexts(provider, dimensions, [...topicTexts, ...atomTexts], signal)
  return {
    topics: topics.map((item, index) => ({
      item,
      text: topicTexts[index] ?? '',
      vector: vectors[index] ?? null,
    })),
    atoms: atoms.map((item, index) => ({
      item,
      text: atomTexts[index] ?? '',
      vector: vectors[topics.length + index] ?? null,
    })),
    links: extraction.links,
  }
}

/** As the database puts it together: see topic_text in the migrations. */
const topicText = ({ name, description, keywords }: ProposedTopic) =>
  [name, description, keywords.join(', ')].filter((part) => part !== '').join('\n\n')

function shortenTopic(topic: ProposedTopic, isKnown: boolean): ProposedTopic {
  if (isKnown) return topic
  return {
    ...topic,
    name: shorten(topic.name, limits.name),
    keywords: topic.keywords.filter((word) => word.trim() !== '').slice(0, limits.keywords),
  }
}

/** At most so many bytes, cut at the end of a character. */
function shorten(text: string, bytes: number): string {
  const clean = text.toWellFormed().replaceAll('\0', '').trim()
  if (Buffer.byteLength(clean) <= bytes) return clean
  const cut = Buffer.from(clean).subarray(0, bytes - 3)
  return `${new TextDecoder('utf-8')
    .decode(cut)
    .replace(/\uFFFD+$/, '')
    .trimEnd()}…`
}

/**
 * Saves a batch: finds the topics and atoms that are there already, makes the others with their vectors, cites, links,
 * and assigns the messages. All or nothing, in the caller's transaction.
 */
export async function saveExtraction(
  transaction: Transaction,
  space: EmbeddingSpace,
  extraction: PreparedExtraction,
  batch: ExtractionBatch,
  options: SaveOptions,
): Promise<SaveCounts> {
  await transaction.query('select pg_advisory_xact_lock($1)', [advisoryLock.saveExtraction])
  const prepared = keepProven(extraction, await lockUnchanged(transaction, batch))
  const nearness = await readNearness(transaction, space)
  const counts = { ...noCounts }
  const topicIds = await saveTopics(transaction, space, prepared, batch, nearness, options, counts)
  const atomIds = await saveAtoms(transaction, space, prepared, topicIds, nearness, options, counts)
  for (const { from, to, type, strength } of prepared.links) {
    const fromId = atomIds.get(from) ?? from
    const toId = atomIds.get(to) ?? to
    if (fromId === toId) continue
    if (await addLink(transaction, { fromId, toId, type, strength })) counts.linksCreated++
  }
  return counts
}

/** The messages of a batch that neither changed nor went while the extractor worked; they stay so until the end. */
async function lockUnchanged(transaction: Transaction, batch: ExtractionBatch): Promise<Set<string>> {
  const rows = await transaction.query<{ id: string; content: string }>(
    'select id, content from message where id = any ($1::uuid[]) order by id for share',
    [batch.messages.map(({ id }) => id)],
  )
  const read = new Map(batch.messages.map(({ id, content }) => [id, content]))
  return new Set(rows.flatMap(({ id, content }) => (read.get(id) === content ? [id] : [])))
}

/** Without what only messages have said that are no longer so. One that has changed is read again. */
function keepProven(
  { topics, atoms, links }: PreparedExtraction,
  unchanged: ReadonlySet<string>,
): PreparedExtraction {
  const proven = atoms
    .map(({ item, ...rest }) => {
      const quotes = item.quotes.filter(({ messageId }) => unchanged.has(messageId))
      return { ...rest, item: { ...item, quotes } }
    })
    .filter(({ item }) => item.quotes.length > 0)
  const gone = new Set(atoms.map(({ item }) => item.key))
  for (const { item } of proven) gone.delete(item.key)
  const wanted = new Set(proven.map(({ item }) => item.topicKey))
  const standing = topics.flatMap(({ item, ...rest }) => {
    const messageIds = item.messageIds.filter((id) => unchanged.has(id))
    const isEmptied = messageIds.length === 0 && item.messageIds.length > 0 && !wanted.has(item.key)
    return isEmptied ? [] : [{ ...rest, item: { ...item, messageIds } }]
  })
  return {
    topics: standing,
    atoms: proven,
    links: links.filter(({ from, to }) => !gone.has(from) && !gone.has(to)),
  }
}

async function readNearness(transaction: Transaction, space: EmbeddingSpace): Promise<Nearness> {
  const [row] = await transaction.query<Nearness>(
    `select same_topic::float8 as "sameTopic", same_atom::float8 as "sameAtom", related_atom::float8 as "relatedAtom",
       further_topic::float8 as "furtherTopic" from embedding_space where id = $1`,
    [space.id],
  )
  if (!row) throw new Error(`embedding space ${space.id} is gone`)
  return row
}

async function saveTopics(
  transaction: Transaction,
  space: EmbeddingSpace,
  prepared: PreparedExtraction,
  batch: ExtractionBatch,
  nearness: Nearness,
  options: SaveOptions,
  counts: SaveCounts,
): Promise<Map<string, string>> {
  const ids = new Map<string, string>()
  const { topicId } = options
  if (topicId !== null) {
    for (const { item } of prepared.topics) ids.set(item.key, topicId)
    counts.messagesAssigned += await assignMessages(
      transaction,
      topicId,
      batch.messages.map(({ id }) => id),
    )
    return ids
  }
  const known = new Set(batch.topics.map(({ id }) => id))
  const made = new Set<string>()
  for (const topic of prepared.topics) {
    const { item } = topic
    const existing = known.has(item.key)
      ? await findTopicById(transaction, item.key)
      : ((await findTopicByName(transaction, item.name))?.id ??
        (await nearest(transaction, space, 'TOPIC', topic.vector, nearness.sameTopic)))
    const id = existing ?? (await makeTopic(transaction, space, topic, options.origin))
    if (existing === null) {
      made.add(id)
      counts.topicsCreated++
    } else if (!made.has(id)) counts.topicsMatched++
    ids.set(item.key, id)
    counts.messagesAssigned += await assignMessages(transaction, id, item.messageIds)
  }
  return ids
}

/** Null if it was deleted, or merged away, while the extractor worked. */
async function findTopicById(transaction: Transaction, id: string): Promise<string | null> {
  const [row] = await transaction.query<{ id: string }>('select id from topic where id = $1 for key share', [
    id,
  ])
  return row?.id ?? null
}

async function nearest(
  transaction: Transaction,
  space: EmbeddingSpace,
  kind: 'ATOM' | 'TOPIC',
  vector: Float32Array | null,
  threshold: number,
): Promise<string | null> {
  const [near] = vector === null ? [] : await findNear(transaction, space, kind, vector, 1)
  return near && near.similarity >= threshold ? near.id : null
}

async function makeTopic(
  transaction: Transaction,
  space: EmbeddingSpace,
  { item, text, vector }: Embedded<ProposedTopic>,
  origin: Origin,
): Promise<string> {
  const { name, description, keywords } = item
  const look = lookOf(topicKey(name))
  const { id } = await createTopic(transaction, { name, description, keywords, ...look }, origin)
  if (vector) await storeVectors(transaction, space.id, [{ kind: 'TOPIC', ownerId: id, text, vector }])
  return id
}

/** A message that has a topic keeps it: a person, or an earlier reading with more of its context, gave it. */
async function assignMessages(
  transaction: Transaction,
  topicId: string,
  messageIds: readonly string[],
): Promise<number> {
  const assigned = await transaction.query(
    'update message set topic_id = $1 where id = any ($2::uuid[]) and topic_id is null returning 1',
    [topicId, messageIds],
  )
  return assigned.length
}

async function saveAtoms(
  transaction: Transaction,
  space: EmbeddingSpace,
  prepared: PreparedExtraction,
  topicIds: ReadonlyMap<string, string>,
  nearness: Nearness,
  options: SaveOptions,
  counts: SaveCounts,
): Promise<Map<string, string>> {
  const ids = new Map<string, string>()
  for (const atom of prepared.atoms) {
    const { item } = atom
    // A problem and its solution may be put in nearly the same words; the answer itself says that they are two.
    const linked = new Set(
      prepared.links
        .filter(({ from, to }) => from === item.key || to === item.key)
        .map(({ from, to }) => (from === item.key ? to : from))
        .flatMap((key) => ids.get(key) ?? []),
    )
    const near = atom.vector === null ? [] : await findNear(transaction, space, 'ATOM', atom.vector, 5)
    const twin = near.find(({ id, similarity }) => similarity > nearness.sameAtom && !linked.has(id))
    if (twin) {
      ids.set(item.key, twin.id)
      await reviseTwin(transaction, twin.id, item, options.origin, counts)
      continue
    }
    const id = await makeAtom(transaction, space, atom, topicIds, nearness, options)
    ids.set(item.key, id)
    counts.atomsCreated++
    for (const { id: other, similarity } of near) {
      if (similarity < nearness.relatedAtom || linked.has(other)) continue
      const link = { fromId: id, toId: other, type: 'RELATES_TO', strength: similarity } as const
      if (await addLink(transaction, link)) counts.linksCreated++
    }
  }
  return ids
}

async function makeAtom(
  transaction: Transaction,
  space: EmbeddingSpace,
  { item, text, vector }: Embedded<ProvenAtom>,
  topicIds: ReadonlyMap<string, string>,
  nearness: Nearness,
  options: SaveOptions,
): Promise<string> {
  const own = options.topicId ?? (item.topicKey === null ? null : (topicIds.get(item.topicKey) ?? null))
  const further =
    vector === null ? [] : await findNear(transaction, space, 'TOPIC', vector, maxFurtherTopics + 1)
  const tied = further
    .filter(({ id, similarity }) => similarity >= nearness.furtherTopic && id !== own)
    .slice(0, maxFurtherTopics)
    .map(({ id }) => id)
  const approvedFrom = options.autoApprove[item.type]
  const { id } = await createAtom(
    transaction,
    {
      type: item.type,
      title: item.title,
      content: item.content,
      confidence: item.confidence,
      reviewState: approvedFrom !== undefined && item.confidence >= approvedFrom ? 'APPROVED' : 'PENDING',
      topicIds: own === null ? [] : [own],
    },
    options.origin,
  )
  await addAtomTopics(transaction, id, tied)
  await addCitations(transaction, id, item.quotes)
  if (vector) await storeVectors(transaction, space.id, [{ kind: 'ATOM', ownerId: id, text, vector }])
  return id
}

/** Proposes what a reading adds to an atom that is there; nothing, if it is proven by these words already. */
async function reviseTwin(
  transaction: Transaction,
  atomId: string,
  item: ProvenAtom,
  origin: Origin,
  counts: SaveCounts,
): Promise<void> {
  const [twin] = await transaction.query<{ title: string; content: string; reviewState: string }>(
    `select title, content, review_state as "reviewState" from atom where id = $1 for update`,
    [atomId],
  )
  if (!twin) throw new Error(`atom ${atomId} has a vector and no row`)
  const fresh = await withoutCited(transaction, atomId, item.quotes)
  if (fresh.length === 0 || twin.reviewState === 'REJECTED') {
    counts.atomsMatched++
    return
  }
  const changes: RevisionChanges = { citations: fresh }
  if (item.content !== twin.content) {
    changes.title = { from: twin.title, to: item.title }
    changes.content = { from: twin.content, to: item.content }
  }
  const revision = await proposeRevision(transaction, atomId, changes, origin.jobId)
  if (revision) counts.revisionsProposed++
  else counts.atomsMatched++
}

async function withoutCited(
  transaction: Transaction,
  atomId: string,
  quotes: readonly Quote[],
): Promise<Quote[]> {
  const cited = await transaction.query<{ messageId: string; start: number }>(
    'select message_id as "messageId", start from citation where atom_id = $1',
    [atomId],
  )
  return quotes.filter(
    (quote) => !cited.some(({ messageId, start }) => messageId === quote.messageId && start === quote.start),
  )
}

/** Adds the counts of a batch to those of its job. */
export const addCounts = (a: SaveCounts, b: SaveCounts): SaveCounts =>
  Object.fromEntries(
    Object.keys(noCounts).map((key) => [key, a[key as keyof SaveCounts] + b[key as keyof SaveCounts]]),
  ) as unknown as SaveCounts
