import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

// .ci/run counts the tests of several runs from these files.
const report = process.env.QUARRY_TEST_REPORT

// The file that Node takes. Vite prefers a package's `module`, which would be a second copy of graphql beside the one of
// graphql-yoga, and an error of one copy is masked by the other as unknown.
const graphql = createRequire(import.meta.url).resolve('graphql')
const resolve = { alias: [{ find: /^graphql$/, replacement: graphql }] }

export default defineConfig({
  test: {
    env: { NODE_OPTIONS: `--import=${new URL('test/support/quick-engine.js', import.meta.url)}` },
    // An app under test waits for its database and its clients half of the time.
    maxWorkers: Math.max(2, availableParallelism()),
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
    // isolate: false: loading all code anew for each file took longer than its tests. Faults and e2e work in other processes.
    projects: [
      {
        resolve,
        test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 20_000, isolate: false },
      },
      {
        resolve,
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 30_000,
          isolate: false,
          hookTimeout: 60_000,
        },
      },
      {
        resolve,
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        resolve,
        test: {
          name: 'faults',
          include: ['test/faults/**/*.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
})
