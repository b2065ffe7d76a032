import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createLogger } from '../../../src/log.ts'
import { startUsageLedger } from '../../../src/providers/usage.ts'
import { readUsage } from '../../../src/providers/usage-records.ts'
import { startTestServer, type TestServer } from '../../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startTestServer()
})
afterAll(() => server[Symbol.asyncDispose]())

const log = createLogger('silent')
const remote = (accountId: string) => ({ accountId, type: 'openai' as const })

const sumsOf = (accountId: string) =>
  readUsage(server.database, { accountIds: [accountId] }, new Set(['KIND', 'JOB']), { limit: 100, offset: 0 })

describe('a ledger', () => {
  test('adds up exactly what several processes write at once', async () => {
    const jobs = ['018f0000-0000-7000-8000-000000000001', '018f0000-0000-7000-8000-000000000002', null]
    const ledgers = await Promise.all(Array.from({ length: 4 }, () => startUsageLedger(server.database, log)))
    await Promise.all(
      ledgers.map(async (ledger, process) => {
        for (let round = 0; round < 20; round++) {
          // In another order in each process.
          for (let at = 0; at < jobs.length; at++) {
            const job = jobs[(at + process) % jobs.length] ?? null
            const { record } = ledger.account(remote('several'), 'EXTRACTION', job)
            record({ tokensIn: 3, tokensOut: 2, ms: 1.5, isFailed: round === 0 })
          }
          await ledger.flush()
        }
      }),
    )
    await Promise.all(ledgers.map((ledger) => ledger.stop()))
    const sums = await sumsOf('several')
    expect(sums.map(({ jobId }) => jobId).sort()).toEqual([...jobs].sort())
    for (const sum of sums) {
      expect(sum).toMatchObject({
        requests: 80,
        failedRequests: 4,
        tokensIn: 240,
        tokensOut: 160,
        cost: 0,
        unpricedRequests: 80,
      })
    }
  })

  test('takes the model inside for free', async () => {
    const ledger = await startUsageLedger(server.database, log)
    const account = ledger.account({ accountId: 'inside', type: 'local' }, 'QUERY')
    account.record({ tokensIn: 5, tokensOut: 0, ms: 1, isFailed: false })
    await ledger.stop()
    expect(await sumsOf('inside')).toMatchObject([{ requests: 1, cost: 0, unpricedRequests: 0 }])
  })
})
