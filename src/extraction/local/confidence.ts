/**
 * What each rule has found when it was read by hand: right ones, and all. Counted on the tuning half of the labels
 * (eval/labels/README.md) and on 156 statements from the public chats of help channels that
 * `npm run eval -- extraction --messages` prints for reading; `--rules` counts anew on the labels.
 */
const seen: Record<string, [right: number, all: number]> = {
  agreed: [1, 1],
  'agreed-clause': [1, 1],
  'answer-that-worked': [6, 6],
  'answer-with-thanks': [12, 13],
  'anyone-knows': [12, 12],
  approved: [1, 1],
  'asks-whether': [6, 6],
  'cannot-do': [9, 10],
  correction: [2, 2],
  'direct-answer': [3, 3],
  'error-output': [3, 3],
  'every-period': [2, 2],
  expires: [1, 1],
  explains: [4, 5],
  fails: [4, 5],
  'fails-ru': [1, 1],
  'fixed-by': [3, 3],
  'found-it': [2, 2],
  'gets-error': [11, 12],
  'going-with': [1, 1],
  'if-then-harm': [1, 1],
  label: [18, 18],
  'let-us': [1, 1],
  'measured-change': [3, 4],
  'measured-share': [6, 6],
  must: [13, 14],
  'names-risk': [1, 1],
  'nothing-happens': [2, 3],
  offers: [1, 1],
  otherwise: [2, 2],
  'people-understood': [1, 1],
  proposes: [3, 3],
  'question-word': [74, 87],
  remedy: [2, 2],
  reported: [4, 4],
  'too-much': [2, 2],
  'turns-out': [4, 5],
  'we-could': [6, 6],
  'we-need': [2, 2],
  'what-if-we': [1, 1],
}

/** As if each rule had been seen this often more, and three quarters of that right: few cases prove little. */
const prior = { right: 6, all: 8 }

/** What a reply that confirms or agrees adds. No rule is surer than `most`: there is always the reader's view. */
const proof = { adds: 0.05, most: 0.95 }

/** 0..1: how often what a rule finds is right. `isProven`: somebody else has confirmed or agreed. */
export function confidenceOf(rule: string, isProven: boolean): number {
  const [right, all] = seen[rule] ?? [0, 0]
  const share = (right + prior.right) / (all + prior.all)
  return Math.min(proof.most, Math.round(100 * (share + (isProven ? proof.adds : 0))) / 100)
}
