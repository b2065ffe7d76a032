import { openDatabase } from '../../../src/db/database.ts'
import { createLogger } from '../../../src/log.ts'

/* A process that owns a data folder, writes a row, says so, and stays until it is killed. */

const [dataDir = ''] = process.argv.slice(2)
const database = await openDatabase(
  { kind: 'embedded', dataDir },
  { log: createLogger('silent'), onFailure: () => process.exit(1) },
)
await database.query(
  `insert into source (id, name, type) values (gen_random_uuid(), 'acknowledged', 'owner')`,
)
process.send?.('ready')
