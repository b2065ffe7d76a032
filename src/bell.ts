/**
 * Wakes those who wait for news. The news itself is read from where it is stored: a bell only says that looking is
 * worth it, so that nothing depends on one ring more or less.
 */
export interface Bell {
  ring(): void
  /** Resolves at the next ring, at once if it rang since the last wait, at the limit, or when aborted; never rejects. */
  wait(options: { signal: AbortSignal; limitMs?: number }): Promise<void>
}

export function createBell(): Bell {
  let isRung = false
  const waiting = new Set<() => void>()
  return {
    ring() {
      if (waiting.size === 0) isRung = true
      for (const wake of [...waiting]) wake()
    },
    wait({ signal, limitMs }) {
      if (isRung || signal.aborted) {
        isRung = false
        return Promise.resolve()
      }
      return new Promise((resolve) => {
        const timer = limitMs === undefined ? undefined : setTimeout(wake, limitMs)
        function wake() {
          clearTimeout(timer)
          signal.removeEventListener('abort', wake)
          waiting.delete(wake)
          resolve()
        }
        signal.addEventListener('abort', wake)
        waiting.add(wake)
      })
    },
  }
}
