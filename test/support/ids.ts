/** The global id of a row that is in no test's database. */
export const missingId = (typename: string): string =>
  globalId(typename, '018f0000-0000-7000-8000-000000000000')

export const globalId = (typename: string, id: string): string =>
  Buffer.from(`${typename}:${id}`).toString('base64')

/** The id in the database behind a global id. */
export function databaseId(id: string): string {
  const [, own] = Buffer.from(id, 'base64').toString('utf8').split(':')
  if (!own) throw new Error(`${id} is no global id`)
  return own
}
