import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runQuarry, startQuarry, temporaryFolder } from '../support/processes.ts'

const sampleChat = join(import.meta.dirname, '../../examples/sample-chat.jsonl')

test('the demo imports the sample chat, extracts it, answers three searches by meaning, and stays up', async () => {
  await using folder = await temporaryFolder()
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), PORT: '0' }
  await using demo = startQuarry(['demo'], env)
  const [, url] = await demo.line(/GraphiQL +(http:\S+)/)

  const output = demo.output()
  expect(output).toContain('420 new, 0 updated, 0 unchanged')
  // Made with no key: topics, atoms with the words that prove them, and a link.
  expect(output).toMatch(/\d{2,} topics, \d{2,} atoms, \d{2,} links/)
  expect(output).toMatch(/\n {2}(PROBLEM|SOLUTION|DECISION|QUESTION|INSIGHT) .+\n {6}\w+, 2026-05-\d\d: ".+"/)
  expect(output).toMatch(/\n {6}SOLVES (PROBLEM|QUESTION|BLOCKER) /)
  const answers = output.split('Search: ').slice(1)
  expect(answers).toHaveLength(3)
  expect(answers[0]).toMatch(/asleep for an hour/)
  expect(answers[1]).toMatch(/treated as spam/)
  expect(answers[2]).toMatch(/wants the money back/)

  const page = await fetch(url ?? '', { headers: { accept: 'text/html' } })
  expect(await page.text()).toContain('<title>Quarry</title>')

  demo.child.kill('SIGINT')
  expect(await demo.exit()).toBe(0)

  const again = await runQuarry(['import', sampleChat, '--source', 'Sample chat', '--extract'], env)
  expect(again.output).toContain('420 unchanged')
  expect(again.output).toContain('Nothing new to extract.')
})
