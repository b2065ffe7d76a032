import type { Config } from '../config.ts'
import type { Database } from '../db/database.ts'
import { QuarryError } from '../errors.ts'
import type { Logger } from '../log.ts'
import type { ChatModel } from '../providers/chat/chat.ts'
import { createChatModel } from '../providers/chat/create.ts'
import { ProviderError } from '../providers/provider.ts'
import type { Providers } from '../providers/providers.ts'
import { readProvider } from '../providers/records.ts'
import { createProviderStatus, type ProviderStatus } from '../providers/status.ts'
import { accountChat, type UsageLedger } from '../providers/usage.ts'
import { type AgentReading, type AgentRow, readAgentsById } from './agents.ts'
import type { Extractor } from './extractor.ts'
import { createLocalExtractor } from './local/extractor.ts'
import { createModelExtractor } from './model/extractor.ts'

/** Someone who reads, for one job or trial. */
export interface Reader {
  extractor: Extractor
  /** To be told how the provider does. */
  status: ProviderStatus
  /** To be called when the job is done with it. */
  close(): Promise<void>
}

/** Who reads messages: agents, and what the environment configures. */
export interface Extractors {
  /**
   * By an agent as it is now, or by what the environment configures.
   * @param agentId null: the environment
   * @param jobId for which it reads, and to which it is accounted
   * @throws QuarryError if the agent is gone; ProviderError MISCONFIGURED if it or its provider is not active, or the
   * provider's key cannot be read
   */
  open(agentId: string | null, jobId: string | null): Promise<Reader>
  /** By an agent that need not be stored, for no job. @throws NotFoundError, ProviderError as above */
  openDraft(reading: AgentReading): Promise<Reader>
  close(): Promise<void>
}

export function createExtractors(options: {
  database: Database
  providers: Providers
  /** Who reads where there is no agent. */
  environment: Config['extraction']['extractor']
  usage: UsageLedger
  log: Logger
}): Extractors {
  const { database, providers, environment, usage, log } = options
  const shared = environment.type === 'local' ? createLocalExtractor() : createChatModel(environment)
  const sharedStatus = createProviderStatus(database, 'EXTRACTION', log)

  const accounted = (chat: ChatModel, jobId: string | null) =>
    accountChat(chat, usage.account(chat, 'EXTRACTION', jobId))

  async function openReading(reading: AgentReading, jobId: string | null): Promise<Reader> {
    const { providerId, model, instructions, temperature, maxOutputTokens } = reading
    const { connectionVersion } = await readProvider(database, providerId)
    const extractor = createModelExtractor({
      chat: accounted(await providers.chat(providerId, model), jobId),
      instructions: instructions ?? undefined,
      temperature,
      maxOutputTokens: maxOutputTokens ?? undefined,
      log,
    })
    const status = createProviderStatus(database, { providerId, connectionVersion }, log)
    return { extractor, status, close: () => extractor.close() }
  }

  return {
    async open(agentId, jobId) {
      if (agentId === null) {
        const extractor =
          'extract' in shared ? shared : createModelExtractor({ chat: accounted(shared, jobId), log })
        return { extractor, status: sharedStatus, close: async () => {} }
      }
      const [agent] = await readAgentsById(database, [agentId])
      if (!agent) {
        throw new QuarryError(
          'The agent that was to read is deleted. Start the extraction anew, by another agent or without one.',
        )
      }
      const problem = inactive(agent)
      if (problem !== null) throw new ProviderError('MISCONFIGURED', problem)
      return openReading(agent, jobId)
    },
    openDraft: (reading) => openReading(reading, null),
    close: () => shared.close(),
  }
}

/** Why an agent may not read; null if it may. */
function inactive({ name, isActive }: AgentRow): string | null {
  return isActive ? null : `Agent ${name}: it is not active. Set isActive to true, or use another.`
}
