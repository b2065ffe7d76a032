import type { Database } from '../db/database.ts'
import type { LiveSpace, LiveSpaces } from '../embedding/live-spaces.ts'
import type { SearchSample } from '../embedding/search-sample.ts'
import { accountEmbeddings, type UsageLedger } from '../providers/usage.ts'
import { createQueryVectors } from './query-vectors.ts'
import { createSearch, type Search } from './search.ts'

/** The search in the space that is active now. */
export interface ActiveSearch {
  /** Ask once for each operation: all that one answer says has to come from one space. */
  now(): Search
}

/** One search for each space, with the vectors of its own queries: searches change over when the active space does. */
export function followActiveSearch(
  database: Database,
  spaces: Pick<LiveSpaces, 'active' | 'use'>,
  sample: SearchSample,
  usage: UsageLedger,
): ActiveSearch {
  const searches = new WeakMap<LiveSpace, Search>()
  return {
    now() {
      const live = spaces.active()
      const known = searches.get(live)
      if (known) return known
      const vectors = sample.of(createQueryVectors(accounted(live, usage)), live.space)
      const search = inUse(createSearch(database, live.space, vectors), (work) => spaces.use(live, work))
      searches.set(live, search)
      return search
    },
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
