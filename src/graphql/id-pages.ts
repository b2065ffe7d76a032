import { GraphQLError } from 'graphql'
import { pageSize } from './page-size.ts'

/*
 * Pages of lists that hand-written SQL reads by the newest id first, for fields that Prisma's relations do not cover.
 */

/** A page as SQL reads it. */
export interface IdPage {
  /** Only rows with a smaller id. */
  after: string | null
  /** One row more than is shown: whether there is a next page. */
  limit: number
}

/** @param read gives at most `limit` rows, newest id first */
export async function pageById<Row extends { id: string }>(
  args: { first?: number | null; after?: string | null },
  read: (page: IdPage) => Promise<readonly Row[]>,
) {
  const count = args.first ?? pageSize.default
  const rows = await read({ after: args.after == null ? null : readCursor(args.after), limit: count + 1 })
  const edges = rows.slice(0, count).map((row) => ({ cursor: writeCursor(row.id), node: row }))
  return {
    edges,
    pageInfo: {
      hasNextPage: rows.length > count,
      hasPreviousPage: args.after != null,
      startCursor: edges[0]?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  }
}

const writeCursor = (id: string) => Buffer.from(`id:${id}`).toString('base64url')

function readCursor(cursor: string): string {
  const text = Buffer.from(cursor, 'base64url').toString('utf8')
  if (/^id:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text)) return text.slice(3)
  throw new GraphQLError('after is not a cursor of this list; take it from pageInfo', {
    extensions: { code: 'INVALID_INPUT', path: ['after'] },
  })
}
