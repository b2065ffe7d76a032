// The first module of a thread, in plain JavaScript: Node 20 runs no TypeScript, and the loader that the process was
// started with does not reach its threads (neither by inheritance nor through `execArgv`; under a test runner there is
// none). Piscina awaits the exported promise and calls the function that it resolves to.
import { tsImport } from 'tsx/esm/api'

export default tsImport('./local-worker.ts', import.meta.url).then((worker) => worker.default)
