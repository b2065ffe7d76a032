import type { ProviderNetwork } from '../config.ts'
import { InvalidInputError } from '../errors.ts'
import { readBaseUrl } from './address.ts'
import { localModel } from './local.ts'
import type { ProviderFields, ProviderRow } from './records.ts'
import { isHeaderKey } from './remote.ts'

/** Where Ollama listens unless told otherwise (its FAQ, OLLAMA_HOST). */
const ollamaUrl = 'http://127.0.0.1:11434'

/** No provider's keys come near it; a file pasted by mistake does. */
export const maxApiKeyLength = 4096

/**
 * What a provider of a type can be, with what follows from the type filled in.
 * @param hasApiKey whether it will have one
 * @throws InvalidInputError
 */
export function completeFields(
  type: ProviderRow['type'],
  fields: ProviderFields,
  hasApiKey: boolean,
  network: ProviderNetwork,
): ProviderFields {
  if (type === 'LOCAL') {
    refuse(
      fields.baseUrl !== null,
      'baseUrl',
      'does not belong to LOCAL, which is inside Quarry: leave it out',
    )
    refuse(hasApiKey, 'apiKey', 'does not belong to LOCAL, which asks for none: leave it out')
    const model = fields.embeddingModel ?? localModel
    refuse(
      model !== localModel,
      'embeddingModel',
      `is not the one that LOCAL has: ${localModel}, or leave it out`,
    )
    refuse(
      fields.extractionModel !== null,
      'extractionModel',
      'does not belong to LOCAL, which extracts by rules: leave it out',
    )
    refuse(fields.monthlyBudget !== null, 'monthlyBudget', 'does not belong to LOCAL, which costs nothing')
    return { ...fields, embeddingModel: model }
  }
  const { pricePerMillionTokensIn: priceIn, pricePerMillionTokensOut: priceOut } = fields
  refuse(
    fields.monthlyBudget !== null && (priceIn === null || priceOut === null),
    'monthlyBudget',
    'needs both prices, pricePerMillionTokensIn and pricePerMillionTokensOut (0 for what is free): without them nobody knows what is spent',
  )
  const hasModel = fields.embeddingModel !== null || fields.extractionModel !== null
  refuse(
    !hasModel,
    'embeddingModel',
    'is not given, and no extractionModel either; a provider needs one of them',
  )
  const url = fields.baseUrl ?? (type === 'OLLAMA' ? ollamaUrl : null)
  refuse(
    url === null && !hasApiKey,
    'apiKey',
    'is not given, and OpenAI asks for one; for another server with its protocol give its baseUrl',
  )
  return { ...fields, baseUrl: url && readBaseUrl(url, network, ['baseUrl']) }
}

/** @throws InvalidInputError that does not repeat the key */
export function requireApiKey(apiKey: string): void {
  const { length } = apiKey
  refuse(length === 0, 'apiKey', 'is empty; null removes the key, and left out it stays')
  refuse(
    length > maxApiKeyLength,
    'apiKey',
    `has ${length} characters; at most ${maxApiKeyLength} are allowed`,
  )
  // It would not fit into a header, and the HTTP client would show it whole in its error.
  refuse(!isHeaderKey(apiKey), 'apiKey', 'contains white space or characters beyond ASCII: copy it again')
}

/** Whether a change makes it another server, model or key, so that what was found out before does not hold. */
export function isOtherConnection(before: ProviderFields, after: ProviderFields): boolean {
  return (
    before.baseUrl !== after.baseUrl ||
    before.embeddingModel !== after.embeddingModel ||
    before.extractionModel !== after.extractionModel
  )
}

function refuse(isWrong: boolean, field: string, what: string): void {
  if (isWrong) throw new InvalidInputError(`${field} ${what}`, [field])
}
