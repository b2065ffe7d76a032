import { join } from 'node:path'
import { expect, test } from 'vitest'
import { startQuarry, temporaryFolder } from '../support/processes.ts'

test('the demo imports the sample chat, answers three searches by meaning, and stays up', async () => {
  await using folder = await temporaryFolder()
  await using demo = startQuarry(['demo'], { QUARRY_DATA_DIR: join(folder.path, 'data'), PORT: '0' })
  const [, url] = await demo.line(/GraphiQL +(http:\S+)/)

  const output = demo.output()
  expect(output).toContain('420 new, 0 updated, 0 unchanged')
  const answers = output.split('Search: ').slice(1)
  expect(answers).toHaveLength(3)
  expect(answers[0]).toMatch(/android is asleep/i)
  expect(answers[1]).toMatch(/treated as spam/)
  expect(answers[2]).toMatch(/full refund/)

  const page = await fetch(url ?? '', { headers: { accept: 'text/html' } })
  expect(await page.text()).toContain('<title>Quarry</title>')

  demo.child.kill('SIGINT')
  expect(await demo.exit()).toBe(0)
})
