// Makes the Prisma client and the Pothos types from prisma/schema.prisma, unless they are up to date. Plain
// JavaScript, because it runs before anything else can.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(import.meta.url)
const outputs = ['src/db/generated/prisma/client.ts', 'src/graphql/generated/pothos.ts']
const stamp = join(root, 'src/db/generated/schema.sha256')
const wanted = createHash('sha256')
  .update(readFileSync(join(root, 'prisma/schema.prisma')))
  .update(require('prisma/package.json').version)
  .digest('hex')

const isFresh =
  existsSync(stamp) &&
  readFileSync(stamp, 'utf8') === wanted &&
  outputs.every((file) => existsSync(join(root, file)))

if (!isFresh) {
  const prisma = join(dirname(require.resolve('prisma/package.json')), 'build/index.js')
  const run = spawnSync(process.execPath, [prisma, 'generate', '--no-hints'], {
    cwd: root,
    encoding: 'utf8',
    // `generate` never runs the schema engine, but refuses to start without one, and its download is not always
    // possible: any executable will do.
    env: {
      ...process.env,
      PATH: `${join(root, 'node_modules/.bin')}${delimiter}${process.env.PATH}`,
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      PRISMA_HIDE_UPDATE_MESSAGE: '1',
    },
  })
  if (run.status !== 0) {
    process.stderr.write(`${run.stdout}${run.stderr}\nprisma generate failed; see above.\n`)
    process.exit(1)
  }
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, wanted)
}
