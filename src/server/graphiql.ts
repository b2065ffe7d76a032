/** What GraphiQL opens with: one tab for each thing that a newcomer wants to try. */
export const exampleTabs = [
  {
    query: `# Find something by meaning and by words. Press Ctrl-Enter.
query Search {
  search(query: "messages arrive late on phones that are asleep", first: 5) {
    edges {
      rank
      similarity
      snippet
      node {
        ... on Message { id author channel sentAt content }
        ... on Atom { id type title }
        ... on Topic { id name }
      }
    }
    coverage { eligible ready pending failed }
  }
}`,
  },
  {
    query: `# How much is embedded, and with which model?
query Coverage {
  embeddingCoverage { kind total ready pending stale failed skipped percentReady }
  embeddingSpaces { model dimensions state }
}`,
  },
  {
    query: `# The same, live. Ingest or change something meanwhile.
subscription Progress {
  embeddingProgress {
    seq
    ratePerSecond
    etaSeconds
    coverage { kind ready total percentReady }
  }
}`,
  },
  {
    query: `# The newest messages, each with what it answers and what is like it.
query Messages {
  messages(first: 10) {
    nodes {
      author
      channel
      content
      embeddingStatus
      replyTo { author content }
      similar(first: 2) { edges { similarity node { ... on Message { content } } } }
    }
    pageInfo { hasNextPage endCursor }
  }
}`,
  },
  {
    query: `# What is known: atoms with the exact words that prove them, and how they are tied together.
query Knowledge {
  atoms(first: 10, filter: { types: [SOLUTION, DECISION, INSIGHT] }) {
    nodes {
      type
      title
      confidence
      reviewState
      topics { nodes { name } }
      citations { quote message { author sentAt } }
      links { nodes { type from { type title } to { type title } } }
    }
  }
}`,
  },
  {
    query: `# Read the messages of the last week for topics and atoms; the job says how it goes.
mutation Extract {
  extractKnowledge(input: { period: { last: LAST_7D } }) {
    ... on ExtractKnowledgePayload { job { id state total succeeded failed result } }
    ... on UserError { code message }
  }
}`,
  },
  {
    query: `# Work as it goes on: each job, whenever it changes. Start one meanwhile, such as the extraction above.
subscription Jobs {
  jobUpdated { id kind state total succeeded failed skipped waitingUntil error }
}`,
  },
  {
    query: `# Put a message in; seconds later, search finds it.
mutation Ingest {
  ingestMessages(input: {
    source: { name: "GraphiQL", type: "api" }
    messages: [{
      externalId: "1"
      author: "you"
      content: "The nightly backup fails because the disk of the old server is full."
      sentAt: "2026-05-04T09:30:00Z"
    }]
  }) {
    ... on IngestMessagesPayload { created updated unchanged messages { id embeddingStatus } errors { path message } }
    ... on UserError { code message }
  }
}`,
  },
]
