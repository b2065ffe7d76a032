export type InterruptSignal = 'SIGINT' | 'SIGTERM'

/** What a shell makes of a program that a signal has ended: 128 and the signal's number. */
export const interruptExitCodes: Record<InterruptSignal, number> = { SIGINT: 130, SIGTERM: 143 }

/** A person has ended the command before its work was done. The message says what becomes of the work. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly signal: InterruptSignal
  constructor(signal: InterruptSignal, message = '') {
    super(message)
    this.signal = signal
  }
}

/** npm hands on the Ctrl-C that the terminal has already sent to everyone: one key press arrives twice. */
const sameKeyPressMs = 500

/**
 * Is aborted with `Interrupted` at the first Ctrl-C or SIGTERM, so that a command can end in order. Whoever presses again
 * means it: that ends the process at once.
 */
export function interruptSignal(): AbortSignal {
  const controller = new AbortController()
  let firstMs: number | null = null
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (firstMs === null) {
        firstMs = performance.now()
        controller.abort(new Interrupted(signal))
      } else if (performance.now() - firstMs > sameKeyPressMs) process.exit(interruptExitCodes[signal])
    })
  }
  return controller.signal
}
