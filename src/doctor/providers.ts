import type { Config } from '../config.ts'
import { type EmbeddingSpace, modelDifference } from '../embedding/spaces.ts'
import { errorMessage, QuarryError } from '../errors.ts'
import { createChatModel } from '../providers/chat/create.ts'
import { createEmbeddingProvider } from '../providers/create.ts'
import { createGuardedFetch } from '../providers/guarded-fetch.ts'
import type { KeyRing } from '../providers/keys.ts'
import type { EmbeddingProvider } from '../providers/provider.ts'
import { tryStored } from '../providers/providers.ts'
import type { ProviderWithKey, ValidationOutcome } from '../providers/records.ts'
import { outcomeOf, tryOut, validationLimitMs } from '../providers/validate.ts'
import { type ClockReading, observeDates } from './clock.ts'
import { type Finding, type Judgement, named, unknown, wrong } from './finding.ts'
import { judgeInactive, judgeOutcome } from './judge.ts'

/** A provider that is being asked; it is found out when `finding` is there. */
export interface Trial {
  finding: Promise<Finding>
}

type Outcome = Pick<ValidationOutcome, 'error' | 'embeddingDimensions' | 'waitMs'>

const environmentRemedy =
  'Start it, or correct the variables that describe it; docs/configuration.md lists them. Until then work that needs it waits.'
const nothingStated = { statedRequestsPerMinute: null, statedTokensPerMinute: null }

/** What the environment configures to embed. */
export interface EnvironmentEmbedding {
  /** As `modelDifference` of embedding/spaces.ts; undefined if the provider cannot even be made. */
  differenceFrom(space: EmbeddingSpace): string | null | undefined
  trial: Trial
  close(): Promise<void>
}

/**
 * Makes the provider that the environment configures, and begins to ask it.
 * @param onReading told of the clock of whoever answers over HTTP
 */
export function tryEnvironmentEmbedding(
  config: Config['embedding'],
  onReading: (reading: ClockReading) => void,
): EnvironmentEmbedding {
  const name = 'provider for embedding'
  let provider: EmbeddingProvider
  try {
    provider = createEmbeddingProvider(config, { fetch: observeDates(fetch, config.type, onReading) })
  } catch (error) {
    const finding = Promise.resolve(named(name, judgeUnusable(error)))
    return { differenceFrom: () => undefined, trial: { finding }, close: async () => {} }
  }
  const does = `${provider.type}/${provider.model} of the environment embeds`
  const ask = async () => {
    const tried = await tryOut({ embedding: provider, chat: null }, validationLimitMs)
    return outcomeOf(tried, nothingStated)
  }
  return {
    differenceFrom: (space) => modelDifference(space, provider),
    trial: begin(name, ask, does, environmentRemedy),
    close: () => provider.close(),
  }
}

/** The same for what extracts; null if that is done by rules, which need nobody. */
export function tryEnvironmentExtraction(
  config: Config['extraction']['extractor'],
  onReading: (reading: ClockReading) => void,
): Trial | null {
  if (config.type === 'local') return null
  const name = 'provider for extraction'
  const ask = async () => {
    const chat = createChatModel(config, { fetch: observeDates(fetch, config.type, onReading) })
    try {
      return outcomeOf(await tryOut({ embedding: null, chat }, validationLimitMs), nothingStated)
    } finally {
      await chat.close()
    }
  }
  return begin(name, ask, `${config.type}/${config.model} of the environment extracts`, environmentRemedy)
}

/**
 * Asks the providers that were added, all at once; those that are not active are left alone.
 * @param rows `doubt`: why one cannot be asked; null if it can
 */
export function tryStoredProviders(
  rows: readonly { row: ProviderWithKey; doubt: string | null }[],
  options: {
    keys: KeyRing
    network: Config['providers']['network']
    onReading: (reading: ClockReading) => void
  },
): { trials: Trial[]; close(): Promise<void> } {
  const { keys, network, onReading } = options
  const guarded = createGuardedFetch(network)
  const trials = rows.map(({ row, doubt }): Trial => {
    const { name, isActive, embeddingModel, extractionModel, type } = row.provider
    const title = `provider ${name}`
    if (!isActive) return { finding: Promise.resolve(named(title, judgeInactive())) }
    if (doubt !== null) return { finding: Promise.resolve(named(title, unknown(`not asked: ${doubt}`))) }
    const does = [
      embeddingModel === null ? null : `embeds by ${embeddingModel}`,
      extractionModel === null ? null : `extracts by ${extractionModel}`,
    ].filter((each) => each !== null)
    return begin(
      title,
      () => tryStored(row, { keys, fetch: observeDates(guarded.fetch, name, onReading), usage: null }),
      `${type.toLowerCase()} ${does.join(' and ')}`,
      'Mend it by updateProvider, or set its isActive to false; validateProvider tries it again.',
    )
  })
  return {
    trials,
    async close() {
      await Promise.allSettled(trials.map(({ finding }) => finding))
      await guarded.close()
    },
  }
}

function begin(name: string, ask: () => Promise<Outcome>, does: string, remedy: string): Trial {
  const begun = performance.now()
  const finding = ask().then(
    (outcome) => named(name, judgeOutcome(outcome, does, performance.now() - begun, remedy)),
    (error) => named(name, judgeUnusable(error)),
  )
  // Whoever does not come to read it has said why before.
  finding.catch(() => {})
  return { finding }
}

/** One that could not even be made. Anything but a QuarryError is a bug, and is not passed off as a finding. */
function judgeUnusable(error: unknown): Judgement {
  if (error instanceof QuarryError) return wrong(errorMessage(error), environmentRemedy)
  throw error
}
