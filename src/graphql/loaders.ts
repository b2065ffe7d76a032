import DataLoader from 'dataloader'
import type { Sql } from '../db/database.ts'
import type { Atom, AtomLink, Message, Topic } from '../db/generated/prisma/client.ts'
import { readRows } from '../db/rows.ts'
import { type EmbeddingState, readStates } from '../embedding/coverage.ts'
import type { EmbeddingSpace, EntityKind } from '../embedding/spaces.ts'
import { type AgentRow, readAgentsById } from '../extraction/agents.ts'
import { findByIdentity } from '../ingest/messages.ts'
import { readCitingAtoms } from '../knowledge/citations.ts'
import { type LinksPage, readLinks } from '../knowledge/links.ts'
import { type ProviderStatusRow, readProviderStatus } from '../providers/read-status.ts'
import { type ProviderRow, readProvidersById } from '../providers/records.ts'
import type { ProviderPurpose } from '../providers/status.ts'
import { readSpentThisMonth, readUsageOfJobs, type UsageSum } from '../providers/usage-records.ts'
import type { Search, SearchPage } from '../search/search.ts'
import type { IdPage } from './id-pages.ts'

export interface NeighboursKey {
  /** Kind of the one whose neighbours are looked for. */
  of: EntityKind
  /** Kind of the neighbours. */
  kind: EntityKind
  id: string
  first: number
  threshold: number
}

export interface LinksKey extends LinksPage {
  atomId: string
}

export interface CitingKey extends IdPage {
  messageId: string
}

interface MessageIdentity {
  sourceId: string
  channel: string
  externalId: string
}

/** What a field asks for one row at a time. */
export interface Loader<Key, Value> {
  load(key: Key): Promise<Value>
}

/** What fields of many rows need, asked for in one statement a level of the query instead of one a row. */
export interface Loaders {
  embeddingState: Loader<{ kind: EntityKind; id: string }, EmbeddingState | null>
  messageByIdentity: Loader<MessageIdentity, Message | null>
  /** How the provider for a purpose does; null if nobody has asked it for anything yet. */
  providerStatus: Loader<ProviderPurpose, ProviderStatusRow | null>
  /** One that was added by the API; null if it does not exist. */
  provider: Loader<string, ProviderRow | null>
  agent: Loader<string, AgentRow | null>
  /** US dollars, by account. */
  spentThisMonth: Loader<string, number>
  /** Null if it has asked no provider for anything. */
  usageOfJob: Loader<string, UsageSum | null>
  /** A row of any kind; null if it does not exist. */
  row: DataLoader<{ kind: EntityKind; id: string }, Message | Atom | Topic | null, string>
  neighbours: DataLoader<NeighboursKey, SearchPage, string>
  links: DataLoader<LinksKey, AtomLink[], string>
  citingAtoms: DataLoader<CitingKey, Atom[], string>
  /** Reads what has this name once. */
  once<Value>(name: string, read: () => Promise<Value>): Promise<Value>
}

const identityKey = (identity: MessageIdentity) =>
  JSON.stringify([identity.sourceId, identity.channel, identity.externalId])

