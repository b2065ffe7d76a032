/** What the owner of an embedded database and the child process that runs it say to each other. */
export type ToChild = { type: 'address'; url: string } | { type: 'stop' }

export type FromChild =
  | { type: 'ready'; socketDir: string }
  | { type: 'refused'; message: string }
  | { type: 'failed'; message: string }
