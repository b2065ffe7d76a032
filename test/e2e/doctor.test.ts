import { join } from 'node:path'
import { expect, test } from 'vitest'
import { providerEnv } from '../support/apps.ts'
import { preparedFolder } from '../support/databases.ts'
import { runQuarry, startQuarry } from '../support/processes.ts'
import { ProviderServer } from '../support/provider-server.ts'

test('quarry doctor tells a line for each check, and its exit code whether something is wrong', async () => {
  await using folder = await preparedFolder()
  await using upstream = await ProviderServer.start({ dimensions: 64 })
  const env = { QUARRY_DATA_DIR: join(folder.path, 'data'), PORT: '0', ...providerEnv(upstream) }

  const well = await runQuarry(['doctor'], env)
  expect(well.output).toMatch(/^✓ ok {7}configuration +every variable/m)
  expect(well.output).toMatch(/^✓ ok {7}provider for embedding +openai\/\S+ of the environment embeds, 64 /m)
  expect(well.output).not.toMatch(/^✗/m)
  expect(well.code).toBe(0)

  const doubtful = await runQuarry(['doctor', '--json'], { ...env, QUARRY_DATADIR: 'x' })
  expect(doubtful.code).toBe(0)
  expect(JSON.parse(doubtful.output)).toContainEqual({
    name: 'variables',
    state: 'warning',
    message: 'nobody reads QUARRY_DATADIR (did you mean QUARRY_DATA_DIR?)',
    remedy: expect.any(String),
  })

  const mistaken = await runQuarry(['doctor'], { ...env, PORT: 'x' })
  expect(mistaken.output).toMatch(/^✗ wrong {4}configuration +1 mistake: PORT: must be a number\n {11}\S/m)
  expect(mistaken.code).toBe(1)

  expect((await runQuarry(['doctor', '--loudly'], env)).code).toBe(2)

  await using server = startQuarry(['serve'], env)
  await server.line(/"url":"[^"]+"/)
  const beside = await runQuarry(['doctor'], env)
  expect(beside.output).toMatch(/^✓ ok {7}server/m)
  expect(beside.output).toMatch(
    new RegExp(
      `triggers +cannot be seen over the API.*\\n +Stop the server \\(process ${server.child.pid}\\)`,
    ),
  )
  expect(beside.code).toBe(0)
})
