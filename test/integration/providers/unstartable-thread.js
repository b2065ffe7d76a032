// A thread of the local provider that cannot load its model; for local.test.ts.
throw new Error('the weights are gone')
