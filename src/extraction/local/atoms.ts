import type { AtomType } from '../../db/generated/prisma/client.ts'
import { type Cue, cues, labels, tellsCause } from './cues.ts'
import type { Turn } from './dialogue.ts'
import { countThings, countWords, type Sentence } from './text.ts'

/** A statement that a rule has found. */
export interface Finding {
  type: AtomType
  rule: string
  turn: Turn
  /** Places of its sentences in the turn, in order. */
  from: number
  to: number
  /** What it answers or explains, where a rule says so. */
  about: Finding | Turn | null
  /** Turns that prove it beside its own: the reply that confirms or agrees. */
  proofs: Turn[]
}

export const isTurn = (about: Finding | Turn): about is Turn => 'sentences' in about

/** Sentences that one statement may span after its first. */
const maxFollowing = 1

/** What the turns of one conversation state, in order. */
export function findStatements(turns: readonly Turn[]): Finding[] {
  const findings = turns.flatMap(findByCues)
  findCorrections(turns, findings)
  findAnswers(turns, findings)
  findDirectAnswers(turns, findings)
  findCauses(turns, findings)
  findRemedies(turns, findings)
  findAgreements(turns, findings)
  return findings.sort((a, b) => a.turn.place - b.turn.place || a.from - b.from)
}

/* Single sentences */

function findByCues(turn: Turn): Finding[] {
  const found: Finding[] = []
  const { sentences } = turn
  for (let place = 0; place < sentences.length; place++) {
    const sentence = sentences[place]
    if (!sentence) continue
    const labelled = findLabel(sentence)
    if (labelled) {
      const own = countWords(labelled.rest) >= 3 ? place : place + 1
      const to = Math.min(
        sentences.length - 1,
        labelled.type === 'QUESTION' ? lastAsking(sentences, own) : own,
      )
      if (own <= to)
        found.push({ type: labelled.type, rule: 'label', turn, from: place, to, about: null, proofs: [] })
      place = to
      continue
    }
    const cue = cues.find((cue) => fits(cue, sentence))
    if (cue?.rule === 'question-word' && asksBack(turn, sentence)) continue
    if (cue)
      found.push({ type: cue.type, rule: cue.rule, turn, from: place, to: place, about: null, proofs: [] })
  }
  return mergeNeighbours(found)
}

/**
 * What those ask who want to help ("which version?", "is there a log?") is about the question, not about the work. It
 * answers a question or a report of an error.
 */
function asksBack({ answers, message }: Turn, { plain }: Sentence): boolean {
  if (
    !answers ||
    answers.message.author === message.author ||
    !/^(?:(?:\w+[ ,]+){0,2})?(?:what|which|when|where|is|are|how (?:many|long|much)|do|does|did)(?![\p{L}])/iu.test(
      plain,
    )
  )
    return false
  return answers.sentences.some(
    (sentence) =>
      sentence.asks ||
      cues.some((cue) => (cue.type === 'PROBLEM' || cue.type === 'QUESTION') && fits(cue, sentence)),
  )
}

/** The label at the start of a sentence, and what is left of the sentence. */
export function findLabel({ plain }: Sentence): { type: AtomType; rest: string } | null {
  for (const { type, pattern } of labels) {
    const label = pattern.exec(plain)
    if (label) return { type, rest: plain.slice(label[0].length).trim() }
  }
  return null
}

/** Whether a rule holds for a sentence that stands alone. */
export function fits(cue: Cue, sentence: Sentence): boolean {
  if (cue.questions === 'only' ? !sentence.asks : cue.questions !== 'also' && sentence.asks) return false
  if (sentence.wordCount < (cue.minWords ?? 5)) return false
  const text = cue.rule === 'error-output' ? sentence.text : sentence.plain
  if (!cue.pattern.test(text) || cue.unless?.test(sentence.plain)) return false
  return countThings(sentence) >= (cue.minThings ?? 2)
}

/** Sentences that lead to a question before it is asked. */
const maxLead = 2

/** What somebody asks may need some words before: the place of the question that follows, or else the given one. */
function lastAsking(sentences: readonly Sentence[], from: number): number {
  const asked = sentences.slice(from, from + maxLead + 1).findIndex(({ asks }) => asks)
  return asked < 0 ? from : from + asked
}

