import type { EntityKind } from '../embedding/spaces.ts'
import { phrase } from '../words/lexemes.ts'
import type { WordQuery } from '../words/query.ts'

/** Which rows a search looks at; a null field does not restrict. Ids are database ids. */
export interface SearchFilter {
  sourceIds: string[] | null
  channels: string[] | null
  authors: string[] | null
  topicIds: string[] | null
  atomTypes: string[] | null
  reviewStates: string[] | null
  sentAfter: Date | null
  sentBefore: Date | null
  includeNoise: boolean
  includeArchived: boolean
}

export const noFilter: SearchFilter = {
  sourceIds: null,
  channels: null,
  authors: null,
  topicIds: null,
  atomTypes: null,
  reviewStates: null,
  sentAfter: null,
  sentBefore: null,
  includeNoise: false,
  includeArchived: false,
}

/** Collects parameters of one statement and gives each its `$n`. */
export class Parameters {
  readonly values: unknown[] = []
  add(value: unknown): string {
    this.values.push(value)
    return `$${this.values.length}`
  }
}

/** What a kind's rows are called in the conditions below, and in what order the newest come first. */
export const ownerTable = {
  MESSAGE: { table: 'message', alias: 'm', newestFirst: 'm.sent_at desc, m.id desc' },
  ATOM: { table: 'atom', alias: 'a', newestFirst: 'a.id desc' },
  TOPIC: { table: 'topic', alias: 't', newestFirst: 't.id desc' },
} as const satisfies Record<EntityKind, { table: string; alias: string; newestFirst: string }>

/** Fields that only some kinds have: setting one leaves the other kinds out. */
const fieldsOfKind: Record<EntityKind, readonly (keyof SearchFilter)[]> = {
  MESSAGE: ['sourceIds', 'channels', 'authors', 'sentAfter', 'sentBefore', 'topicIds'],
  ATOM: ['atomTypes', 'reviewStates', 'topicIds'],
  TOPIC: ['topicIds'],
}
const allFields = [...new Set(Object.values(fieldsOfKind).flat())]

/** The kinds among `kinds` that can fulfil the filter: one on `authors` leaves topics and atoms out. */
export function kindsUnderFilter(kinds: readonly EntityKind[], filter: SearchFilter): EntityKind[] {
  const set = allFields.filter((field) => filter[field] !== null)
  return kinds.filter((kind) => set.every((field) => fieldsOfKind[kind].includes(field)))
}

/** SQL conditions on the owner's row (aliases of `ownerTable`), each true for rows that the search looks at. */
export function filterConditions(kind: EntityKind, filter: SearchFilter, parameters: Parameters): string[] {
  const conditions: string[] = []
  const among = (column: string, type: string, values: string[] | null) => {
    if (!values) return
    // Of one value the rows can be read in the order of an index, the newest first; of several (before Postgres 17) not.
    if (values.length === 1) conditions.push(`${column} = ${parameters.add(values[0])}::${type}`)
    else conditions.push(`${column} = any (${parameters.add(values)}::${type}[])`)
  }
  switch (kind) {
    case 'MESSAGE':
      among('m.source_id', 'uuid', filter.sourceIds)
      among('m.channel', 'text', filter.channels)
      among('m.author', 'text', filter.authors)
      among('m.topic_id', 'uuid', filter.topicIds)
      if (filter.sentAfter) conditions.push(`m.sent_at >= ${parameters.add(filter.sentAfter)}`)
      if (filter.sentBefore) conditions.push(`m.sent_at < ${parameters.add(filter.sentBefore)}`)
      if (!filter.includeNoise) conditions.push(`m.noise is distinct from 'NOISE'`)
      break
    case 'ATOM':
      among('a.type', 'atom_type', filter.atomTypes)
      if (filter.reviewStates) among('a.review_state', 'review_state', filter.reviewStates)
      else conditions.push(`a.review_state <> 'REJECTED'`)
      if (filter.topicIds) {
        const topics = parameters.add(filter.topicIds)
        conditions.push(
          `exists (select from atom_topic at where at.atom_id = a.id and at.topic_id = any (${topics}::uuid[]))`,
        )
      }
      if (!filter.includeArchived) conditions.push('a.archived_at is null')
      break
    case 'TOPIC':
      among('t.id', 'uuid', filter.topicIds)
      if (!filter.includeArchived) conditions.push('t.archived_at is null')
      break
  }
  return conditions
}

/** SQL conditions: "quoted" words must be in a text, and -excluded ones must not. */
export function wordConditions(kind: EntityKind, query: WordQuery, parameters: Parameters): string[] {
  const words = `${ownerTable[kind].alias}.words`
  return [
    ...query.required.map((quoted) => `${words} @@ ${parameters.add(phrase(quoted))}::tsquery`),
    // What has no words yet is not left out.
    ...query.excluded.map((quoted) => `(${words} @@ ${parameters.add(phrase(quoted))}::tsquery) is not true`),
  ]
}
