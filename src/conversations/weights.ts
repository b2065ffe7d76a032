import type { FeatureName } from './window.ts'

/** What each feature adds to the score of an answer. */
export type WeightTable = Readonly<Record<FeatureName, number>>

/**
 * Made by `npm run eval -- conversations --fit` (eval/conversation-fit.ts), from collections whose conversations people
 * marked: irc (10 channels, 2,321 messages, 328 conversations) and gitter (8 channels, 7,209 messages, 749 conversations).
 */
export const weights: WeightTable = {
  distance: -1.696,
  gapMinutes: -0.919,
  gapHours: -3.48,
  gapDays: -2.651,
  busyGapMinutes: -1.499,
  busySameAuthor: -1.221,
  addressesAuthor: 1.638,
  addressesOther: -1.015,
  busyAddressesOther: -1.589,
  addressedByEarlier: 1.268,
  busyEarlierNamesOther: -1.385,
  earlierNamesNobody: 0.943,
  conversationLatest: 1.512,
  busyConversationLatest: -1.486,
  conversationDistance: -2.986,
  busyConversationDistance: -0.879,
  conversationSize: -1.348,
  authorTakesPart: 0.591,
  authorShare: 1.173,
  authorRecentShare: 1.465,
  busyAuthorRecentShare: 0.867,
  addresseeTakesPart: 1.095,
  busyAddresseeTakesPart: 1.019,
  addresseeShare: 1.821,
  busyOutsiderAsks: -1.308,
  busyOutsiderNamesNobody: -1.311,
  busyOutsiderLength: -1.488,
  rarestSharedWord: 1.556,
  busyRarestSharedWord: 2.13,
  repeatsItself: -3.457,
  closeness: 0.705,
  busyCloseness: 1.019,
  answersQuestion: 0.997,
  busyAnswersQuestion: -1.221,
  new: -1.403,
  busyNew: 1.163,
  newAuthorUnseen: 1.7,
  newLength: 2.808,
}
