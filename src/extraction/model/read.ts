import type { Extraction, ExtractionBatch, ProposedAtom, ProposedLink, ProposedTopic } from '../extractor.ts'
import { type Answer, answerSchema } from './answer.ts'
import { type Keys, keysOf } from './prompt.ts'

export interface Reading {
  /** Null where nothing of the answer can be used. Otherwise what keeps all rules, without what does not. */
  extraction: Omit<Extraction, 'usage'> | null
  /** What is wrong with the answer, one sentence each, by path. None: it is taken whole. */
  problems: string[]
}

/** Of ProposedAtom.title, in code points. */
const maxTitleLength = 120

/**
 * Reads a model's answer and maps its keys back.
 *
 * What is no JSON or not of the schema is refused whole. Of the rest each item must keep the rules that a schema cannot
 * say: keys exist and are given once, confidence and strength are 0..1, texts are not blank, every atom has a citation.
 * One that does not is left out and named in `problems`; what refers to it is left out with it, an atom only loses its
 * topic. Where that leaves no topic or no atom of several, the answer is refused whole: it would pass for messages that
 * hold nothing. Whether a quote is in its message is not looked at: that is proven when the extraction is saved.
 */
export function readAnswer(text: string, batch: ExtractionBatch): Reading {
  let value: unknown
  try {
    value = JSON.parse(text, (_, part) =>
      // Postgres cannot store it, and would refuse the whole batch.
      typeof part === 'string' ? part.replaceAll('\0', '') : part,
    )
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    return {
      extraction: null,
      problems: [text.trim() === '' ? 'It is empty.' : `It is no JSON: ${why}.`],
    }
  }
  const parsed = answerSchema.safeParse(value)
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${pathText(path)}: ${message}.`)
    return { extraction: null, problems }
  }
  const reading = withKeysMapped(parsed.data, keysOf(batch))
  const isEmptied =
    (parsed.data.topics.length > 0 && reading.extraction.topics.length === 0) ||
    (parsed.data.atoms.length > 0 && reading.extraction.atoms.length === 0)
  return isEmptied ? { ...reading, extraction: null } : reading
}

function withKeysMapped(
  answer: Answer,
  keys: Keys,
): { extraction: Omit<Extraction, 'usage'>; problems: string[] } {
  const problems: string[] = []
  /** Collects what is wrong with one item. */
  const checked = (where: string) => {
    const found: string[] = []
    return {
      require(holds: boolean, what: string) {
        if (!holds) found.push(`${where}${what}`)
        return holds
      },
      /** Whether all held; else they become problems. */
      isGood() {
        problems.push(...found)
        return found.length === 0
      },
    }
  }
  const messageId = (key: string) => keys.messages.get(key)?.id ?? null
  const messageRange = rangeText('message', 'm', keys.messages.size)

  const topics = new Map<string, ProposedTopic>()
  const topicKeys = new Set<string>()
  for (const [at, topic] of answer.topics.entries()) {
    const item = checked(`topics[${at}]`)
    const known = keys.topics.get(topic.key)
    item.require(!topicKeys.has(topic.key), `.key: ${quoted(topic.key)} is there twice.`)
    item.require(topic.key.trim() !== '', '.key: is blank.')
    item.require(known !== undefined || topic.name.trim() !== '', '.name: is blank.')
    item.require(isShare(topic.confidence), `.confidence: found ${topic.confidence}, expected 0 to 1.`)
    const messageIds = new Set<string>()
    for (const [index, key] of topic.messages.entries()) {
      const id = messageId(key)
      if (id !== null) messageIds.add(id)
      else problems.push(`topics[${at}].messages[${index}]: ${quoted(key)} is no message. ${messageRange}`)
    }
    topicKeys.add(topic.key)
    if (!item.isGood()) continue
    topics.set(topic.key, {
      key: known?.id ?? `topic-${at + 1}`,
      // What exists keeps its name: it is not the model that renames it.
      name: known?.name ?? topic.name.trim(),
      description: known?.description ?? topic.description.trim(),
      keywords: known === undefined ? wordsOf(topic.keywords) : [...known.keywords],
      confidence: topic.confidence,
      messageIds: [...messageIds],
    })
  }

  const atoms = new Map<string, ProposedAtom>()
  const atomKeys = new Set<string>()
  for (const [at, atom] of answer.atoms.entries()) {
    const item = checked(`atoms[${at}]`)
    item.require(!atomKeys.has(atom.key), `.key: ${quoted(atom.key)} is there twice.`)
    item.require(!keys.atoms.has(atom.key), `.key: ${quoted(atom.key)} is an atom that exists already.`)
    item.require(atom.key.trim() !== '', '.key: is blank.')
    item.require(atom.title.trim() !== '', '.title: is blank.')
    const titleLength = [...atom.title.trim()].length
    item.require(
      titleLength <= maxTitleLength,
      `.title: has ${titleLength} characters, expected at most ${maxTitleLength}.`,
    )
    item.require(atom.content.trim() !== '', '.content: is blank.')
    item.require(isShare(atom.confidence), `.confidence: found ${atom.confidence}, expected 0 to 1.`)
    const citations: ProposedAtom['citations'] = []
    for (const [index, { message, quote }] of atom.citations.entries()) {
      const path = `atoms[${at}].citations[${index}]`
      const id = messageId(message)
      if (id === null) problems.push(`${path}.message: ${quoted(message)} is no message. ${messageRange}`)
      else if (quote.trim() === '') problems.push(`${path}.quote: is blank.`)
      else citations.push({ messageId: id, quote })
    }
    item.require(citations.length > 0, '.citations: found none that can be used, expected at least one.')
    atomKeys.add(atom.key)
    if (!item.isGood()) continue
    const proposed: ProposedAtom = {
      key: `atom-${at + 1}`,
      type: atom.type,
      title: atom.title.trim(),
      content: atom.content.trim(),
      confidence: atom.confidence,
      topicKey: null,
      citations,
    }
    atoms.set(atom.key, proposed)
    if (atom.topic === null) continue
    proposed.topicKey = joinTopic(proposed, atom.topic)
    if (proposed.topicKey === null && !topicKeys.has(atom.topic)) {
      problems.push(`atoms[${at}].topic: ${quoted(atom.topic)} is no topic, neither given nor in the answer.`)
    }
  }

  /**
   * The topic of an atom, by its key in the answer. One that exists and that only atoms name is proposed by that, with
   * the messages that they cite.
   */
  function joinTopic(atom: ProposedAtom, key: string): string | null {
    const known = keys.topics.get(key)
    if (known === undefined || topicKeys.has(key)) return topics.get(key)?.key ?? null
    const before = topics.get(key)
    const cited = atom.citations.map(({ messageId: id }) => id)
    topics.set(key, {
      key: known.id,
      name: known.name,
      description: known.description,
      keywords: [...known.keywords],
      confidence: Math.max(before?.confidence ?? 0, atom.confidence),
      messageIds: [...new Set([...(before?.messageIds ?? []), ...cited])],
    })
    return known.id
  }

  const links = new Map<string, ProposedLink>()
  for (const [at, link] of answer.links.entries()) {
    const item = checked(`links[${at}]`)
    const end = (side: 'from' | 'to') => {
      const key = link[side]
      item.require(
        atomKeys.has(key) || keys.atoms.has(key),
        `.${side}: ${quoted(key)} is no atom, neither given nor in the answer.`,
      )
      return atoms.get(key)?.key ?? keys.atoms.get(key)?.id ?? null
    }
    const [from, to] = [end('from'), end('to')]
    item.require(link.from !== link.to, `: leads from ${quoted(link.from)} to itself.`)
    const { type, strength } = link
    item.require(
      strength === null || isShare(strength),
      `.strength: found ${strength}, expected 0 to 1 or null.`,
    )
    if (item.isGood() && from !== null && to !== null) {
      links.set(`${from} ${type} ${to}`, { from, to, type, strength })
    }
  }
  return {
    extraction: { topics: [...topics.values()], atoms: [...atoms.values()], links: [...links.values()] },
    problems,
  }
}

function isShare(value: number): boolean {
  return value >= 0 && value <= 1
}

function wordsOf(keywords: readonly string[]): string[] {
  return [...new Set(keywords.map((word) => word.trim()).filter((word) => word !== ''))]
}

function rangeText(noun: string, letter: string, count: number): string {
  return count === 1 ? `The ${noun} is ${letter}1.` : `The ${noun}s are ${letter}1 to ${letter}${count}.`
}

/** Keys are short; a long one is told by its length, so that no problem shows half of anything. */
function quoted(key: string): string {
  return key.length <= 40 ? JSON.stringify(key) : `a key of ${key.length} characters`
}

function pathText(path: readonly PropertyKey[]): string {
  const text = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('')
  return text.replace(/^\./, '') || 'The answer'
}
