/**
 * The numbers of all advisory locks, in one place: two purposes that share one hold each other up. A key of its own beside
 * a number (`pg_advisory_lock(number, key)`) is another lock than the number alone.
 */
export const advisoryLock = {
  /** Prisma's own number for migrations, so that `prisma migrate deploy` and our runner exclude each other. */
  migrations: 72707369,
  /** Whoever makes, changes over or drops embedding spaces. */
  spaces: 72707370,
  /** One batch of what was extracted is saved at a time: two side by side over the same theme would each make it. */
  saveExtraction: 72707371,
  /** Whether a channel has waited for long enough to be extracted is decided by one at a time. */
  triggerExtraction: 72707372,
  /** The vector indexes of a space, whose number is the key. */
  indexCare: 72707373,
  /** The statistics of words are counted by one at a time. */
  wordStatistics: 72707374,
  /** Whoever makes an agent the default one takes that from another. */
  defaultAgent: 72707375,
} as const
