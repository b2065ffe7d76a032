import { type Finding, type Judgement, named, ok, skipped, unknown, warning, wrong } from './finding.ts'
import { judgeCoverage, judgeJobs, judgeRecall, many } from './judge.ts'
import type { FailingJobs } from './statements.ts'

/** What a running server says of itself over its API: `doctorQuery`. */
export interface ServedStanding {
  embeddingSpaces: {
    model: string
    dimensions: number
    state: string
    provider: { name: string }
    coverage: { ready: number; pending: number; stale: number; failed: number }[]
  }[]
  vectorIndexes: {
    name: string
    kind: string
    state: string
    reason: string | null
    rows: number
    recall: number | null
    lastError: string | null
    space: { model: string; state: string }
  }[]
  alerts: { type: string; kind: FailingJobs['kind'] | null; failures: number; error: string | null }[]
  providers: {
    name: string
    isActive: boolean
    state: string
    error: string | null
    validatedAt: string | null
  }[]
}

export const doctorQuery = `query Doctor {
  embeddingSpaces {
    model dimensions state provider { name } coverage { ready pending stale failed }
  }
  vectorIndexes { name kind state reason rows recall lastError space { model state } }
  alerts { type kind failures error }
  providers { name isActive state error validatedAt }
}`

/** What `/ready` answers. */
export interface Readiness {
  status: string
  checks: Record<string, string>
}

export function judgeReadiness({ status, checks }: Readiness, url: string): Judgement {
  const problems = Object.entries(checks).filter(([, found]) => found !== 'ok')
  if (status === 'ready') return ok(`${url} is ready: ${Object.keys(checks).join(', ')} are ok`)
  return wrong(
    `${url} is not ready: ${problems.map(([name, found]) => `${name}: ${found}`).join('; ')}`,
    'Look into its log, which says since when; where it does not mend itself, start it again.',
  )
}

/** What a server that runs tells, check by check. @param howToSeeMore than it can tell */
export function judgeStanding(standing: ServedStanding, howToSeeMore: string): Finding[] {
  const spaces = standing.embeddingSpaces.filter(({ state }) => state !== 'RETIRED')
  const isActive = ({ state }: { state: string }) => state === 'ACTIVE'
  // Without a name, a check is about the one that searches use.
  const ofSpace = (check: string, space: { model: string; state: string }) =>
    isActive(space) ? check : `${check} of ${space.model}`
  return [
    ...['migrations', 'pgvector', 'triggers'].map((name) => named(name, notOverTheApi(howToSeeMore))),
    ...(spaces.some(isActive)
      ? []
      : [
          named(
            'embedding space',
            wrong('the server has no active embedding space', 'Start it again: a start makes one.'),
          ),
        ]),
    ...spaces.map((space) =>
      named(
        ofSpace('embedding space', space),
        ok(
          `${space.model} of ${space.provider.name}, ${space.dimensions} dimensions, ${space.state}, as the server says`,
        ),
      ),
    ),
    ...standing.vectorIndexes.map((index) =>
      named(ofSpace(`vector index ${index.kind.toLowerCase()}`, index.space), judgeServedIndex(index)),
    ),
    // How long what is owed has been there the API does not tell.
    ...spaces.map((space) =>
      named(ofSpace('embeddings', space), judgeCoverage(space.coverage, null, 0, true, null)),
    ),
    ...['embedding rows', 'words'].map((name) => named(name, notOverTheApi(howToSeeMore))),
    named(
      'jobs',
      judgeJobs(
        standing.alerts.flatMap(({ type, kind, failures, error }) =>
          type === 'JOBS_FAILING' && kind !== null ? { kind, failures, error } : [],
        ),
      ),
    ),
    ...['job queue', 'encryption keys'].map((name) => named(name, notOverTheApi(howToSeeMore))),
    ...standing.providers.map((provider) =>
      named(`provider ${provider.name}`, judgeServedProvider(provider)),
    ),
  ]
}

/** @param howToSeeMore what has to be done to have it looked at */
export const notOverTheApi = (howToSeeMore: string): Judgement =>
  unknown('cannot be seen over the API of a server', howToSeeMore)

function judgeServedIndex(index: ServedStanding['vectorIndexes'][number]): Judgement {
  const { name, kind, state, reason, rows, recall, lastError } = index
  const because = reason === null ? '' : `: ${reason}`
  const rebuild = `Build it anew: quarry index --rebuild ${kind.toLowerCase()}`
  if (state === 'MISSING') {
    const error = lastError === null ? '' : ` (its last build failed: ${lastError})`
    return wrong(
      `${name} is missing or invalid${error}: searches compare with every row`,
      'The server builds it within a minute; if it does not, its log says why.',
    )
  }
  if (lastError !== null) return wrong(`${name}: ${lastError}`, rebuild)
  const shortfall = judgeRecall(name, recall, rebuild)
  if (shortfall) return shortfall
  if (state === 'READY') return ok(`${name}: ${many(rows, 'vector')}, as the server says`)
  return warning(
    `${name} is ${state}${because}`,
    'docs/operations.md, "Vector indexes", says what to do in each state.',
  )
}

function judgeServedProvider(provider: ServedStanding['providers'][number]): Judgement {
  const { isActive, state, error, validatedAt } = provider
  const again = 'validateProvider of the API asks one anew that was added.'
  if (!isActive) return skipped('is not active')
  if (state === 'ERROR')
    return wrong(`as the server saw it last: ${error ?? 'no reason was kept'}`, `Mend the cause. ${again}`)
  if (state === 'CONNECTED' && validatedAt !== null)
    return ok(`as the server saw it last: it worked at ${validatedAt}; it was not asked anew`)
  return unknown(`${state}: the server has not seen it work, and it was not asked anew`, again)
}
