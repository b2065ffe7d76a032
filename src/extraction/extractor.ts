import type { AtomType } from '../db/generated/prisma/client.ts'
import type { ProviderType } from '../providers/provider.ts'

/*
 * What every extractor takes and gives. It only proposes: save.ts checks every quote, drops what is not proven, and
 * decides what is new.
 */

/** Directed: from the first atom to the second ("the solution SOLVES the problem"). */
export const atomLinkTypes = [
  'CONTINUES',
  'SOLVES',
  'CONTRADICTS',
  'SUPPORTS',
  'REFINES',
  'RELATES_TO',
  'DEPENDS_ON',
] as const
export type AtomLinkType = (typeof atomLinkTypes)[number]

export interface ExtractionMessage {
  /** UUID. */
  id: string
  author: string
  sentAt: Date
  channel: string
  content: string
  /** Messages that answer each other share it. */
  conversationId: string
  /** The message that this one answers, where the source says so and it is known; may lie outside of the batch. */
  replyToId: string | null
  /** In the active embedding space; null while there is none. */
  vector: Float32Array | null
}

/** A topic that exists. */
export interface KnownTopic {
  /** UUID. */
  id: string
  name: string
  description: string
  keywords: readonly string[]
  vector: Float32Array | null
}

/** An approved atom that exists. */
export interface KnownAtom {
  /** UUID. */
  id: string
  type: AtomType
  title: string
  content: string
}

/** Messages to read together, whole conversations where possible, with what is known already about their themes. */
export interface ExtractionBatch {
  /** In the order of time within each conversation; none is noise. */
  messages: readonly ExtractionMessage[]
  /** The existing topics nearest to the messages, nearest first. */
  topics: readonly KnownTopic[]
  /** The approved atoms nearest to the messages, nearest first. */
  atoms: readonly KnownAtom[]
}

export interface ProposedTopic {
  /** Names it within this answer. For a known topic, its id. */
  key: string
  name: string
  description: string
  keywords: string[]
  /** 0..1. */
  confidence: number
  /** The messages of the batch that belong to it. */
  messageIds: string[]
}

export interface ProposedAtom {
  /** Names it within this answer. */
  key: string
  type: AtomType
  /** A headline of its own, at most 120 characters. */
  title: string
  /** Understood without the conversation. */
  content: string
  /** 0..1. */
  confidence: number
  /** Key of a proposed topic. */
  topicKey: string | null
  /** At least one. `quote` is an exact piece of the message's content. */
  citations: { messageId: string; quote: string }[]
}

export interface ProposedLink {
  /** Key of a proposed atom or id of a known one; so is `to`. */
  from: string
  to: string
  type: AtomLinkType
  /** 0..1; null where the extractor cannot say. */
  strength: number | null
}

export interface Extraction {
  topics: ProposedTopic[]
  atoms: ProposedAtom[]
  links: ProposedLink[]
  /** Zero where nothing is counted. */
  usage: { tokensIn: number; tokensOut: number }
  /** What of the answer could not be used, a sentence each; left out where all could. */
  problems?: readonly string[]
}

/** Something that reads messages and proposes topics, atoms and links. */
export interface Extractor {
  readonly type: ProviderType
  /** The model's name; `rules` for the local one. */
  readonly model: string
  /**
   * Reads one batch. Asks again by itself at the most once, to have an invalid answer repaired.
   * @throws ProviderError when no valid answer can be had; whatever reason the signal was aborted with.
   */
  extract(batch: ExtractionBatch, signal: AbortSignal): Promise<Extraction>
  close(): Promise<void>
}
