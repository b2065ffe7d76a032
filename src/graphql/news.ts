import type { Database } from '../db/database.ts'
import type { Feed } from '../db/feed.ts'
import { createMessageFeed } from '../ingest/feed.ts'
import { createJobFeed } from '../jobs/feed.ts'
import { createJobEvents, type JobEvents } from '../jobs/follow.ts'
import { createAtomFeed } from '../knowledge/feed.ts'
import type { Logger } from '../log.ts'

/** What subscriptions tell as it happens. Of a process that nobody is subscribed to it costs nothing. */
export interface News {
  jobs: Feed
  jobEvents: JobEvents
  messages: Feed
  atoms: Feed
}

export function createNews(database: Database, log: Logger): News {
  return {
    jobs: createJobFeed(database, log),
    jobEvents: createJobEvents(database, log),
    messages: createMessageFeed(database, log),
    atoms: createAtomFeed(database, log),
  }
}
