import { InvalidInputError, SetupError } from '../errors.ts'
import { type EmbeddingProvider, ProviderError } from '../providers/provider.ts'
import type { Providers } from '../providers/providers.ts'
import { accountEmbeddings, type UsageLedger } from '../providers/usage.ts'
import type { MigrationTarget } from './migration.ts'

/** What is asked for. */
export interface TargetInput {
  /** Null: the provider of the environment. */
  providerId: string | null
  /** Null: the provider's own. */
  model: string | null
  /** Null: what the model gives. */
  dimensions: number | null
}

/** A target that was found to work, with a client that is the caller's to close. */
export interface OpenTarget extends MigrationTarget {
  client: EmbeddingProvider
}

/** pgvector indexes no more, in half precision. */
const maxDimensions = 4000
/** As long as a person waits for a form. */
const limitMs = 10_000
const sampleText = 'The meeting is on Tuesday.'

/**
 * Opens what is to embed everything, and has it embed a text.
 * @param openEnvironment makes the provider of the environment
 * @throws NotFoundError, InvalidInputError, ProviderError
 */
export async function openTarget(
  { providerId, model, dimensions }: TargetInput,
  providers: Pick<Providers, 'embedding'>,
  openEnvironment: () => EmbeddingProvider,
  usage: UsageLedger,
): Promise<OpenTarget> {
  if (dimensions !== null && (dimensions < 1 || dimensions > maxDimensions))
    throw new InvalidInputError(`dimensions is ${dimensions}; it must be 1..${maxDimensions}`, ['dimensions'])
  const opened =
    providerId === null
      ? openEnvironment()
      : await providers.embedding(providerId, model ?? undefined, dimensions).catch((error: unknown) => {
          // A model that is known not to have the length.
          throw error instanceof SetupError ? new InvalidInputError(error.message, ['dimensions']) : error
        })
  const client = accountEmbeddings(opened, usage.account(opened, 'VALIDATION'))
  try {
    if (model !== null && model !== client.model) {
      throw new InvalidInputError(
        `model is ${JSON.stringify(model)}, but this provider has ${client.model} alone: leave it out`,
        ['model'],
      )
    }
    const found = await embedOne(client)
    if (found > maxDimensions) {
      throw new InvalidInputError(
        `${client.model} gives ${found} dimensions, and an index holds ${maxDimensions} at the most: give dimensions if the model can shorten them, or take another`,
        ['dimensions'],
      )
    }
    if (dimensions !== null && dimensions !== found) {
      throw new InvalidInputError(
        `dimensions is ${dimensions}, but ${client.model} gives ${found}: leave it out`,
        ['dimensions'],
      )
    }
    const hasChosenDimensions = dimensions !== null && client.type === 'openai' && providerId !== null
    return { providerId, client, dimensions: found, hasChosenDimensions }
  } catch (error) {
    await client.close()
    throw error
  }
}

/** @returns the length of its vectors */
async function embedOne(client: EmbeddingProvider): Promise<number> {
  const late = new ProviderError('UNAVAILABLE', `There was no answer within ${limitMs / 1000} s.`)
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(late), limitMs)
  try {
    const [vector] = await client.embed([sampleText], controller.signal)
    if (vector) return vector.length
    throw new ProviderError('BAD_ANSWER', `${client.model} sees nothing to embed in an English sentence.`)
  } finally {
    clearTimeout(timer)
  }
}
