import { expect, test } from 'vitest'
import { groupMessages } from '../../../src/conversations/group.ts'
import type { Database, Transaction } from '../../../src/db/database.ts'
import { partitionName } from '../../../src/embedding/spaces.ts'
import { openTestSpace } from '../../support/databases.ts'

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Cond'?: string
  Plans?: PlanNode[]
}

const nodesOf = (node: PlanNode): PlanNode[] => [node, ...(node.Plans ?? []).flatMap(nodesOf)]

test('grouping looks up one vector at a time, although the planner has not heard yet that the space was filled', async () => {
  await using opened = await openTestSpace()
  const { database, space } = opened
  const partition = partitionName(space)
  await database.query(`alter table ${partition} set (autovacuum_enabled = off)`)
  await database.query(`insert into source (id, name, type) values (gen_random_uuid(), 'Test', 'api')`)
  await database.query(
    `insert into message (id, source_id, channel, external_id, author, content, sent_at)
     select (lpad(to_hex(i), 8, '0') || '-0000-7000-8000-000000000000')::uuid, (select id from source), 'c', i::text, 'ann',
       'message number ' || i, timestamptz '2026-01-01' + make_interval(mins => i)
     from generate_series(1, 3000) as i`,
  )
  await database.query(`update embedding set status = 'SKIPPED'`)

  const plans: PlanNode[] = []
  const explaining: Database = {
    ...database,
    transaction: (work) =>
      database.transaction((transaction) =>
        work({
          ...transaction,
          async query(text: string, values?: readonly unknown[]) {
            if (text.includes(partition)) {
              const explain = `explain (format json) ${text}`
              const [row] = await transaction.query<{ 'QUERY PLAN': { Plan: PlanNode }[] }>(explain, values)
              plans.push(...(row?.['QUERY PLAN'] ?? []).map(({ Plan }) => Plan))
            }
            return transaction.query(text, values)
          },
        } as Transaction),
      ),
  }
  expect(await groupMessages(explaining, space, new AbortController().signal)).toBe(3000)
  expect(plans.length).toBeGreaterThan(10)
  for (const scan of plans.flatMap(nodesOf)) {
    if (scan['Relation Name'] !== partition) continue
    expect(scan['Node Type']).toBe('Index Scan')
    expect(scan['Index Cond']).toContain('owner_id = ')
  }
})
