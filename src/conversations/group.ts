import type { Database, Sql, Transaction } from '../db/database.ts'
import { keepLooking } from '../db/keep-looking.ts'
import { coverageChannel } from '../embedding/coverage.ts'
import type { LiveSpaces } from '../embedding/live-spaces.ts'
import { type EmbeddingSpace, leftJoinEmbedding } from '../embedding/spaces.ts'
import { parseVector } from '../embedding/vectors.ts'
import type { Logger } from '../log.ts'
import { createLinker, type LinkMessage, maxAgeMs, windowSize } from './link.ts'

/** Channel on which is said that messages have got their conversation. */
export const groupedChannel = 'quarry_grouped'

const batchSize = 500
const maxBetween = 2000
/**
 * How near two messages are in meaning says much about whether one answers the other, so grouping follows embedding.
 * But a provider that is down must not hold it up for ever: after this, the other signs have to do.
 */
const patience = '10 minutes'

/** Gives messages their conversation as they are embedded, until stopped. */
export function startGrouping(
  database: Database,
  spaces: Pick<LiveSpaces, 'active' | 'use'>,
  log: Logger,
): Promise<{ stop(): Promise<void> }> {
  return keepLooking(database, {
    channel: coverageChannel,
    async look(signal) {
      const live = spaces.active()
      await spaces.use(live, () => groupMessages(database, live.space, signal))
    },
    lookAgainMs: 5_000,
    // Each batch reads the window before it.
    leastIntervalMs: 500,
    trouble: 'Messages could not be grouped',
    log,
  })
}

interface Place {
  sourceId: string
  channel: string
}

/** Groups what is ready, channel by channel. @returns how many messages were grouped */
export async function groupMessages(
  database: Database,
  space: EmbeddingSpace,
  signal: AbortSignal,
): Promise<number> {
  let sum = 0
  for (let place = await nextPlace(database, null); place; place = await nextPlace(database, place)) {
    for (let grouped = -1; grouped !== 0; sum += grouped) {
      if (signal.aborted) return sum
      const at = place
      grouped = await database.transaction((transaction) => groupBatch(transaction, space, at))
    }
  }
  return sum
}

/** The next channel, in the order of the index, that has messages without a conversation. */
async function nextPlace(sql: Sql, after: Place | null): Promise<Place | null> {
  const [place] = await sql.query<Place>(
    `select source_id as "sourceId", channel from message
     where conversation_id is null and ($1::uuid is null or (source_id, channel) > ($1, $2))
     order by source_id, channel limit 1`,
    [after?.sourceId ?? null, after?.channel ?? ''],
  )
  return place ?? null
}

/**
 * Groups the next messages of a channel that are ready, in the order of time.
 * @returns how many; 0 if none is ready, or another process is at this channel
 */
async function groupBatch(transaction: Transaction, space: EmbeddingSpace, place: Place): Promise<number> {
  const [lock] = await transaction.query<{ isFree: boolean }>(
    `select pg_try_advisory_xact_lock(hashtextextended('conversations ' || $1 || ' ' || $2, 0)) as "isFree"`,
    [place.sourceId, place.channel],
  )
  if (!lock?.isFree) return 0
  const ready = await readUngrouped(transaction, space, place)
  const [first] = ready
  const last = ready.at(-1)
  if (!first || !last) return 0
  const linker = createLinker(await readWindow(transaction, space, place, first.sentAt))
  const between = await readBetween(transaction, space, place, first, last)
  const until = between.length < maxBetween ? last : between.at(-1)
  const conversations = new Map<string, string>()
  const threads = new Map<string, string>()
  for (const message of [...ready, ...between].sort(byTime)) {
    if (until && byTime(message, until) > 0) break
    // Replies and threads are certain, and may lead further back than the linker looks.
    const known = message.conversationId ?? message.repliedConversation ?? message.threadConversation
    const here = conversations.get(message.replyToId ?? '') ?? threads.get(message.threadId ?? '')
    const own = known ?? here ?? linker.link(message).conversationId ?? message.id
    linker.remember({ ...message, conversationId: own })
    threads.set(message.externalId, own)
    if (message.threadId !== null && !threads.has(message.threadId)) threads.set(message.threadId, own)
    if (message.conversationId === null) conversations.set(message.id, own)
  }
  await storeConversations(transaction, conversations)
  await transaction.query(`select pg_notify('${groupedChannel}', '')`)
  return conversations.size
}

