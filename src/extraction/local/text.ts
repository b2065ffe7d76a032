import nlp from 'compromise/two'

/** One sentence of a message, with what the rules look at. */
export interface Sentence {
  /** Exactly as it stands in the message. */
  text: string
  /** The same without greetings, fillers and the name of whom it is for. */
  clean: string
  /** `clean` to match against: code and links are one word each, quotation marks and apostrophes are plain. */
  plain: string
  /** Of `plain`. */
  wordCount: number
  script: 'latin' | 'cyrillic' | 'other'
  /** Ends in a question mark. */
  asks: boolean
}

/** A noun and the words that belong to it. */
export interface NounPhrase {
  /** In small letters. */
  words: string[]
  /** As they were written, but for the capital at the start of a sentence. */
  written: string[]
}

/**
 * Characters of a message that are read. What people state stands at the start of a message; what is longer is a
 * pasted log, and tagging it would take longer than all other messages of a batch together.
 */
export const maxReadLength = 10_000

/** Characters. Longer ones are pasted logs, lists or code, and no headline can be made of them. */
const maxSentenceLength = 400

const codeOrLink = /```[\s\S]*?```|`[^`\n]+`|\bhttps?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]]/g
const sentenceSegmenter = new Intl.Segmenter('en', { granularity: 'sentence' })

/** Unicode's rules do not end a sentence before a small letter, which is where many writers in chats begin one. */
const smallStart = /(?<=[\p{L}\p{N})%]{2}[.!?…]+)\s+(?=[\p{Ll}])/gu
const abbreviation =
  /(?:^|[\s(])(?:e\.g|i\.e|etc|vs|approx|resp|incl|min|max|no|nr|dr|mr|mrs|ms|ca|т\.е|т\.к|т\.д|т\.п|напр)\.$/i

/**
 * The sentences of the first `maxReadLength` characters, in order; without those that hold no letter or are longer
 * than a sentence can be. `isAuthor` tells names that begin a message ("name: try this") from other words.
 */
export function readSentences(
  content: string,
  isAuthor: (name: string) => boolean = () => false,
): Sentence[] {
  const read = content.slice(0, maxReadLength)
  const masked = maskCode(read)
  const sentences: Sentence[] = []
  for (const { segment, index } of sentenceSegmenter.segment(masked)) {
    let from = 0
    for (const piece of splitBeforeSmallStarts(segment)) {
      const start = index + from
      from += piece.length
      const text = read.slice(start, start + piece.length).trim()
      if (text.length > maxSentenceLength || !/\p{L}{2}/u.test(text)) continue
      sentences.push(describe(text, withoutAddressee(piece.trim(), isAuthor)))
    }
  }
  return sentences
}

function describe(text: string, masked: string): Sentence {
  const plain = withoutLead(masked.replace(/[’‘ʼ]/g, "'").replace(/[“”„«»]/g, '"')).trim()
  return {
    text,
    clean: text.slice(text.length - plain.length),
    plain,
    wordCount: countWords(plain),
    script: scriptOf(plain),
    asks: /\?(?:[\s?!)"']|\p{Extended_Pictographic}|\uFE0F)*$/u.test(plain),
  }
}

/** The same length, so that places in it are places in the text. Letters, so that it counts as a word. */
function maskCode(text: string): string {
  return text.replace(codeOrLink, (found) => 'x'.repeat(found.length))
}

function splitBeforeSmallStarts(segment: string): string[] {
  const pieces: string[] = []
  let from = 0
  for (const match of segment.matchAll(smallStart)) {
    const end = match.index + match[0].length
    if (abbreviation.test(segment.slice(Math.max(from, match.index - 10), match.index))) continue
    pieces.push(segment.slice(from, end))
    from = end
  }
  pieces.push(segment.slice(from))
  return pieces
}

const greeting =
  /^(?:hi|hello|hey|hallo|hola|good (?:morning|afternoon|evening|day)|morning|greetings|привет|здравствуйте|добр(?:ый|ое) (?:день|утро|вечер)|коллеги|ребята)(?:[\s,]+(?:there|all|guys|everyone|everybody|folks|team|people|again|всем))*(?:\s+[\p{L}\p{N}_-]+(?=,))?(?![\p{L}\p{N}'])[\s,.!:)-]*/iu
const filler =
  /^(?:(?:ok|okay|okey|yeah|yep|yup|ya|oh|ooh|ah|ahh?|aha|hm+|hmm+|uh|uhh|um|ugh|uff|ouch|btw|fwiw|fyi|imo|imho|afaik|lol|haha|sorry|anyway|anyways|and|but|also|plus|so|ok so|ну|так|а|и|но|кстати|ага|ок)(?![\p{L}\p{N}'-])[\s,.:!;…-]*|(?:yes|no|nope|sure|right|true|well|honestly|actually|exactly|correct|indeed|fine|great|cool|nice|perfect|thanks|thank you|да|нет)\s*(?:[,!;…—]+|\.{1,3}(?=\s)|\s-)\s*)/iu
const mention = /^(?:@[\p{L}\p{N}_.-]{1,40}[:,]*\s+)+/u
const named = /^@?([\p{L}\p{N}_.|[\]\\^{}-]{1,40})\s?[:,]+\s/u

/** Whom the message names at its start, as in "@name ..." and "name: ..."; null for none of the authors. */
export function readAddressee(content: string, isAuthor: (name: string) => boolean): string | null {
  const head = content.slice(0, 100).trimStart()
  const name = (named.exec(head) ?? /^@([\p{L}\p{N}_-]{1,40})/u.exec(head))?.[1]
  return name !== undefined && isAuthor(name) ? name : null
}

function withoutAddressee(text: string, isAuthor: (name: string) => boolean): string {
  const name = named.exec(text)
  return name && isAuthor(name[1] ?? '') ? text.slice(name[0].length).replace(/^[\s:,]+/, '') : text
}

/** Cuts off what says nothing: greetings, the addressee, fillers. At most a handful stand in a row. */
function withoutLead(text: string): string {
  let rest = text
  for (let turn = 0; turn < 6; turn++) {
    const next = rest.replace(mention, '').replace(greeting, '').replace(filler, '')
    if (next === rest || next.trim() === '') break
    rest = next
  }
  return rest
}

/** Words of letters or digits, in any script. */
export function countWords(text: string): number {
  return text.match(/[\p{L}\p{N}][\p{L}\p{N}'_-]*/gu)?.length ?? 0
}

/** The script of most of its letters. */
export function scriptOf(text: string): Sentence['script'] {
  const latin = text.match(/\p{Script=Latin}/gu)?.length ?? 0
  const cyrillic = text.match(/\p{Script=Cyrillic}/gu)?.length ?? 0
  const letters = text.match(/\p{L}/gu)?.length ?? 0
  if (cyrillic * 2 > letters) return 'cyrillic'
  return latin * 2 >= letters ? 'latin' : 'other'
}

/** Small letters, without marks: to compare texts by. */
export function normalise(text: string): string {
  return (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).join(' ')
}

/** Nouns of an English text that are about something; so many nouns are about nothing in particular. */
const genericNouns = new Set(
  (
    'thing things stuff problem problems issue issues error errors bug bugs way ways something anything nothing ' +
    'everything someone somebody anyone anybody everyone everybody nobody none guy guys people ppl folk folks idea ideas ' +
    'question questions help time times lot lots bit moment while day days today tomorrow yesterday morning afternoon ' +
    'evening night week weeks weekend month months year years hour hours minute minutes second seconds min mins sec ' +
    'monday tuesday wednesday thursday friday saturday sunday january february march april may june july august ' +
    'september october november december link links one ones case cases thanks thank luck solution fix reason point ' +
    'part kind sort example examples place end start rest half place fact sense chance matter side number hi hello hey ' +
    'mate sir bro dude cheers xxx lol pls plz please wiki etc name try look answer answers reply message word words ' +
    'while result results version line lines u ur im ill dont cant doesnt ok sure stuff everytime work use'
  ).split(' '),
)

const codeWord = /^x{4,}$/

/** What the tagger takes for nouns now and then, and units. */
const neverInNames = new Set(
  (
    'the a an there here eg ie ur in on at of for to with by from over under up down off out if you we they i it is are ' +
    'be do does did can as or and but not so than then ms mb gb kb tb px km kg eur usd gonna wanna lemme asks counts starts'
  ).split(' '),
)

/** Whether a word names nothing in particular. */
export const isGeneric = (word: string): boolean => genericNouns.has(word)

/** The noun phrases of an English text, in order: nouns in a row, an adjective before them; at most four words. */
export function nounPhrases(text: string): NounPhrase[] {
  const phrases: NounPhrase[] = []
  for (const sentence of nlp(text).json({
    terms: { text: true, normal: true, tags: true },
  }) as TaggedSentence[]) {
    let open: { word: string; written: string }[] = []
    let hasNoun = false
    const close = () => {
      const last = open.slice(-4)
      if (hasNoun && last.some(({ word }) => !genericNouns.has(word)))
        phrases.push({ words: last.map(({ word }) => word), written: last.map(({ written }) => written) })
      open = []
      hasNoun = false
    }
    for (const [place, term] of sentence.terms.entries()) {
      const word = trimmed(term.normal)
      const isUsable =
        /^\p{L}[\p{L}\p{N}'_-]+$/u.test(word) && !codeWord.test(word) && !neverInNames.has(word)
      const isOpening = open.length === 0 && isAttribute(term)
      if (isUsable && (isNoun(term) || isOpening)) {
        hasNoun ||= isNoun(term)
        open.push({ word, written: place === 0 ? withoutCapital(trimmed(term.text)) : trimmed(term.text) })
      } else close()
      if (/[,.;:!?)]\s*$/.test(term.post)) close()
    }
    close()
  }
  return phrases
}

const trimmed = (word: string) => word.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, '')

/** Names and abbreviations keep theirs: "QR", "iOS". */
const withoutCapital = (word: string) => (/^\p{Lu}\p{Ll}*$/u.test(word) ? word.toLowerCase() : word)

interface TaggedTerm {
  text: string
  normal: string
  post: string
  tags: string[]
}
interface TaggedSentence {
  terms: TaggedTerm[]
}

const isNoun = ({ tags }: TaggedTerm) =>
  tags.includes('Noun') &&
  !['Pronoun', 'Date', 'Value', 'Possessive', 'Person'].some((tag) => tags.includes(tag))
const isAttribute = ({ tags }: TaggedTerm) =>
  tags.includes('Adjective') && !['Comparative', 'Superlative'].some((tag) => tags.includes(tag))

/**
 * How many words of a sentence name a thing: nouns that are not generic, and code. English by its parts of speech;
 * in other languages words of five letters and more stand for them.
 */
export function countThings(sentence: Sentence): number {
  const known = thingsOf.get(sentence)
  if (known !== undefined) return known
  const things = countNames(sentence)
  thingsOf.set(sentence, things)
  return things
}

/** Several rules ask for the same sentence, and tagging is the slowest thing that they do. */
const thingsOf = new WeakMap<Sentence, number>()

function countNames({ plain, script }: Sentence): number {
  const code = plain.match(/\bx{4,}\b/g)?.length ?? 0
  if (script !== 'latin') return code + (plain.match(/\p{L}{5,}/gu)?.length ?? 0)
  let things = 0
  for (const sentence of nlp(plain).json({ terms: { normal: true, tags: true } }) as TaggedSentence[]) {
    for (const term of sentence.terms) {
      const isThing = term.tags.includes('Noun') && !term.tags.includes('Pronoun')
      if (
        isThing &&
        !genericNouns.has(term.normal.replace(/[^\p{L}\p{N}]/gu, '')) &&
        !codeWord.test(term.normal)
      )
        things++
    }
  }
  return things + code
}

/** Longest headline, in characters. */
export const maxTitleLength = 120

/** A headline: one line, a capital first, no full stop; shortened at the end of a clause or else of a word. */
export function headline(text: string): string {
  const line = text
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/[\s.,;:–—-]+$/u, '')
  const short = shorten(line, maxTitleLength)
  return withCapital(short)
}

/** A capital at the start, but not of what is written small by its owner: "iOS", "p95", "a.b.c". */
export function withCapital(text: string): string {
  return /^\p{Ll}[\p{Ll}'-]*(?![\p{L}\p{N}_./(])/u.test(text)
    ? text.charAt(0).toUpperCase() + text.slice(1)
    : text
}

function shorten(line: string, length: number): string {
  if (line.length <= length) return line
  const head = line.slice(0, length - 1)
  // A clause of less than half the room says too little of the sentence.
  const clause = Math.max(
    head.lastIndexOf('; '),
    head.lastIndexOf(', '),
    head.lastIndexOf(' – '),
    head.lastIndexOf('. '),
  )
  if (clause > length / 2) return head.slice(0, clause).replace(/[\s,;–.]+$/u, '')
  const word = head.lastIndexOf(' ')
  const cut = word > length / 2 ? word : head.length
  // Never half of a surrogate pair.
  return `${head
    .slice(0, cut)
    .replace(/[\uD800-\uDBFF]$/, '')
    .trimEnd()}…`
}
