/** What the owner of an embedded database and the child process that runs it say to each other. */
export type ToChild = { type: 'address'; url: string } | { type: 'stop' }

export type FromChild =
  | { type: 'ready'; socketDir: string }
  /** The address is in the folder's lock. */
  | { type: 'published' }
  | { type: 'refused'; message: string }
  | { type: 'failed'; message: string }
