/** What the owner of an embedded database and the child process that runs it say to each other. */
export type ToChild =
  | { type: 'listen'; channel: string }
  | { type: 'unlisten'; channel: string }
  | { type: 'address'; url: string }
  | { type: 'stop' }

export type FromChild =
  | { type: 'ready'; socketDir: string }
  | { type: 'refused'; message: string }
  | { type: 'notification'; channel: string; payload: string }
  | { type: 'failed'; message: string }
