import { once } from 'node:events'
import { loadPostgraphile } from './others.ts'
import { postgraphileSchema } from './peers.ts'
import { openPool, serveParent } from './serve.ts'

/*
 * PostGraphile over a schema that holds nothing but the function of the search, with everything off that costs time and
 * is not asked for. A process of its own, in production mode.
 */

export interface PostgraphileTask {
  databaseUrl: string
}

const [task] = (await once(process, 'message')) as [PostgraphileTask]
const pool = openPool(task.databaseUrl)
await serveParent(
  loadPostgraphile().postgraphile(pool, postgraphileSchema, {
    disableQueryLog: true,
    disableDefaultMutations: true,
    dynamicJson: true,
    graphiql: false,
    simpleCollections: 'only',
    watchPg: false,
  }),
  pool,
)
