import { acquireLock } from '../../../src/db/lock.ts'

/* A process that takes the lock of a folder when it is told to, and holds it until it is disconnected. */

const [dataDir = ''] = process.argv.slice(2)

process.on('message', () => {
  try {
    acquireLock(dataDir)
    process.send?.('won')
  } catch (error) {
    process.send?.(String(error))
  }
})
process.send?.('ready')
