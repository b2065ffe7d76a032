/**
 * - ok: it was looked at, and nothing is to be done.
 * - warning: it works, and somebody should look some day.
 * - wrong: something does not work; it makes the whole wrong.
 * - unknown: it could not be looked at, for the reason in the message. What kept it from that has a finding of its own.
 * - skipped: there is nothing to look at.
 */
export const findingStates = ['ok', 'warning', 'wrong', 'unknown', 'skipped'] as const
export type FindingState = (typeof findingStates)[number]

/** What a look at one thing has come to. */
export interface Judgement {
  state: FindingState
  /** What was found, in one line. */
  message: string
  /** What to do; null where there is nothing to do, or the message says it. */
  remedy: string | null
}

export interface Finding extends Judgement {
  /** What was looked at; does not change from one version to the next, so that scripts can ask for it. */
  name: string
}

const judgement =
  (state: FindingState) =>
  (message: string, remedy: string | null = null): Judgement => ({
    state,
    message: inOneLine(message),
    remedy,
  })

/** Errors of others come with line breaks; one line each is promised. */
const inOneLine = (text: string) => text.replace(/\s*\n\s*/g, ' ').trim()

export const ok = judgement('ok')
export const warning = judgement('warning')
export const wrong = judgement('wrong')
export const unknown = judgement('unknown')
export const skipped = judgement('skipped')

export const named = (name: string, judged: Judgement): Finding => ({ name, ...judged })

/** Whether a script may go on: nothing is wrong. Warnings are allowed; what is unknown counts by its cause. */
export const isWell = (findings: readonly Pick<Finding, 'state'>[]): boolean =>
  findings.every(({ state }) => state !== 'wrong')
