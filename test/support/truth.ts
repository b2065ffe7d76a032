import { expect, vi } from 'vitest'
import { hashVector } from './provider-server.ts'

/** Reads the database directly, behind the back of every process that works on it. */
export type Read = <Row extends object>(text: string, values?: readonly unknown[]) => Promise<Row[]>

/** The vector that belongs to a text, as the provider gives it. */
export type VectorOf = (text: string, dimensions: number) => number[]

/** One rule of what must hold when all work has ended: a query that finds what breaks it, and what it then says. */
interface Rule {
  finds: string
  says(row: Record<string, unknown>): string
}

const show = (row: Record<string, unknown>) => JSON.stringify(row)

const rules: Rule[] = [
  {
    finds: `select kind, owner_id, status, attempts, last_error from embedding where status in ('PENDING', 'STALE')`,
    says: (row) => `still owed: ${show(row)}`,
  },
  {
    finds: `select e.kind, e.owner_id, e.status from embedding e join embeddable o using (kind, owner_id)
      where e.last_error is null and (e.status = 'FAILED' or (e.status = 'SKIPPED' and not is_blank(o.text)))`,
    says: (row) => `ended without a reason: ${show(row)}`,
  },
  {
    finds: `select e.kind, e.owner_id, e.status, e.attempts, e.last_error, e.embedded_at, vector_dims(e.vector) as dimensions
      from embedding e join embedding_space s on s.id = e.space_id
      where e.status = 'READY' and (e.vector is null or vector_dims(e.vector) <> s.dimensions or e.embedded_at is null
        or e.attempts <> 0 or e.last_error is not null or e.next_attempt_at is not null)`,
    says: (row) => `READY, but with traces of something else: ${show(row)}`,
  },
  {
    finds: `select kind, owner_id, status, vector is not null as "hasVector" from embedding
      where status in ('FAILED', 'SKIPPED') and vector is not null`,
    says: (row) => `a vector that nothing stands for: ${show(row)}`,
  },
  {
    finds: `select e.kind, e.owner_id from embedding e join embeddable o using (kind, owner_id)
      where e.content_hash <> text_hash(o.text)`,
    says: (row) => `the hash is not that of the text: ${show(row)}`,
  },
  {
    finds: `select s.id as space, o.kind, o.owner_id from embeddable o cross join embedding_space s
      left join embedding e on e.space_id = s.id and e.kind = o.kind and e.owner_id = o.owner_id
      where s.state in ('BUILDING', 'ACTIVE') and e.owner_id is null`,
    says: (row) => `an owner without a row: ${show(row)}`,
  },
  {
    finds: `select e.kind, e.owner_id from embedding e left join embeddable o using (kind, owner_id)
      where o.owner_id is null`,
    says: (row) => `a row without an owner: ${show(row)}`,
  },
  {
    finds: `with kept as (select space_id, kind, status, sum(n) as n from embedding_count group by 1, 2, 3),
        counted as (select space_id, kind, status, count(*) as n from embedding group by 1, 2, 3)
      select space_id, kind, status, coalesce(kept.n, 0)::int as kept, coalesce(counted.n, 0)::int as counted
      from kept full join counted using (space_id, kind, status) where coalesce(kept.n, 0) <> coalesce(counted.n, 0)`,
    says: (row) => `a kept count that is wrong: ${show(row)}`,
  },
  {
    finds: 'select kind, owner_id, status, leased_by from embedding where leased_by is not null',
    says: (row) => `a lease was left behind: ${show(row)}`,
  },
  {
    finds: 'select job_id, kind, owner_id from embedding_request',
    says: (row) => `a job still waits for a row: ${show(row)}`,
  },
  {
    finds: `select id, kind, state, attempts, error, waiting_until from job where state in ('QUEUED', 'RUNNING')
      or finished_at is null or waiting_until is not null or unreported is not null`,
    says: (row) => `a job that has not ended: ${show(row)}`,
  },
  {
    finds: `select id, kind, state, error from job where state = 'FAILED' and error is null`,
    says: (row) => `a job that FAILED without a reason: ${show(row)}`,
  },
  {
    finds: `select id, kind, total, succeeded, failed, skipped from job
      where state = 'SUCCEEDED' and total is distinct from succeeded + failed + skipped`,
    says: (row) => `the counts of a job do not make its total: ${show(row)}`,
  },
  {
    finds: `select j.id, j.kind, j.last_seq::int, count(e.seq)::int as events from job j left join job_event e on e.job_id = j.id
      group by j.id having count(e.seq) <> j.last_seq or max(e.seq) is distinct from j.last_seq`,
    says: (row) => `the events of a job are not numbered without a gap: ${show(row)}`,
  },
  {
    finds: `select j.id, j.kind, j.state, j.total, j.succeeded, j.failed, j.skipped, e.data from job j
      join job_event e on e.job_id = j.id and e.seq = j.last_seq
      where (e.data ->> 'state', (e.data ->> 'total')::int, (e.data ->> 'succeeded')::int, (e.data ->> 'failed')::int,
          (e.data ->> 'skipped')::int)
        is distinct from (j.state::text, j.total, j.succeeded, j.failed, j.skipped)`,
    says: (row) => `the last event of a job is not its end: ${show(row)}`,
  },
  {
    finds: `select c.job_id, count(*)::int as pieces from import_chunk c join job j on j.id = c.job_id
      where j.state = 'SUCCEEDED' group by 1`,
    says: (row) => `the file of an import was left behind: ${show(row)}`,
  },
  {
    finds: `select e.message_id, e.job_id from message_extraction e join job j on j.id = e.job_id
      where j.state = 'SUCCEEDED' and e.extracted_at is null and e.last_error is null`,
    says: (row) => `a message that its extraction has passed over: ${show(row)}`,
  },
  {
    finds: `select w.id, w.task_identifier, w.attempts, w.locked_by, w.last_error from graphile_worker.jobs w
      where w.locked_by is not null or w.task_identifier in (select unnest(enum_range(null::job_kind))::text)`,
    says: (row) => `left in the queue: ${show(row)}`,
  },
]

