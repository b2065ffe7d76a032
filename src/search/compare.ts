import type { Database, Sql } from '../db/database.ts'
import { readCoverage } from '../embedding/coverage.ts'
import { readyShare, type SpaceComparison } from '../embedding/gate.ts'
import type { LiveSpace, LiveSpaces } from '../embedding/live-spaces.ts'
import {
  activateSpace,
  readGate,
  requireActivatable,
  requireSpace,
  writeComparison,
} from '../embedding/migration.ts'
import { readSampleQueries, type SampleQuery } from '../embedding/search-queries.ts'
import type { SearchSample } from '../embedding/search-sample.ts'
import { entityKinds } from '../embedding/spaces.ts'
import { countArriving } from '../embedding/stats.ts'
import { embedTexts } from '../embedding/texts.ts'
import { readVectorType, vectorBytes } from '../embedding/vectors.ts'
import { ConflictError } from '../errors.ts'
import { accountEmbeddings, type UsageLedger } from '../providers/usage.ts'
import type { ActiveSearch } from './active-search.ts'
import { meanOf, ndcg, overlapOf, rankCorrelation } from './comparison.ts'
import { noFilter } from './filter.ts'
import { createSearch } from './search.ts'

/** What people look at. */
const depth = 10
/** The mean of a share over so many wanders by five hundredths at most (its standard error is below 0.5 / 10). */
const maxQueries = 100

export interface CompareServices {
  database: Database
  spaces: Pick<LiveSpaces, 'active' | 'all' | 'use' | 'refresh'>
  sample: SearchSample
  searches: Pick<ActiveSearch, 'keep'>
  usage: UsageLedger
}

/**
 * Asks the queries that people have saved and the newest searches in a space and in the active one, by meaning alone,
 * which is all that differs, and stores how the answers compare.
 * @throws NotFoundError, ConflictError (retired, or the active one itself), ProviderError (of either of the two)
 */
export async function compareSpaces(
  { database, spaces, sample, searches, usage }: CompareServices,
  spaceId: number,
): Promise<SpaceComparison> {
  requireActivatable(await requireSpace(database, spaceId))
  await spaces.refresh()
  const active = spaces.active()
  const compared = spaces.all().find(({ space }) => space.id === spaceId)
  if (!compared || compared === active)
    throw new ConflictError('The space was changed at this moment by somebody else: look again')
  // What this process was asked a moment ago counts, too.
  await sample.store(database, await readVectorType(database))
  const queries = await readSampleQueries(database, maxQueries)
  const { coverage } = await readCoverage(database, spaceId)
  const arriving = await countArriving(database, spaceId)
  const [before, after] = [
    await spaces.use(active, () => answersIn(database, active, queries, searches, usage)),
    await spaces.use(compared, () => answersIn(database, compared, queries, searches, usage)),
  ]
  const comparison: SpaceComparison = {
    comparedAt: new Date().toISOString(),
    activeSpaceId: active.space.id,
    ready: readyShare({ coverage, arriving }),
    ...compareAnswers(queries, before, after),
  }
  await writeComparison(database, spaceId, comparison)
  return comparison
}

/** Pure. @param before ids of the answers in the active space, in the order of the queries */
export function compareAnswers(
  queries: readonly Pick<SampleQuery, 'judgements'>[],
  before: readonly (readonly string[])[],
  after: readonly (readonly string[])[],
): Omit<SpaceComparison, 'comparedAt' | 'activeSpaceId' | 'ready'> {
  const each = queries.map(({ judgements }, index) => ({
    grades: new Map(judgements.map(({ ownerId, grade }) => [ownerId, grade])),
    active: before[index] ?? [],
    compared: after[index] ?? [],
  }))
  const judged = each.filter(({ grades }) => grades.size > 0)
  const share = (lists: readonly (readonly string[])[]) =>
    lists.length === 0 ? 0 : lists.filter((list) => list.length === 0).length / lists.length
  return {
    queries: queries.length,
    judgedQueries: judged.length,
    overlap: meanOf(each.map(({ active, compared }) => overlapOf(active, compared, depth))),
    rankCorrelation: meanOf(each.map(({ active, compared }) => rankCorrelation(active, compared))),
    emptyActive: share(each.map(({ active }) => active)),
    emptyCompared: share(each.map(({ compared }) => compared)),
    ndcgActive: meanOf(judged.map(({ active, grades }) => ndcg(active, grades, depth))),
    ndcgCompared: meanOf(judged.map(({ compared, grades }) => ndcg(compared, grades, depth))),
  }
}

/** The first ten of each query in one space. All queries are embedded together: a provider counts requests. */
async function answersIn(
  sql: Sql,
  live: LiveSpace,
  queries: readonly SampleQuery[],
  searches: Pick<ActiveSearch, 'keep'>,
  usage: UsageLedger,
): Promise<string[][]> {
  if (queries.length === 0) return []
  const { space } = live
  const provider = accountEmbeddings(live.provider, usage.account(live.provider, 'QUERY'))
  const texts = queries.map(({ query }) => query.trim())
  const vectors = await embedTexts(provider, space.dimensions, texts, new AbortController().signal)
  const known = new Map(
    texts.map((text, index) => {
      const vector = vectors[index] ?? null
      return [text, vector && vectorBytes(vector)]
    }),
  )
  // What is asked often is there already when searches change over.
  for (const [text, vector] of known) searches.keep(live, text, vector)
  const search = createSearch(sql, space, { get: async (query) => known.get(query) ?? null })
  const answers: string[][] = []
  for (const { query } of queries) {
    const { hits } = await search.search({
      query,
      kinds: entityKinds,
      mode: 'SEMANTIC',
      threshold: null,
      filter: noFilter,
      first: depth,
      after: null,
    })
    answers.push(hits.map(({ ranked }) => ranked.id))
  }
  return answers
}

async function isComparisonAllThatIsMissing(sql: Sql, spaceId: number): Promise<boolean> {
  const unmet = (await readGate(sql, spaceId)).filter(({ isMet }) => !isMet)
  return unmet.length === 1 && unmet[0]?.name === 'COMPARED'
}

/**
 * Searches change over to a space in all processes; in this one before this resolves. One that was not compared yet, and
 * was never active, is compared first.
 * @throws NotFoundError; ConflictError below the gate unless forced; ProviderError if it cannot be compared
 */
export async function changeOver(
  services: CompareServices,
  spaceId: number,
  isForced: boolean,
): Promise<void> {
  const { database, spaces } = services
  requireActivatable(await requireSpace(database, spaceId))
  if (!isForced && (await isComparisonAllThatIsMissing(database, spaceId)))
    await compareSpaces(services, spaceId)
  await database.transaction((transaction) => activateSpace(transaction, spaceId, isForced))
  await spaces.refresh()
}
