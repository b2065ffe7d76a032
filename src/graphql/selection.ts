/** A name for what Prisma is to read with a row: equal for equal selections. */
export function selectionName(selection: object): string {
  return JSON.stringify(selection, (_key, value) => (typeof value === 'bigint' ? `${value}n` : value))
}
