import type { AtomLinkType, ProposedAtom, ProposedLink } from '../extractor.ts'
import { type Finding, findLabel, findStatements, isTurn } from './atoms.ts'
import { confidenceOf } from './confidence.ts'
import type { Turn } from './dialogue.ts'
import { countThings, countWords, headline, normalise, type Sentence, withCapital } from './text.ts'

/*
 * From findings to atoms that are understood without the conversation, and the links between them.
 */

/** An atom, with what is known of it only here. */
export interface PlacedAtom extends ProposedAtom {
  /** The rule that found it, for measurements. */
  rule: string
  /** By which its topic is told. */
  conversationId: string
}

/**
 * The atoms of all conversations and their links; `topicKey` is still null. `pause` is awaited after each conversation.
 */
export async function proposeAtoms(
  conversations: readonly (readonly Turn[])[],
  pause: () => Promise<void>,
): Promise<{ atoms: PlacedAtom[]; links: ProposedLink[] }> {
  const atoms: PlacedAtom[] = []
  const links: ProposedLink[] = []
  /** The words of each atom. */
  const known: ReadonlySet<string>[] = []
  for (const turns of conversations) {
    const byFinding = new Map<Finding, PlacedAtom>()
    for (const finding of findStatements(turns)) {
      const atom = write(finding, `atom-${atoms.length + 1}`)
      if (!atom) continue
      const words = wordsOf(atom)
      const same = atoms.find((other, place) => other.type === atom.type && saysTheSame(known[place], words))
      if (same) addCitations(same, atom.citations)
      else {
        atoms.push(atom)
        known.push(words)
      }
      byFinding.set(finding, same ?? atom)
    }
    for (const [finding, atom] of byFinding) {
      const link = linkOf(finding, byFinding)
      const to = link && byFinding.get(link.to)
      if (!to || to === atom) continue
      if (links.some((other) => other.from === atom.key && other.to === to.key)) continue
      links.push({ from: atom.key, to: to.key, type: link.type, strength: link.strength })
    }
    await pause()
  }
  return { atoms, links }
}

/** Null where nobody could understand it without the conversation. */
function write(finding: Finding, key: string): PlacedAtom | null {
  const { turn, from, to } = finding
  const own = turn.sentences.slice(from, to + 1)
  const texts = own.map(statedIn).filter((text) => text !== '')
  const main =
    own.find((sentence) => statedIn(sentence) !== '' && countThings(sentence) >= 2) ??
    own.find((sentence) => statedIn(sentence) !== '')
  if (!main || texts.length === 0) return null
  const context = contextOf(finding)
  if (needsContext(own[0] ?? main) && (!context || (finding.type === 'QUESTION' && context.turn !== turn)))
    return null
  const statement = texts.map(sentenceCase).join(' ')
  const content =
    context === null
      ? statement
      : context.turn === turn
        ? `${sentenceCase(context.sentence.clean)} ${statement}`
        : `“${headline(statedIn(context.sentence))}” — ${statement}`
  const citations = [
    ...own.map((sentence) => ({ messageId: turn.message.id, quote: sentence.text })),
    ...(context ? [{ messageId: context.turn.message.id, quote: context.sentence.text }] : []),
    ...finding.proofs.flatMap(quoteWhole),
  ]
  return {
    key,
    rule: finding.rule,
    type: finding.type,
    title: headline(statedIn(main)),
    content,
    confidence: confidenceOf(finding.rule, finding.proofs.length > 0),
    topicKey: null,
    citations,
    conversationId: turn.message.conversationId,
  }
}

/** What a sentence states: without its label ("Decision: "), if something is left. */
function statedIn(sentence: Sentence): string {
  const labelled = findLabel(sentence)
  if (!labelled) return sentence.clean
  return countWords(labelled.rest) >= 3
    ? sentence.clean.slice(sentence.clean.length - labelled.rest.length)
    : ''
}

