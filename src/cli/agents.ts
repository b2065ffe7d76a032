import { NotFoundError } from '../errors.ts'
import type { ApiClient } from './client.ts'
import { paint, say, table } from './terminal.ts'

interface Agent {
  id: string
  name: string
  model: string
  temperature: number
  hasDefaultInstructions: boolean
  isActive: boolean
  isDefault: boolean
  provider: { name: string; state: string }
}

async function readAgents(client: ApiClient): Promise<Agent[]> {
  const { agents } = await client.request<{ agents: Agent[] }>(
    `query Agents {
       agents { id name model temperature hasDefaultInstructions isActive isDefault provider { name state } }
     }`,
  )
  return agents
}

/** Prints who reads messages. */
export async function listAgents(client: ApiClient): Promise<void> {
  const agents = await readAgents(client)
  if (agents.length === 0) {
    say('There are no agents: what the environment configures reads. createAgent of the API adds one.')
    return
  }
  say(
    table(
      ['NAME', 'PROVIDER', 'STATE', 'MODEL', 'TEMPERATURE', 'INSTRUCTIONS', 'READS'],
      agents.map(({ name, provider, model, temperature, hasDefaultInstructions, isActive, isDefault }) => [
        name,
        provider.name,
        provider.state === 'ERROR' ? paint.red(provider.state) : provider.state,
        model,
        temperature,
        hasDefaultInstructions ? 'as shipped' : 'its own',
        isDefault ? paint.bold('by default') : isActive ? 'when named' : paint.dim('not active'),
      ]),
    ),
  )
}

/** The id of the agent with this name. @throws NotFoundError */
export async function findAgent(client: ApiClient, name: string): Promise<string> {
  const agents = await readAgents(client)
  const found = agents.find((agent) => agent.name === name)
  if (found) return found.id
  const names = agents.map((agent) => JSON.stringify(agent.name)).join(', ')
  throw new NotFoundError(
    `There is no agent named ${JSON.stringify(name)}; ${names === '' ? 'there are none' : `there are ${names}`}`,
  )
}