/** Two sentences in a row of the same type are one statement. */
function mergeNeighbours(found: readonly Finding[]): Finding[] {
  const merged: Finding[] = []
  for (const finding of found) {
    const last = merged.at(-1)
    if (
      last &&
      last.type === finding.type &&
      last.to + 1 === finding.from &&
      finding.to - last.from <= maxFollowing
    )
      last.to = finding.to
    else merged.push({ ...finding })
  }
  return merged
}

/* Dialogue */

/** Types that a sentence shows by its own words; the dialogue round it does not change them. */
const outspoken: readonly AtomType[] = ['DECISION', 'QUESTION', 'IDEA', 'REQUIREMENT', 'RISK']

const isIssue = ({ type }: Finding) => type === 'PROBLEM' || type === 'QUESTION'

/** Turns. What comes later is about something else. */
const reach = 12

/** What somebody else replied to a question or a problem, where the asker says that it helped. */
function findAnswers(turns: readonly Turn[], findings: Finding[]): void {
  const answered = new Set<Turn>()
  for (const issue of findings.filter(isIssue)) {
    const asker = issue.turn.message.author
    for (const turn of turns.slice(issue.turn.place + 1, issue.turn.place + 1 + reach)) {
      if (turn.message.author !== asker || !(turn.reply.confirms || turn.reply.thanks)) continue
      const answer = answerBefore(turns, issue, turn)
      if (!answer || answered.has(answer)) break
      const span = bestSpan(answer)
      const said = span && answer.sentences[span.from]
      if (!span || !said || (!turn.reply.confirms && !informs(said))) break
      answered.add(answer)
      const stated = findings.find(
        (finding) => overlaps(finding, answer, span.from, span.to) && definite.includes(finding.type),
      )
      if (stated) {
        stated.about ??= issue
        stated.proofs.push(turn)
        break
      }
      const isRemedy = issue.type === 'PROBLEM' || turn.reply.confirms
      replace(findings, {
        type: isRemedy ? 'SOLUTION' : 'INSIGHT',
        rule: turn.reply.confirms ? 'answer-that-worked' : 'answer-with-thanks',
        turn: answer,
        ...span,
        about: issue,
        proofs: [turn],
      })
      break
    }
  }
}

/** What stays what it is when somebody is thankful for it. */
const definite: readonly AtomType[] = ['DECISION', 'REQUIREMENT', 'RISK', 'SOLUTION', 'BLOCKER']

/** Thanks are said for company, too: what tells of oneself or asks is no answer. */
const isAboutOneself =
  /^(?:i|i'm|i'd|i'll|i've|my|we|me|no i|not i|haven't|havent|didn't|never|why|what|how|which|where|is|are|do|does|did|have|has|logs?|same|good|that's (?:good|great|fine)|it should)(?![\p{L}])|(?<![\p{L}])(?:i (?:can|will|could) try|not sure|no idea|don'?t know)(?![\p{L}])/iu

const informs = ({ plain, wordCount }: Sentence) =>
  !isAboutOneself.test(plain) && (wordCount >= 6 || /\bx{4,}/.test(plain))

/** The last informative turn by somebody else between the issue and the thanks; what the thanks answer comes first. */
function answerBefore(turns: readonly Turn[], issue: Finding, thanks: Turn): Turn | null {
  const between = turns
    .slice(issue.turn.place + 1, thanks.place)
    .filter((turn) => turn.message.author !== issue.turn.message.author && bestSpan(turn) !== null)
  if (thanks.isDirect && thanks.answers && between.includes(thanks.answers)) return thanks.answers
  const direct = between.filter(
    (turn) => turn.isDirect && turn.answers?.message.author === issue.turn.message.author,
  )
  return direct.at(-1) ?? between.at(-1) ?? null
}

