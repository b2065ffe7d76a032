// Preloaded into a process whose clock is to be wrong (NODE_OPTIONS=--import=...): TEST_CLOCK_SHIFT_MS is added to what
// Date says. Plain JavaScript: it runs before anything that could compile it. Timers and performance.now() go on as
// they do on a machine with a wrong clock.
const RightDate = Date
const shiftMs = Number(process.env.TEST_CLOCK_SHIFT_MS)
const now = () => RightDate.now() + shiftMs

globalThis.Date = new Proxy(RightDate, {
  apply: () => new RightDate(now()).toString(),
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length > 0 ? args : [now()], newTarget),
  get: (target, name) => (name === 'now' ? now : Reflect.get(target, name)),
})
