import { requiredTriggers } from '../embedding/spaces.ts'

/** A trigger as it stands in the catalogue. */
export interface StoredTrigger {
  name: string
  table: string
  /** Whether it fires in an ordinary session. */
  isEnabled: boolean
}

/** Triggers on which something depends, with what does not happen without them. */
export interface TriggerGroup {
  names: readonly string[]
  without: string
}

/** All triggers that the migrations make. */
export const triggerGroups: readonly TriggerGroup[] = [
  { names: requiredTriggers, without: 'texts are not embedded, and their counts are wrong' },
  {
    names: ['message', 'atom', 'topic'].map((table) => `${table}_words_forgotten`),
    without: 'changed texts are found by the words that they had before',
  },
  {
    names: ['message', 'atom', 'topic'].map((table) => `${table}_wordless`),
    without: 'new texts are found by their words only seconds later',
  },
  {
    names: ['message_text_changed'],
    without: 'changed messages are not read again, and citations go out of date',
  },
  { names: ['citation_gone'], without: 'atoms stay that nothing proves any more' },
  { names: ['job_ended'], without: 'jobs that keep failing raise no alert' },
  {
    names: ['message_ingested', 'atom_extracted'],
    without: 'live subscriptions are not told of what is new',
  },
  {
    names: ['migration_job_changed'],
    without: 'a move to another model that is cancelled goes on embedding',
  },
  {
    names: ['provider_leaves_retired_spaces'],
    without: 'a provider whose spaces are all retired cannot be deleted',
  },
  { names: ['vector_index_requested'], without: 'a rebuild that is asked for begins only seconds later' },
]