/** The sentence of an answer that informs: the one that names the most. */
function bestSpan(
  turn: Turn,
  isFree: (place: number) => boolean = () => true,
): { from: number; to: number } | null {
  let best: { from: number; to: number } | null = null
  let most = 0
  for (const [place, sentence] of turn.sentences.entries()) {
    if (sentence.asks || sentence.wordCount < 4 || isSmallTalk.test(sentence.plain) || !isFree(place))
      continue
    const things = countThings(sentence)
    if (things <= most) continue
    most = things
    best = { from: place, to: place }
  }
  return best
}
const isSmallTalk =
  /^(?:i (?:don't know|dont know|have no idea|guess|hope|will (?:check|look|try))|let me|good luck|np|no problem|you'?re welcome|i'll|looking|which|what|have you|did you|are you|can you|could you)(?![\p{L}])/iu

/** A reply to a question that the source ties to it, and that holds a reason, a figure or code: none of these is chatter. */
function findDirectAnswers(turns: readonly Turn[], findings: Finding[]): void {
  for (const issue of findings.filter(({ type }) => type === 'QUESTION')) {
    if (findings.some(({ about }) => about === issue)) continue
    const place = issue.turn.place
    for (const turn of turns.slice(place + 1, place + 1 + reach)) {
      if (
        turn.answers !== issue.turn ||
        !(turn.isDirect || turn.place === place + 1) ||
        turn.message.author === issue.turn.message.author
      )
        continue
      const span = bestSpan(
        turn,
        (place) => !isTaken(findings, turn, place, ['SOLUTION', 'PATTERN', ...outspoken]),
      )
      const sentence = span && turn.sentences[span.from]
      if (
        !span ||
        !sentence ||
        sentence.wordCount < 7 ||
        isHedged.test(sentence.plain) ||
        isAboutOneself.test(sentence.plain)
      )
        continue
      if (!(tellsCause(sentence) || /\d|\bxxxx/.test(sentence.plain))) continue
      replace(findings, { type: 'INSIGHT', rule: 'direct-answer', turn, ...span, about: issue, proofs: [] })
      break
    }
  }
}
const isHedged =
  /(?<![\p{L}])(?:i (?:think|guess|believe|suppose)|maybe|perhaps|probably|might|not sure|dunno|could be|would|please)(?![\p{L}])/iu

/** "Correction: ...", "it's 30, I misread": what holds instead of what was said before. */
function findCorrections(turns: readonly Turn[], findings: Finding[]): void {
  for (const turn of turns) {
    if (!turn.reply.corrects) continue
    const place = turn.sentences.findIndex(({ wordCount, asks }) => wordCount >= 4 && !asks)
    if (place < 0) continue
    const corrected = turn.isDirect ? turn.answers : (ownBefore(turns, turn) ?? turn.answers)
    if (!corrected) continue
    const wrong = findings.find((finding) => finding.turn === corrected && !isAsking(finding)) ?? corrected
    const to = Math.min(turn.sentences.length - 1, place + maxFollowing)
    replace(findings, {
      type: 'INSIGHT',
      rule: 'correction',
      turn,
      from: place,
      to,
      about: wrong,
      proofs: [],
    })
  }
}

const isAsking = ({ type }: Finding) => type === 'QUESTION' || type === 'IDEA'

/** Turns between a statement and its correction by whoever made it. */
const maxCorrectionGap = 3

const ownBefore = (turns: readonly Turn[], { place, message }: Turn): Turn | undefined =>
  turns
    .slice(Math.max(0, place - maxCorrectionGap), place)
    .findLast((turn) => turn.message.author === message.author)

/** Words that come before a cause. */
const foundIt =
  /^(?:found (?:it|the (?:cause|reason|problem|bug|issue))|that explains (?:it|that|why)|i (?:think i )?(?:see|found|know) (?:the|why|what)(?: \w+){0,4}|got it|i think it's me|mystery solved|confirmed|нашёл|нашел|нашла|понял в ч[её]м дело)(?![\p{L}])/iu

/** Why a problem is as it is: an explanation by anybody after it. */
function findCauses(turns: readonly Turn[], findings: Finding[]): void {
  for (const turn of turns) {
    const issue = issueBefore(findings, turn, ['PROBLEM', 'QUESTION', 'PATTERN'])
    if (!issue || (issue.type === 'QUESTION' && issue.turn.message.author === turn.message.author)) continue
    if (findings.some((finding) => finding.turn === turn && finding.rule === 'label')) continue
    let announced = false
    for (const [place, sentence] of turn.sentences.entries()) {
      const isAnnouncement = foundIt.test(sentence.plain) && sentence.wordCount <= 9
      const explains = tellsCause(sentence) && sentence.wordCount >= 8 && !isPersonal.test(sentence.plain)
      if (
        !isAnnouncement &&
        !sentence.asks &&
        (announced || explains) &&
        sentence.wordCount >= 6 &&
        !isHypothetical.test(sentence.plain) &&
        countThings(sentence) >= 2 &&
        !isTaken(findings, turn, place, [
          ...(announced ? [] : ['PROBLEM' as const]),
          'INSIGHT',
          'PATTERN',
          ...outspoken,
        ])
      ) {
        replace(findings, {
          type: 'INSIGHT',
          rule: announced ? 'found-it' : 'explains',
          turn,
          from: place,
          to: place,
          about: issue,
          proofs: [],
        })
        break
      }
      announced = isAnnouncement || announced
    }
  }
}
const isPersonal =
  /^(?:i|i'm|i'd|i'll|i've|you|your|u|my|please|lets|let's|maybe|perhaps|try|thanks|я|ты|вы)(?![\p{L}])|(?<![\p{L}])(?:i|i've|i'm|my|you|your|u|lol|haha|something)(?![\p{L}])/iu
const isHypothetical =
  /(?<![\p{L}])(?:would|could|should|maybe|perhaps|probably|might|i guess|not sure|if we|will|wouldn't|nobody here)(?![\p{L}])/iu

/** What would mend a problem, said in reply to it: "we should ...", "the app should ...", "use ...". */
function findRemedies(turns: readonly Turn[], findings: Finding[]): void {
  for (const turn of turns) {
    const issue = issueBefore(findings, turn, ['PROBLEM', 'PATTERN', 'INSIGHT'])
    if (!issue || (issue.type === 'INSIGHT' && issue.turn !== turn.answers)) continue
    for (const [place, sentence] of turn.sentences.entries()) {
      if (sentence.asks || sentence.wordCount < 6 || !remedy.test(sentence.plain)) continue
      if (notRemedy.test(sentence.plain) || countThings(sentence) < 2) continue
      if (isTaken(findings, turn, place, ['SOLUTION', 'BLOCKER', ...outspoken])) continue
      replace(findings, {
        type: 'SOLUTION',
        rule: 'remedy',
        turn,
        from: place,
        to: place,
        about: issue,
        proofs: [],
      })
      break
    }
  }
}
const remedy =
  /^(?:then )?(?:we|the [\w-]+|it|both|all|everything|each \w+|every \w+|the [\w-]+ [\w-]+) (?:should|needs? to|must|have to|has to)(?: also| always| only)? (?!be (?:fine|ok|good|back|there)|work|probably)\w+|^(?:you )?(?:need|have) (?:to \w+ .*`?|(?:a|one) \w+)|^fix:|^(?:then )?(?:two|three) things: /iu
const notRemedy =
  /(?<![\p{L}])(?:check|look|see|talk|discuss|ask|meet|know|you're|hope|go|maybe|already|your|me|ugh)(?![\p{L}])/iu

/** A proposal that somebody else says yes to is settled. */
function findAgreements(turns: readonly Turn[], findings: Finding[]): void {
  for (const turn of turns) {
    if (!turn.reply.agrees) continue
    const proposal = turn.answers
    if (!proposal || proposal.message.author === turn.message.author) continue
    if (!turn.isDirect && proposal.place !== turn.place - 1) continue
    const found = findings.find(
      (finding) =>
        finding.turn === proposal && ['IDEA', 'SOLUTION', 'DECISION', 'REQUIREMENT'].includes(finding.type),
    )
    if (!found || found.rule === 'answer-that-worked') continue
    if (found.type === 'IDEA' || found.type === 'SOLUTION') {
      found.type = 'DECISION'
      found.rule = 'agreed'
    }
    if (!found.proofs.includes(turn)) found.proofs.push(turn)
  }
}

/** The last finding of these types before a turn that it may be about: in the turn that it answers, or else the nearest. */
function issueBefore(findings: readonly Finding[], turn: Turn, types: readonly AtomType[]): Finding | null {
  const issues = findings.filter(
    (finding) =>
      types.includes(finding.type) &&
      finding.turn.place < turn.place &&
      turn.place - finding.turn.place <= reach,
  )
  return issues.findLast((finding) => finding.turn === turn.answers) ?? issues.at(-1) ?? null
}

const overlaps = (finding: Finding, turn: Turn, from: number, to: number) =>
  finding.turn === turn && finding.from <= to && from <= finding.to

function isTaken(
  findings: readonly Finding[],
  turn: Turn,
  place: number,
  types: readonly AtomType[],
): boolean {
  return findings.some((finding) => overlaps(finding, turn, place, place) && types.includes(finding.type))
}

/** Adds a finding in the place of those that took its sentences. */
function replace(findings: Finding[], finding: Finding): void {
  for (let index = findings.length - 1; index >= 0; index--) {
    const other = findings[index]
    if (other && overlaps(other, finding.turn, finding.from, finding.to)) findings.splice(index, 1)
  }
  findings.push(finding)
}
