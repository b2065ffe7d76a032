import { setFlagsFromString } from 'node:v8'

// Most engines of the tests live for seconds: compiled with the usual eagerness, each costs more than its work.
setFlagsFromString('--wasm-tiering-budget=20000000')