/**
 * Everything in the database that is not as it must be when all work has ended, in words; empty if all is true. Each
 * row is READY with the vector of its own text, or has ended otherwise with a reason; kept counts are those of a full
 * count; no lease, no request and no place in the queue is left; every job has ended, with counts and events that fit.
 */
export async function findUntruths(read: Read, vectorOf: VectorOf = hashVector): Promise<string[]> {
  const found: string[] = []
  for (const rule of rules) {
    const rows = await read<Record<string, unknown>>(rule.finds)
    for (const row of rows.slice(0, 3)) found.push(rule.says(row))
    if (rows.length > 3) found.push(`... and ${rows.length - 3} more like it`)
  }
  found.push(...(await findWrongVectors(read, vectorOf)))
  return found
}

/** Fails the test with a list of all that is not true; see findUntruths. */
export async function expectTruth(read: Read, vectorOf: VectorOf = hashVector): Promise<void> {
  expect(await findUntruths(read, vectorOf)).toEqual([])
}

async function findWrongVectors(read: Read, vectorOf: VectorOf): Promise<string[]> {
  const rows = await read<{ kind: string; text: string; vector: string }>(
    `select e.kind, o.text, e.vector::text as vector from embedding e join embeddable o using (kind, owner_id)
     where e.status = 'READY'`,
  )
  return rows.flatMap(({ kind, text, vector }) => {
    const stored: number[] = JSON.parse(vector)
    const right = vectorOf(text, stored.length)
    // Numbers of at most 1 as 32-bit floats: with 24 bits of fraction they are off by less than 1e-7.
    const isRight = stored.every((value, index) => Math.abs(value - (right[index] ?? 0)) < 1e-6)
    return isRight ? [] : [`the vector of another text: ${kind} ${JSON.stringify(text.slice(0, 80))}`]
  })
}

/** Whether exactly those processes are entered in the database that are alive, by process id; in words if not. */
export async function findDeadProcesses(read: Read, alive: readonly number[]): Promise<string[]> {
  const rows = await read<{ pid: number }>('select pid, role, heartbeat_at from process order by pid')
  const expected = [...alive].sort((a, b) => a - b)
  const isTrue = rows.length === expected.length && rows.every(({ pid }, index) => pid === expected[index])
  return isTrue ? [] : [`alive: ${expected.join(', ')}; entered: ${JSON.stringify(rows)}`]
}

/** What nobody has ended yet, in words. */
async function findWorkLeft(read: Read): Promise<string[]> {
  const owed = await read<Record<string, unknown>>(
    `select status, count(*)::int as rows, count(leased_by)::int as leased, max(attempts) as attempts,
       min(next_attempt_at) as "nextAttemptAt", max(last_error) as error
     from embedding where status in ('PENDING', 'STALE') group by 1`,
  )
  const jobs = await read<Record<string, unknown>>(
    `select j.id, j.kind, j.state, j.attempts, j.error, j.total, j.succeeded, q.run_at as "runAt", q.locked_by as "lockedBy",
       exists (select from process p where q.locked_by = any (p.workers)) as "isInHand",
       (select e.message from job_event e where e.job_id = j.id and e.message is not null order by seq desc limit 1) as said
     from job j left join graphile_worker.jobs q on q.key = j.id::text where j.state in ('QUEUED', 'RUNNING')`,
  )
  return [...owed, ...jobs].map(show)
}

/**
 * Resolves when nothing is owed and no job is under way, and the queue has been told so.
 * @param limitMs the test fails when it takes longer
 */
export async function untilDone(read: Read, limitMs: number): Promise<void> {
  // Not by a subscription: the process that would send it may be the one that is killed next.
  await vi.waitFor(async () => expect(await findWorkLeft(read)).toEqual([]), {
    timeout: limitMs,
    interval: 200,
  })
  // A job is taken out of the queue after the transaction that ends it; where a lost connection has prevented that, by
  // whoever takes up what nobody has in hand.
  const locked = 'select id, task_identifier from graphile_worker.jobs where locked_by is not null'
  await vi.waitFor(async () => expect(await read(locked)).toEqual([]), { timeout: limitMs, interval: 200 })
}
