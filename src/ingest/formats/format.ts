/** The chat exports that Quarry reads. AUTO (in the API) means: ask each format whether it knows the file. */
export const chatFormats = ['TELEGRAM', 'SLACK', 'DISCORD', 'IRC', 'JSONL'] as const
export type ChatFormatName = (typeof chatFormats)[number]

/** One message as an export states it, before the rules of `normalise.ts` are applied to it. */
export interface MessageDraft {
  externalId: string
  author: string
  content: string
  sentAt: Date
  /** Null where the source has no channels. */
  channel: string | null
  threadId: string | null
  replyToExternalId: string | null
}

/**
 * What a format yields, in the order of the file. `position` names the record for a person who opens the file, e.g.
 * `line 12`, `chats[3].messages[812]`, `general/2024-05-01.json[4]`.
 */
export type ChatRecord =
  | { kind: 'message'; position: string; message: MessageDraft }
  /** A record that should have been a message but is not usable. Counted and reported; the rest goes on. */
  | { kind: 'rejected'; position: string; reason: string }
  /** A record that is rightly left out: service messages such as "anna joined the group". */
  | { kind: 'left-out'; position: string }

/** A chat export on disk. Never read whole: an export can be larger than memory. */
export interface ChatFile {
  path: string
  /** The name that the person knows it by; `path` may be a temporary file. */
  name: string
  /** Called with the number of bytes of the file that were just read, for progress. */
  onRead?: (bytes: number) => void
}

/** The beginning of a file, on which formats are told apart. */
export interface FileHead {
  name: string
  /** At most the first 64 KiB. */
  bytes: Buffer
  /** True for a zip archive; `entries` then lists the names in it. */
  isZip: boolean
  entries: readonly string[]
}

export interface ChatFormat {
  name: ChatFormatName
  /** For people: what the file is expected to look like, used in the refusal of unknown files. */
  expects: string
  /** Whether the file looks like this format. Pure: looks at the head alone. */
  detect(head: FileHead): boolean
  /**
   * The name of the chat or workspace if the file states one (used as the default name of the Source), else null.
   * Reads no more than it must.
   */
  sourceName(file: ChatFile): Promise<string | null>
  /**
   * Reads the file as a stream: memory does not grow with its size. Throws InvalidInputError, with what was seen, if
   * the file as a whole is not of this format or breaks off; a bad record is yielded as `rejected`.
   */
  read(file: ChatFile): AsyncIterable<ChatRecord>
}