function sentenceCase(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim()
  const start = withCapital(line)
  return /[.!?…:`)"]$/.test(start) ? start : `${start}.`
}

/** A sentence that begins with a pronoun or an answer to something says nothing by itself. */
const pointing =
  /^(?:it|it's|its|it'll|this|that|that's|thats|these|those|they|they're|them|she|he|her|his|their|both|same|none|neither|not|yes|because|(?:one|two|three|four|five|some|most|all|none|many) of (?:them|these|those)|(?:for|to|with|on) (?:those|that|this)|otherwise|instead|could (?:it|that|this)|это|этот|эта|эти|он|она|оно|они|иначе|так)(?![\p{L}'])/iu
/** One that goes on with what was said is better understood with it. */
const continuing = /^(?:then|so|there|let's|lets|тогда|там|давайте)(?![\p{L}'])/iu
const pointingInside =
  /(?<![\p{L}])(?:this (?!week|month|year|time|morning|afternoon|evening|summer|winter|spring|autumn|quarter|sprint|release|is|was|has|means)\p{L}+|that (?:one|error|issue|problem|approach|way|case|too)|the (?:other one|first one|second one|latter|former)|for that|with that|do that|about it)(?![\p{L}])|(?<![\p{L}])(?:about|of|for|do|with|like|on|to) (?:this|that|it)\s*[?.!]*$/iu

const textOf = (sentence: Sentence) => findLabel(sentence)?.rest ?? sentence.plain
const needsContext = (sentence: Sentence) =>
  pointing.test(textOf(sentence)) || pointingInside.test(textOf(sentence))

/** What a statement is about: the sentence before it, or what it answers. Null where it needs none, or there is none. */
function contextOf(finding: Finding): { turn: Turn; sentence: Sentence } | null {
  const { turn, from, about } = finding
  const own = turn.sentences[from]
  if (!own) return null
  if (about && !isTurn(about)) return pick(about.turn, about.from, about.to)
  if (!needsContext(own) && !continuing.test(textOf(own)) && about === null) return null
  const before = turn.sentences[from - 1]
  if (before && before.wordCount >= 4 && countThings(before) > 0) return { turn, sentence: before }
  const answered = about ?? turn.answers
  return answered ? pick(answered, 0, answered.sentences.length - 1) : null
}

function pick(turn: Turn, from: number, to: number): { turn: Turn; sentence: Sentence } | null {
  const [sentence] = turn.sentences
    .slice(from, to + 1)
    .filter((candidate) => countThings(candidate) > 0)
    .sort((a, b) => countThings(b) - countThings(a))
  return sentence ? { turn, sentence } : null
}

/** Characters of a reply that are quoted to prove that it agrees or confirms. */
const maxProofLength = 200

function quoteWhole({ message }: Turn): { messageId: string; quote: string }[] {
  const quote = message.content.slice(0, maxProofLength).trim()
  return quote === '' ? [] : [{ messageId: message.id, quote }]
}

/** Share of words in common from which two statements of a type are one; the same words in another order or tense. */
const sameShare = 0.8

function saysTheSame(one: ReadonlySet<string> | undefined, other: ReadonlySet<string>): boolean {
  if (!one || Math.min(one.size, other.size) < sameShare * Math.max(one.size, other.size)) return false
  let common = 0
  for (const word of one) {
    if (other.has(word)) common++
    // "3 s" and "4 s" are two measurements.
    else if (/\d/.test(word)) return false
  }
  return common / (one.size + other.size - common) >= sameShare
}

const wordsOf = ({ content }: ProposedAtom) => new Set(normalise(content).split(' '))

function addCitations(atom: ProposedAtom, more: ProposedAtom['citations']): void {
  for (const citation of more) {
    const isKnown = atom.citations.some(
      ({ messageId, quote }) => messageId === citation.messageId && quote === citation.quote,
    )
    if (!isKnown) atom.citations.push(citation)
  }
}

/** How sure a link is: somebody said that it worked, or thanks; else nobody has said anything. */
const strengths: Record<string, number> = { 'answer-that-worked': 0.95, 'answer-with-thanks': 0.8 }

function linkOf(
  finding: Finding,
  known: ReadonlyMap<Finding, unknown>,
): { to: Finding; type: AtomLinkType; strength: number | null } | null {
  const { about, rule, type, turn } = finding
  const strength = strengths[rule] ?? null
  if (about && !isTurn(about) && known.has(about)) {
    if (rule === 'correction') return { to: about, type: 'CONTRADICTS', strength }
    if (type === 'SOLUTION' || type === 'DECISION' || about.type === 'QUESTION')
      return { to: about, type: 'SOLVES', strength }
    // A cause says more exactly what the problem is.
    return { to: about, type: 'REFINES', strength }
  }
  if (!turn.isDirect || !turn.answers) return null
  const answered = [...known.keys()].find((other) => other.turn === turn.answers)
  if (!answered) return null
  if (type === 'DECISION' && answered.type === 'QUESTION')
    return { to: answered, type: 'SOLVES', strength: null }
  if (type === 'DECISION' && (answered.type === 'IDEA' || answered.type === 'DECISION'))
    return { to: answered, type: 'CONTINUES', strength: null }
  if (type === 'RISK' && ['IDEA', 'SOLUTION', 'DECISION'].includes(answered.type))
    return { to: answered, type: 'RELATES_TO', strength: null }
  if (type === 'REQUIREMENT' && ['IDEA', 'SOLUTION', 'DECISION', 'REQUIREMENT'].includes(answered.type))
    return { to: answered, type: 'REFINES', strength: null }
  if (type === 'INSIGHT' && answered.type === 'INSIGHT')
    return { to: answered, type: 'CONTINUES', strength: null }
  return null
}