interface GroupRow extends LinkMessage {
  externalId: string
  conversationId: string | null
  /** Conversation of the message that it answers, and of the first one of its thread that has one. */
  repliedConversation: string | null
  threadConversation: string | null
}

const byTime = (a: LinkMessage, b: LinkMessage) =>
  a.sentAt.getTime() - b.sentAt.getTime() || (a.id === b.id ? 0 : a.id < b.id ? -1 : 1)

const groupColumns = `m.id, m.author, m.sent_at as "sentAt", m.content, m.external_id as "externalId", m.thread_id as "threadId", r.id as "replyToId",
  m.conversation_id as "conversationId", vector_send(e.vector) as vector`

const groupJoins = (space: EmbeddingSpace) => `
  left join lateral (${sameChannel('reply_to_external_id')}) as r on true
  ${leftJoinEmbedding(space, `'MESSAGE'`, 'm.id')}`

/** SQL: the message that a column of `m` names. The limit makes it one look into an index, whatever the planner thinks. */
const sameChannel = (column: string) => `
  select id, conversation_id from message
  where source_id = m.source_id and channel = m.channel and external_id = m.${column} limit 1`

/** SQL: the first rows of a channel ($1, $2), chosen before anything is joined to them. */
const limited = (where: string, order: string, count: number) =>
  `select * from message where source_id = $1 and channel = $2 and ${where} order by ${order} limit ${count}`

/** Messages without a conversation up to the first that still waits for its vector. */
async function readUngrouped(
  transaction: Transaction,
  space: EmbeddingSpace,
  place: Place,
): Promise<GroupRow[]> {
  const rows = await transaction.query<GroupRow & { isReady: boolean }>(
    `select ${groupColumns}, r.conversation_id as "repliedConversation",
       coalesce(root.conversation_id, (
         select t.conversation_id from message t
         where t.source_id = m.source_id and t.channel = m.channel and t.thread_id = m.thread_id
         order by t.sent_at, t.id limit 1)) as "threadConversation",
       e.status in ('READY', 'FAILED', 'SKIPPED') or m.created_at < now() - interval '${patience}' as "isReady"
     from (${limited('conversation_id is null', 'sent_at, id', batchSize)}) as m ${groupJoins(space)}
     left join lateral (${sameChannel('thread_id')}) as root on true
     order by m.sent_at, m.id`,
    [place.sourceId, place.channel],
  )
  const waiting = rows.findIndex(({ isReady }) => !isReady)
  return (waiting < 0 ? rows : rows.slice(0, waiting)).map(withVector)
}

/** The messages before that a new one may answer. */
async function readWindow(
  transaction: Transaction,
  space: EmbeddingSpace,
  place: Place,
  before: Date,
): Promise<(LinkMessage & { conversationId: string })[]> {
  const rows = await transaction.query<GroupRow & { conversationId: string }>(
    `select ${groupColumns} from (${limited(
      `conversation_id is not null and sent_at <= $3
         and sent_at >= $3::timestamptz - make_interval(secs => ${maxAgeMs / 1000})`,
      'sent_at desc, id desc',
      windowSize,
    )}) as m ${groupJoins(space)}`,
    [place.sourceId, place.channel, before],
  )
  return rows.map(withVector).sort(byTime)
}

/** Messages that have a conversation and were sent among those that do not: an older export came later. */
async function readBetween(
  transaction: Transaction,
  space: EmbeddingSpace,
  place: Place,
  first: LinkMessage,
  last: LinkMessage,
): Promise<GroupRow[]> {
  const rows = await transaction.query<GroupRow>(
    `select ${groupColumns}, null as "repliedConversation", null as "threadConversation"
     from (${limited(
       'conversation_id is not null and sent_at > $3 and sent_at <= $4',
       'sent_at, id',
       maxBetween,
     )}) as m ${groupJoins(space)}`,
    [place.sourceId, place.channel, first.sentAt, last.sentAt],
  )
  return rows.map(withVector).sort(byTime)
}

/** pg gives a Buffer where the type says Float32Array. */
function withVector<Row extends LinkMessage>(row: Row): Row {
  return { ...row, vector: row.vector && parseVector(row.vector as unknown as Buffer) }
}

async function storeConversations(
  transaction: Transaction,
  conversations: ReadonlyMap<string, string>,
): Promise<void> {
  await transaction.query(
    `update message m set conversation_id = c.conversation_id
     from unnest($1::uuid[], $2::uuid[]) as c(id, conversation_id) where m.id = c.id`,
    [[...conversations.keys()], [...conversations.values()]],
  )
}
