import type { Database } from '../db/database.ts'
import type { LiveSpace, LiveSpaces } from '../embedding/live-spaces.ts'
import type { SearchSample } from '../embedding/search-sample.ts'
import { accountEmbeddings, type UsageLedger } from '../providers/usage.ts'
import { createQueryVectors, type QueryVectors } from './query-vectors.ts'
import { createSearch, type Search } from './search.ts'

/** The search in the space that is active now. */
export interface ActiveSearch {
  /** Ask once for each operation: all that one answer says has to come from one space. */
  now(): Search
  /** Keeps the vector of a query for searches in a space, which may be about to become the active one. */
  keep(live: LiveSpace, query: string, vector: Buffer | null): void
}

/** One search for each space, with the vectors of its own queries: searches change over when the active space does. */
export function followActiveSearch(
  database: Database,
  spaces: Pick<LiveSpaces, 'active' | 'use'>,
  sample: SearchSample,
  usage: UsageLedger,
): ActiveSearch {
  const known = new WeakMap<LiveSpace, { search: Search; vectors: QueryVectors }>()
  function searchIn(live: LiveSpace) {
    const made = known.get(live)
    if (made) return made
    const vectors = sample.of(createQueryVectors(accounted(live, usage)), live.space)
    const search = inUse(createSearch(database, live.space, vectors), (work) => spaces.use(live, work))
    known.set(live, { search, vectors })
    return { search, vectors }
  }
  return {
    now: () => searchIn(spaces.active()).search,
    keep: (live, query, vector) => searchIn(live).vectors.keep(query, vector),
  }
}

/** Its provider, of whose requests account is kept. */
const accounted = (live: LiveSpace, usage: UsageLedger): LiveSpace => ({
  space: live.space,
  get provider() {
    return accountEmbeddings(live.provider, usage.account(live.provider, 'QUERY'))
  },
})

/** The search, whose space is in use for as long as something of it is under way. */
function inUse(search: Search, use: <Result>(work: () => Promise<Result>) => Promise<Result>): Search {
  return {
    space: search.space,
    search: (parameters) => use(() => search.search(parameters)),
    neighbours: (...parameters) => use(() => search.neighbours(...parameters)),
    coverage: (...parameters) => use(() => search.coverage(...parameters)),
  }
}
