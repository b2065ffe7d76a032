/** One request: the token ids of all texts one after another, and how many of them each text has (each 1 to 128). */
export interface LocalTask {
  ids: Uint16Array
  lengths: Uint16Array
  /** Shared with the main thread, which sets [0] to 1 when nobody waits for the answer any more. */
  cancelled: Int32Array
}

/** The vectors one after another, or why there are none: 'cancelled', or what the model threw. */
export type LocalAnswer = Float32Array | { error: string }
