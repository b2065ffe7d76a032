import { exit } from 'node:process'

// A thread of the local provider that ends before it is ready, without an error; for local.test.ts.
exit(3)
