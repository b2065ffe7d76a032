import fc from 'fast-check'
import { v7 as uuidv7 } from 'uuid'
import { expect, test } from 'vitest'
import { timeOfId } from '../../../src/embedding/stats.ts'

test('an id tells when it was made', () => {
  fc.assert(
    fc.property(fc.nat({ max: 2 ** 48 - 1 }), (msecs) => {
      expect(timeOfId(uuidv7({ msecs }))).toBe(msecs)
    }),
  )
})