export function createLoaders(sql: Sql, space: EmbeddingSpace, search: Search): Loaders {
  return {
    embeddingState: new DataLoader(
      async (keys) => {
        const states = await Promise.all(
          [...groupBy(keys, (key) => key.kind)].map(([kind, group]) =>
            readStates(
              sql,
              space.id,
              kind,
              group.map((key) => key.id),
            ),
          ),
        )
        const byId = new Map(states.flat().map((state) => [state.ownerId, state]))
        return keys.map((key) => byId.get(key.id) ?? null)
      },
      { cacheKeyFn: ({ kind, id }) => `${kind} ${id}` },
    ),
    messageByIdentity: new DataLoader(
      async (keys) => {
        const found = await findByIdentity(sql, keys)
        const byKey = new Map(found.map((message) => [identityKey(message), message]))
        return keys.map((key) => byKey.get(identityKey(key)) ?? null)
      },
      { cacheKeyFn: identityKey },
    ),
    providerStatus: new DataLoader(async (purposes) => {
      const rows = await readProviderStatus(sql, purposes)
      return purposes.map((purpose) => rows.find((row) => row.purpose === purpose) ?? null)
    }),
    provider: new DataLoader(async (ids) => {
      const rows = await readProvidersById(sql, ids)
      return ids.map((id) => rows.find((row) => row.id === id) ?? null)
    }),
    agent: new DataLoader(async (ids) => {
      const rows = await readAgentsById(sql, ids)
      return ids.map((id) => rows.find((row) => row.id === id) ?? null)
    }),
    spentThisMonth: new DataLoader(async (accountIds) => {
      const rows = await readSpentThisMonth(sql, accountIds)
      return accountIds.map((id) => rows.find(({ accountId }) => accountId === id)?.spent ?? 0)
    }),
    usageOfJob: new DataLoader(async (jobIds) => {
      const rows = await readUsageOfJobs(sql, jobIds)
      return jobIds.map((id) => rows.find(({ jobId }) => jobId === id) ?? null)
    }),
    once: memoize(),
    row: new DataLoader(
      async (keys) => {
        const rows = await readRows(sql, keys)
        return keys.map((key) => rows.get(key.id) ?? null)
      },
      { cacheKeyFn: ({ id }) => id },
    ),
    neighbours: new DataLoader(
      async (keys) => {
        const groups = groupBy(
          keys,
          ({ of, kind, first, threshold }) => `${of} ${kind} ${first} ${threshold}`,
        )
        const pages = await Promise.all(
          [...groups].map(async ([name, group]) => {
            const [key] = group
            if (!key) return []
            const ids = group.map(({ id }) => id)
            const found = await search.neighbours(key.of, key.kind, ids, key.first, key.threshold)
            return [...found].map(([id, page]) => [`${name} ${id}`, page] as const)
          }),
        )
        const byKey = new Map(pages.flat())
        return keys.map((key) => {
          const page = byKey.get(`${key.of} ${key.kind} ${key.first} ${key.threshold} ${key.id}`)
          return page ?? new Error(`no neighbours were read for ${key.kind} ${key.id}`)
        })
      },
      { cacheKeyFn: ({ of, kind, id, first, threshold }) => `${of} ${kind} ${first} ${threshold} ${id}` },
    ),
    links: pagesLoader(
      ({ atomId }) => atomId,
      (ids, page) => readLinks(sql, ids, page),
    ),
    citingAtoms: pagesLoader(
      ({ messageId }) => messageId,
      (ids, page) => readCitingAtoms(sql, ids, page),
    ),
  }
}

/**
 * Reads the page of each owner's list, one statement for all that ask for the same page.
 * @param read gives rows with their owner, in order
 */
function pagesLoader<Key extends object, Row extends { ownerId: string }>(
  ownerOf: (key: Key) => string,
  read: (ownerIds: readonly string[], page: Key) => Promise<Row[]>,
): DataLoader<Key, Row[], string> {
  const pageOf = (key: Key) =>
    JSON.stringify(Object.entries(key).filter(([, value]) => value !== ownerOf(key)))
  return new DataLoader(
    async (keys) => {
      const pages = await Promise.all(
        [...groupBy(keys, pageOf)].map(async ([page, group]) => {
          const [key] = group
          const rows = key ? await read(group.map(ownerOf), key) : []
          return [...groupBy(rows, ({ ownerId }) => `${page} ${ownerId}`)]
        }),
      )
      const byKey = new Map(pages.flat())
      return keys.map((key) => byKey.get(`${pageOf(key)} ${ownerOf(key)}`) ?? [])
    },
    { cacheKeyFn: (key) => JSON.stringify(key) },
  )
}

function memoize(): Loaders['once'] {
  const reads = new Map<string, Promise<unknown>>()
  return <Value>(name: string, read: () => Promise<Value>) => {
    const reading = reads.get(name) ?? read()
    reads.set(name, reading)
    // Whatever has a name was read by the function of that name.
    return reading as Promise<Value>
  }
}

/** Map.groupBy, which Node 20 does not have. */
function groupBy<Item, Key>(items: readonly Item[], keyOf: (item: Item) => Key): Map<Key, Item[]> {
  const groups = new Map<Key, Item[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return groups
}
